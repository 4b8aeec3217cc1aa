"""Files with tensors inside: written by the frameworks, and held against what those read from the same places."""

import json
import struct
import zipfile

import numpy as np
import pytest
from support.memory_reader import push

from lmvp import formats
from lmvp.core import containers
from lmvp.core.chunking import cut
from lmvp.core.manifest_validation import check_manifest
from lmvp.errors import InvalidArgument
from lmvp.transfer.manifest_builder import describe


def layout(path):
    data = path.read_bytes()
    found = containers.layout(path.name, lambda at, count: data[at : at + count], len(data))
    assert_sound(data, found)
    return data, found


def assert_sound(data, found):
    """The cuts cover the file, and tensors lie where the manifest may say so."""
    cuts = cut(len(data), found.tensors, found.breaks)
    assert b"".join(data[one.offset : one.offset + one.size] for one in cuts) == data
    assert all(one.size for one in cuts)
    assert len({span.name for span in found.tensors}) == len(found.tensors)


def values(path):
    """Read all tensors that were found, as numpy sees their bytes."""
    data, found = layout(path)
    kinds = {"F": "f", "I": "i", "U": "u", "B": "u"}
    return {
        span.name: np.frombuffer(data, f"<{kinds[span.dtype[0]]}{_width(span.dtype)}", offset=span.offset,
                                 count=int(np.prod(span.shape))).reshape(span.shape)
        for span in found.tensors
    }  # fmt: skip


def _width(dtype):
    return {"BOOL": 1, "BF16": 2}.get(dtype) or int(dtype[1:]) // 8


def assert_a_true_manifest(path):
    """What would be sent says of every byte where it lies and what its digest is, and all bytes are there."""
    described = describe(formats.pack(path))
    check_manifest(described.manifest)
    files = {
        file.path: b"".join(bytes(part) for chunk in file.chunks for part in described.places[chunk.id].read())
        for file in described.manifest.files
    }
    root = path if path.is_dir() else path.parent
    assert files == {name: (root / name).read_bytes() for name in files}
    return described.manifest


# numpy


