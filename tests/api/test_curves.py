"""Curves as text, as pictures and as data; the feed that a live view reads; runs side by side."""

import math
import re
import xml.dom.minidom
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmvp
from lmvp import errors
from lmvp.cli import main
from lmvp.core.columns import Columns
from lmvp.core.downsample import reduced
from lmvp.core.run_frames import (
    AUTO,
    attempt_frame,
    key_frame,
    points_frame,
)
from lmvp.core.schemas.runs import RunRecord
from lmvp.tracking.feed import ROOM, Feed
from lmvp.views import curves as drawing
from lmvp.views.curves import Curves, Line
from lmvp.views.run_comparison import Comparison
from lmvp.views.runs import Run

AT = datetime(2026, 11, 26, tzinfo=timezone.utc)


def record(name="quiet-wren-44", **fields):
    given = {
        "id": "a" * 32,
        "project": "digits",
        "name": name,
        "status": "running",
        "created_at": AT,
        "duration": 9420.0,
    }
    return RunRecord(**{**given, **fields})


def run(name="quiet-wren-44", **fields):
    return Run(None, record(name, **fields))


def line(key="train/loss", values=(3.0, 2.0, 1.0), run=0, steps=None):
    steps = list(range(len(values))) if steps is None else steps
    return Line(run, key, steps, list(values), [AT.timestamp() + step for step in steps], len(values))


def svgs(curves):
    return [drawing.chart_svg(curves, lines) for lines in curves.groups().values()]


# -- system metrics


def with_machine(*keys):
    curves = Curves([run()], [line("loss")])
    machine = Curves([run()], [line(f"system/{key}", [50.0, 60.0]) for key in keys], axis="time")
    return Curves(curves.runs, curves.lines, machine=lambda: machine)


def test_system_metrics_of_curves_are_a_part_of_their_own():
    curves = with_machine("cpu_percent", "process/cpu_percent", "gpu/0/power_watts")
    data = drawing.curves_data(curves)
    assert [group["name"] for group in data["groups"]] == ["loss"]
    assert [group["name"] for group in data["system"]["groups"]] == ["cpu_percent", "system/gpu/0/power_watts"]
    assert (data["system"]["axis"], "system" in data["system"]) == ("time", False)
    still = curves._repr_html_()
    part = still[still.index("<details><summary>System metrics</summary>") :]
    assert part.count("<figure") == 2
    assert still.count("<figure") == 3


def test_curves_without_system_metrics_have_no_part_for_them():
    curves = Curves([run()], [line("loss")], machine=lambda: None)
    assert "system" not in drawing.curves_data(curves)
    assert "System metrics" not in curves._repr_html_()


def test_system_metrics_are_fetched_once_and_only_when_they_are_shown():
    calls = []
    curves = Curves([run()], [line("loss")], machine=lambda: calls.append(1))
    repr(curves), curves.groups()
    assert calls == []
    assert [curves.system, curves.system, len(calls)] == [None, None, 1]


def test_curves_are_drawn_where_the_server_refuses_system_metrics():
    def refuse():
        raise errors.ServerUnavailable("no server answers")

    curves = Curves([run()], [line("loss")], machine=refuse)
    assert curves._repr_html_().count("<figure") == 1


# -- forms


def test_text_has_a_line_for_each_metric():
    curves = Curves([run()], [line(values=np.linspace(3, 1, 100).tolist()), line("val/acc", [0.5, math.nan, 0.75])])
    first, loss, acc = repr(curves).splitlines()
    assert first == "quiet-wren-44  ● running  step 99, 2 h 37 min"
    assert re.fullmatch(r"train/loss  █[▁-█]{30}▁  3 → 1  least 1, greatest 3, 100 points", loss)
    assert acc == "val/acc     ▁ █  0.500 → 0.750  least 0.500, greatest 0.750, 3 points, 1 not finite"


def test_metrics_that_end_alike_share_a_chart_and_runs_share_one_for_each_metric():
    one = Curves([run()], [line("train/loss"), line("val/loss"), line("val/f1")])
    assert {name: [each.key for each in lines] for name, lines in one.groups().items()} == {
        "loss": ["train/loss", "val/loss"],
        "val/f1": ["val/f1"],
    }
    two = Curves([run(), run("bold-otter-7")], [line(run=0), line(run=1), line("val/loss", run=1)])
    assert list(two.groups()) == ["train/loss", "val/loss"]
    assert [two.label(each) for each in two.lines] == ["quiet-wren-44", "bold-otter-7", "bold-otter-7"]
    many = Curves([run()], [line(f"layer/{i}/norm") for i in range(7)])
    assert len(many.groups()) == 7


