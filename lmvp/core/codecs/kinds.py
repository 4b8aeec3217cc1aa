"""Kinds of numbers for the codecs: width, sign and position of the exponent. See docs/format.md, "Codecs".

A payload contains the number of its kind, so a frame can be decoded without the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of numbers.

    Attributes
    ----------
    number : int
        The byte for this kind in a payload.
    size : int
        Bytes of a number.
    floating : bool
        Whether a number consists of sign, exponent and mantissa, from the highest bit down.
    shift, mask : int
        The group of a number is `bits >> shift & mask`: its exponent, or the top 8 bits of the exponent. All integers
        are in the same group.
    """

    number: int
    size: int
    floating: bool = False
    shift: int = 0
    mask: int = 0


BYTES = Kind(0, 1)
INT16 = Kind(1, 2)
INT32 = Kind(2, 4)
INT64 = Kind(3, 8)
E4M3 = Kind(4, 1, floating=True, shift=3, mask=0x0F)
E5M2 = Kind(5, 1, floating=True, shift=2, mask=0x1F)
F16 = Kind(6, 2, floating=True, shift=10, mask=0x1F)
BF16 = Kind(7, 2, floating=True, shift=7, mask=0xFF)
F32 = Kind(8, 4, floating=True, shift=23, mask=0xFF)
# The exponent of F64 has 11 bits. Its top 8 bits keep the number of groups at 256, as for F32.
F64 = Kind(9, 8, floating=True, shift=55, mask=0xFF)

KINDS: Mapping[int, Kind] = {
    kind.number: kind for kind in (BYTES, INT16, INT32, INT64, E4M3, E5M2, F16, BF16, F32, F64)
}

BY_DTYPE: Mapping[str, Kind] = {
    "BOOL": BYTES,
    "F4": BYTES,
    "F6_E2M3": BYTES,
    "F6_E3M2": BYTES,
    "U8": BYTES,
    "I8": BYTES,
    "F8_E5M2": E5M2,
    "F8_E4M3": E4M3,
    "F8_E8M0": BYTES,
    "F8_E4M3FNUZ": E4M3,
    "F8_E5M2FNUZ": E5M2,
    "I16": INT16,
    "U16": INT16,
    "F16": F16,
    "BF16": BF16,
    "I32": INT32,
    "U32": INT32,
    "F32": F32,
    "C64": F32,
    "F64": F64,
    "I64": INT64,
    "U64": INT64,
}
"""The kind of each dtype. A complex number is a pair of floats. Dtypes of less than 8 bits are coded as bytes."""
