"""`%lmvp push --no-wait` and `%%lmvp bisect`, in a shell with the extension."""

import threading

import numpy as np
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp import errors
from lmvp.core.schemas import Version
from lmvp_jupyter import background

pytestmark = pytest.mark.notebook


@pytest.fixture
def ip(home):
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    yield shell
    shell.run_line_magic("unload_ext", "lmvp_jupyter")
    shell.history_manager.end_session()


def test_a_push_goes_on_with_the_weights_as_they_were(ip):
    gate = threading.Event()
    background._pool.submit(gate.wait)  # so that the push begins after the weights have changed
    weights = ip.user_ns["w"] = {"w": np.zeros(1000)}
    pending = ip.run_line_magic("lmvp", "push digits/mlp w -m background --metric loss=0.5 --no-wait")
    assert "waiting" in repr(pending)
    assert not pending.done()
    weights["w"] += 1
    second = ip.run_line_magic("lmvp", "push digits/mlp w -m second --no-wait")
    gate.set()
    version = pending.result(30)
    assert isinstance(version, Version)
    assert (version.number, version.message, version.metrics) == (1, "background", {"loss": 0.5})
    assert second.result(30).parents[0].number == 1
    assert lmvp.download("digits/mlp@v1")["w"].sum() == 0
    assert lmvp.download("digits/mlp@v2")["w"].sum() == 1000
    assert "digits/mlp@v2 was published" in repr(second)
    assert lmvp.update("digits/mlp", weights, message="third").parents[0].number == 2


def test_a_push_that_fails_says_so(ip, tmp_path):
    ip.user_ns["odd"] = object()
    with pytest.raises(errors.UnknownFormat):
        ip.run_line_magic("lmvp", "push digits/mlp odd --no-wait").result(30)
    ip.user_ns["w"] = {"w": np.zeros(3)}
    pending = ip.run_line_magic("lmvp", "push digits/mlp w --parent v9 --no-wait")
    with pytest.raises(errors.NotFound):
        pending.result(30)
    assert "failed: " in repr(pending)


def test_a_cell_finds_the_first_bad_version(ip, capsys):
    for i in range(1, 8):
        lmvp.update("digits/mlp", {"w": np.full(3, i)}, progress=False)
    found = ip.run_cell_magic(
        "lmvp", "bisect digits/mlp --good v1 --bad v7 net", "total = net['w'].sum()\nassert total < 15"
    )
    assert found.first_bad.number == 5
    assert ip.user_ns["total"] in (12, 15)
    assert "v4 … good" in capsys.readouterr().out
    found = ip.run_cell_magic("lmvp", "bisect digits/mlp --good v1", "version.number < 3")
    assert found.first_bad.number == 3
    with pytest.raises(UsageError, match="--good"):
        ip.run_cell_magic("lmvp", "bisect digits/mlp", "1")
    with pytest.raises(ZeroDivisionError):
        ip.run_cell_magic("lmvp", "bisect digits/mlp --good v1", "1 / 0")


def test_a_version_is_amended(ip):
    lmvp.update("digits/mlp", {"w": np.zeros(3)}, metrics={"loss": 1.0}, tags={"a": "b"}, progress=False)
    version = ip.run_line_magic("lmvp", "amend digits/mlp@v1 -m better --metric acc=0.5 --tag by=ada")
    assert (version.message, version.metrics, version.tags) == (
        "better",
        {"loss": 1.0, "acc": 0.5},
        {"a": "b", "by": "ada"},
    )