def test_arrays_in_an_npz_are_tensors(tmp_path):
    arrays = {
        "w": np.arange(6.0).reshape(2, 3),
        "deep.b": np.ones(3, "i4"),
        "flag": np.array([True, False]),
        "scalar": np.array(2.5, "f2"),
        "empty": np.zeros((0, 3), "f4"),
    }
    np.savez(tmp_path / "m.npz", **arrays)
    found = values(tmp_path / "m.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array), name
    assert len(assert_a_true_manifest(tmp_path / "m.npz").tensors) == 5


def test_complex_numbers_and_dates_are_kept_as_the_numpy_format_keeps_them(tmp_path):
    np.savez(tmp_path / "m.npz", c=np.array([1 + 2j]), d=np.array(["1970-01-03"], "M8[D]"))
    assert {name: array.tolist() for name, array in values(tmp_path / "m.npz").items()} == {"c": [[1, 2]], "d": [2]}


def test_arrays_that_are_no_rows_of_numbers_are_just_bytes(tmp_path):
    odd = {"text": np.array(["x"]), "big": np.ones(3, ">f4"), "fortran": np.asfortranarray(np.ones((3, 4)))}
    structured = np.zeros(2, [("a", "f4"), ("b", "i4")])
    np.savez(tmp_path / "m.npz", **odd, structured=structured, objects=np.array([{}], object), w=np.ones(2))
    assert list(values(tmp_path / "m.npz")) == ["w"]


def test_a_lone_array_is_a_tensor(tmp_path):
    np.save(tmp_path / "m.npy", np.arange(5, dtype="u2"))
    assert values(tmp_path / "m.npy")["tensor"].tolist() == [0, 1, 2, 3, 4]


def test_an_npz_fills_arrays(tmp_path):
    np.savez(tmp_path / "m.npz", w=np.arange(6, dtype="f4"), b=np.ones(2))
    into = {"w": np.zeros(6, "f4"), "b": np.zeros(2)}
    formats.unpack(push(tmp_path / "m.npz"), into=into)
    assert into["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert into["b"].all()


def test_compressed_members_are_cut_off_and_never_inflated(tmp_path):
    noise = np.random.default_rng(0).random(40_000)
    np.savez_compressed(tmp_path / "m.npz", a=noise, b=np.zeros(10), c=noise[::-1])
    _, found = layout(tmp_path / "m.npz")
    assert found.tensors == ()
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        a, b, c = archive.infolist()
    assert {a.header_offset + 30 + len("a.npy") + 20, b.header_offset, c.header_offset} <= {*found.breaks}


def test_a_bomb_is_a_small_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as to:
        for _ in range(64):
            to.write(bytes(1 << 20))
    assert layout(tmp_path / "bomb.npz")[1].tensors == ()
    assert assert_a_true_manifest(tmp_path / "bomb.npz").size < 100_000


# torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def network(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(3, 2))


def assert_equal_tensors(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert np.array_equal(found[name], tensor.detach().numpy()), name


def test_a_state_dict_has_its_own_names(tmp_path, torch):
    state = network(torch).state_dict()
    torch.save(state, tmp_path / "net.pt")
    assert_equal_tensors(values(tmp_path / "net.pt"), state)
    assert len(assert_a_true_manifest(tmp_path / "net.pt").tensors) == 9


def test_a_checkpoint_has_the_keys_on_the_way(tmp_path, torch):
    net = network(torch)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    checkpoint = {"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict(), "best": [net[2].bias]}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    found = values(tmp_path / "last.ckpt")
    assert np.array_equal(found["model.0.weight"], net[0].weight.detach().numpy())
    assert np.array_equal(found["optimizer.state.0.exp_avg"], optimizer.state[net[0].weight]["exp_avg"].numpy())
    assert "best.0" not in found  # the same memory as model.2.bias


def test_a_pickled_module_is_named_as_its_state_dict_and_not_unpickled(tmp_path, torch):
    net = network(torch)
    net.register_buffer("scale", torch.tensor(2.0))
    torch.save(net, tmp_path / "net.pth")
    found = values(tmp_path / "net.pth")
    assert {name: found[name].shape for name in net.state_dict()} == {n: t.shape for n, t in net.state_dict().items()}


def test_a_script_has_names_too(tmp_path, torch):
    net = network(torch)
    archive = tmp_path / "script.pt"
    with pytest.warns(
        DeprecationWarning, match="torch.jit"
    ):  # torch has better things by now, people still have such files
        torch.jit.script(net).save(str(archive))
    assert_equal_tensors(values(archive), net.state_dict())


def test_every_dtype_of_torch_lies_where_it_should(tmp_path, torch):
    names = ("float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "uint16", "uint32", "uint64", "complex64", "bool")
    tensors = {name: torch.arange(8).to(getattr(torch, name)) for name in names}
    torch.save(tensors, tmp_path / "zoo.pt")
    data, found = layout(tmp_path / "zoo.pt")
    assert [span.name for span in found.tensors] == list(names)
    for span in found.tensors:
        bits = tensors[span.name].view(torch.uint8).numpy().tobytes()
        assert data[span.offset : span.offset + span.size] == bits, span.name


def test_tensors_that_do_not_lie_in_a_row_go_by_the_name_of_their_record(tmp_path, torch):
    torch.save(
        {"none": torch.zeros(0, 3), "t": torch.arange(12.0).reshape(3, 4).T, "part": torch.arange(10)[2:5]},
        tmp_path / "odd.pt",
    )
    found = values(tmp_path / "odd.pt")
    assert {name: array.tolist() for name, array in found.items()} == {
        "none": [],
        "part": [2, 3, 4],
        "data/1": list(range(12)),
    }


def test_a_pickle_that_would_run_code_runs_none(tmp_path, torch):
    class Bad:
        def __reduce__(self):
            return (__import__("pathlib").Path.touch, (tmp_path / "ran",))

    torch.save({"w": torch.ones(3), "bad": Bad()}, tmp_path / "bad.pt")
    assert list(values(tmp_path / "bad.pt")) == ["w"]
    assert not (tmp_path / "ran").exists()


def rewritten(source, target, change):
    """Write an archive anew, uncompressed, with the data of some members changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


@pytest.mark.parametrize(
    "pickle",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}q\x00.",
        b"(" * 5000,
        b"\x80\x02]" + b"2\x86" * 3000 + b".",
        b"\x80\x02\x8e" + b"\xff" * 8,
        b"\x80\x02(N.",
        b"\x80\x02}Na.",
    ],
)
def test_records_have_names_without_a_pickle(tmp_path, torch, pickle):
    torch.save({"w": torch.ones(3)}, tmp_path / "net.pt")
    path = rewritten(tmp_path / "net.pt", tmp_path / "bad.pt", lambda n, d: pickle if n.endswith(".pkl") else d)
    data, found = layout(path)
    (span,) = found.tensors
    assert (span.name, span.dtype, span.shape) == ("data/0", "U8", (12,))
    assert data[span.offset : span.offset + span.size] == np.ones(3, "f4").tobytes()


def test_a_pickle_of_a_tree_without_an_end_is_given_up(tmp_path, torch):
    bomb = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b"."
    torch.save({"w": torch.ones(3)}, tmp_path / "net.pt")
    path = rewritten(tmp_path / "net.pt", tmp_path / "bad.pt", lambda n, d: bomb if n.endswith(".pkl") else d)
    assert [span.name for span in layout(path)[1].tensors] == ["data/0"]


def test_another_byte_order_has_no_tensors(tmp_path, torch):
    torch.save({"w": torch.ones(3)}, tmp_path / "net.pt")
    path = rewritten(tmp_path / "net.pt", tmp_path / "big.pt", lambda n, d: b"big" if n.endswith("byteorder") else d)
    assert layout(path)[1].tensors == ()


def test_a_torch_file_fills_a_module(tmp_path, torch):
    net = network(torch)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = network(torch)
    with torch.no_grad():
        other[0].weight.zero_()
    formats.unpack(push(tmp_path / "net.pt"), into=other)
    assert torch.equal(other[0].weight, net[0].weight)


# HDF5


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("version", ["earliest", "v110", "latest"])
def test_datasets_are_tensors(tmp_path, version, order):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w", libver=version, track_order=order) as file:
        for i in range(5):
            file[f"layers/dense_{i}/vars/0"] = np.full((i + 1, 3), i, "f4")
        file["scalar"] = np.float16(1.5)
        file["flags"] = np.array([True, False])
        file["odd/big"] = np.ones(3, ">f4")
        file["odd/text"] = "a text"
        file["odd/pairs"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        file.create_dataset("odd/packed", data=np.ones(5000), compression="gzip")
        file["twice"] = file["layers"]
        file["soft"] = h5py.SoftLink("/scalar")
        expected = {f"layers/dense_{i}/vars/0": np.full((i + 1, 3), i, "f4") for i in range(5)}
    if (version, order) == ("earliest", False):  # groups of the newest kind with many members are not walked
        with h5py.File(tmp_path / "m.h5", "a") as file:
            for i in range(300):
                file[f"many/{i}"] = np.full(4, i, "i8")
                expected[f"many/{i}"] = np.full(4, i, "i8")
    found = values(tmp_path / "m.h5")
    assert found.pop("scalar") == 1.5
    assert found.pop("flags").tolist() == [1, 0]
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


# GGUF


def write_gguf(path, **tensors):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("a.text", "ä" * 50)
    writer.add_array("tokens", ["a", "bb"] * 500)
    writer.add_array("scores", [0.5] * 500)
    writer.add_bool("flag", True)
    for name, (array, kind) in tensors.items():
        data = array if kind is None else gguf.quantize(array, gguf.GGMLQuantizationType[kind])
        writer.add_tensor(name, data, raw_dtype=None if kind is None else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_tensors_of_a_gguf_lie_where_its_own_reader_sees_them(tmp_path):
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    path = write_gguf(
        tmp_path / "m.gguf",
        embed=(rng.random((4, 96), dtype="f4"), None),
        half=(rng.random((3, 5)).astype("f2"), None),
        count=(np.arange(7, dtype="i4"), None),
        bf16=(rng.random((4, 32), dtype="f4"), "BF16"),
        q8=(rng.random((4, 96), dtype="f4"), "Q8_0"),
        q4=(rng.random((4, 64), dtype="f4"), "Q4_0"),
    )
    _, found = layout(path)
    reader = gguf.GGUFReader(path)
    assert [(s.name, s.offset, s.size) for s in found.tensors] == [
        (t.name, t.data_offset, t.n_bytes) for t in reader.tensors
    ]
    assert {s.name: (s.dtype, s.shape) for s in found.tensors} == {
        "embed": ("F32", (4, 96)),
        "half": ("F16", (3, 5)),
        "count": ("I32", (7,)),
        "bf16": ("BF16", (4, 32)),
        "q8": ("U8", (4, 102)),
        "q4": ("U8", (4, 36)),
    }
    assert_a_true_manifest(path)


def test_blocks_are_as_long_as_the_gguf_package_says():
    gguf = pytest.importorskip("gguf")
    from lmvp.core.containers import gguf as ours

    theirs = {kind.value: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in ours._BLOCKS if kind in theirs} == ours._BLOCKS


def gguf_header(count=0, pairs=b"", n_pairs=0):
    return struct.pack("<4sIQQ", b"GGUF", 3, count, n_pairs) + pairs


HUGE = 1 << 63


@pytest.mark.parametrize(
    "data",
    [
        gguf_header(HUGE),
        gguf_header(20_000),
        gguf_header(1, n_pairs=HUGE),
        gguf_header(1, struct.pack("<Q", HUGE), 1),
        gguf_header(1, struct.pack("<Q1sIIQ", 1, b"k", 9, 8, HUGE) + bytes(100), 1),
        gguf_header(1, struct.pack("<Q1sIIQ", 1, b"k", 9, 4, HUGE) + bytes(100), 1),
        gguf_header(1, struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 5) + bytes(100), 1),
        gguf_header(1, struct.pack("<Q17sII", 17, b"general.alignment", 4, 0), 1),
        gguf_header(1, struct.pack("<Q1sI", 1, b"w", 1 << 31) + bytes(100)),
        gguf_header(1, struct.pack("<Q1sIQQIQ", 1, b"w", 2, HUGE, HUGE, 0, 0) + bytes(100)),
        gguf_header(1, struct.pack("<Q1sIQIQ", 1, b"w", 1, 10, 0, HUGE) + bytes(100)),
        gguf_header(1, struct.pack("<Q1sIQIQ", 1, b"\xff", 1, 10, 0, 0) + bytes(100)),
    ],
)
def test_absurd_numbers_in_a_gguf_are_just_bytes(tmp_path, data):
    (tmp_path / "m.gguf").write_bytes(data)
    assert layout(tmp_path / "m.gguf")[1].tensors == ()
    assert_a_true_manifest(tmp_path / "m.gguf")


# ONNX


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


def onnx_model(onnx, scale=1.0):
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = [
        onnx.numpy_helper.from_array(np.arange(12, dtype="f4").reshape(3, 4) * scale, "w"),
        helper.make_tensor("typed", kinds.FLOAT, [4], [1.0, 2.0, 3.0, 4.0]),
        helper.make_tensor("few", kinds.INT64, [2], [1, 2]),
        onnx.numpy_helper.from_array(np.ones((4,), "f4"), "b"),
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    ends = [helper.make_tensor_value_info(n, kinds.FLOAT, [None, width]) for n, width in (("x", 3), ("y", 4))]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))


def test_initialisers_are_tensors(tmp_path, onnx):
    onnx.save(onnx_model(onnx), tmp_path / "m.onnx")
    found = values(tmp_path / "m.onnx")
    assert list(found) == ["w", "typed", "b"]
    assert found["w"].tolist() == np.arange(12).reshape(3, 4).tolist()
    assert found["typed"].tolist() == [1, 2, 3, 4]
    assert_a_true_manifest(tmp_path / "m.onnx")


def external(onnx, folder, location="weights/all.bin"):
    """Save a model whose initialisers lie in another file."""
    (folder / "weights").mkdir(parents=True)
    onnx.save(onnx_model(onnx), folder / "m.onnx", save_as_external_data=True, location="all.bin", size_threshold=0)
    (folder / "all.bin").rename(folder / "weights" / "all.bin")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for pair in tensor.external_data:
            if pair.key == "location":
                pair.value = location
    (folder / "m.onnx").write_bytes(model.SerializeToString())


def test_initialisers_in_another_file_are_tensors_of_that(tmp_path, onnx):
    external(onnx, tmp_path / "model")
    manifest = assert_a_true_manifest(tmp_path / "model")
    assert {(t.path, t.name) for t in manifest.tensors} >= {("weights/all.bin", "w"), ("weights/all.bin", "b")}
    (w,) = [tensor for tensor in manifest.tensors if tensor.name == "w"]
    data = (tmp_path / "model" / w.path).read_bytes()[w.offset :][: w.size]
    assert np.frombuffer(data, "f4").tolist() == list(range(12))


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "weights/../../secret", "C:\\secret", "..\\secret", ".."]
)
def test_initialisers_outside_of_the_folder_are_refused(tmp_path, onnx, location):
    (tmp_path / "secret").write_bytes(bytes(1000))
    external(onnx, tmp_path / "model", location)
    for path in (tmp_path / "model", tmp_path / "model" / "m.onnx"):
        with pytest.raises(InvalidArgument, match=r"'m\.onnx' keeps weights in .*, outside of its folder") as error:
            formats.pack(path)
        assert "save_as_external_data=True" in error.value.hint


def test_a_link_to_initialisers_outside_is_refused(tmp_path, onnx):
    external(onnx, tmp_path / "model")
    (tmp_path / "model" / "weights" / "all.bin").rename(tmp_path / "secret")
    (tmp_path / "model" / "weights" / "all.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArgument, match="leads out of the folder"):
        formats.pack(tmp_path / "model")


def test_a_model_is_not_pushed_without_its_weights(tmp_path, onnx):
    external(onnx, tmp_path / "model")
    with pytest.raises(InvalidArgument, match=r"keeps weights in 'weights/all\.bin', which would stay behind") as error:
        formats.pack(tmp_path / "model" / "m.onnx")
    assert "push the folder" in error.value.hint
    (tmp_path / "model" / "weights" / "all.bin").unlink()
    assert assert_a_true_manifest(tmp_path / "model" / "m.onnx").size


def test_places_beyond_the_other_file_are_no_tensors(tmp_path, onnx):
    external(onnx, tmp_path / "model")
    (tmp_path / "model" / "weights" / "all.bin").write_bytes(bytes(20))
    manifest = assert_a_true_manifest(tmp_path / "model")
    assert [tensor for tensor in manifest.tensors if tensor.path == "weights/all.bin" and tensor.name == "w"] == []


# All


def test_a_file_is_known_by_what_is_in_it(tmp_path, torch):
    torch.save(network(torch).state_dict(), tmp_path / "pytorch_model.bin")
    assert "0.weight" in values(tmp_path / "pytorch_model.bin")
    (tmp_path / "notes.npz").write_text("no archive")
    assert layout(tmp_path / "notes.npz")[1] == containers.Layout()


def test_a_zip_of_anything_is_cut_at_its_long_members(tmp_path):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("big.bin", rng.bytes(100_000))
        archive.writestr("small.json", json.dumps({}))
    _, found = layout(tmp_path / "a.zip")
    assert len(found.breaks) == 2
    assert found.breaks[-1] - found.breaks[0] == 100_000


def test_more_tensors_than_a_manifest_holds_are_just_bytes(tmp_path):
    path = tmp_path / "many.gguf"
    infos = b"".join(struct.pack("<Q5sIQIQ", 5, b"%05d" % i, 1, 8, 0, 32 * i) for i in range(20_001))
    path.write_bytes(gguf_header(20_001) + infos + bytes(32 * 20_002))
    assert layout(path)[1].tensors == ()
    infos = b"".join(struct.pack("<Q5sIQIQ", 5, b"%05d" % i, 1, 8, 0, 32 * i) for i in range(20_000))
    path.write_bytes(gguf_header(20_000) + infos + bytes(32 * 20_002))
    assert len(layout(path)[1].tensors) == 20_000
