"""Structures of a few bytes that ask for gigabytes: refused before memory is taken, by formats of every kind."""

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.memory_reader import MemoryReader, push

from lmvp import errors, formats
from lmvp.core import containers
from lmvp.core.manifest import Chunk, File, Manifest
from lmvp.formats import base
from lmvp.formats.base import Bytes, Package, PackedFile

torch = pytest.importorskip("torch")

MOST = 300 << 20
"""Bytes that a refusal may take: what libraries allocate by themselves, and never what a structure asks for."""


@pytest.fixture(autouse=True)
def little_memory():
    """Fail a test in which more memory was taken at once than a refusal needs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert taken < MOST, f"{taken:,} bytes were taken"


# -- torch


def called(function, *args):
    """Return the opcodes of a call; `args` are pickled values, or opcodes in a bytes-like wrapper."""
    module, _, name = function.rpartition(".")
    pushed = b"".join(one.data if isinstance(one, Ops) else pickle.dumps(one, 2)[2:-1] for one in args)
    return Ops(f"c{module}\n{name}\n".encode() + b"(" + pushed + b"tR")


class Ops:
    def __init__(self, data):
        self.data = data


def structure(ops, compress=zipfile.ZIP_STORED, **more):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + ops.data + b".")
        for name, data in ({"version": b"3\n", "byteorder": b"little"} | more).items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def pull(data, trust=()):
    reader = MemoryReader(Package("torch.module", [PackedFile("structure.pt", [Bytes.of(data)])], {"class": "x"}))
    return formats.unpack(reader, trust=trust)


def memoed(value, times, call):
    """Return a list of `times` results of one call on one value that is held once."""
    return Ops(b"]" + pickle.dumps(value, 2)[2:-1] + b"q\x010(" + call(b"h\x01") * times + b"e")


HOSTILE = {
    "bytearray": called("__builtin__.bytearray", 10**9),
    "bytearray of Python 3": called("builtins.bytearray", 10**11),
    "layer": called("torch.nn.modules.linear.Linear", 10**5, 10**5),
    "embedding": called("torch.nn.modules.sparse.Embedding", 10**6, 10**4),
    "tensor": called("torch.Tensor", 10**5, 10**5),
    "new tensor": Ops(b"ctorch\nTensor\n" + pickle.dumps((10**5, 10**5), 2)[2:-1] + b"\x81"),
    "parameter": called("torch.nn.parameter.Parameter", called("torch.Tensor", 10**5, 10**5)),
    "average": called("torch.optim.swa_utils.AveragedModel", None),
    "copies of a set": memoed(list(range(100_000)), 20_000, lambda got: b"c__builtin__\nset\n(" + got + b"tR"),
    "copies of bytes": memoed(
        "x" * 1_000_000, 5_000, lambda got: b"c_codecs\nencode\n(" + got + pickle.dumps("latin1", 2)[2:-1] + b"tR"
    ),
    "another codec": called("_codecs.encode", "x" * 100, "utf_32"),
    "layers of an RNN": Ops(
        b"ctorch.nn.modules.rnn\nLSTM\n)\x81" + pickle.dumps({"num_layers": 10**9, "_all_weights": []}, 2)[2:-1] + b"b"
    ),
    "tuples of tuples": Ops(b")q\x01" + b"0h\x01h\x01\x86q\x01" * 60 + b"0c__builtin__\nset\n(](h\x01etR"),
    "storage": Ops(pickle.dumps(("storage", 1, "0", "cpu", 10**10), 2)[2:-1] + b"Q"),
}


@pytest.mark.parametrize("ops", HOSTILE.values(), ids=HOSTILE)
def test_torch_structure_that_asks_for_memory_is_refused(ops):
    with pytest.raises(errors.LmvpError) as refused:
        pull(structure(ops))
    assert isinstance(refused.value, (errors.DamagedFile, errors.Untrusted))


def test_torch_structure_is_read_by_one_reader_only():
    """Nothing beside the pickle that was checked reaches torch: here, a member that inflates to 512 MB."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02].")
        archive.writestr("archive/version", b"3\n")
        bomb = zipfile.ZipInfo("archive/byteorder")
        bomb.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(bomb, "w") as member:
            for _ in range(512):
                member.write(bytes(1 << 20))
    with pytest.raises(errors.DamagedFile, match="holds no module"):
        pull(data.getvalue())


