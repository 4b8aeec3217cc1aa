import io

import numpy as np
import pytest
from support.memory_reader import content, push, round_trip
from test_containers import external, onnx_model

from lmvp import formats
from lmvp.errors import DamagedFile, InvalidArgument, Mismatch, MissingDependency

onnx = pytest.importorskip("onnx")
helper, kinds = onnx.helper, onnx.TensorProto


def outcome(model, **inputs):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def with_initialisers(*tensors):
    """A graph of nothing but initialisers."""
    ends = [helper.make_tensor_value_info("x", kinds.FLOAT, [1])]
    node = helper.make_node("Identity", ["x"], ["y"])
    outs = [helper.make_tensor_value_info("y", kinds.FLOAT, [1])]
    return helper.make_model(helper.make_graph([node], "g", ends, outs, list(tensors)))


def test_a_model_comes_back_equal_and_computes_the_same():
    model = onnx_model(onnx)
    back = round_trip(model)
    assert type(back) is onnx.ModelProto
    assert back == model
    assert back.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    onnx.checker.check_model(back)
    assert content(back) == content(model)
    given = np.linspace(0, 1, 6, dtype="f4").reshape(2, 3)
    assert np.array_equal(outcome(back, x=given), outcome(model, x=given))


def test_initialisers_are_tensors_and_the_graph_has_none_of_their_numbers():
    reader = push(onnx_model(onnx))
    assert (reader.manifest.format, list(reader.files)) == ("onnx", ["weights.safetensors", "structure.onnx"])
    assert [(t.name, t.dtype, t.shape) for t in reader.manifest.tensors] == [
        ("w", "F32", (3, 4)),
        ("typed", "F32", (4,)),
        ("few", "I64", (2,)),
        ("b", "F32", (4,)),
    ]
    assert reader.manifest.meta == {"fields": {"typed": "float_data", "few": "int64_data"}}
    assert np.ones(4, "f4").tobytes() not in reader.files["structure.onnx"]


# the exporter that needs no further package, which is what people have; torch tells that its days are numbered
@pytest.mark.filterwarnings("ignore:.*legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
def test_a_model_that_torch_exported():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 2)
    )
    net.eval()
    given, buffer = torch.rand(1, 3, 4, 4), io.BytesIO()
    torch.onnx.export(net, (given,), buffer, input_names=["x"], dynamo=False)
    model = onnx.load_from_string(buffer.getvalue())
    back = round_trip(model)
    assert back == model
    assert {tensor.name for tensor in push(model).manifest.tensors} >= {"3.weight", "3.bias"}
    (found,) = outcome(back, x=given.numpy())
    assert np.allclose(found, net(given).detach().numpy(), atol=1e-5)


def test_every_data_type_comes_back():
    names = [name for name in kinds.DataType.keys() if name not in {"UNDEFINED", "STRING"}]  # noqa: SIM118 - no dict
    tensors = []
    for name in names:
        kind = kinds.DataType.Value(name)
        try:
            tensors.append(helper.make_tensor(f"{name} raw", kind, [4], bytes(range(1, 65))[: _size(kind)], raw=True))
            tensors.append(helper.make_tensor(f"{name} typed", kind, [4], [0, 1, 1, 0]))
        except (TypeError, ValueError, KeyError):  # not all can be written both ways
            continue
    tensors.append(helper.make_tensor("texts", kinds.STRING, [2], [b"a", b"b"]))
    tensors.append(helper.make_tensor("nothing", kinds.FLOAT, [0], []))
    model = with_initialisers(*tensors)
    reader = push(model)
    assert formats.unpack(reader) == model
    assert {"FLOAT raw", "FLOAT16 raw", "BFLOAT16 raw", "INT64 typed", "DOUBLE typed", "BOOL raw"} <= {
        tensor.name for tensor in reader.manifest.tensors
    }


def _size(kind):
    return max(1, int(4 * helper.tensor_dtype_to_np_dtype(kind).itemsize))


def test_initialisers_that_are_not_what_they_say_stay_in_the_graph():
    good = onnx.numpy_helper.from_array(np.ones(3, "f4"), "good")
    short = onnx.numpy_helper.from_array(np.ones(3, "f4"), "short")
    short.dims[0] = 5
    nameless = onnx.numpy_helper.from_array(np.ones(3, "f4"), "")
    again = onnx.numpy_helper.from_array(np.zeros(3, "f4"), "good")
    reserved = onnx.numpy_helper.from_array(np.zeros(3, "f4"), "__metadata__")
    model = with_initialisers(good, short, nameless, again, reserved)
    reader = push(model)
    assert [tensor.name for tensor in reader.manifest.tensors] == ["good"]
    assert formats.unpack(reader) == model


def test_a_model_without_initialisers():
    model = with_initialisers()
    assert list(push(model).files) == ["structure.onnx"]
    assert round_trip(model) == model


def test_a_model_without_a_graph():
    assert round_trip(onnx.ModelProto()) == onnx.ModelProto()
    assert round_trip(onnx.ModelProto(graph=onnx.GraphProto())).HasField("graph")


