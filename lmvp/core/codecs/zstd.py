"""Zstandard: the standard library from Python 3.14 on, otherwise the package `zstandard`.

Contexts are cached per thread: they are not thread-safe, and creating one for each chunk is slow.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from lmvp.errors import IntegrityError

_contexts = threading.local()
_MATCHES: dict[str, int] = {"compression_level": 3}
_ENTROPY: dict[str, int] = {"strategy": 1, "min_match": 7, "hash_log": 6, "window_log": 17}

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd as _zstd

    def _compressor(parameters: dict[str, int]) -> Any:
        made = _zstd.ZstdCompressor(options={_zstd.CompressionParameter[k]: v for k, v in parameters.items()})
        return lambda data: made.compress(data, made.FLUSH_FRAME)

    def _claimed(data: Any) -> int | None:
        return _zstd.get_frame_info(data).decompressed_size

    def _decompress(data: Any, size: int) -> bytes:
        made = _zstd.ZstdDecompressor()
        out: bytes = made.decompress(data, size)
        return out if made.eof and not made.unused_data else b""

else:
    import zstandard as _zstd

    def _compressor(parameters: dict[str, int]) -> Any:
        return _zstd.ZstdCompressor(compression_params=_zstd.ZstdCompressionParameters(**parameters)).compress

    def _claimed(data: Any) -> int | None:
        return _zstd.frame_content_size(data)

    def _decompress(data: Any, size: int) -> bytes:
        if not hasattr(_contexts, "decompressor"):
            _contexts.decompressor = _zstd.ZstdDecompressor()
        out: bytes = _contexts.decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
        return out


def compress(data: Any) -> bytes:
    """Compress data to one frame at level 3."""
    if not hasattr(_contexts, "matches"):
        _contexts.matches = _compressor(_MATCHES)
    return bytes(_contexts.matches(data))


def entropy(data: Any) -> bytes:
    """Compress data to one frame with settings that do little but Huffman coding.

    Planes of numbers have hardly any repetitions. On them these settings compress as well as level 1 and are 20 to
    70 % faster; higher levels compress worse, because chance matches mislead them.
    """
    if not hasattr(_contexts, "entropy"):
        _contexts.entropy = _compressor(_ENTROPY)
    return bytes(_contexts.entropy(data))


def decompress(data: Any, size: int) -> bytes:
    """Decompress a frame to exactly `size` bytes, without allocating more.

    Raises
    ------
    IntegrityError
        If the data are not exactly one valid frame with this content size.
    """
    try:
        claimed = _claimed(data)
        out = _decompress(data, size) if claimed == size else b""
    except _zstd.ZstdError as error:
        raise IntegrityError(f"damaged zstd data: {error}") from None
    if len(out) != size:
        raise IntegrityError(f"zstd data that should give {size:,} bytes say {claimed} and give {len(out):,}")
    return out
