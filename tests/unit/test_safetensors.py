import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmvp.core.safetensors import (
    BITS,
    Span,
    header,
    parse,
    tensor_size,
)
from lmvp.errors import DamagedFile

oracle = pytest.importorskip("safetensors")
from safetensors.numpy import load, save  # noqa: E402

NUMPY = {"F32": "f4", "F64": "f8", "F16": "f2", "I8": "i1", "U16": "u2", "I64": "i8", "BOOL": "?", "C64": "c8"}
shapes = st.lists(st.integers(0, 4), max_size=3)
arrays = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda n: n != "__metadata__"),
    st.tuples(st.sampled_from(sorted(NUMPY)), shapes, st.integers(0, 127)),
    max_size=5,
)


def parse_bytes(data, name="x.safetensors"):
    return parse(lambda offset, size: data[offset : offset + size], len(data), name)


def file_of(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@given(arrays, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_what_we_write_opens_in_safetensors(specs, metadata):
    made = {name: np.full(shape, value, NUMPY[dtype]) for name, (dtype, shape, value) in specs.items()}
    head = header([(name, dtype, shape) for name, (dtype, shape, _) in specs.items()], metadata)
    assert len(head) % 8 == 0
    data = head + b"".join(array.tobytes() for array in made.values())
    loaded = load(data)
    assert loaded.keys() == made.keys()
    for name, array in made.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)


@given(arrays)
def test_our_own_files_parse_in_our_order(specs):
    tensors = [(name, dtype, shape) for name, (dtype, shape, _) in specs.items()]
    head = header(tensors)
    data = head + bytes(sum(tensor_size(dtype, shape) for _, dtype, shape in tensors))
    spans = parse_bytes(data)
    full = [span.name for span in spans if span.size]
    assert full == [name for name, dtype, shape in tensors if tensor_size(dtype, shape)]
    assert {span.name for span in spans} == set(specs)


@given(arrays)
def test_what_safetensors_writes_parses(specs):
    made = {name: np.full(shape, value, NUMPY[dtype]) for name, (dtype, shape, value) in specs.items()}
    data = save(made)
    spans = {span.name: span for span in parse_bytes(data)}
    assert spans.keys() == made.keys()
    for name, array in made.items():
        span = spans[name]
        assert data[span.offset : span.offset + span.size] == array.tobytes()
        assert (NUMPY[span.dtype], span.shape) == (NUMPY[specs[name][0]], array.shape)


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_dtype_is_one_of_safetensors(dtype):
    size = tensor_size(dtype, (8,))
    assert size == BITS[dtype]
    ((name, about),) = oracle.deserialize(header([("t", dtype, (8,))]) + bytes(size))
    assert (name, about["dtype"], about["shape"]) == ("t", dtype, [8])


def test_offsets_count_from_the_start_of_the_file():
    data = file_of({"b": entry(offsets=(4, 12)), "a": entry("U8", [4], (0, 4))}, bytes(12))
    start = len(data) - 12
    assert parse_bytes(data) == [Span("a", "U8", (4,), start, 4), Span("b", "F32", (2,), start + 4, 8)]


def test_empty_tensors_keep_the_order_of_the_header():
    data = file_of({"z": entry("F32", [0], (0, 0)), "a": entry("F32", [0, 3], (0, 0)), "m": entry()}, bytes(8))
    assert [span.name for span in parse_bytes(data)] == ["z", "a", "m"]


BAD = {
    "it has 3 bytes, too few": b"abc",
    "its header claims 18,446,744,073,709,551,615 bytes": b"\xff" * 8 + b"{}",
    "its header is not JSON": file_of(b"{"),
    "its header is not a JSON object": file_of(b"[]"),
    "its header is not JSON: 'utf-8' codec": file_of(b'{"\xff": 1}'),
    "nested too deeply": file_of(b'{"a":' * 100_000),
    "the key 'a' stands twice": file_of(b'{"a": 1, "a": 2}'),
    "NaN is not JSON": file_of(b'{"a": NaN}'),
    "__metadata__ is not an object of strings": file_of({"__metadata__": {"a": 1}}),
    "tensor 'a' lacks dtype": file_of({"a": 1}),
    "tensor 'b' lacks dtype": file_of({"b": {"dtype": "F32", "shape": []}}),
    "tensor 'a' has an unknown dtype 'F99'": file_of({"a": entry("F99")}),
    "tensor 'a' has an unknown dtype ['F32']": file_of({"a": entry(["F32"])}),
    r"tensor 'a' has an impossible shape [-1]": file_of({"a": entry(shape=[-1])}),
    r"tensor 'a' has an impossible shape [2.0]": file_of({"a": entry(shape=[2.0])}),
    r"tensor 'a' has an impossible shape [True]": file_of({"a": entry(shape=[True])}),
    "tensor 'a' has impossible data_offsets [8, 0]": file_of({"a": entry(offsets=(8, 0))}, bytes(8)),
    "tensor 'a' has impossible data_offsets [0]": file_of({"a": entry(offsets=[0])}, bytes(8)),
    "tensor 'a' is 12 bytes by dtype and shape, 8 by": file_of({"a": entry(shape=[3])}, bytes(8)),
    "tensor 'a' is an impossible number of bytes": file_of({"a": entry(shape=[1 << 40] * 3)}, bytes(8)),
    "tensor 'f' is an impossible number of bytes": file_of({"f": entry("F4", [3], (0, 2))}, bytes(2)),
    "tensor 'b' overlaps": file_of({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "tensor 'b' leaves a hole": file_of({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "tensor 'a' leaves a hole": file_of({"a": entry(offsets=(4, 12))}, bytes(12)),
    "its tensors reach beyond the end": file_of({"a": entry()}, bytes(7)),
    "its tensors do not reach its end": file_of({"a": entry()}, bytes(9)),
    r"the name '\ud800' of a tensor is not Unicode": file_of(rb'{"\ud800": 1}'),
}


@pytest.mark.parametrize("what", BAD)
def test_damaged_headers_are_told(what):
    with pytest.raises(DamagedFile) as error:
        parse_bytes(BAD[what])
    assert str(error.value).startswith("x.safetensors is a damaged safetensors file: ")
    assert what in str(error.value)


def test_a_header_over_the_limit_is_not_read():
    def read(offset, size):
        assert size == 8
        return struct.pack("<Q", 101 << 20)

    with pytest.raises(DamagedFile, match="the limit is"):
        parse(read, 1 << 40)


@given(st.binary(max_size=60))
def test_noise_is_refused_or_parsed(noise):
    for data in (noise, file_of(noise)):
        try:
            spans = parse_bytes(data)
        except DamagedFile:
            continue
        assert sum(span.size for span in spans) <= len(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(BITS)) | json_values,
        "shape": st.lists(st.integers(-1, 1 << 62), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2) | json_values,
    }
)


@given(st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4), st.integers(0, 40))
def test_hostile_headers_are_refused_or_make_sense(tensors, size):
    data = file_of(tensors, bytes(size))
    try:
        spans = parse_bytes(data)
    except DamagedFile:
        return
    position = len(data) - size
    for span in spans:
        assert span.offset == position
        assert tensor_size(span.dtype, span.shape) == span.size
        position += span.size
    assert position == len(data)
