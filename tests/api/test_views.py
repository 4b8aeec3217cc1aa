"""The views of versions and of what differs between two, over a real server, and what an output keeps of them."""

import json

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp import errors
from lmvp.client.models import Client
from lmvp_jupyter.widgets import DiffView, ModelView

pytestmark = pytest.mark.notebook


@pytest.fixture
def ip(home):
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    yield shell
    shell.run_line_magic("unload_ext", "lmvp_jupyter")
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def grown(home):
    random = np.random.default_rng(0)
    state = {f"blocks.{b}.fc.{part}": random.standard_normal((40, 40)).astype("f4") for b in range(3) for part in "wb"}
    state["head.w"] = np.zeros((3, 40), "f4")
    lmvp.update("digits/mlp", state, message="first", metrics={"val/loss": 0.5}, params={"lr": 0.1})
    new = {**state, "head.w": np.ones((9, 40), "f4"), "blocks.2.fc.w": state["blocks.2.fc.w"] * 1.1}
    lmvp.update("digits/mlp", new, message="second", metrics={"val/loss": 0.4}, params={"lr": 0.1}, alias="best")
    lmvp.update("digits/mlp", state, message="third")


def test_a_version_opened_up(ip, grown):
    Client().set_card("digits/mlp", "Reads digits.\n\nFails on <b>letters</b>.")
    found = ip.run_line_magic("lmvp", "show digits/mlp@v2")
    assert (found.parameters, len(found.tensors), found.parent.number) == (6 * 1600 + 360, 7, 1)
    assert [str(child) for child in found.children] == ["mlp@v3"]
    text, html = repr(found), found._repr_html_()
    for word in ("digits/mlp@v2", "best", "second", "blocks.2.fc.w", "0.40", "mlp@v3", "7 tensors"):
        assert word in text
        assert word in html or word == "blocks.2.fc.w"
    assert "data:image/svg" in html
    data = ModelView(found).data
    json.dumps(data, allow_nan=False)
    assert data["card"] == [["p", "", ["Reads digits."]], ["p", "", ["Fails on <b>letters</b>."]]]
    assert "&lt;b&gt;letters" in html
    groups = {group["name"]: group for group in data["groups"]}
    assert [groups[name]["change"] for name in ("blocks.0", "blocks.2", "head")] == ["identical", "7.2 %", "new"]
    assert {one["name"]: one["change"] for one in groups["blocks.2"]["tensors"]} == {
        "fc.w": "10 %",
        "fc.b": "identical",
    }
    assert data["metrics"] == [["val/loss", "0.400", "−0.100", 1]]


def test_card_of_a_model_is_shown_formatted(ip, grown):
    Client().set_card(
        "digits/mlp", "# Use\n\n**240** digits, see [site](https://example.org) or [here](/hub).\n\n- mono"
    )
    found = ip.run_line_magic("lmvp", "show digits/mlp@v2")
    assert "Use\n───\n\n240 digits, see site (https://example.org) or here (/hub).\n\n- mono\n" in repr(found)
    html = found._repr_html_()
    assert "<h4>Use</h4>" in html
    assert "<strong>240</strong>" in html
    assert "<li>mono</li>" in html
    assert "/hub" not in html, "a relative link would lead to a page of Jupyter"


def test_views_ask_for_histograms_and_get_them(grown):
    for view, names in (
        (ModelView(lmvp.show("digits/mlp")), ["head.w"]),
        (DiffView(lmvp.diff("digits/mlp@v1", "@v2")), ["blocks.2.fc.w"]),
    ):
        sent = []
        view.send = sent.append
        view._heard(view, {"kind": "histograms", "tensors": names}, [])
        (message,) = sent
        assert sum(message["tensors"][names[0]]["counts"]) == message["tensors"][names[0]]["count"]
        assert set(message["before"]) == (set(names) if isinstance(view, DiffView) else set())
        for odd in ({"kind": "other"}, "text", {"kind": "histograms", "tensors": ["nothing of this name"]}):
            view._heard(view, odd, [])
        assert len(sent) == 1


def test_of_another_model_the_children_are_told_too(grown):
    state = lmvp.download("digits/mlp@v1")
    client = Client()
    version = client.update("digits/copy", state)
    assert version.number == 1
    assert client.children(client.version("digits/mlp@v3")) == ([], 0)


def test_code_is_kept_on_ones_own_server_and_can_be_forgotten(ip, home):
    ip.run_cell("import lmvp, numpy as np\ntoken = 'hf_" + "a" * 34 + "'", store_history=True)
    ip.run_cell("lmvp.update('digits/code', {'w': np.ones(3)})", store_history=True)
    version = Client().version("digits/code")
    cells = version.environment["code"]["cells"]
    assert cells[-1] == "lmvp.update('digits/code', {'w': np.ones(3)})"
    assert "aaaa" not in str(version.environment)
    assert "code" not in lmvp.show_history("digits/code")[0].environment, "lists do without it"
    amended = Client().amend("digits/code", forget_code=True)
    assert "code" not in amended.environment
    assert "numpy" in amended.environment["packages"]
    assert "lmvp.update" not in json.dumps(Client()._connection.send("GET", "/projects/digits/events").json())
    assert "code" not in lmvp.update("digits/code", {"w": np.zeros(3)}, capture=False).environment


def test_a_long_diff_tells_how_far_it_is(home):
    w = np.random.default_rng(0).standard_normal(3_000_000)
    lmvp.update("digits/long", {"w": w}, progress=False)
    lmvp.update("digits/long", {"w": w + 1}, progress=False)
    told = []
    diff = lmvp.diff("digits/long@v1", "@v2", progress=lambda done, total: told.append((done, total)))
    assert diff.tensors[0].amount.relative == pytest.approx(1, rel=0.01)
    assert all(total in (0, w.nbytes) for _, total in told)
    with pytest.raises(errors.InvalidArgument, match="progress"):
        lmvp.diff("digits/long@v1", "@v2", progress="yes")