@pytest.mark.parametrize(
    "values",
    [[], [0.5], [math.nan] * 3, [1, math.inf, -math.inf, 2], [3, 3], [1e300, -1e300], [1e-12, 2e-12], [0, 0, 0]],
)
@pytest.mark.parametrize("how", [{}, {"smooth": 5}, {"log": True}, {"axis": "time"}])
def test_pictures_are_sound_whatever_the_values(values, how):
    curves = Curves([run()], [line(values=values, steps=list(range(0, len(values) * 10**9, 10**9)))], **how)
    for picture in svgs(curves):
        xml.dom.minidom.parseString(picture)
        assert "nan" not in picture.lower()
        assert "inf" not in picture.replace("infinite", "")
    assert "<img" in curves._repr_html_()
    assert repr(curves)
    data = drawing.curves_data(curves)
    assert len(data["groups"][0]["lines"][0]["values"]) == len(values)


def test_hostile_names_are_escaped():
    name = "<script>alert(1)</script>\u202e"
    curves = Curves([run(name)], [line(name)])
    html = curves._repr_html_()
    assert "<script" not in html
    assert "\u202e" not in html
    assert "\u202e" not in repr(curves)


def test_nothing_logged_is_said():
    assert "no metric has been logged yet" in repr(Curves([run()], []))
    assert "no metric has been logged yet" in Curves([run()], [])._repr_html_()


def test_a_long_list_of_charts_is_cut_in_the_static_form():
    curves = Curves([run()], [line(f"k{i}") for i in range(12)], hidden=3)
    html = curves._repr_html_()
    assert html.count("<img") == drawing.CHARTS
    assert "and 4 charts more" in html
    assert "and 3 metrics more" in html


def test_smoothing_has_no_bias_at_the_start_and_passes_over_gaps():
    found = drawing.smoothed([4.0, math.nan, 4.0, 4.0], 10)
    assert found == pytest.approx([4, 4, 4, 4])


# -- thinning


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3000), st.integers(8, 200))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values, most):
    steps = np.arange(len(values), dtype=np.int64)
    found = reduced(Columns(steps, np.array(values), steps.astype(float)), most)
    assert len(found) <= max(most, 5)
    assert (found.steps[0], found.steps[-1]) == (0, len(values) - 1)
    assert found.values.min() == min(values)
    assert found.values.max() == max(values)
    assert (np.array(values)[found.steps] == found.values).all()


def test_a_feed_follows_a_journal_as_it_grows(tmp_path):
    path = tmp_path / "a.journal"
    path.write_bytes(key_frame(0, "loss") + points_frame(1, [(0, AUTO, 1.0)]) + bytes(100))
    feed = Feed(tmp_path)
    assert feed.look() == {"", "loss"}
    assert feed.look() == set()
    whole = key_frame(0, "loss") + points_frame(1, [(0, AUTO, 1.0)]) + points_frame(2, [(0, AUTO, 2.0)])
    torn = points_frame(3, [(0, 9, 3.0)])
    path.write_bytes(whole + torn[:-1])
    feed.look()
    assert feed.curve("loss")[0].steps.tolist() == [0, 1]
    path.write_bytes(whole + torn)
    feed.look()
    assert feed.curve("loss")[0].values.tolist() == [1, 2, 3]
    path.write_bytes(whole + torn + attempt_frame(1, 0) + points_frame(4, [(0, AUTO, 4.0)]))
    feed.look()
    assert (feed.curve("loss")[0].steps.tolist(), feed.curve("loss")[0].values.tolist()) == ([0, 1], [1, 4])


def test_a_feed_stays_small_and_keeps_spikes(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000)
    values[[5, 50_000, 99_990]] = [99, -99, 77]
    frames = [points_frame(i, [(0, i, float(value))]) for i, value in enumerate(values)]
    (tmp_path / "a.journal").write_bytes(key_frame(0, "loss") + b"".join(frames))
    feed = Feed(tmp_path)
    feed.look()
    curve, count = feed.curve("loss")
    assert count == 100_000
    assert len(curve) <= ROOM
    assert {99.0, -99.0, 77.0} <= set(curve.values.tolist())


# -- runs side by side


def test_only_what_differs_is_compared():
    one = record("one", params={"lr": 0.1, "layers": 3}, metrics={"val/acc": 0.91, "val/loss": 0.4}, status="finished")
    two = record("two", params={"lr": 0.01, "layers": 3}, metrics={"val/acc": 0.95, "val/loss": 0.3}, status="failed")
    told = repr(Comparison.of([one, two]))
    assert "layers" not in told
    assert "2 things alike" in told or "things alike" in told
    assert re.search(r"param\s+lr\s+0\.1\s+0\.01", told)
    assert re.search(r"metric\s+val/acc\s+0\.91\d*\s+★ 0\.95", told)
    assert re.search(r"val/loss\s+0\.4\d*\s+★ 0\.3", told)
    assert "layers" in repr(Comparison.of([one, two], every=True))
    assert "do not differ" in repr(Comparison.of([one, one]))
    html = Comparison.of([one, two])._repr_html_()
    assert '<b title="best">0.95' in html


