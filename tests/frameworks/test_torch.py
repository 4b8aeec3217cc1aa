import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
from support.memory_reader import content, push, round_trip

from lmvp import formats
from lmvp.errors import DamagedFile, InvalidArgument, Mismatch, MissingDependency, UnknownFormat, Untrusted

torch = pytest.importorskip("torch")
nn = torch.nn


class Net(nn.Module):
    """A class of one's own: not trusted by itself."""

    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Linear(3, width)
        self.head = nn.Linear(3, width, bias=False)
        self.head.weight = self.body.weight
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("table", torch.arange(3.0), persistent=False)
        self.loose = torch.ones(2, dtype=torch.int8)
        self.names = {"b", "a", "c"}

    def forward(self, x):
        return self.body(x) * self.scale + self.head(x * self.table) + self.loose.sum()


def layers():
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            inn=nn.Linear(8, 16),
            norm=nn.BatchNorm1d(16),
            act=nn.GELU(),
            deep=nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.1)),
            mix=nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"),
        )
    )


def assert_equal_states(one, two):
    assert list(one.state_dict()) == list(two.state_dict())
    for name, tensor in one.state_dict().items():
        other = two.state_dict()[name]
        assert tensor.dtype == other.dtype, name
        assert torch.equal(tensor, other), name


ZOO = {
    "bf16": torch.arange(5).to(torch.bfloat16),
    "fp16": torch.arange(6).half().reshape(2, 3),
    "fp64": torch.tensor([0.1, float("nan"), -0.0], dtype=torch.float64),
    "int8": torch.arange(-3, 3, dtype=torch.int8),
    "uint16": torch.arange(3).to(torch.uint16),
    "int64": torch.tensor([1 << 60]),
    "bool": torch.tensor([True, False, True]),
    "float8": torch.arange(4.0).to(torch.float8_e4m3fn),
    "float8 e5m2": torch.arange(4.0).to(torch.float8_e5m2),
    "complex64": torch.tensor([1 + 2j]),
    "complex128": torch.tensor([[1 + 2j, 3 - 4j]], dtype=torch.complex128),
    "zero-d": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "transposed bf16": torch.arange(12).bfloat16().reshape(3, 4).T,
    "transposed complex": torch.arange(12).to(torch.complex128).reshape(3, 4).T,
    "strided": torch.arange(20)[::3],
    "expanded": torch.tensor([3.0]).expand(4),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "negative": torch.tensor([1 + 2j]).conj().imag,
    "channels last": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "part": torch.arange(100.0)[10:20],
    "lone item": torch.arange(100.0)[::100],
    "lone row": torch.arange(100.0).reshape(10, 10)[::10],
}


def raw(tensor):
    copy = torch.empty(tensor.numel(), dtype=tensor.dtype)
    copy[:] = tensor.reshape(-1)
    return bytes(copy.view(torch.uint8).tolist())


@pytest.mark.parametrize("name", ZOO)
def test_a_tensor_comes_back_as_it_was(name):
    tensor = ZOO[name]
    back = round_trip({name: tensor})[name]
    assert (back.dtype, back.shape, back.device) == (tensor.dtype, tensor.shape, tensor.device)
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    assert raw(back) == raw(plain)


def test_other_readers_open_the_weights():
    oracle = pytest.importorskip("safetensors.torch")
    tensors = {name: tensor for name, tensor in ZOO.items() if name not in {"complex128", "transposed complex"}}
    loaded = oracle.load(push(tensors).files["weights.safetensors"])
    assert loaded.keys() == tensors.keys()
    assert torch.equal(loaded["transposed bf16"], ZOO["transposed bf16"])


def test_state_dict_comes_back_as_one():
    model = layers()
    state = model.state_dict()
    reader = push(state)
    assert reader.manifest.format == "torch.state"
    assert [tensor.name for tensor in reader.manifest.tensors] == list(state)
    back = formats.unpack(reader)
    assert type(back) is OrderedDict
    assert list(back) == list(state)
    assert back._metadata == state._metadata
    assert not any(tensor.requires_grad for tensor in back.values())
    fresh = layers()
    nn.init.zeros_(fresh.inn.weight)
    fresh.load_state_dict(back)
    assert_equal_states(fresh, model)


