"""Two versions in every format, through a real server: what did not change is not sent, and a diff tells what did."""

import numpy as np
import pytest

import lmvp
from lmvp import errors, formats
from lmvp.core.chunk_alignment import Slots
from lmvp.transfer.manifest_builder import describe

WIDTH = 520  # a layer is a little more than 1 MiB, so that it has chunks of its own
LAYERS = 4
LAYER_BYTES = 4 * WIDTH * WIDTH

# Keras' variables have an `__array__` from before numpy 2, which numpy tells whenever one is made an array
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def arrays(changed=None):
    """Weights and biases of some layers; one layer is changed."""
    rng = np.random.default_rng(0)
    found = {}
    for index in range(LAYERS):
        shift = 1e-3 if index == changed else 0.0
        found[f"layer{index}.weight"] = rng.random((WIDTH, WIDTH), dtype="f4") + np.float32(shift)
        found[f"layer{index}.bias"] = rng.random(WIDTH, dtype="f4") + np.float32(shift)
    return found


def npz(folder, changed):
    np.savez(folder / "m.npz", **arrays(changed))


def torch_file(folder, changed):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in arrays(changed).items()}, folder / "m.pt")


def hdf5(folder, changed):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "m.h5", "w") as file:
        for name, array in arrays(changed).items():
            file[name] = array


def gguf_file(folder, changed):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    for name, array in arrays(changed).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def onnx_model(changed):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in arrays(changed).items()]
    nodes = [
        helper.make_node("Gemm", [f"x{i}", f"layer{i}.weight", f"layer{i}.bias"], [f"x{i + 1}"]) for i in range(LAYERS)
    ]
    ends = [helper.make_tensor_value_info(name, kind, [None, WIDTH]) for name in ("x0", f"x{LAYERS}")]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))


def onnx_file(folder, changed):
    onnx = pytest.importorskip("onnx")
    onnx.save(onnx_model(changed), folder / "m.onnx")


def onnx_in_two_files(folder, changed):
    onnx = pytest.importorskip("onnx")
    onnx.save(onnx_model(changed), folder / "m.onnx", save_as_external_data=True, location="m.bin")


def keras_model(changed):
    pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    stack = [keras.layers.Dense(WIDTH, name=f"layer{index}") for index in range(LAYERS)]
    model = keras.Sequential([keras.Input((WIDTH,)), *stack])
    for variable, array in zip(model.weights, arrays(changed).values(), strict=True):
        variable.assign(array)
    return model


def keras_file(folder, changed):
    keras_model(changed).save(folder / "m.keras")


FILES = (npz, torch_file, hdf5, gguf_file, onnx_file, onnx_in_two_files, keras_file)


def publish(write, tmp_path):
    """Push two versions of files, the second with another third layer."""
    for number, changed in ((1, None), (2, 2)):
        folder = tmp_path / f"v{number}"
        folder.mkdir()
        write(folder, changed)
        found = list(folder.iterdir())
        version = lmvp.update("digits/mlp", found[0] if len(found) == 1 else folder, progress=False)
    return version


def changed_tensors():
    return [
        tensor.name for tensor in lmvp.diff("digits/mlp@v1", "digits/mlp@v2").tensors if tensor.change != "identical"
    ]


@pytest.mark.parametrize("write", FILES)
def test_files_share_all_but_the_changed_layer(home, tmp_path, write):
    second = publish(write, tmp_path)
    assert second.size > LAYERS * LAYER_BYTES
    assert LAYER_BYTES < second.sent < LAYER_BYTES + 100_000
    names = changed_tensors()
    assert len(names) == 2
    assert all("layer2" in name or "dense_2" in name for name in names)
    for number in (1, 2):
        lmvp.download(f"digits/mlp@v{number}", to=tmp_path / f"out{number}", progress=False)
        for path in (tmp_path / f"v{number}").iterdir():
            assert (tmp_path / f"out{number}" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("make", [keras_model, onnx_model])
def test_objects_share_all_but_the_changed_layer(home, make):
    first = lmvp.update("digits/mlp", make(None), progress=False)
    second = lmvp.update("digits/mlp", make(2), progress=False)
    assert first.sent > LAYERS * LAYER_BYTES
    assert LAYER_BYTES < second.sent < LAYER_BYTES + 100_000
    assert all(name.startswith("layer2") for name in changed_tensors())
    assert len(changed_tensors()) == 2
    strips = lmvp.show_history("digits/mlp").layers
    assert [layer.path for layer in strips.axis] == [f"layer{index}" for index in range(LAYERS)]
    assert strips.strips["2"].count("0") == LAYERS - 1


def test_a_torch_file_and_its_state_dict_share_their_tensors(home, tmp_path):
    torch = pytest.importorskip("torch")
    torch_file(tmp_path, None)
    lmvp.update("digits/mlp", tmp_path / "m.pt", progress=False)
    state = {name: torch.from_numpy(array) for name, array in arrays().items()}
    version = lmvp.update("digits/mlp", state, progress=False)
    assert version.sent < 100_000
    assert {tensor.change for tensor in lmvp.diff("digits/mlp@v1", "digits/mlp@v2").tensors} == {"identical"}


@pytest.mark.parametrize("write", [npz, torch_file, gguf_file, onnx_file, keras_file])
def test_changed_chunks_find_their_counterparts(tmp_path, write):
    slots = []
    for number, changed in ((1, None), (2, 2)):
        folder = tmp_path / f"v{number}"
        folder.mkdir()
        write(folder, changed)
        slots.append(Slots(describe(formats.pack(next(folder.iterdir()))).manifest))
    old, new = slots
    other = new.chunks.keys() - old.chunks.keys()
    found = [chunk for chunk in other if new.dtype(chunk) == "F32" and new.counterpart(chunk, old)]
    assert sum(new.chunks[chunk] for chunk in found) == LAYER_BYTES + 4 * WIDTH


def test_a_keras_model_comes_back_from_a_server(home):
    model = keras_model(None)
    lmvp.update("digits/mlp", model, progress=False)
    back = lmvp.download("digits/mlp", progress=False)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.weights, back.weights, strict=True))
    back.layers[0].bias.assign(np.zeros(WIDTH, "f4"))
    branch = lmvp.update("digits/mlp", back, progress=False)
    assert [parent.number for parent in branch.parents] == [1]
    assert lmvp.download("digits/mlp@v1", into=back, progress=False) is back
    assert np.array_equal(back.layers[0].bias.numpy(), model.layers[0].bias.numpy())


def test_an_onnx_model_comes_back_from_a_server(home):
    model = onnx_model(None)
    lmvp.update("digits/mlp", model, progress=False)
    assert lmvp.download("digits/mlp", progress=False) == model


def test_a_keras_file_with_a_lambda_is_a_file_like_any_other(home, tmp_path):
    pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    lmvp.update("digits/mlp", tmp_path / "m.keras")
    lmvp.download("digits/mlp", to=tmp_path / "out")
    assert (tmp_path / "out" / "m.keras").read_bytes() == (tmp_path / "m.keras").read_bytes()
    with pytest.raises(errors.InvalidArgument, match="not an object"):
        lmvp.download("digits/mlp")
