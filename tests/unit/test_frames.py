"""Frames of a journal: what is written is read, and what is damaged is refused or ends the reading."""

import math
import random
import struct

import numpy as np
import pytest

from lmvp.core import run_frames
from lmvp.core.columns import AttemptStart
from lmvp.core.frame_parsing import parse
from lmvp.core.framing import Gap
from lmvp.core.run_frames import (
    attempt_frame,
    framed,
    key_frame,
    note,
    points_frame,
    read_journal,
    whole_frames,
    whole_size,
)
from lmvp.errors import InvalidRequest


def batch(key=0, steps=None, even=None, times=(1.5,), values=(0.0,), n=None, flags=None):
    flags = (
        (run_frames.EVEN_STEPS if even else 0) | (run_frames.ONE_TIME if len(times) == 1 else 0)
        if flags is None
        else flags
    )
    head = run_frames.BATCH_HEAD.pack(run_frames.BATCH, flags, key, len(values) if n is None else n)
    axis = run_frames.STRIDE.pack(*even) if even else struct.pack(f"<{len(steps)}q", *steps)
    return framed(head + axis + struct.pack(f"<{len(times)}d", *times) + struct.pack(f"<{len(values)}d", *values))


def test_points_of_many_frames_come_as_columns_in_their_order():
    data = b"".join(points_frame(1.0 + i, [(0, i, i / 2), (1, run_frames.AUTO, math.nan)]) for i in range(100))
    (points,) = parse(data).parts
    assert points.keys.tolist() == [0, 1] * 100
    assert points.steps[::2].tolist() == list(range(100))
    assert set(points.steps[1::2].tolist()) == {run_frames.AUTO}
    assert points.times.tolist() == [1.0 + i // 2 for i in range(200)]
    assert np.isnan(points.values[1::2]).all()


@pytest.mark.parametrize("times", [(2.5,), (1.0, 2.0, 3.0)])
@pytest.mark.parametrize("axis", [{"even": (10, -5)}, {"steps": (10, 5, 0)}])
def test_a_batch_has_columns_of_its_own(times, axis):
    (points,) = parse(batch(key=3, times=times, values=(1.0, math.inf, -0.0), **axis)).parts
    assert points.keys.tolist() == [3, 3, 3]
    assert points.steps.tolist() == [10, 5, 0]
    assert points.times.tolist() == list(times) * (3 // len(times))
    assert points.values.tobytes() == struct.pack("<3d", 1.0, math.inf, -0.0)


@pytest.mark.parametrize("count", [1, 8, 9, 20])
@pytest.mark.parametrize("one_time", [True, False])
@pytest.mark.parametrize("even", [(10, -5), None])
def test_short_and_long_batches_are_the_same_points(count, one_time, even):
    rng = random.Random(count)
    steps = [10 - 5 * i for i in range(count)] if even else [rng.choice([run_frames.AUTO, i]) for i in range(count)]
    times = [1.5] if one_time else [float(i) if i else math.nan for i in range(count)]
    values = [rng.random() for _ in range(count)]
    flags = (run_frames.EVEN_STEPS if even else 0) | (run_frames.ONE_TIME if one_time else 0)
    (points,) = parse(batch(key=3, even=even, steps=steps, times=times, values=values, flags=flags)).parts
    assert points.keys.tolist() == [3] * count
    assert points.steps.tolist() == steps
    assert points.values.tolist() == values
    assert points.times.tolist() == ([1.5] * count if one_time else [float(i) for i in range(count)])


def test_points_between_frames_of_other_kinds_are_one_part():
    """Readers do a fixed amount of work per part; a request may hold 100,000 frames of each kind."""
    one = key_frame(0, "a") + points_frame(1, [(0, 1, 1.0)]) + note(run_frames.UPDATE, b"{}")
    one += batch(even=(2, 1), values=(2.0,)) + batch(even=(3, 1), values=(3.0,) * 20)
    shipment = parse(one * 50 + attempt_frame(1) + one)
    before, _, after = shipment.parts
    assert (len(before), len(after)) == (1100, 22)
    assert before.steps.tolist() == [1, 2, *range(3, 23)] * 50


def test_parts_keep_the_order_of_the_frames():
    data = points_frame(1, [(0, 1, 1.0)]) + attempt_frame(77, 5) + key_frame(1, "b") + points_frame(2, [(1, 2, 2.0)])
    shipment = parse(data + note(run_frames.END, b"{}"))
    assert [type(part).__name__ for part in shipment.parts] == ["Points", "AttemptStart", "Points"]
    assert shipment.parts[1] == AttemptStart(77, 5)
    assert shipment.keys == {1: "b"}
    assert shipment.notes == [(run_frames.END, b"{}")]


@pytest.mark.parametrize(
    "bad",
    [
        framed(b"\x63"),
        framed(b"\x03" + bytes(8)),
        framed(b"\x03" + bytes(29)),
        framed(b"\x04\x00"),
        batch(even=(0, 1), n=7),
        batch(even=(1 << 62, 1 << 62), values=(0.0,) * 5),
        batch(steps=(1,), flags=8),
        framed(b"\x06" + bytes(3)),
        framed(b"\x02\x00"),
        framed(b"\x02" + bytes(4)),
        framed(b"\x02" + bytes(4) + b"\xff"),
        key_frame(0, "a\nb"),
        key_frame(0, "k" * 1025),
        points_frame(1, [(0, 1, 1.0)])[:-1],
        b"\0" * 8,
        b"x",
    ],
)
def test_what_is_no_frame_is_refused(bad):
    with pytest.raises(InvalidRequest):
        parse(points_frame(1, [(0, 1, 1.0)]) + bad)


def test_any_cut_and_any_flipped_bit_ends_the_reading_before_it():
    whole = [key_frame(0, "loss"), *(points_frame(i, [(0, i, 0.5)]) for i in range(5)), note(run_frames.UPDATE, b"{}")]
    data, ends = b"".join(whole), [sum(map(len, whole[:i])) for i in range(len(whole) + 1)]
    for at in range(len(data)):
        assert whole_size(data[:at]) == max(end for end in ends if end <= at)
        bent = bytearray(data)
        bent[at] ^= 1 << random.randrange(8)
        assert whole_size(bent) == max(end for end in ends if end <= at)


@pytest.mark.parametrize("room", [0, 4096])
def test_journal_with_any_flipped_bit_is_damaged(room):
    """The frames before and behind the damage are sound, and nothing may be cut, whatever stands behind the frames."""
    whole = [key_frame(0, "loss"), *(points_frame(i, [(0, i, 0.0)]) for i in range(4)), note(run_frames.UPDATE, b"{}")]
    data, ends = b"".join(whole), [sum(map(len, whole[:i])) for i in range(len(whole) + 1)]
    for at in range(len(data)):
        for bit in range(8):
            bent = bytearray(data + bytes(room))
            bent[at] ^= 1 << bit
            log = read_journal(bent)
            start, end = max(one for one in ends if one <= at), min(one for one in ends if one > at)
            assert log.gaps == [Gap(start, len(bent) if end == len(data) else end)], (at, bit)
            assert log.end == (len(bent) if end == len(data) else len(data))


@pytest.mark.parametrize("room", [0, 4096])
def test_journal_cut_at_any_byte_has_a_torn_end(room):
    whole = [key_frame(0, "loss"), *(points_frame(i, [(0, i, 0.5)]) for i in range(4)), note(run_frames.UPDATE, b"{}")]
    data, ends = b"".join(whole), [sum(map(len, whole[:i])) for i in range(len(whole) + 1)]
    for at in range(len(data)):
        log = read_journal(data[:at])
        assert (log.gaps, log.end) == ([], max(one for one in ends if one <= at)), at
    for end in ends[:-1]:  # killed between the payload and the head, which is stored last
        log = read_journal(data[:end] + bytes(8) + data[end + 8 : end + 20] + bytes(room))
        assert (log.gaps, log.end) == ([], end)


def test_zeros_behind_the_last_frame_end_the_journal():
    data = key_frame(0, "a") + bytes(4096)
    assert [end for _, _, end in whole_frames(data)] == [14]


@pytest.mark.parametrize("widths", [[1], [1, 2], [1] * 70 + [3] * 65 + [1], [20], [2] * 600 + [1]])
def test_frames_of_like_and_unlike_length_say_the_same(widths):
    rows = [[(k, i, i + k / 8) for k in range(n)] for i, n in enumerate(widths * 100)]
    parts = parse(b"".join(points_frame(float(i), row) for i, row in enumerate(rows))).parts
    assert [k for part in parts for k in part.keys.tolist()] == [k for row in rows for k, _, _ in row]
    assert [s for part in parts for s in part.steps.tolist()] == [s for row in rows for _, s, _ in row]
    assert [v for part in parts for v in part.values.tolist()] == [v for row in rows for _, _, v in row]
    assert [t for part in parts for t in part.times.tolist()] == [float(i) for i, row in enumerate(rows) for _ in row]


def test_a_bent_bit_among_many_like_frames_is_refused():
    data = bytearray(points_frame(1.0, [(0, 1, 0.5)]) * 1000)
    data[37 * 500 + 20] ^= 4
    with pytest.raises(InvalidRequest, match=f"byte {37 * 500:,}"):
        parse(data)
