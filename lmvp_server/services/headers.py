"""Comparison of the headers of safetensors files with the tensors that a manifest lists for these files.

`pull(into=…)` and diffs read tensors at the offsets of the manifest; all other programs use those of the header. If the
two differed, a reviewer of a version would see other weights than its users load.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from lmvp.core import containers, safetensors
from lmvp.core.manifest import File, Manifest, Tensor
from lmvp.core.safetensors import Span
from lmvp.errors import DamagedFile, InvalidManifest
from lmvp_server.services.chunk_reader import ChunkReader
from lmvp_server.services.tensors import TensorReader

HEADER_LIMIT = 64 << 20
"""The limit of JSON in all headers of a version, in bytes. A manifest, which states more about each tensor, has at most
16 MiB."""

_TIMES, _FREE = 2, 1 << 30
"""A check decodes at most `_TIMES` times the bytes of the distinct chunks of a version plus `_FREE` bytes. Other
clients can put a header and much more into one chunk, and files can share chunks."""

SUFFIX = ".safetensors"
_HINT = "`lmvp push MODEL FILE` reads the header of the file"


def check_headers(chunk_reader: ChunkReader, project: str, manifest: Manifest) -> None:
    """Check that the tensors that a manifest lists for each safetensors file are those of the file's header.

    A file without listed tensors is not read. In a version with an ONNX model, names can be missing or differ: the
    weights of the model can be in a safetensors file, and the manifest lists them by their names in the model.

    Raises
    ------
    InvalidManifest
        If they differ; names the file, the tensor and the difference.
    IntegrityError
        If a chunk is missing or damaged.
    """
    listed: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for tensor in manifest.tensors:
        if tensor.path.lower().endswith(SUFFIX):
            listed[tensor.path][tensor.name] = tensor
    if not listed:
        return
    reader = _HeaderReader(chunk_reader, project, manifest)
    is_partial = any(containers.is_onnx(file.path) for file in manifest.files)
    for file in manifest.files:
        if file.path in listed:
            _compare(file.path, listed[file.path], reader.spans(file), is_partial=is_partial)


class _HeaderReader:
    """Reads the headers of a version within the limits of bytes."""

    def __init__(self, chunk_reader: ChunkReader, project: str, manifest: Manifest) -> None:
        self._tensors = TensorReader(chunk_reader, project, manifest)
        distinct = {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}
        self._decoded = _FREE + _TIMES * sum(distinct.values())
        self._text = HEADER_LIMIT

    def spans(self, file: File) -> Mapping[str, Span]:
        """Return the tensors in the header of a file by their names."""

        def read(offset: int, size: int) -> memoryview:
            self._text -= size  # before the read, because the file states this size and can state any number
            if self._text < 0:
                raise InvalidManifest(
                    f"the headers of the safetensors files have more than {HEADER_LIMIT >> 20} MiB in all",
                    hint="push fewer of these files in one version, or without their metadata",
                )
            self._count(file, offset, size)
            return memoryview(self._tensors.read(file.path, offset, size))

        try:
            return {span.name: span for span in safetensors.parse(read, file.size, repr(file.path))}
        except DamagedFile as error:
            raise InvalidManifest(f"{error.message}, but the manifest lists tensors of it", hint=_HINT) from None

    def _count(self, file: File, offset: int, size: int) -> None:
        """Count the chunks that a read of a file decodes; raise an error beyond the limit."""
        at = 0
        for chunk in file.chunks:
            if at >= offset + size:
                break
            at += chunk.size
            if at > offset:
                self._decoded -= chunk.size
        if self._decoded < 0:
            raise InvalidManifest(
                "too many safetensors files share the chunks of their headers", hint="push them in several versions"
            )


def _compare(path: str, listed: Mapping[str, Tensor], header: Mapping[str, Span], *, is_partial: bool) -> None:
    for name, tensor in listed.items():
        span = header.get(name)
        if span is None:
            if is_partial:
                continue
            raise InvalidManifest(
                f"the header of {path!r} has no tensor {name[:80]!r}, which the manifest lists", hint=_HINT
            )
        stated = tensor.dtype, tuple(tensor.shape), tensor.offset, tensor.size
        found = span.dtype, span.shape, span.offset, span.size
        if stated != found:
            raise InvalidManifest(
                f"the manifest lists the tensor {name[:80]!r} of {path!r} as {_told(*stated)}; "
                f"the header of the file says {_told(*found)}",
                hint=_HINT,
            )
    missing = next((name for name in header if name not in listed), None)
    if missing is not None and not is_partial:
        raise InvalidManifest(
            f"the header of {path!r} has the tensor {missing[:80]!r}, which the manifest omits", hint=_HINT
        )


def _told(dtype: str, shape: tuple[int, ...], offset: int, size: int) -> str:
    return f"{dtype} {str(list(shape))[:80]}, {size:,} bytes at {offset:,}"
