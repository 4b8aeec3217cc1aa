"""The public surface of `lmvp`: the same verbs in Python, the shell and the notebook."""

import inspect
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.cli.parser import NOTEBOOK, SHELL, verbs_of
from lmvp.client.models import Client


def test_all_is_sorted_and_there():
    assert lmvp.__all__ == sorted(lmvp.__all__)
    assert all(hasattr(lmvp, name) for name in lmvp.__all__)


def test_dir_shows_only_the_api():
    assert set(dir(lmvp)) == {*lmvp.__all__, "__version__"}


def test_the_promised_names():
    assert lmvp.showHistory is lmvp.show_history is lmvp.history
    assert lmvp.update is lmvp.push
    assert lmvp.download is lmvp.pull


def test_every_verb_is_a_function_of_the_same_name():
    verbs = {verb.name for host in (SHELL, NOTEBOOK) for verb in verbs_of(host)} - {"import"} | {"import_"}
    assert {verb for verb in verbs if not callable(getattr(lmvp, verb, None))} == set()
    assert verbs <= set(lmvp.__all__)


def test_every_error_and_the_active_run_are_exported():
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert tree - set(lmvp.__all__) == set()
    from lmvp.tracking.active_run import ActiveRun

    assert lmvp.ActiveRun is ActiveRun


def test_functions_take_what_the_client_takes():
    for name in ("push", "pull", "history", "diff", "alias", "export", "import_", "start_run", "best", "open"):
        ours, theirs = inspect.signature(getattr(lmvp, name)), inspect.signature(getattr(lmvp.Client, name))
        assert list(ours.parameters) == list(theirs.parameters)[1:], name
        assert ours.return_annotation == theirs.return_annotation, name
        assert "Parameters\n" in getattr(lmvp, name).__doc__, name


