"""Files that are cut short, altered or made up: never an error, and every byte comes back."""

import contextlib
import io
import pickletools
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_containers import assert_a_true_manifest, assert_sound, onnx_model, write_gguf

from lmvp.core import containers
from lmvp.core.containers import pickled
from lmvp.core.containers.base import Broken, placed
from lmvp.core.safetensors import Span

KINDS = ("npz", "packed.npz", "npy", "pt", "h5", "new.h5", "keras", "gguf", "onnx")


class Samples(dict):
    """Files by kind. Shown in short, for where a test with them fails."""

    def __repr__(self):
        return f"<{', '.join(self)}>"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A small file of each kind, as its framework writes it; those whose framework is missing are left out."""
    folder = tmp_path_factory.mktemp("samples")
    arrays = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "i4")}
    np.savez(folder / "m.npz", **arrays)
    np.savez_compressed(folder / "m.packed.npz", **arrays)
    np.save(folder / "m.npy", arrays["a"])
    for make in (_torch, _hdf5, _gguf, _onnx):
        try:
            make(folder, arrays)
        except (ImportError, pytest.skip.Exception):
            continue
    return Samples({path.name.removeprefix("m."): path.read_bytes() for path in folder.iterdir()})


def _torch(folder, arrays):
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / "m.pt")


def _hdf5(folder, arrays):
    import h5py

    for name, version in (("m.h5", "earliest"), ("m.new.h5", "latest")):
        with h5py.File(folder / name, "w", libver=version) as file:
            for key, array in arrays.items():
                file[f"vars/{key}"] = array
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(folder / "m.h5", "model.weights.h5")


def _gguf(folder, arrays):
    import gguf

    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_array("tokens", ["a", "bb"])
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _onnx(folder, _):
    import onnx

    onnx.save(onnx_model(onnx), folder / "m.onnx")


def look(name, data):
    """Lay out bytes as a file; reading beyond the end is an error of ours."""

    def read(at, count):
        assert at >= 0
        assert count >= 0
        assert at + count <= len(data)
        return memoryview(data)[at : at + count]

    found = containers.layout(f"m.{name}", read, len(data))
    assert_sound(bytes(data), found)
    assert all(one.span.size >= 0 for one in containers.elsewhere(f"m.{name}", read, len(data)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_just_bytes(samples, kind):
    if kind not in samples:
        pytest.skip(f"what writes .{kind} is not installed")
    data = samples[kind]
    whole = look(kind, data)
    assert bool(whole.tensors) == (kind != "packed.npz")
    for length in range(0, len(data), 1 if len(data) < 2500 else 7):
        assert len(look(kind, data[:length]).tensors) <= len(whole.tensors)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_an_altered_file_does_no_harm(samples, kind, flips):
    if kind not in samples:
        pytest.skip(f"what writes .{kind} is not installed")
    data = bytearray(samples[kind])
    for place, other in flips:
        at = int(place * (len(data) - len(other)))
        data[at : at + len(other)] = other
    look(kind, data)


@settings(max_examples=300, deadline=None)
@given(
    magic=st.sampled_from(
        [b"PK\x03\x04", b"GGUF\x03\0\0\0", b"\x93NUMPY\x01\0", b"\x89HDF\r\n\x1a\n", b":", b"\x08\x08"]
    ),
    rest=st.binary(max_size=400),
)
def test_made_up_files_do_no_harm(magic, rest):
    look("onnx", magic + rest)


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
PIECES = st.one_of(
    st.sampled_from(OPCODES),
    st.sampled_from([b"}q\0", b"]", b"(", b"N", b"X\x01\0\0\0a", b"K\x01"]),
    st.binary(max_size=4),
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECES, max_size=30))
def test_made_up_pickles_do_no_harm(pieces):
    with contextlib.suppress(Broken):
        pickled.read(b"\x80\x02" + b"".join(pieces) + b".")


NEST = b"]q\0" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60))
LONG = b"B\0\0\x10\0" + bytes(1 << 20)  # bytes, which are no text
TEXT = b"X\0\0\x10\0" + b"a" * (1 << 20)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "pickle",
    [
        NEST + b"h\0\x93.",  # a class whose name is a tree without an end
        TEXT + b"q\0" + b"h\0h\0\x93" * 100_000 + b".",  # many classes with a name of a megabyte
        b"}(" + LONG + b"Nu.",
        b"}(S'\\d'\nNu0}.",  # an odd text of Python 2
        b"}(\x8a\xff" + b"\x7f" * 255 + b"Nu.",  # a number of 255 bytes as a key
    ],
)
def test_pickles_that_would_take_all_memory_do_not(pickle):
    with contextlib.suppress(Broken):
        assert pickled.read(b"\x80\x02" + pickle) == {}


@pytest.mark.timeout(20)
def test_names_as_long_as_a_file_are_no_names(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"k" * 2000: torch.ones(2), "d": {"e" * 600: {"f" * 600: torch.zeros(2)}}}, tmp_path / "m.pt")
    found = look("pt", (tmp_path / "m.pt").read_bytes())
    assert [span.name for span in found.tensors] == ["data/0", "data/1"]


def test_hard_links_in_a_circle_end(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a/w"] = np.ones(3)
        file["a/up"] = file["/"]
        file["b"] = file["a"]
    assert [span.name for span in look("h5", (tmp_path / "m.h5").read_bytes()).tensors] == ["a/w"]


def test_tensors_of_no_numbers_may_lie_anywhere():
    spans = [Span("a", "F32", (2,), 0, 8), Span("none", "F32", (0,), 4, 0), Span("b", "F32", (1,), 8, 4)]
    assert placed(spans, 12) == tuple(spans)
    assert placed([*spans, Span("over", "F32", (1,), 6, 4), Span("b", "F32", (1,), 0, 4)], 12)[-1].name == "b"
    assert (
        placed([Span("far", "F32", (2,), 8, 8), Span("odd", "F32", (2,), 0, 7), Span("\ud800", "U8", (1,), 0, 1)], 12)
        == ()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_pushed_byte_for_byte(samples, kind, tmp_path):
    if kind not in samples:
        pytest.skip(f"what writes .{kind} is not installed")
    data = samples[kind]
    for index, length in enumerate((len(data) // 2, len(data) - 1, len(data))):
        path = tmp_path / f"{index}.{kind}"
        path.write_bytes(data[:length])
    assert_a_true_manifest(tmp_path)


def test_members_that_lie_about_their_place_are_no_tensors():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.npy", "b.npy"):
            array = io.BytesIO()
            np.save(array, np.ones(3))
            archive.writestr(name, array.getvalue())
    data = bytearray(buffer.getvalue())
    assert [span.name for span in look("npz", data).tensors] == ["a", "b"]
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[second + 42 : second + 46] = bytes(4)  # the second entry of the directory says it is where the first is
    assert len(look("npz", data).tensors) == 1


def test_a_directory_without_an_end_is_not_read():
    entry = b"PK\x01\x02" + bytes(24) + b"\x01\0" + bytes(16) + b"a"
    data = b"PK\x03\x04" + bytes(30) + entry * 100_000
    data += b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + (len(entry) * 100_000).to_bytes(4, "little")
    data += (34).to_bytes(4, "little") + bytes(2)
    assert look("zip", data) == containers.Layout()


def test_a_huge_gguf_is_looked_at_no_longer_than_its_header(tmp_path):
    data = write_gguf(tmp_path / "m.gguf", w=(np.ones((4, 32), "f4"), None)).read_bytes()
    size, taken = 1 << 50, []

    def read(at, count):
        taken.append(count)
        return data[at : at + count] + bytes(max(0, at + count - len(data)) if at < len(data) else count)

    assert [span.name for span in containers.layout("m.gguf", read, size).tensors] == ["w"]
    assert sum(taken) < 1 << 18
