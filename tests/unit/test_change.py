"""How much numbers changed: against sums in plain Python, for every dtype."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmvp.core.safetensors import BITS
from lmvp.core.tensor_change import Change, measure

TYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<f4",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
}
WHOLE = {
    dtype: 1 if BITS[dtype] <= 8 and BITS[dtype] != 6 else 3 if BITS[dtype] == 6 else BITS[dtype] // 8 for dtype in BITS
}
finite = st.floats(-1e3, 1e3, width=32)


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_sums_are_those_of_plain_python(pairs):
    base, new = zip(*pairs, strict=True)
    change = measure(floats(new), floats(base), "F32")
    steps = [b - a for a, b in pairs]
    assert change.count == len(pairs)
    assert change.changed == sum(floats([a]) != floats([b]) for a, b in pairs)
    assert change.squares == pytest.approx(math.fsum(step * step for step in steps))
    assert change.base_squares == pytest.approx(math.fsum(value * value for value in base))
    assert change.after_squares == pytest.approx(math.fsum(value * value for value in new), abs=1e-6)
    assert change.largest == max(map(abs, steps))


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_every_type_are_measured_as_such(dtype):
    base, new = np.array([1, 0, 1, 1], TYPES[dtype]), np.array([1, 1, 0, 1], TYPES[dtype])
    change = measure(new.tobytes(), base.tobytes(), dtype)
    assert (change.count, change.changed) == ((2, 2) if dtype == "C64" else (4, 2))
    assert (change.squares, change.base_squares, change.largest) == (2, 3, 1)


@pytest.mark.parametrize("dtype", BITS)
def test_what_did_not_change_has_not_changed(dtype):
    data = np.random.default_rng(0).bytes(WHOLE[dtype] * 99)
    change = measure(data, data, dtype)
    assert (change.changed, change.share, change.relative, change.largest) == (0, 0.0, 0.0, 0.0)
    assert change.count == len(data) * 8 // BITS[dtype]


def test_bf16_is_the_upper_half_of_a_float():
    base, new = floats([1.0, -2.0, 0.5]), floats([1.5, -2.0, 0.5])
    halves = [b"".join(side[at + 2 : at + 4] for at in range(0, 12, 4)) for side in (new, base)]
    assert measure(*halves, "BF16") == Change(3, 1, 0.25, 5.25, 0.5, 6.5)


@pytest.mark.parametrize(
    ("dtype", "bits", "value"),
    [
        ("F8_E4M3", 0x7E, 448.0),
        ("F8_E4M3", 0x01, 2.0**-9),
        ("F8_E4M3", 0xB8, -1.0),
        ("F8_E5M2", 0x7B, 57344.0),
        ("F8_E5M2", 0x01, 2.0**-16),
        ("F8_E4M3FNUZ", 0x7F, 240.0),
        ("F8_E5M2FNUZ", 0x7F, 57344.0),
        ("F8_E8M0", 0x80, 2.0),
    ],
)
def test_floats_of_eight_bits_have_their_values(dtype, bits, value):
    zero = 0x00 if dtype != "F8_E8M0" else 0x7F
    expected = abs(value) if dtype != "F8_E8M0" else value - 1
    assert measure(bytes([bits]), bytes([zero]), dtype).largest == expected


@pytest.mark.parametrize(("dtype", "count"), [("F4", 6), ("F6_E2M3", 4), ("F6_E3M2", 4)])
def test_numbers_below_a_byte_are_counted(dtype, count):
    change = measure(bytes([1, 0, 0]), bytes(3), dtype)
    assert (change.count, change.changed, change.squares) == (count, 1, 0)


def test_what_is_not_finite_counts_as_changed_but_not_in_sums():
    base, new = [1.0, math.nan, math.inf, 2.0, -math.inf], [math.nan, 1.0, -math.inf, 3.0, -math.inf]
    assert measure(floats(new), floats(base), "F32") == Change(5, 4, 1.0, 4.0, 1.0, 9.0)
    huge = struct.pack("<2d", 1e300, 1.0), struct.pack("<2d", -1e300, 3.0)
    assert measure(*huge, "F64") == Change(2, 2, 4.0, 9.0, 2.0, 1.0)


def test_a_zero_that_changes_its_sign_changed_by_nothing():
    change = measure(floats([-0.0]), floats([0.0]), "F32")
    assert (change.changed, change.relative, change.largest) == (1, 0.0, 0.0)


def test_from_nothing_to_something_is_infinitely_far():
    assert measure(floats([1.0]), floats([0.0]), "F32").relative == math.inf


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F6_E2M3", "U8"])
def test_parts_add_up_to_the_whole(dtype):
    random = np.random.default_rng(2)
    base, new = bytearray(random.bytes(1_200_000)), bytearray(random.bytes(1_200_000))
    base[3::4] = new[3::4] = bytes([0x3F]) * 300_000
    whole = measure(new, base, dtype)
    parts = [measure(new[at : at + 240_000], base[at : at + 240_000], dtype) for at in range(0, 1_200_000, 240_000)]
    total = sum(parts, Change())
    assert (total.count, total.changed, total.largest) == (whole.count, whole.changed, whole.largest)
    assert total.squares == pytest.approx(whole.squares)
    assert total.base_squares == pytest.approx(whole.base_squares)
    assert total.after_squares == pytest.approx(whole.after_squares)