def test_a_checkpoint_comes_back_exactly():
    import numpy as np

    model = layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.eval()(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "loss": 0.1,
        "rng": [torch.get_rng_state(), np.arange(3)],
        "kind": (torch.float16, torch.device("cpu"), torch.Size([2, 3]), None, "x"),
    }
    back = round_trip(checkpoint)
    assert repr(back) == repr(checkpoint)
    assert torch.equal(back["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    optimizer.load_state_dict(back["optimizer"])


def test_a_lone_tensor_comes_back():
    assert torch.equal(round_trip(torch.arange(3)), torch.arange(3))


def test_ties_are_stored_once_and_kept():
    weight = torch.randn(100, 100)
    reader = push({"a": weight, "b": weight.detach(), "part": weight[:10], "turned": weight.T})
    assert [tensor.name for tensor in reader.manifest.tensors] == ["a", "part", "turned"]
    back = formats.unpack(reader)
    assert back["a"] is back["b"]
    assert torch.equal(back["part"], weight[:10])
    assert torch.equal(back["turned"], weight.T)


def test_layers_of_torch_come_back_without_trust():
    model = layers().eval()
    model.inn.weight.requires_grad_(False)
    model.deep.train()
    reader = push(model)
    back = formats.unpack(reader)
    assert_equal_states(back, model)
    assert type(back) is nn.Sequential
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in model.parameters()]
    assert [m.training for m in back.modules()] == [m.training for m in model.modules()]
    assert all(type(p) is nn.Parameter for p in back.parameters())
    assert all(p.device.type == "cpu" for p in [*back.parameters(), *back.buffers()])
    x = torch.randn(4, 8)
    assert torch.equal(back.eval()(x), model.eval()(x))
    back.train()(x).sum().backward()
    assert reader.manifest.meta["modules"][1] == ["inn", "torch.nn.modules.linear.Linear"]
    assert reader.manifest.meta["class"] == "torch.nn.modules.container.Sequential"


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_come_back(kind):
    """They hold weak references to their weights, which stand in the way of putting others there."""
    module = nn.ModuleDict({"body": kind(3, 4, num_layers=2, bidirectional=True), "head": nn.Linear(8, 2)})
    back = round_trip(module)
    assert_equal_states(module, back)
    x = torch.rand(5, 2, 3)
    assert torch.equal(back["body"](x)[0], module["body"](x)[0])
    back.double()  # moves all weights, and what refers to them
    assert back["body"](x.double())[0].dtype == torch.float64


def test_weights_are_never_in_the_structure():
    small, large = nn.Linear(2, 2), nn.Linear(500, 500)
    sizes = [len(push(model).files["structure.pt"]) for model in (small, large)]
    assert abs(sizes[0] - sizes[1]) < 200
    with zipfile.ZipFile(io.BytesIO(push(large).files["structure.pt"])) as archive:
        assert not [name for name in archive.namelist() if "/data/" in name]


def test_a_class_of_ones_own_comes_back_when_trusted():
    net = Net()
    reader = push(net)
    name = f"{__name__}.Net"
    sys.modules[__name__].__dict__["Net"] = Net
    with pytest.raises(Untrusted) as error:
        formats.unpack(reader)
    assert name in str(error.value)
    assert f"trust=['{name}']" in str(error.value)
    assert "into=" in str(error.value)
    x = torch.randn(2, 3)
    for trust in ([Net], [name], [f"{__name__}.*"], name):
        back = formats.unpack(reader, trust=trust)
        assert type(back) is Net
        assert torch.equal(back(x), net(x))
        assert back.head.weight is back.body.weight
        assert list(back.state_dict()) == list(net.state_dict())
        assert back.names == net.names
    with pytest.raises(Untrusted):
        formats.unpack(reader, trust=["somebody.else.*"])


def test_all_untrusted_classes_are_named_at_once():
    net = Net()
    net.register_forward_hook(assert_equal_states)
    with pytest.raises(Untrusted) as error:
        round_trip(net)
    assert f"{__name__}.Net" in str(error.value)
    assert f"{__name__}.assert_equal_states" in str(error.value)


def test_a_trusted_class_that_is_not_here_is_told():
    reader = push(Net())
    data = reader.files["structure.pt"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        program = archive.read("archive/data.pkl").replace(f"{__name__}\nNet".encode(), b"__main__\nGone")
    reader.files["structure.pt"] = _with_program(data, program)
    with pytest.raises(MissingDependency, match=r"__main__\.Gone, which is not to be found here") as error:
        formats.unpack(reader, trust=["__main__.Gone"])
    assert "into=" in str(error.value)
    with pytest.raises(InvalidArgument, match="`trust=` has 3"):
        formats.unpack(reader, trust=[3])


def _with_program(data, program):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    return out.getvalue()


EVIL = {
    "reduce": b"\x80\x02cposix\nsystem\nX\x14\x00\x00\x00touch lmvp_was_here.\x85R.",
    "nested": b"\x80\x02c%s\nos.system\nX\x13\x00\x00\x00touch lmvp_was_here\x85R." % __name__.encode(),
    "eval": b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    "torch's own": b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x001\x85R.",
    "a function of torch.nn": b"\x80\x02ctorch.nn.modules.module\nregister_module_forward_hook\n}\x85R.",
    "re-exported": b"\x80\x02ctorch.nn.modules.module\nOrderedDict\n)R.",
    "stack global": b"\x80\x04X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93X\x01\x00\x00\x001\x85R.",
    "noise": b"what is this",
    "nothing": b"",
    "a list": b"\x80\x02].",
}


@pytest.mark.parametrize("attack", EVIL)
def test_nothing_runs_that_nobody_vouched_for(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = push(nn.Linear(2, 2))
    reader.files["structure.pt"] = _with_program(reader.files["structure.pt"], EVIL[attack])
    with pytest.raises((Untrusted, DamagedFile)):
        formats.unpack(reader, trust=[f"{__name__}.*", "my_pkg.*"])
    assert not list(tmp_path.iterdir())


def test_a_plain_pickle_as_structure_is_not_loaded(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    legacy = io.BytesIO()
    torch.save(Evil(), legacy, _use_new_zipfile_serialization=False)
    reader = push(nn.Linear(2, 2))
    before = set(torch.serialization.get_safe_globals())
    for data, error in (
        (buffer.getvalue(), Untrusted),
        (legacy.getvalue(), DamagedFile),
        (pickle.dumps(Evil()), DamagedFile),
        (b"", DamagedFile),
    ):
        reader.files["structure.pt"] = data
        with pytest.raises(error):
            formats.unpack(reader, trust=["my_pkg.*"])
    assert not list(tmp_path.iterdir())
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_structure_that_does_not_fit_the_weights_is_damaged():
    reader = push(nn.Linear(2, 3))
    reader.files["structure.pt"] = push(nn.Linear(2, 4)).files["structure.pt"]
    with pytest.raises(DamagedFile, match=r"'weight' is torch\.float32"):
        formats.unpack(reader)
    reader.files["structure.pt"] = push(nn.Sequential(nn.Linear(2, 3))).files["structure.pt"]
    with pytest.raises(DamagedFile, match="tensors that are missing"):
        formats.unpack(reader)


def test_what_cannot_be_pickled_is_pushed_all_the_same():
    net = nn.Linear(2, 2)
    net.helper = lambda x: x
    net.loose = torch.ones(3)
    reader = push(net)
    assert set(reader.files) == {"weights.safetensors"}
    with pytest.raises(InvalidArgument, match=r"structure of this torch\.nn\.modules\.linear\.Linear.*lambda") as error:
        formats.unpack(reader)
    assert "into=" in str(error.value)
    assert " at 0x" not in str(error.value)
    into = nn.Linear(2, 2)
    into.loose = torch.zeros(3)
    formats.unpack(reader, into=into)
    assert torch.equal(into.weight, net.weight)
    assert torch.equal(into.loose, net.loose)


def test_into_a_module_fills_its_own_memory():
    net, into = Net(), Net()
    into.scale = torch.zeros((2, 1))[0, 0]
    kept = {name: (id(t), t.data_ptr()) for name, t in into.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        net.scale.fill_(5)
        net.table.fill_(7)
    assert formats.unpack(push(net), into=into) is into
    assert kept == {name: (id(t), t.data_ptr()) for name, t in into.state_dict(keep_vars=True).items()}
    assert_equal_states(net, into)
    assert torch.equal(into.table, net.table)
    assert into.body.weight.requires_grad


def test_into_runs_no_code_of_the_version():
    reader = push(Net())
    reader.files["structure.pt"] = b"never looked at"
    formats.unpack(reader, into=Net())


@pytest.mark.parametrize("make", [lambda net: net, lambda net: net.state_dict(), lambda net: dict(net.state_dict())])
def test_modules_and_state_dicts_fill_each_other(make):
    net = layers()
    state = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    assert formats.unpack(push(make(net)), into=state) is state
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    other = layers()
    nn.init.zeros_(other.inn.weight)
    formats.unpack(push(make(net)), into=other)
    assert_equal_states(other, net)


def test_into_tensors_that_do_not_lie_in_a_row():
    into = {"w": torch.zeros(4, 3).T, "v": torch.zeros(3), "c": torch.zeros(2, dtype=torch.complex64).conj()}
    version = {"w": torch.arange(12.0).reshape(3, 4), "v": torch.arange(3.0), "c": torch.tensor([1 + 2j, 3j])}
    formats.unpack(push(version), into=into)
    assert all(torch.equal(into[name].resolve_conj(), version[name]) for name in version)


def test_into_that_differs_is_left_alone():
    net = nn.Linear(3, 4)
    for into, what in (
        (nn.Linear(3, 5), r"'weight' is F32 \(4, 3\) in the version, F32 \(5, 3\) in `into`"),
        (nn.Linear(3, 4, bias=False), "'bias' is only in the version"),
        (nn.Linear(3, 4).half(), "F32"),
        (nn.Sequential(nn.Linear(3, 4)), r"'0\.weight' is only in `into`"),
    ):
        before = {name: tensor.clone() for name, tensor in into.state_dict().items()}
        reader = push(net)
        with pytest.raises(Mismatch, match=what):
            formats.unpack(reader, into=into)
        assert reader.filled == []
        assert all(torch.equal(before[name], tensor) for name, tensor in into.state_dict().items())


def test_into_tied_tensors_needs_tied_or_equal_ones():
    tied = torch.zeros(3)
    with pytest.raises(Mismatch, match="'a' and 'b' are one tensor in `into`, two in the version"):
        formats.unpack(push({"a": torch.ones(3), "b": torch.arange(3.0)}), into={"a": tied, "b": tied})
    formats.unpack(push({"a": torch.ones(3), "b": torch.ones(3)}), into={"a": tied, "b": tied})
    assert torch.equal(tied, torch.ones(3))
    one = torch.arange(3.0)
    into = {"a": torch.zeros(3), "b": torch.zeros(3)}
    formats.unpack(push({"a": one, "b": one}), into=into)
    assert torch.equal(into["a"], one)
    assert torch.equal(into["b"], one)
    assert into["a"] is not into["b"]


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.zeros(3, device="meta"), "meta"),
        (torch.eye(3).to_sparse(), "sparse"),
        (nn.LazyLinear(3).weight, "has no shape yet"),
    ],
)
def test_tensors_without_plain_numbers_are_refused_by_name(tensor, why):
    with pytest.raises(UnknownFormat, match=why) as error:
        formats.pack({"deep": {"key": tensor}})
    assert "'deep.key'" in str(error.value)


def test_extra_state_travels():
    class Counting(nn.Module):
        steps = 0

        def get_extra_state(self):
            return {"steps": self.steps}

        def set_extra_state(self, state):
            self.steps = state["steps"]

    one, two = nn.Sequential(nn.Linear(1, 1), Counting()), nn.Sequential(nn.Linear(1, 1), Counting())
    one[1].steps = 7
    formats.unpack(push(one), into=two)
    assert two[1].steps == 7


def test_attributes_of_parameters_survive():
    net = nn.Linear(2, 2)
    net.weight.decay = False
    net.views = [net.weight, torch.arange(3)]
    back = round_trip(net)
    assert back.weight.decay is False
    assert back.views[0] is back.weight
    assert torch.equal(back.views[1], torch.arange(3))


def test_pushing_what_was_pulled_makes_nothing_new():
    net = Net()
    assert content(round_trip(net, trust=[Net])) == content(net)
    model = layers()
    assert content(round_trip(model)) == content(model) == content(layers())


PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:]
import torch
from support.memory_reader import content
class Mode:
    def __init__(self):
        self.flags = {"x", "yy", "zzz", "long" + str(1)}
        self.name = "".join(["lin", "ear"])
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MultiheadAttention(4, 2), torch.nn.Linear(2, 2))
net.mode, net.linear = Mode(), "linear"
net.options = frozenset(["a", "b", "c"])
print(content(net))
"""


def test_equal_modules_are_equal_bytes_in_any_process():
    root = Path(__file__)
    command = [sys.executable, "-c", PROGRAM, str(root.parent.parent), str(root.parents[2])]
    digests = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_threads_read_one_package():
    tensors = {str(i): torch.full((300, 200), float(i)).T for i in range(4)}
    package = formats.pack(tensors)
    wrong = []

    def read_all(order):
        for _ in range(5):
            for index in order:
                source = package.files[0].sources[1 + index]
                values = torch.frombuffer(bytearray(source.read(400, 4000)), dtype=torch.float32)
                if not bool((values == index).all()):
                    wrong.append(index)

    threads = [threading.Thread(target=read_all, args=(order,)) for order in (range(4), range(3, -1, -1), (1, 3, 0, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when it loads its compiler
def test_a_compiled_module_is_kept_as_what_it_was_compiled_from():
    net = layers()
    reader = push(torch.compile(net))
    assert {t.name for t in reader.manifest.tensors} == set(net.state_dict())
    back = formats.unpack(reader)
    assert type(back) is nn.Sequential
    assert_equal_states(back, net)
    compiled = torch.compile(layers())
    nn.init.zeros_(compiled.inn.weight)
    assert formats.unpack(reader, into=compiled) is compiled
    assert torch.equal(compiled.inn.weight, net.inn.weight)
    assert formats.unpack(push(compiled.state_dict()), into=torch.compile(layers())) is not None


@pytest.fixture
def other_default_device():
    """Make "meta" the default device: it stands for any device that is not the CPU."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("obj", [layers(), layers().state_dict(), {"w": torch.arange(12.0).reshape(3, 4).T}])