def test_what_a_newer_onnx_wrote_comes_back():
    """Fields that this one does not know, in the model, in its graph and in an initialiser."""
    field = b"\xc2\x3e\x03new"  # number 1000
    model = onnx_model(onnx)
    for message in (model.graph.initializer[0], model.graph, model):
        message.MergeFromString(field)
    assert model.SerializeToString().count(field) == 3
    back = round_trip(model)
    assert back.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert np.arange(12, dtype="f4").tobytes() not in push(model).files["structure.onnx"]


def test_all_that_a_model_says_comes_back():
    model = onnx_model(onnx)
    helper.set_model_props(model, {"author": "ada"})
    model.producer_name, model.doc_string, model.model_version = "lmvp", "a model", 7
    model.graph.doc_string = "a graph"
    model.graph.initializer[0].doc_string = "weights"
    model.graph.node[0].doc_string = "a node"
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "inner", [], [])
    inner.initializer.append(onnx.numpy_helper.from_array(np.ones(3, "f4"), "deep"))
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    assert round_trip(model) == model


def test_a_model_fills_arrays_and_is_not_filled():
    into = {name: np.zeros(shape, dtype) for name, shape, dtype in NAMED}
    round_trip(onnx_model(onnx), into=into)
    assert into["w"].tolist() == np.arange(12).reshape(3, 4).tolist()
    with pytest.raises(Mismatch):
        round_trip(onnx_model(onnx), into={"w": np.zeros((3, 4), "f4")})
    with pytest.raises(InvalidArgument, match="not ONNX models") as error:
        round_trip(onnx_model(onnx), into=onnx_model(onnx))
    assert "leave `into=` out" in str(error.value)


NAMED = [("w", (3, 4), "f4"), ("typed", (4,), "f4"), ("few", (2,), "i8"), ("b", (4,), "f4")]


# Other files


def test_a_model_whose_files_were_not_loaded_is_refused(tmp_path):
    external(onnx, tmp_path / "m", location="weights/all.bin")
    model = onnx.load(tmp_path / "m" / "m.onnx", load_external_data=False)
    with pytest.raises(
        InvalidArgument, match="the initialiser 'w' lies in another file, which was not loaded"
    ) as error:
        push(model)
    assert "onnx.load(path)" in error.value.hint
    onnx.load_external_data_for_model(model, str(tmp_path / "m"))
    assert push(model).manifest.tensors[0].name == "w"


def pointing_outside():
    """A tensor that says it lies in a file."""
    tensor = onnx.numpy_helper.from_array(np.ones(3, "f4"), "stolen")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    tensor.data_location = kinds.EXTERNAL
    return tensor


def as_initialiser(model):
    model.graph.initializer.append(pointing_outside())


def as_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=pointing_outside()))


def as_sparse(model):
    model.graph.sparse_initializer.add().values.CopyFrom(pointing_outside())


def as_inner(model):
    inner = helper.make_graph([], "inner", [], [], [pointing_outside()])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize("hide", [as_initialiser, as_constant, as_sparse, as_inner])
def test_a_version_that_would_read_other_files_is_refused(hide):
    model = onnx_model(onnx)
    hide(model)
    with pytest.raises(InvalidArgument, match="'stolen' lies in another file"):
        push(model)
    reader = push(onnx_model(onnx))
    graph = onnx.ModelProto.FromString(reader.files["structure.onnx"])
    hide(graph)
    with pytest.raises(DamagedFile, match="'stolen' of this version would be read from another file"):
        formats.unpack(push(onnx_model(onnx), tampered={"structure.onnx": graph.SerializeToString()}))


# Damaged


def altered(change):
    graph = onnx.ModelProto.FromString(push(onnx_model(onnx)).files["structure.onnx"])
    change(graph)
    return push(onnx_model(onnx), tampered={"structure.onnx": graph.SerializeToString()})


def test_a_graph_that_does_not_fit_its_numbers_is_told():
    with pytest.raises(DamagedFile, match=r"'w' is F32 \(3, 4\) in the version, another in its graph"):
        formats.unpack(altered(lambda model: model.graph.initializer[0].dims.append(1)))
    with pytest.raises(DamagedFile, match="a tensor 'w' that its graph lacks"):
        formats.unpack(altered(lambda model: model.graph.initializer.pop(0)))
    with pytest.raises(DamagedFile, match=r"structure\.onnx is damaged"):
        formats.unpack(push(onnx_model(onnx), tampered={"structure.onnx": b"\xff" * 10}))


def test_numbers_in_a_field_that_does_not_fit_are_told():
    reader = push(onnx_model(onnx))
    for fields in ({"typed": "double_data"}, {"typed": "name"}, {"w": "metadata_props"}):
        reader.manifest.meta["fields"] = fields
        with pytest.raises(DamagedFile, match="cannot have its numbers in"):
            formats.unpack(reader)
    for fields in (None, [], {"typed": 5}):
        reader.manifest.meta["fields"] = fields
        with pytest.raises(DamagedFile):
            formats.unpack(reader)


def test_without_onnx_it_is_told_what_to_install(monkeypatch):
    reader = push(onnx_model(onnx))
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingDependency, match="this version is an ONNX model") as error:
        formats.unpack(reader)
    assert "pip install onnx" in error.value.hint
