from collections import OrderedDict

import numpy as np
import pytest
from support import memory_reader
from support.memory_reader import content, push, round_trip

from lmvp import formats
from lmvp.errors import DamagedFile, InvalidArgument, Mismatch, UnknownFormat

ZOO = {
    "bool": np.array([True, False, True]),
    "half": np.arange(5, dtype="f2"),
    "single": np.arange(6, dtype="f4").reshape(2, 3),
    "double": np.array([0.1, np.nan, -0.0, np.inf]),
    "ints": np.arange(-3, 3, dtype="i1"),
    "uints": np.arange(9, dtype="u8"),
    "zero-d": np.array(2.5),
    "empty": np.zeros((0, 3), "f4"),
    "big-endian": np.arange(7, dtype=">i4"),
    "big-endian date": np.array(["2026-01-31"], dtype=">M8[D]"),
    "complex64": np.array([1 + 2j], "c8"),
    "complex128": np.array([[1 + 2j, 3 - 4j]]),
    "big-endian complex": np.array([1 + 2j], ">c16"),
    "date": np.array(["2026-01-31", "NaT"], dtype="M8[ns]"),
    "span": np.array([3], dtype="m8[ms]"),
    "transposed": np.arange(12.0).reshape(3, 4).T,
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(20, dtype="u2")[::3],
    "backwards": np.arange(20, dtype="i8")[::-1],
    "broadcast": np.broadcast_to(np.float32(3), (2, 2)),
}


@pytest.mark.parametrize("name", ZOO)
def test_an_array_comes_back_as_it_was(name):
    back = round_trip({name: ZOO[name]})[name]
    assert back.dtype == ZOO[name].dtype
    assert back.dtype.byteorder == ZOO[name].dtype.byteorder
    assert back.shape == ZOO[name].shape
    assert back.tobytes() == ZOO[name].tobytes()


def test_names_keep_their_order():
    names = ["z", "a", "m.1", "m"]
    arrays = {name: np.full(3, i, "f4") for i, name in enumerate(names)}
    reader = push(arrays)
    assert [tensor.name for tensor in reader.manifest.tensors] == names
    assert list(formats.unpack(reader)) == names


def test_nested_trees_are_rebuilt_exactly():
    weights = np.arange(4.0)
    tree = {
        "layers": [{"w": weights}, (np.zeros(2), None)],
        "a.b": np.ones(1),
        "a": OrderedDict(b=np.zeros(1), c=True),
        1: {"": -3, "huge": 1 << 200, "lr": 0.1, "text": "ä", "raw": b"\0\xff", "nan": float("inf")},
        "1": np.float32(2.5),
        ("x", 2): [],
    }
    back = round_trip(tree)
    assert repr(back) == repr(tree)
    assert list(map(type, back["layers"][1])) == [np.ndarray, type(None)]
    assert type(back["a"]) is OrderedDict
    assert type(back["1"]) is np.float32


def test_lone_array_and_scalar():
    assert np.array_equal(round_trip(np.arange(3)), np.arange(3))
    scalar = round_trip(np.float64(0.1))
    assert type(scalar) is np.float64
    assert scalar == 0.1


def test_the_same_array_twice_is_stored_once_and_comes_back_as_one():
    array = np.arange(1000.0)
    reader = push({"a": array, "b": array, "part": array[:10]})
    assert [tensor.name for tensor in reader.manifest.tensors] == ["a", "part"]
    back = formats.unpack(reader)
    assert back["a"] is back["b"]
    assert np.array_equal(back["part"], array[:10])


def test_packing_reads_from_the_arrays_memory():
    array = np.arange(1000.0)
    source = formats.pack({"a": array}).files[0].sources[1]
    array[0] = 42.0
    assert np.frombuffer(source.read(0, 8))[0] == 42.0


def test_equal_objects_have_equal_content():
    assert content({"a": np.arange(3)}) == content({"a": np.arange(3)})
    assert content({"a": np.arange(3), "b": np.ones(1)}) != content({"b": np.ones(1), "a": np.arange(3)})


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array(["a"]), "<U1"),
        (np.array([object()]), "object"),
        (np.zeros(2, dtype=[("x", "f4")]), "x"),
        (np.zeros(1, np.longdouble), str(np.dtype(np.longdouble))),
    ],
)
def test_what_is_no_number_is_refused_by_name(array, dtype):
    if array.dtype == np.float64:
        pytest.skip("long double is double here")
    with pytest.raises(UnknownFormat, match=r"'deep\.key'") as error:
        formats.pack({"deep": {"key": array}})
    assert dtype in str(error.value)


def test_other_leaves_are_refused_by_path_and_type():
    with pytest.raises(UnknownFormat, match=r"\['a'\]\[1\] is a builtins.object"):
        formats.pack({"w": np.zeros(1), "a": [1, object()]})


def test_a_tree_that_contains_itself_is_refused():
    tree = {"w": np.zeros(1)}
    tree["self"] = tree
    with pytest.raises(UnknownFormat, match="contains itself"):
        formats.pack(tree)


@pytest.mark.parametrize("obj", [{}, {"lr": 0.1}, [], None, 3, object()])
def test_no_format_keeps_this(obj):
    with pytest.raises(UnknownFormat, match="no format keeps a builtins"):
        formats.pack(obj)