def test_torch_download_ignores_the_default_device(obj, other_default_device):
    reader = push(obj)
    back = formats.unpack(reader)
    state, kept = (one.state_dict() if isinstance(one, nn.Module) else one for one in (back, obj))
    assert all(state[name].device.type == "cpu" and torch.equal(state[name], kept[name]) for name in kept)


def test_torch_into_with_strides_ignores_the_default_device(other_default_device):
    values = torch.arange(12.0, device="cpu").reshape(3, 4)
    target = {"w": torch.zeros(4, 3, device="cpu").T}
    formats.unpack(push({"w": values}), into=target)
    assert torch.equal(target["w"], values)


def scripted(kind, net):
    return torch.jit.script(net) if kind == "script" else torch.jit.trace(net, torch.ones(2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, about torch.jit
@pytest.mark.parametrize("kind", ["script", "trace"])
def test_torch_jit_module_keeps_its_weights(kind):
    def net():
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()

    made = net()
    reader = push(scripted(kind, made))
    assert [t.name for t in reader.manifest.tensors] == list(made.state_dict())
    with pytest.raises(InvalidArgument, match="a program in TorchScript") as error:
        formats.unpack(reader)
    assert error.value.hint == "build the module, and fill it: `--into MODEL`"
    assert_equal_states(formats.unpack(reader, into=net()), made)
    assert_equal_states(formats.unpack(push(made), into=scripted(kind, net())), made)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_jit_module_inside_another_keeps_its_weights():
    net = nn.Sequential(nn.Linear(3, 2), torch.jit.script(nn.Linear(2, 2)))
    fresh = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    assert_equal_states(formats.unpack(push(net), into=fresh), net)


@pytest.mark.parametrize(
    "dtype", sorted({str(d) for d in vars(torch).values() if isinstance(d, torch.dtype)}), ids=lambda name: name
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, about experimental dtypes
def test_torch_dtypes_are_kept_where_safetensors_writes_them(dtype):
    oracle = pytest.importorskip("safetensors.torch")
    tensor = torch.empty(2, 4, dtype=getattr(torch, dtype.removeprefix("torch.")))
    try:
        tensor.view(torch.uint8).zero_()
        written = oracle.save({"x": tensor})
    except (KeyError, RuntimeError, NotImplementedError):
        if dtype == "torch.complex128":
            return  # kept as pairs of float64
        with pytest.raises(UnknownFormat, match=r"safetensors defines no such dtype|quantized tensor"):
            push({"x": tensor})
        return
    reader = push({"x": tensor})
    (mine,) = reader.manifest.tensors
    (theirs,) = (t for name, t in json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")]).items())
    assert (mine.dtype, list(mine.shape)) == (theirs["dtype"], theirs["shape"])
    back = formats.unpack(reader)["x"]
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert back.view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


@pytest.fixture
def process_group(tmp_path):
    """A process group of one rank, which DistributedDataParallel needs."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "data parallel": lambda net: nn.DataParallel(net),
    "distributed": lambda net: nn.parallel.DistributedDataParallel(net),
    "compiled": lambda net: torch.compile(net),
    "compiled distributed": lambda net: torch.compile(nn.parallel.DistributedDataParallel(net)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it loads its compiler
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_torch_wrapper_is_kept_as_the_module_it_wraps(wrap, process_group):
    net = layers()
    reader = push(wrap(net))
    assert content(wrap(net)) == content(net)
    assert type(formats.unpack(reader)) is nn.Sequential
    assert_equal_states(formats.unpack(reader, into=layers()), net)
    assert_equal_states(formats.unpack(push(wrap(net).state_dict()), into=layers()), net)
    target = layers()
    formats.unpack(push(net.state_dict()), into=wrap(target))
    assert_equal_states(target, net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_wrapper_inside_a_module_is_kept_as_the_module_it_wraps():
    def build(one=lambda net: net, two=lambda net: net):
        return nn.Sequential(one(nn.Linear(2, 2)), two(nn.BatchNorm1d(2)))

    net = build(torch.compile, nn.DataParallel)
    reader = push(net)
    assert [t.name for t in reader.manifest.tensors][:2] == ["0.weight", "0.bias"]
    assert [type(part) for part in formats.unpack(reader)] == [nn.Linear, nn.BatchNorm1d]
    plain = formats.unpack(reader, into=build())
    assert [value.tolist() for value in plain.state_dict().values()] == [v.tolist() for v in net.state_dict().values()]
    formats.unpack(push(build()), into=net)


CHANNELS_LAST = {
    "image": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "half": torch.arange(48).bfloat16().reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "pixel": torch.empty(8, 3, 1, 1, memory_format=torch.channels_last).zero_(),
    "volume": torch.arange(48.0).reshape(1, 3, 2, 2, 4).to(memory_format=torch.channels_last_3d),
    "plain": torch.arange(48.0).reshape(1, 3, 4, 4),
}


def test_torch_state_keeps_channels_last():
    reader = push(CHANNELS_LAST)
    back = formats.unpack(reader)
    assert {name: t.stride() for name, t in back.items()} == {name: t.stride() for name, t in CHANNELS_LAST.items()}
    assert all(torch.equal(back[name], tensor) for name, tensor in CHANNELS_LAST.items())
    reader.manifest.meta["memory_formats"]["image"] = "channels_first"
    with pytest.raises(DamagedFile, match="unknown memory format"):
        formats.unpack(reader)


def test_torch_module_keeps_channels_last():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)).to(memory_format=torch.channels_last)
    back = round_trip(net)
    assert_equal_states(back, net)
    assert [p.stride() for p in back.parameters()] == [p.stride() for p in net.parameters()]


def test_torch_dtensor_is_refused_with_a_hint(process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    shard = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)))
    with pytest.raises(UnknownFormat, match=r"'w' is a .*DTensor") as error:
        push({"w": shard})
    assert "call .full_tensor() on every rank, then push on rank 0" in error.value.hint
    push({"w": shard.full_tensor()})
