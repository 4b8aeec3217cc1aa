"""Zstandard, whoever brings it: the standard library from Python 3.14 on, the package `zstandard` before.

Contexts belong to a thread: they are not safe to share, and costly to make for each chunk.
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
    """Return one frame of zstd's level 3."""
    if not hasattr(_contexts, "matches"):
        _contexts.matches = _compressor(_MATCHES)
    return bytes(_contexts.matches(data))


def entropy(data: Any) -> bytes:
    """Return one frame in which zstd does little but Huffman coding: planes of numbers have no matches worth seeking.

    The same ratio as level 1 on such planes, 20 to 70 % faster; higher levels are worse, misled by chance matches.
    """
    if not hasattr(_contexts, "entropy"):
        _contexts.entropy = _compressor(_ENTROPY)
    return bytes(_contexts.entropy(data))


def decompress(data: Any, size: int) -> bytes:
    """Return the `size` bytes that a frame stands for; no more memory is taken than that.

    Raises
    ------
    IntegrityError
        If the bytes are not exactly one frame that says it holds as many, and does.
    """
    try:
        claimed = _claimed(data)
        out = _decompress(data, size) if claimed == size else b""
    except _zstd.ZstdError as error:
        raise IntegrityError(f"damaged zstd data: {error}") from None
    if len(out) != size:
        raise IntegrityError(f"zstd data that should give {size:,} bytes say {claimed} and give {len(out):,}")
    return out