def test_submodules_do_not_replace_functions():
    """A first import of a submodule sets an attribute of the package, which must not have the name of a function."""
    code = """
import lmvp, pkgutil, importlib
functions = {name: getattr(lmvp, name) for name in lmvp.__all__}
for module in pkgutil.walk_packages(lmvp.__path__, "lmvp."):
    if module.name.count(".") == 1 and module.name != "lmvp.__main__":
        importlib.import_module(module.name)
print([name for name, value in functions.items() if getattr(lmvp, name) is not value])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_call_uses_the_project_that_is_set_at_that_time(home):
    lmvp.project("digits")
    try:
        assert lmvp.push("mlp", {"w": np.zeros(2)}).project == "digits"
        lmvp.project("letters")
        assert lmvp.push("mlp", {"w": np.zeros(2)}).project == "letters"
        assert lmvp.status().data["project"] == "letters"
    finally:
        lmvp.set_project(None)


def test_run_keeps_its_client(home):
    """A run that was read keeps its server and project when another project is set."""
    with lmvp.start_run("digits", name="baseline", system_metrics=False) as active:
        active.log({"acc": 0.5}, step=0)
    lmvp.sync()
    run = lmvp.run("baseline", "digits")
    assert run.client is run.client
    assert run.refresh().metrics == {"acc": 0.5}


@pytest.fixture
def versions(home):
    for number, loss in enumerate((0.5, 0.2, 0.2, float("nan"))):
        metrics = {"val/loss": loss, "acc": 1 - loss, "wobble": number}
        lmvp.push("digits/mlp", {"w": np.full(4, number, np.float32)}, metrics=metrics)
    lmvp.push("digits/mlp", {"w": np.full(4, 9, np.float32)})


def test_best_version_by_a_metric(versions):
    assert lmvp.best("digits/mlp", "val/loss").number == 3, "of equal ones, the newest"
    assert lmvp.best("digits/mlp", "acc").number == 3
    assert lmvp.best("digits/mlp", "acc", mode="min").number == 1
    assert lmvp.best("digits/mlp", "wobble", mode="max").number == 4
    assert lmvp.best("digits/mlp", "val/loss", where="number < 3").number == 2
    with pytest.raises(lmvp.InvalidArgument, match='mode="min"'):
        lmvp.best("digits/mlp", "wobble")
    with pytest.raises(lmvp.InvalidArgument, match="mode='least'"):
        lmvp.best("digits/mlp", "acc", mode="least")
    with pytest.raises(lmvp.NotFound, match="has the metric 'f1_acc'"):
        lmvp.best("digits/mlp", "f1_acc")


def test_runs_are_sorted_over_pages(home, monkeypatch):
    for number, accuracy in enumerate((0.5, 0.9, None, 0.7)):
        with lmvp.start_run("digits", name=f"run-{number}", system_metrics=False) as run:
            if accuracy is not None:
                run.log({"acc": accuracy}, step=0)
    lmvp.sync()

    def names(**query):
        return [run.name for run in lmvp.runs("digits", **query)]

    assert names(order="-metrics.acc") == ["run-1", "run-3", "run-0", "run-2"]
    assert names(order="metrics.acc", where="metrics.acc > 0.6") == ["run-3", "run-1"]
    assert lmvp.runs("digits", order="-metrics.acc", limit=1).total == 4
    monkeypatch.setattr("lmvp.client._base.PAGE", 3)
    assert names(order="-metrics.acc") == ["run-1", "run-3", "run-0", "run-2"]
    with pytest.raises(lmvp.InvalidArgument):
        names(order="nothing.there")


def test_every_result_is_a_table_of_pandas(versions):
    pytest.importorskip("pandas")
    for number in (0, 1):
        with lmvp.start_run("digits", name=f"run-{number}", params={"lr": number}, system_metrics=False) as run:
            run.log({"acc": 0.5}, step=0)
    lmvp.sync()
    assert list(lmvp.history("digits/mlp").to_pandas()["number"]) == [5, 4, 3, 2, 1]
    assert list(lmvp.diff("digits/mlp@v1", "digits/mlp@v2").to_pandas()["change"]) == ["changed"]
    assert list(lmvp.show("digits/mlp").to_pandas()["size"]) == [16]
    assert list(lmvp.runs("digits").to_pandas()["params.lr"]) == [1, 0]
    assert list(lmvp.run("run-0", "digits").to_pandas()["value"]) == [0.5]
    assert list(lmvp.metrics("digits/run-0", "run-1").to_pandas()["run"]) == ["run-0", "run-1"]
    assert "run-0" in lmvp.compare("digits/run-0", "run-1").to_pandas()
    found = lmvp.bisect("digits/mlp", good="v1", bad="v5", test=lambda model: model["w"][0] < 3).to_pandas()
    assert set(found["verdict"]) == {"good", "bad"}


@dataclass
class Optimizer:
    lr: float = 0.1


@dataclass
class Config:
    optimizer: Optimizer = field(default_factory=Optimizer)
    epochs: int = 3


class Point(msgspec.Struct):
    lr: float
    epochs: int


class Dictionary:
    """A mapping in all but its base class, as the configs of ml_collections are."""

    def __init__(self, **values):
        self._values = values

    def keys(self):
        return self._values.keys()

    def __getitem__(self, key):
        return self._values[key]


CONFIGS = {
    "dataclass": (Config(), {"optimizer/lr": 0.1, "epochs": 3}),
    "argparse": (Namespace(lr=0.1, name="a"), {"lr": 0.1, "name": "a"}),
    "namespace": (SimpleNamespace(lr=0.1, inner=Namespace(depth=2)), {"lr": 0.1, "inner/depth": 2}),
    "struct": (Point(0.1, 3), {"lr": 0.1, "epochs": 3}),
    "keys": (Dictionary(lr=0.1), {"lr": 0.1}),
    "nested": ({"data": {"train": {"size": 4}}}, {"data/train/size": 4}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_params_accept_config_objects(name, home):
    given, expected = CONFIGS[name]
    assert dict(lmvp.push("digits/mlp", {"w": np.zeros(2)}, params=given).params) == expected
    with lmvp.start_run("digits", params=given, system_metrics=False) as run:
        assert dict(run.params) == expected
        run.params.update(given if isinstance(given, Mapping) else vars(given) if name == "argparse" else {})


@pytest.mark.parametrize("module", ["omegaconf", "attrs", "pydantic"])
def test_params_accept_config_objects_of_libraries(module, home):
    library = pytest.importorskip(module)
    if module == "omegaconf":
        given = library.OmegaConf.create({"lr": 0.1, "twice": "${lr}"})
        expected = {"lr": 0.1, "twice": 0.1}
    elif module == "attrs":
        given, expected = library.make_class("Config", ["lr"])(0.1), {"lr": 0.1}
    else:
        given, expected = library.create_model("Config", lr=(float, 0.1))(), {"lr": 0.1}
    assert dict(lmvp.push("digits/mlp", {"w": np.zeros(2)}, params=given).params) == expected


@pytest.mark.parametrize("given", [3, "lr=0.1", [("lr", 0.1)], Config, np.zeros(3)])
def test_params_that_are_no_mapping_are_named(given, home):
    with pytest.raises(lmvp.InvalidArgument, match=r"params= is .*, not a mapping"):
        lmvp.push("digits/mlp", {"w": np.zeros(2)}, params=given)
    with pytest.raises(lmvp.InvalidArgument, match=r"params= is .*, not a mapping"):
        lmvp.start_run("digits", params=given)


def test_type_checkers_know_the_type_of_a_download(tmp_path):
    """`into=` returns its argument, `to=` a list of paths."""
    from mypy import api

    source = tmp_path / "use.py"
    source.write_text(
        "import lmvp\n"
        "reveal_type(lmvp.pull('m', into={'w': 1}))\n"
        "reveal_type(lmvp.download('m', to='folder'))\n"
        "reveal_type(lmvp.pull('m'))\n"
        "reveal_type(lmvp.best('m', 'acc'))\n"
    )
    out, _, code = api.run([str(source), "--cache-dir", str(tmp_path / "cache"), "--follow-imports=silent"])
    revealed = [line.partition("Revealed type is ")[2].strip('"') for line in out.splitlines() if "Revealed" in line]
    assert code == 0, out
    names = [text.replace("builtins.", "") for text in revealed]
    assert names == ["dict[str, int]", "list[pathlib.Path]", "Any", "lmvp.core.schemas.models.Version"]


def test_client_of_one_server_has_the_same_verbs():
    for name in ("push", "pull", "history", "best", "du", "gc", "fsck", "rm", "export", "import_", "backup", "audit"):
        assert callable(getattr(Client, name)), name


CLIENT_VERBS = sorted(name for name in lmvp.__all__ if hasattr(getattr(lmvp, name), "__wrapped__"))


@pytest.mark.parametrize("name", CLIENT_VERBS)
def test_wrong_call_names_the_public_function(name):
    with pytest.raises(TypeError, match=rf"lmvp\.{name}\(\).*: .*'\w+'"):
        getattr(lmvp, name)(nonsense=1)


def test_missing_argument_names_the_public_function():
    assert "update" in CLIENT_VERBS
    with pytest.raises(TypeError, match=r"lmvp\.update\(\): missing a required argument: 'obj'"):
        lmvp.update("m")


def test_wrong_call_of_a_method_names_the_client():
    for name in ("fork", "backup", "members", "runs", "du"):
        with pytest.raises(TypeError, match=r"^Client\.\w+\(\)"):
            getattr(lmvp.Client("http://127.0.0.1:1"), name)(nonsense=1)
