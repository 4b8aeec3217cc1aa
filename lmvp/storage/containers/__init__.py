"""Files in whose inside tensors lie: where they are, so that a file is cut at them.

Each module reads one kind of file, as if an enemy had written it: nothing is inflated, nothing unpickled, no number of
the file believed before it was held against its size. What cannot be read is just bytes, never an error.
"""

from __future__ import annotations

from lmvp.storage.containers.base import Broken, Elsewhere, Layout, Read, placed

__all__ = ["Elsewhere", "Layout", "elsewhere", "layout", "placed"]

_HEAD = 8
_PARSE_ERRORS = (Broken, UnicodeDecodeError, RecursionError)


def layout(path: str, read: Read, size: int) -> Layout:
    """Return the tensors of a file and where else it is to be cut; nothing for a file that is just bytes.

    Parameters
    ----------
    path : str
        ONNX files are known by their suffix, all others by their first bytes.
    read : callable
        Gives `n` bytes from an offset: `read(offset, n)`.

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
    from lmvp.storage.containers import gguf, hdf5, npy, onnx, zips

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
    """Tell whether a file should be an ONNX model."""
    return path.lower().endswith(".onnx")


def elsewhere(path: str, read: Read, size: int) -> list[Elsewhere]:
    """Return the tensors of an ONNX file that lie in other files."""
    from lmvp.storage.containers import onnx

    try:
        return onnx.elsewhere(read, size) if is_onnx(path) else []
    except _PARSE_ERRORS:
        return []