def test_torch_pickle_that_is_compressed_is_refused():
    with pytest.raises(errors.DamagedFile, match="compressed"):
        pull(structure(Ops(b"]"), zipfile.ZIP_DEFLATED))


def test_torch_modules_come_back_as_before():
    rnn = torch.nn.LSTM(3, 4, num_layers=3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5), torch.nn.LayerNorm(3))
    net.notes = {"set": {1, 2}, "bytes": b"\x00\xff", "array": bytearray(b"abc"), "slice": slice(1, 2), "z": 1j}
    for module in (rnn, net):
        module.eval()
        back = formats.unpack(push(module))
        assert [name for name, _ in back.named_parameters()] == [name for name, _ in module.named_parameters()]
        assert all(map(torch.equal, back.parameters(), module.parameters()))
    assert back.notes == net.notes


def test_call_that_the_caller_trusts_is_made():
    class_ = f"{Twice.__module__}.{Twice.__qualname__}"
    ops = Ops(b"}(X\x06\x00\x00\x00module" + called(class_, 3).data + b"X\x07\x00\x00\x00tensors}u")
    back = pull(structure(ops), trust=[Twice])
    assert (type(back).__name__, back.number) == ("Twice", 6)


class Twice(torch.nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number = 2 * number


# -- files that are longer than their version


def repeating(path, times, format_="numpy"):
    """Return a version of one file that is one chunk, many times: terabytes in a few kilobytes."""
    data = bytes(4 << 20)
    from lmvp.core import digest

    one = digest.of_bytes(data)
    chunks = tuple(Chunk(one, len(data)) for _ in range(times))
    file = File(path, len(data) * times, digest.of_chunks([one] * times), chunks)
    return Manifest(format_, (file,))


@pytest.mark.parametrize(
    ("format_", "path"),
    [("torch.module", "structure.pt"), ("sklearn", "estimator.json"), ("keras", "model.json"), ("onnx", "model.onnx")],
)
def test_structure_that_is_one_chunk_many_times_is_refused(format_, path):
    class Reader:
        manifest = repeating(path, 200_000, format_)

        def read(self, _):
            raise AssertionError("800 GB were asked for")

    reader = Reader()
    if format_ == "onnx":
        from lmvp.formats.onnx import STRUCTURE

        reader.manifest = repeating(STRUCTURE, 200_000, format_)
    with pytest.raises(errors.DamagedFile, match=r"838,860,800,000 bytes"):
        formats.unpack(reader)


def test_long_file_without_repetitions_is_read():
    base.check_small(repeating("a", 16), "a")  # 64 MiB of zeros: no more than a structure may have
    with pytest.raises(errors.DamagedFile, match="not repetitions"):
        base.check_small(repeating("a", 17), "a")


def test_json_of_a_structure_has_each_key_once():
    class Reader:
        manifest = repeating("a", 1)

        def read(self, _):
            return b'{"a": 1, "a": 2}'

    with pytest.raises(ValueError, match="twice"):
        base.parse_json(Reader(), "a")


# -- scikit-learn


def estimator(change):
    linear = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skops")
    fitted = linear.LinearRegression().fit(np.arange(12.0).reshape(6, 2), np.arange(6.0))
    reader = push(fitted)
    schema = json.loads(reader.files["estimator.json"])
    nodes = [node for node in _nodes(schema) if "tensor" in node]
    change(schema, nodes)
    data = json.dumps(schema).encode()
    return push(fitted, tampered={"estimator.json": data})


def _nodes(value):
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)


def wide(_, nodes):
    name = nodes[0]["tensor"]
    nodes[0].update(tensor={"a": name, "b": name}, fields=[["a", "<f8"], ["b", "<U100000000"]])