def test_into_fills_in_place():
    version = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4, dtype=">f4"), "c": np.arange(9.0)}
    into = {"a": np.zeros((2, 3)), "b": np.zeros(4, "f4"), "c": np.zeros((9, 2))[:, 0], "note": "kept"}
    addresses = {name: id(into[name]) for name in into}
    assert (
        round_trip(
            version,
        )
        is not version
    )
    assert formats.unpack(push(version), into=into) is into
    assert {name: id(into[name]) for name in into} == addresses
    assert all(np.array_equal(into[name], version[name]) for name in version)


def test_into_that_differs_is_left_alone():
    reader = push({"a": np.ones(3), "b": np.ones(2)})
    into = {"a": np.zeros(3), "b": np.zeros(2, "f4"), "d": np.zeros(1)}
    with pytest.raises(Mismatch, match=r"'d' is only in `into`.*'b' is F64 \(2,\) in the version, F32") as error:
        formats.unpack(reader, into=into)
    assert "nothing was changed" in str(error.value)
    assert reader.filled == []
    assert not into["a"].any()


def test_into_that_cannot_be_written_is_refused():
    array = np.zeros(3)
    array.flags.writeable = False
    with pytest.raises(InvalidArgument, match="'a' in `into` cannot be written"):
        formats.unpack(push({"a": np.ones(3)}), into={"a": array})
    with pytest.raises(InvalidArgument, match="has no tensors to fill"):
        formats.unpack(push({"a": np.ones(3)}), into=3)


@pytest.mark.parametrize(
    "meta",
    [
        {"tree": "array", "ties": {"x": "nothing"}},
        {"tree": "array", "dtypes": {"tensor": "|O"}},
        {"tree": "array", "dtypes": {"tensor": ">f8, >f8"}},
        {"tree": "array", "dtypes": 3},
        {"tree": {"dict": [[{"list": []}, "array"]]}},
        {"tree": {"unheard of": 1}},
        {"tree": {"dict": 3}},
        {"tree": "array", "ties": {"tensor": "tensor"}},
        {"tree": {"list": ["array", "array"]}},
        {},
    ],
)
def test_damaged_meta_data_give_a_clear_error(meta):
    reader = push(np.ones(3))
    reader.manifest.meta.clear()
    reader.manifest.meta.update(meta)
    with pytest.raises(DamagedFile) if meta else pytest.raises(TypeError) as error:
        result = formats.unpack(reader)
        assert result is None
        raise TypeError
    assert error


def test_readers_pieces_may_cut_items(monkeypatch):
    monkeypatch.setattr(memory_reader, "PIECE", 10)
    for name in ("transposed", "big-endian", "strided", "complex128"):
        assert round_trip({name: ZOO[name]})[name].tobytes() == ZOO[name].tobytes()


@pytest.mark.parametrize("place", ["alone", "beside an array", "in a dict"])
def test_a_masked_array_says_what_to_keep_instead(place):
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    obj = {"alone": masked, "beside an array": {"a": np.zeros(2), "b": [masked]}, "in a dict": {"b": [masked]}}[place]
    with pytest.raises(UnknownFormat, match=r"is a numpy\.ma\.MaskedArray") as caught:
        formats.pack(obj)
    assert ("the object" if place == "alone" else "['b'][0]") in str(caught.value)
    assert "numpy.ma.getmaskarray(a)" in caught.value.hint
    formats.pack({"data": masked.filled(0), "mask": np.ma.getmaskarray(masked)})


def test_another_kind_of_array_says_how_it_becomes_a_plain_one():
    with pytest.raises(UnknownFormat, match="matrix") as caught:
        formats.pack(np.zeros((2, 2)).view(np.matrix))
    assert "numpy.asarray(a)" in caught.value.hint


ML_DTYPES = [
    *("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
    *("int2", "int4", "uint2", "uint4"),
]
SAFETENSORS = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0"}


@pytest.mark.parametrize("name", ML_DTYPES)
def test_ml_dtypes_array_comes_back_equal(name):
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name))
    array = np.ones((2, 3), dtype)
    tree = {"w": array, "t": array.T, "one": array[0, 0], "empty": array[:0]}
    reader = push(tree)
    assert {t.dtype for t in reader.manifest.tensors} == {SAFETENSORS.get(name, reader.manifest.tensors[0].dtype)}
    back = formats.unpack(reader)
    assert {k: (v.dtype, v.shape) for k, v in back.items()} == {k: (v.dtype, v.shape) for k, v in tree.items()}
    assert all(np.array_equal(back[key], value) for key, value in tree.items())
    target = {"w": np.zeros((2, 3), dtype), "t": np.zeros((2, 3), dtype).T}
    formats.unpack(push({"w": array, "t": array.T}), into=target)
    assert np.array_equal(target["w"], array)
    assert np.array_equal(target["t"], array.T)


def test_ml_dtypes_complex_array_is_refused_by_name():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    if not hasattr(ml_dtypes, "complex32"):
        pytest.skip("this ml_dtypes has no complex32")
    with pytest.raises(UnknownFormat, match="'w' is an array of dtype complex32; safetensors defines no such dtype"):
        push({"w": np.zeros(2, ml_dtypes.complex32)})