# -- verbs


@pytest.fixture
def logged(home):
    for lr in (0.1, 0.01):
        with lmvp.start_run("digits", name=f"lr-{lr}", params={"lr": lr}, system_metrics=False) as each:
            each.log_batch(range(50), {"train/loss": np.linspace(1, lr, 50), "val/acc": np.linspace(0, 1 - lr, 50)})
    return home


def test_the_verbs_of_the_shell(logged, capsys):
    assert main(["runs", "digits"]) == 0
    told = capsys.readouterr().out
    assert "lr-0.01" in told
    assert "■ finished" in told
    assert main(["runs", "digits", "--where", "params.lr > 0.05"]) == 0
    assert "lr-0.01" not in capsys.readouterr().out
    assert main(["metrics", "digits/lr-0.1"]) == 0
    assert "train/loss  █" in capsys.readouterr().out
    assert main(["metrics", "digits/lr-0.1", "digits/lr-0.01", "--key", "val/acc", "--smooth", "5", "--x", "time"]) == 0
    assert "lr-0.01 val/acc" in capsys.readouterr().out
    assert main(["compare", "digits/lr-0.1", "digits/lr-0.01"]) == 0
    assert "★ 0.99" in capsys.readouterr().out
    assert main(["sync"]) == 0
    assert "nothing waits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["metrics", "digits/lr-0.2"], "did you mean 'lr-0.1'"),
        (["metrics", "digits/lr-0.1", "--key", "val/ac"], "did you mean 'val/acc'"),
        (["metrics", "digits/lr-0.1", "--smooth", "-1"], "`--smooth -1`"),
        (["compare", "digits/lr-0.1"], "two or more"),
        (["runs", "digits", "--where", "params.lr >"], "column"),
        (["runs", "nothing"], "no project"),
        (["sync", "--discard", "x"], "no runs 'x' wait here"),
    ],
)
def test_slips_are_answered_with_the_way_out(logged, capsys, words, told):
    assert main(words) != 0
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


def test_a_metric_of_a_model_over_its_versions(home, capsys):
    for value in (0.5, 0.75):
        lmvp.update("digits/mlp", {"w": np.full(3, value)}, metrics={"acc": value})
    assert main(["metrics", "digits/mlp", "--key", "acc"]) == 0
    assert "0.75" in capsys.readouterr().out


def test_runs_of_several_projects_are_not_drawn_together(logged):
    from lmvp.views.curve_queries import of_runs

    with lmvp.start_run("letters", system_metrics=False) as other:
        other.log({"x": 1.0})
    with pytest.raises(errors.InvalidArgument, match="several projects"):
        of_runs(lmvp.Client(), [lmvp.run("lr-0.1", "digits"), lmvp.run(other.id, "letters")])


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1 / (i + 1) for i in range(400)], (0.0, 1.0)),
        ([0.1] * 60 + [90.0] + [0.1] * 60, (0.0, 100.0)),
        ([-5.0] + [2.0, 2.1, 2.2] * 20, (-6.0, 4.0)),
    ],
)
def test_saved_image_shows_every_value_of_a_curve(values, ends):
    curves = Curves([run()], [line(values=values)])
    frame = drawing.Frame.over([drawing.places_of(curves, curves.lines[0])], log=False)
    assert (frame.low, frame.high) == ends
    (svg,) = svgs(curves)
    (path,) = re.findall(r'<path d="([^"]*)" fill="none"', svg)
    drawn = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    assert len(drawn) == len(values)
    assert drawn == pytest.approx([frame.y(value) for value in values], abs=0.051)
    assert len(set(drawn)) >= min(len(set(values)), 3), "no value is drawn flat at the edge of the axis"


def test_learning_rate_keeps_its_digits_in_tables_of_curves():
    """A column of metrics that differ by powers of ten shows each of them."""
    curves = Curves([run()], [line("lr", [0.1, 7.5e-05]), line("loss", [2.5, 0.5])])
    assert "0.1 → 7.5e−05" in repr(curves)
    assert ">7.5e−05<" in curves._repr_html_()
    compared = repr(Comparison.of([record("one", metrics={"lr": 0.1}), record("two", metrics={"lr": 7.5e-05})]))
    assert re.search(r"lr\s+0\.1\s+7\.5e−05", compared)
