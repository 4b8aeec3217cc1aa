"""Cuts and slots where tensors lie apart, as they do in archives."""

from hypothesis import given
from hypothesis import strategies as st

from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunking import (
    APART_LIMIT,
    GAP_LIMIT,
    JOIN_LIMIT,
    cut,
)
from lmvp.core.manifest import (
    Chunk,
    File,
    Manifest,
    Tensor,
)
from lmvp.core.safetensors import Span


def row(name, offset, size, dtype="U8"):
    return Span(name, dtype, (size,), offset, size)


def places(cuts):
    return [(one.offset, one.size, [span.name for span in one.shared]) for one in cuts]


def test_short_tensors_with_little_between_them_share_a_chunk_whatever_their_dtypes():
    spans = [row("a", 100, 50), row("b", 200, 8, "I8"), row("c", 208 + GAP_LIMIT, 10), row("d", 219 + 2 * GAP_LIMIT, 1)]
    end = 218 + GAP_LIMIT
    assert places(cut(10_000, spans)) == [
        (0, 100, []),
        (100, end - 100, ["a", "b", "c"]),
        (end, GAP_LIMIT + 1, []),
        (219 + 2 * GAP_LIMIT, 1, []),
        (220 + 2 * GAP_LIMIT, 10_000 - 220 - 2 * GAP_LIMIT, []),
    ]


def test_tensors_that_touch_share_a_chunk_if_they_are_of_one_dtype():
    spans = [row("a", 0, 50), row("b", 50, 8, "I8"), row("c", 58, 8, "I8")]
    assert places(cut(66, spans)) == [(0, 50, []), (50, 16, ["b", "c"])]


def test_tensors_apart_are_joined_only_if_they_are_short():
    spans = [
        row("a", 10, 50),
        row("b", 100, APART_LIMIT),
        row("c", 200 + APART_LIMIT, 5),
        row("d", 205 + APART_LIMIT, 9),
    ]
    assert [names for *_, names in places(cut(214 + APART_LIMIT, spans))] == [[], [], [], [], [], ["c", "d"]]


def test_a_long_tensor_stands_alone():
    spans = [row("a", 10, 50), row("long", 100, JOIN_LIMIT), row("b", 200 + JOIN_LIMIT, 5)]
    assert [(size, names) for _, size, names in places(cut(205 + JOIN_LIMIT, spans))] == [
        (10, []), (50, []), (40, []), (JOIN_LIMIT, []), (100, []), (5, []),
    ]  # fmt: skip


@st.composite
def files(draw):
    """A size, tensors without overlaps, and breaks anywhere."""
    position, spans = 0, []
    for index in range(draw(st.integers(0, 8))):
        position += draw(st.sampled_from([0, 1, 100, GAP_LIMIT, GAP_LIMIT + 1]))
        size = draw(st.sampled_from([0, 1, 1000, JOIN_LIMIT - 1, JOIN_LIMIT, 9 << 20]))
        spans.append(row(f"t{index}", position, size, draw(st.sampled_from(["U8", "I8"]))))
        position += size
    size = position + draw(st.integers(0, 10_000))
    breaks = draw(st.lists(st.integers(0, size), max_size=8, unique=True))
    return size, spans, sorted(breaks)


@given(files())
def test_cuts_cover_a_file_once_and_begin_at_every_tensor_and_break(file):
    size, spans, breaks = file
    cuts = cut(size, spans, breaks)
    position = 0
    for one in cuts:
        assert one.offset == position
        assert 0 < one.size <= 4 << 20
        position += one.size
    assert position == size
    starts = {one.offset for one in cuts} | {size}
    shared = {span.name for one in cuts for span in one.shared}
    for span in spans:
        assert not span.size or span.name in shared or {span.offset, span.offset + span.size} <= starts
    covered = [(one.offset, one.offset + one.size) for one in cuts if one.shared]
    covered += [(span.offset, span.offset + span.size) for span in spans]
    assert all(at in starts or any(start <= at < end for start, end in covered) for at in breaks if at)


def version(chunks, *tensors):
    """A file of chunks, given as (id, size), with tensors, given as (name, dtype, offset, size)."""
    pieces = tuple(Chunk(*chunk) for chunk in chunks)
    file = File("m.pt", sum(piece.size for piece in pieces), "", pieces)
    rows = (Tensor(name, dtype, (), "m.pt", offset, size, "") for name, dtype, offset, size in tensors)
    return Slots(Manifest("files", (file,), tuple(rows)))


def test_a_chunk_is_of_the_dtype_that_it_mostly_holds():
    slots = version(
        [("head", 10), ("mostly", 100), ("half", 100), ("mixed", 100)],
        ("a", "F32", 10, 60), ("b", "I64", 80, 8), ("c", "F32", 110, 50), ("d", "F32", 210, 40), ("e", "I64", 250, 60),
    )  # fmt: skip
    assert [slots.dtype(chunk) for chunk in ("head", "mostly", "half", "mixed")] == [None, "F32", None, "I64"]


def test_a_counterpart_begins_in_the_same_tensor_and_is_as_long():
    old = version([("head", 10), ("one", 100)], ("a", "F32", 10, 60), ("b", "F32", 80, 30))
    new = version([("other", 30), ("two", 100)], ("a", "F32", 30, 60), ("b", "F32", 100, 30))
    assert new.counterpart("two", old) == "one"
    assert new.counterpart("other", old) is None
    assert version([("x", 10), ("two", 99)], ("a", "F32", 10, 99)).counterpart("two", old) is None


def test_tensors_that_overlap_are_gone_through_once():
    tensors = [(f"t{index}", "F32", 0, 100_000) for index in range(2000)]
    tensors += [(f"s{index}", "F32", index, 1) for index in range(2000)]
    slots = version([(f"c{index}", 50) for index in range(2000)], *tensors)
    assert slots.dtype("c1999") == "F32"
