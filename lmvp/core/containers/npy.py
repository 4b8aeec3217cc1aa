"""Arrays in the format of numpy: a `.npy` file, or a member of an `.npz`."""

from __future__ import annotations

import re

from lmvp.core.containers.base import Broken, Cursor, Read
from lmvp.core.safetensors import Span, tensor_size

MAGIC = b"\x93NUMPY"

# numpy refuses longer headers too, because parsing them is slow.
_HEADER_LIMIT = 10_000
_HEADER = re.compile(
    rb"\{'descr': '([<|][biufcmM]\d{1,2})(?:\[\w+\])?', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n?"
)
_DTYPES = {
    **{f"|{kind}1": dtype for kind, dtype in {"b": "BOOL", "u": "U8", "i": "I8"}.items()},
    **{f"<u{size}": f"U{8 * size}" for size in (2, 4, 8)},
    **{f"<i{size}": f"I{8 * size}" for size in (2, 4, 8)},
    **{f"<f{size}": f"F{8 * size}" for size in (2, 4, 8)},
    "<c8": "C64",
    "<c16": "F64",
    "<M8": "I64",
    "<m8": "I64",
}


def tensors(read: Read, size: int, name: str = "tensor") -> list[Span]:
    r"""Return the array of a `.npy` file; an empty list if it is in Fortran order, big-endian, or not plain numbers.

    Raises
    ------
    Broken
        If the header is not a numpy header.

    Examples
    --------
    >>> text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
    >>> data = MAGIC + b"\x01\x00" + bytes([len(text), 0]) + text + bytes(24)
    >>> tensors(lambda at, n: data[at : at + n], len(data), "w")
    [Span(name='w', dtype='F32', shape=(2, 3), offset=70, size=24)]
    """
    cursor = Cursor(read, size)
    if cursor.take(len(MAGIC)) != MAGIC:
        raise Broken("no header of numpy")
    major, _ = cursor.unpack("BB")
    length = cursor.number(2 if major == 1 else 4)
    if length > _HEADER_LIMIT:
        raise Broken("a long header")
    found = _HEADER.fullmatch(cursor.take(length))
    dtype = _DTYPES.get(found[1].decode()) if found else None
    if found is None or dtype is None:
        return []
    shape = tuple(int(length) for length in found[2].replace(b" ", b"").split(b",") if length)
    # complex128 has no dtype in safetensors, so it is listed as pairs of F64.
    shape = (*shape, 2) if found[1] == b"<c16" else shape
    count = tensor_size(dtype, shape)
    return [] if count is None or count != size - cursor.at else [Span(name, dtype, shape, cursor.at, count)]