def padded(_, nodes):
    nodes[0].update(tensor={"a": nodes[0]["tensor"]}, fields=[["a", "<f8"], ["", "|V100000000"]])


@pytest.mark.parametrize("change", [wide, padded])
def test_estimator_with_wide_rows_is_refused(change):
    with pytest.raises(errors.DamagedFile, match="structured array"):
        formats.unpack(estimator(change))


def test_estimator_that_writes_one_tensor_many_times_is_refused(monkeypatch):
    from lmvp.formats import skops_schema

    monkeypatch.setattr(skops_schema, "_SLACK", 1 << 16)

    def many(schema, nodes):
        schema["more"] = [{**nodes[0], "text": None, "order": f"F{n}"} for n in range(2000)]
        for node in schema["more"]:
            del node["text"]

    with pytest.raises(errors.DamagedFile, match="many times"):
        formats.unpack(estimator(many))


# -- Keras

_KERAS = """
import json, resource, sys
sys.path[:0] = {path!r}
import keras
from support.memory_reader import MemoryReader, push
from lmvp import errors, formats
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
reader = push(model)
assert [w.shape for w in formats.unpack(reader).weights] == [(4, 3), (3,)]
config = reader.files["model.json"].decode()
hostile = config.replace('"units":3', '"units":300000000')
assert hostile != config
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    formats.unpack(push(model, tampered={{"model.json": hostile.encode()}}))
except errors.DamagedFile as error:
    assert "far more than the version has numbers" in str(error), error
else:
    raise SystemExit("not refused")
taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
assert taken < 300, taken
"""


def test_keras_layer_of_a_billion_numbers_is_refused():
    pytest.importorskip("keras")
    path = [str(Path(__file__).parent.parent), str(Path(formats.__file__).parent.parent.parent)]
    subprocess.run([sys.executable, "-c", _KERAS.format(path=path)], check=True, timeout=180)


# -- containers, which are only looked at


def npy(header):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def gguf(tensors=1 << 60, pairs=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest


FILES = {
    "npy": ("a.npy", npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9999999999), }\n")),
    "npy header": ("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 32) - 1) + b"{"),
    "gguf": ("a.gguf", gguf()),
    "gguf text": ("a.gguf", gguf(1, 0, struct.pack("<Q", 1 << 62))),
    "gguf array": ("a.gguf", gguf(0, 1, struct.pack("<QcIIQ", 1, b"a", 9, 8, 1 << 60))),
    "hdf5": ("a.h5", b"\x89HDF\r\n\x1a\n" + b"\x00" * 5 + b"\x08\x08" + b"\xff" * 100),
    "onnx": ("a.onnx", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "zip": ("a.npz", b"PK\x03\x04" + b"\xff" * 60 + b"PK\x05\x06" + b"\xff" * 18),
}


@pytest.mark.parametrize(("path", "data"), FILES.values(), ids=FILES)
def test_container_that_claims_too_much_is_just_bytes(path, data):
    read = []

    def reader(at, count):
        read.append(count)
        assert count <= len(data)
        return data[at : at + count]

    assert containers.layout(path, reader, len(data)).tensors == ()
    assert sum(read) <= 8 * len(data) + 4096


@pytest.mark.parametrize(
    "header",
    [
        b'{"w":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,NaN]}}',
        b'{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}',
        b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
        b'{"w":' + b"[" * 100_000,
    ],
)
def test_safetensors_header_that_lies_is_refused(header):
    from lmvp.core import safetensors

    data = struct.pack("<Q", len(header)) + header + bytes(4)
    with pytest.raises(errors.DamagedFile):
        safetensors.parse(lambda at, count: data[at : at + count], len(data))


def test_safetensors_header_longer_than_its_file_is_refused():
    from lmvp.core import safetensors

    data = struct.pack("<Q", 1 << 62) + b"{}"
    with pytest.raises(errors.DamagedFile, match="claims"):
        safetensors.parse(lambda at, count: data[at : at + count], len(data))
