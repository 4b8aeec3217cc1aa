"""The widgets without a browser: their data, their static forms, what they are made of."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from support import sample_history as sample

import lmvp_server
from lmvp.views.history import History
from lmvp_jupyter.live import VIEW
from lmvp_jupyter.widgets import HistoryTable, MetricsPlot

pytestmark = pytest.mark.notebook

STATIC = Path(lmvp_server.__file__).parent / "static"


def test_the_table_sends_rows_graph_and_strips():
    data = json.loads(json.dumps(HistoryTable(sample.history()).data))
    assert [row["key"] for row in data["rows"]] == list(range(13, 0, -1))
    assert len(data["graph"]) == 13
    assert len(data["layers"]["axis"]) == len(sample.AXIS)
    assert data["metric"] == "val/f1"
    assert data["scale"]["ends"] == ["0.7", "0.9"]
    assert [a["protected"] for a in data["rows"][1]["aliases"]] == [True, False]


def test_no_value_is_lost_that_json_lacks():
    rows = [sample.version(n, metrics={"m": value}) for n, value in ((2, float("nan")), (1, float("-inf")))]
    for widget in (HistoryTable(History(rows, title="m")), MetricsPlot(History(rows, title="m"))):
        text = json.dumps(widget.data, allow_nan=False)
        assert '"NaN"' in text
        assert '"-Infinity"' in text


def test_long_histories_are_sent_in_part():
    history = sample.long_history(10_000)
    table, plot = HistoryTable(history), MetricsPlot(history)
    assert len(table.data["rows"]) == 200
    assert (table.data["total"], table.data["older"]) == (10_000, 9_800)
    assert len(json.dumps(table.data)) < 100_000
    assert len(plot.data["points"]) == 1000


def test_a_choice_is_of_rows_that_exist_and_comes_back_as_versions():
    table = HistoryTable(sample.history())
    table.selected = [6, 99, 11]
    assert table.selected == [11, 6]
    assert [v.number for v in table.chosen] == [11, 6]


def test_a_choice_among_the_models_of_a_project():
    rows = [sample.version(2), sample.version(2, model="denoiser")]
    table = HistoryTable(History(rows, title="birdsong"), selected=["denoiser@v2"])
    assert [v.model for v in table.chosen] == ["denoiser"]
    assert table.data["graph"] == []


@pytest.mark.parametrize("make", [HistoryTable, MetricsPlot])
@pytest.mark.parametrize(
    "history", [sample.history(), sample.history()[13:], sample.history()[12:]], ids=["13", "0", "1"]
)
def test_every_widget_is_shown_as_its_static_form_with_a_place_for_the_view(make, history):
    widget = make(history)
    bundle, _ = widget._repr_mimebundle_()
    assert VIEW not in bundle, "a saved notebook would say: model not found"
    assert bundle["text/html"].startswith(f'<div class="{widget.place}">')
    assert widget.static()["text/html"] in bundle["text/html"]
    assert "object at 0x" not in bundle["text/plain"]


def test_every_widget_has_a_place_of_its_own():
    one, other = HistoryTable(sample.history()), HistoryTable(sample.history())
    assert one.place != other.place


def test_a_closed_widget_still_shows_its_static_form():
    widget = MetricsPlot(sample.history())
    widget.close()
    assert widget.forms() == widget.static()


def test_an_editor_that_makes_no_live_view_can_be_given_one(monkeypatch):
    monkeypatch.setenv("LMVP_DISPLAY", "view")
    widget = HistoryTable(sample.history())
    bundle, _ = widget._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] == widget.model_id
    assert bundle["text/html"] == widget.static()["text/html"]


def test_a_plot_of_a_named_metric():
    assert MetricsPlot(sample.history(), "val/loss").data["metric"] == "val/loss"
    assert "No version" in MetricsPlot(sample.history(), "absent").data["empty"]["words"]


def test_a_plot_is_of_one_model():
    rows = [sample.version(2, metrics={"m": 1.0}), sample.version(2, model="denoiser", metrics={"m": 2.0})]
    data = MetricsPlot(History(rows, title="birdsong")).data
    assert not data["points"]
    assert data["empty"]["code"] == "lmvp.history('birdsong/tagger')"


def test_a_plot_of_a_long_history_says_what_it_shows():
    assert MetricsPlot(sample.long_history(3000)).data["fact"] == "val/f1 by version, the newest 1,000 of 3,000"


def test_modules_load_from_a_blob_without_a_bundler():
    for widget in (HistoryTable, MetricsPlot):
        module = str(widget._esm)
        assert "export default" in module
        assert not re.search(r"^\s*import\s", module, re.MULTILINE), "a module in a blob has nothing beside it"


LINKS_OF_CARDS = r"/^(https?:\/\/|mailto:)/i"
"""The addresses that a link in a model card may have; a click follows it, and nothing is loaded."""


def test_nothing_is_loaded_from_elsewhere():
    for path in [*STATIC.rglob("*.js"), *STATIC.rglob("*.css")]:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "").replace(LINKS_OF_CARDS, "")
        if "vendor" not in path.parts:
            assert "http" not in text, path
        assert "@import" not in text
        assert not re.search(r"url\(\s*['\"]?(?!data:)", text), path


def test_styles_stay_inside():
    for widget in (HistoryTable, MetricsPlot):
        css = re.sub(r"/\*.*?\*/", "", str(widget._css), flags=re.DOTALL)
        rules, rule, outside = [], "", []
        for character in css:
            if character == "{":
                if all(each.startswith("@media") for each in rules):
                    outside.append(rule.strip())
                rules.append(rule.strip())
                rule = ""
            elif character == "}":
                rules.pop()
                rule = ""
            else:
                rule += character
        assert rules == []
        inside = (".lmvp", "@keyframes lmvp-", "@media")
        assert [each for each in outside if not any(part in each for part in inside)] == []


def test_vendored_files_are_what_the_list_says():
    rows = re.findall(
        r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (STATIC / "vendor" / "VENDORED.md").read_text("utf-8"), re.MULTILINE
    )
    files = {path.name for path in (STATIC / "vendor").iterdir()} - {"VENDORED.md"}
    assert {name for name, _ in rows} == files
    for name, digest in rows:
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
