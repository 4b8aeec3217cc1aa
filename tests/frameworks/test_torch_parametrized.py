"""Weights that are computed: pruned, normalised, parametrized modules of torch's own, without any `trust=`."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.memory_reader import push, round_trip

from lmvp import formats
from lmvp.errors import DamagedFile, Untrusted
from lmvp.formats import torch_structure

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
torch = pytest.importorskip("torch")
nn = torch.nn
from torch.nn import utils  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402


class Double(nn.Module):
    """A parametrization of one's own."""

    def forward(self, tensor):
        return 2 * tensor

    def right_inverse(self, tensor):
        return tensor / 2


def twice(part):
    prune.l1_unstructured(part, "weight", amount=0.5)
    prune.random_unstructured(part, "weight", amount=0.2)


def everywhere(part):
    prune.global_unstructured([(part, "weight")], pruning_method=prune.L1Unstructured, amount=0.3)


CHANGES = {
    "pruned": lambda part: prune.l1_unstructured(part, "weight", amount=0.5),
    "pruned twice": twice,
    "pruned by rows": lambda part: prune.ln_structured(part, "weight", amount=0.5, n=2, dim=0),
    "pruned globally": everywhere,
    "pruning removed": lambda part: prune.remove(prune.l1_unstructured(part, "weight", amount=0.5), "weight"),
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "spectral norm of old": utils.spectral_norm,
    "weight norm of old": utils.weight_norm,
    "bias too": lambda part: parametrizations.weight_norm(parametrizations.weight_norm(part), "bias", dim=None),
}


def net(change):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    change(module[0])
    return module.eval()


@pytest.mark.parametrize("name", CHANGES)
def test_it_comes_back_without_trust_and_computes_the_same(name):
    module, x = net(CHANGES[name]), torch.randn(5, 4)
    again = round_trip(module)
    assert type(again[0]).__name__ == type(module[0]).__name__
    assert list(again.state_dict()) == list(module.state_dict())
    assert torch.equal(again(x), module(x))


@pytest.mark.parametrize("name", CHANGES)
def test_it_can_be_trained_and_pushed_again(name):
    again = round_trip(net(CHANGES[name])).train()
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    before = again(torch.ones(5, 4))
    before.square().sum().backward()
    optimizer.step()
    assert not torch.equal(again(torch.ones(5, 4)), before)
    third = round_trip(again.eval())
    assert torch.equal(third(torch.ones(5, 4)), again(torch.ones(5, 4)))


def test_what_came_back_can_be_copied():
    again, x = round_trip(net(parametrizations.spectral_norm)), torch.randn(5, 4)
    assert torch.equal(copy.deepcopy(again)(x), again(x))


def test_the_module_that_is_pushed_stays_as_it_is():
    module = net(parametrizations.weight_norm)
    kind, hooks = type(module[0]), len(module[0]._load_state_dict_pre_hooks)
    formats.pack(module)
    assert type(module[0]) is kind
    assert len(module[0]._load_state_dict_pre_hooks) == hooks


def test_a_part_that_stands_in_two_places_is_one():
    part = parametrizations.spectral_norm(nn.Linear(4, 4))
    again = round_trip(nn.ModuleDict({"one": part, "two": part, "deep": nn.Sequential(part)}))
    assert again["one"] is again["two"] is again["deep"][0]
    assert parametrize.is_parametrized(again["one"], "weight")


def test_parametrizations_can_be_taken_off_again():
    module = net(parametrizations.spectral_norm)
    again, x = round_trip(module), torch.randn(5, 4)
    parametrize.remove_parametrizations(again[0], "weight")
    assert type(again[0]) is nn.Linear
    assert torch.equal(again(x), module(x))


def test_a_parametrization_of_ones_own_is_named_and_comes_back_when_trusted():
    module = net(lambda part: parametrize.register_parametrization(part, "weight", Double()))
    with pytest.raises(Untrusted) as caught:
        round_trip(module)
    name = f"{Double.__module__}.Double"
    assert str(caught.value).endswith(f"`trust=['{name}']`; or build the module, and fill it: `into=model`")
    again = formats.unpack(push(module), trust=[Double])
    assert torch.equal(again[0].weight, module[0].weight)


def test_into_a_module_of_the_same_make():
    module, other = net(parametrizations.weight_norm), net(parametrizations.weight_norm)
    with torch.no_grad():
        module[0].weight = torch.ones(4, 4)
    formats.unpack(push(module), into=other)
    assert torch.equal(other[0].weight, module[0].weight)


def test_a_module_with_a_part_called_parametrizations_is_no_parametrized_one():
    part = nn.ModuleDict({"parametrizations": nn.ModuleDict({"weight": nn.Linear(2, 2)})})
    again = round_trip(nn.Sequential(part))
    assert type(again[0]) is nn.ModuleDict
    assert type(again[0]["parametrizations"]["weight"]) is nn.Linear


@pytest.mark.parametrize("name", ["__class__", "forward", "__del__", "training", "no name"])
def test_a_parametrization_of_what_is_no_tensor_is_damage(name):
    """Made by a stranger: torch itself would not register it."""
    part = parametrizations.spectral_norm(nn.Linear(2, 2))
    lists = part.parametrizations
    lists._modules[name] = lists._modules.pop("weight")
    structure = torch_structure.dump(part, lambda tensor: str(id(tensor)))
    with pytest.raises(DamagedFile, match="cannot be a parametrized tensor"):
        torch_structure.load(structure, ())


def test_an_average_of_weights_comes_back():
    module = torch.optim.swa_utils.AveragedModel(net(lambda part: part))
    module.update_parameters(net(lambda part: part))
    again = round_trip(module)
    assert int(again.n_averaged) == 1
    assert torch.equal(again(torch.ones(1, 4)), module(torch.ones(1, 4)))


PROGRAM = """
import sys; sys.path[:0] = sys.argv[1:]
import torch
from torch.nn.utils import parametrizations, prune
from support.memory_reader import content
part = torch.nn.Linear(4, 4)
with torch.no_grad():
    part.weight.copy_(torch.arange(16.0).reshape(4, 4))
    part.bias.copy_(torch.arange(4.0))
prune.l1_unstructured(part, "bias", amount=2)
parametrizations.weight_norm(part)
print(content(part))
"""


def test_equal_modules_are_equal_bytes_in_any_process():
    here = Path(__file__)
    command = [sys.executable, "-c", PROGRAM, str(here.parent.parent), str(here.parents[2])]
    digests = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
