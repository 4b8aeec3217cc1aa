"""Positions of tensors inside container files, so that files can be cut at tensors.

Each module reads one file format as untrusted input: it decompresses nothing, runs no pickle, and compares every number
in the file with the file's size. A file that cannot be read is treated as plain bytes; it is not an error. See
docs/format.md, "Chunking".
"""

from __future__ import annotations

from lmvp.core.containers.base import (
    Broken,
    Elsewhere,
    Layout,
    Read,
    placed,
)

__all__ = ["Elsewhere", "Layout", "elsewhere", "layout", "placed"]

_HEAD = 8
_PARSE_ERRORS = (Broken, UnicodeDecodeError, RecursionError)


def layout(path: str, read: Read, size: int) -> Layout:
    """Return the tensors of a file and other offsets to cut at; an empty layout for plain bytes.

    Parameters
    ----------
    path : str
        Path of the file. Only ONNX is recognised by its suffix, other formats by their first bytes.
    read : callable
        Returns `n` bytes at an offset: `read(offset, n)`.

    Examples
    --------
    >>> layout("notes.txt", lambda at, n: b"just a text"[at : at + n], 11)
    Layout(tensors=(), breaks=())
    """
    try:
        found = _parse(path, read, size)
        return Layout(placed(found.tensors, size), tuple(sorted({at for at in found.breaks if 0 < at < size})))
    except _PARSE_ERRORS:
        return Layout()


def _parse(path: str, read: Read, size: int) -> Layout:
    from lmvp.core.containers import (
        gguf,
        hdf5,
        npy,
        onnx,
        zips,
    )

    head = bytes(read(0, min(_HEAD, size)))
    if head.startswith(zips.MAGIC):
        return zips.layout(read, size)
    if head.startswith(gguf.MAGIC):
        return gguf.layout(read, size)
    if head.startswith(npy.MAGIC):
        return Layout(tuple(npy.tensors(read, size)))
    if head == hdf5.MAGIC:
        return Layout(tuple(hdf5.tensors(read, size)))
    return onnx.layout(read, size) if is_onnx(path) else Layout()


def is_onnx(path: str) -> bool:
    """Return whether a file has the suffix of an ONNX model."""
    return path.lower().endswith(".onnx")


def elsewhere(path: str, read: Read, size: int) -> list[Elsewhere]:
    """Return the tensors of an ONNX file that are stored in other files."""
    from lmvp.core.containers import onnx

    try:
        return onnx.elsewhere(read, size) if is_onnx(path) else []
    except _PARSE_ERRORS:
        return []
