"""Runs in a shell with the extension: the cell magic, the widgets, and what an output keeps."""

import time

import numpy as np
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import lmvp
from lmvp import errors
from lmvp_jupyter.curves import CurvesPlot, LiveRun
from lmvp_jupyter.widgets import MetricsPlot

pytestmark = pytest.mark.notebook


@pytest.fixture
def ip(home):
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "lmvp_jupyter")
    yield shell
    for run in lmvp.tracking.active_run.every():
        run.finish()
    shell.run_line_magic("unload_ext", "lmvp_jupyter")
    shell.history_manager.end_session()


def cell(ip, source, line="run digits --name in-a-cell --param lr=0.1 --tag kind=test"):
    return ip.run_cell_magic("lmvp", line, source)


def test_a_cell_is_a_run(ip):
    value = cell(ip, "x = 41\nrun.log({'loss': 0.5}, step=x)\ntoken = 'abc'\nx + 1")
    assert value == 42
    assert ip.user_ns["x"] == 41
    run = lmvp.run("in-a-cell", "digits")
    assert (run.status, run.params, run.tags) == ("finished", {"lr": 0.1}, {"kind": "test"})
    assert run.history("loss")["loss"]["step"].tolist() == [41]
    assert run.environment["cell"] == "x = 41\nrun.log({'loss': 0.5}, step=x)\ntoken = [redacted]\nx + 1"


def test_a_failing_cell_is_a_failed_run_and_raises(ip):
    with pytest.raises(ZeroDivisionError):
        cell(ip, "run.log({'loss': 0.5})\n1 / 0")
    run = lmvp.run("in-a-cell", "digits").record
    assert (run.status, run.error) == ("failed", "ZeroDivisionError: division by zero")
    assert lmvp.active_run() is None


def test_magics_inside_the_cell_and_a_semicolon(ip):
    assert cell(ip, "%lmvp project digits\n1;") is None


def test_other_verbs_take_no_cell(ip):
    with pytest.raises(UsageError, match="only `run` and `bisect` take a whole cell"):
        cell(ip, "1", line="push digits/mlp model")
    with pytest.raises(errors.InvalidArgument, match="KEY=VALUE"):
        cell(ip, "1", line="run digits --param lr")
    with pytest.raises(UsageError, match="unrecognized"):
        cell(ip, "1", line="run digits --nonsense")


def test_help_for_a_cell(ip, capsys):
    assert cell(ip, "raise SystemExit", line="run --help") is None
    assert "--param" in capsys.readouterr().out


@pytest.fixture
def logged(home):
    with lmvp.start_run("digits", name="kept", system_metrics=False) as run:
        run.log_batch(range(5000), {"train/loss": np.linspace(1, 0, 5000), "val/loss": np.linspace(1, 0.2, 5000)})
    return lmvp.run("kept", "digits")


def test_a_plot_of_a_run_of_runs_and_of_nothing(logged):
    plot = MetricsPlot(logged)
    assert isinstance(plot, CurvesPlot)
    (group,) = plot.data["groups"]
    assert group["name"] == "loss"
    assert [line["label"] for line in group["lines"]] == ["train/loss", "val/loss"]
    assert max(len(line["steps"]) for line in group["lines"]) <= 1000
    assert isinstance(MetricsPlot(lmvp.runs("digits")), CurvesPlot)
    assert isinstance(MetricsPlot([logged, logged]), CurvesPlot)
    assert plot.static()["text/plain"].startswith("kept  ■ finished")
    assert "<img" in plot.static()["text/html"]
    with pytest.raises(errors.InvalidArgument, match="a plot of int"):
        MetricsPlot(3)


def test_a_zoom_is_answered_with_every_point(logged):
    plot = MetricsPlot(logged)
    sent = []
    plot.send = lambda message, buffers: sent.append((message, buffers))
    plot._heard(plot, {"kind": "zoom", "from": 1000, "to": 1500}, [])
    ((message, buffers),) = sent
    assert (message["kind"], message["range"]) == ("finer", [1000, 1500])
    assert [line["key"] for line in message["lines"]] == ["train/loss", "val/loss"]
    numbers = np.frombuffer(buffers[0])
    assert len(numbers) == 4 * 501
    assert (numbers[0], numbers[500]) == (1000, 1500)
    assert len(plot.curves.lines[0].steps) <= 1000


def test_epochs_are_an_axis_wherever_a_run_has_them(home):
    with lmvp.start_run("digits", name="by-epoch", system_metrics=False) as run:
        for step in range(30):
            run.log({"loss": 1 / (step + 1), **({"epoch": step // 10 + 1} if step % 10 == 9 else {})}, step=step)
        run.finish()
    for plot in (MetricsPlot(run), MetricsPlot(lmvp.run("by-epoch", "digits"))):
        assert plot.data["joined"] == "epoch"
        ((line,),) = [group["lines"] for group in plot.data["groups"]]
        assert (line["axis"][9], line["axis"][14], line["axis"][19], line["axis"][29]) == (1, 1.5, 2, 3)
    plot.send = lambda message, buffers: sent.append((message, np.frombuffer(buffers[0])))
    sent = []
    plot._heard(plot, {"kind": "zoom", "from": 9, "to": 19}, [])
    ((message, numbers),) = sent
    assert message["head"]["joined"] == "epoch"
    assert numbers[33:].tolist() == pytest.approx(np.linspace(1, 2, 11))


def test_a_live_plot_tells_lines_that_changed_and_ends_with_all(home):
    run = lmvp.start_run("digits", system_metrics=False, plot=False)
    drawn = []
    live = LiveRun(run, lambda plot: drawn.append(plot.static()["text/plain"]))
    sent = []
    live.plot.send = lambda message, buffers: sent.append((message, [np.frombuffer(each) for each in buffers]))
    run.log({"train/loss": 1.0}, step=3)
    deadline = 100
    while not sent and (deadline := deadline - 1):
        live._end.wait(0.05)
    message, ((step, _, value, _),) = sent[0]
    assert (message["kind"], message["lines"][0]["group"], step, value) == ("news", "train/loss", 3, 1)
    run.log({"val/loss": 2.0}, step=4)
    run.finish()
    assert live.plot.data["live"] is False
    assert [line["label"] for group in live.plot.data["groups"] for line in group["lines"]] == [
        "train/loss",
        "val/loss",
    ]
    assert len(drawn) == 1
    assert "■ finished" in drawn[0]


def test_live_plot_tells_system_metrics_apart(home):
    run = lmvp.start_run("digits", system_metrics=False, plot=False)
    live = LiveRun(run, lambda plot: None)
    sent = []
    live.plot.send = lambda message, buffers: sent.append(message)
    run.log({"loss": 1.0, "system/cpu_percent": 50.0, "system/gpu/0/power_watts": 250.0})
    deadline = 200
    while len(sent) < 2 and (deadline := deadline - 1):
        live._end.wait(0.05)
    told = {message.get("section", ""): [line["key"] for line in message["lines"]] for message in sent}
    assert told == {"": ["loss"], "system": ["system/cpu_percent", "system/gpu/0/power_watts"]}
    live.plot._heard(live.plot, {"kind": "hello"}, [])
    assert [message.get("section", "") for message in sent[-2:]] == ["", "system"]
    run.finish()
    assert [group["name"] for group in live.plot.data["groups"]] == ["loss"]
    assert len(live.plot.data["system"]["groups"]) == 2
    assert "System metrics" in live.plot.static()["text/html"]


def test_system_metrics_of_a_run_are_shown_from_the_server(home):
    with lmvp.start_run("digits", name="measured", system_metrics=False) as run:
        run.log_batch(range(500), {"loss": np.linspace(1, 0, 500), "system/cpu_percent": np.linspace(0, 100, 500)})
    found = lmvp.run("measured", "digits")
    for plot in (MetricsPlot(found), MetricsPlot(lmvp.metrics("digits/measured"))):
        ((line,),) = [group["lines"] for group in plot.data["system"]["groups"]]
        assert (line["key"], line["count"], line["values"][-1]) == ("system/cpu_percent", 500, 100)
        assert len(line["values"]) <= 240
        assert [group["name"] for group in plot.data["groups"]] == ["loss"]
    sent = []
    plot.send = lambda message, buffers: sent.append((message, len(np.frombuffer(buffers[0])) // 4))
    plot._heard(plot, {"kind": "zoom", "from": 100, "to": 150, "section": "system"}, [])
    ((message, points),) = sent
    assert (message["section"], message["lines"][0]["key"], points) == ("system", "system/cpu_percent", 51)
    assert [line.key for line in plot.curves.lines] == ["loss"]
    assert lmvp.metrics("digits/measured", keys="loss").system is None


def test_a_plot_keeps_up_with_a_run_of_another_process(home, monkeypatch):
    from lmvp_jupyter import curves

    monkeypatch.setattr(curves, "_AGAIN", 0.05)
    with lmvp.start_run("digits", name="elsewhere", system_metrics=False, plot=False) as run:
        run.log({"loss": 1.0})
        run.flush()
        sent = []
        monkeypatch.setattr(CurvesPlot, "send", lambda _, message, buffers: sent.append(message))
        plot = MetricsPlot(lmvp.run("elsewhere", "digits"))
        run.log({"loss": 0.5})
        run.flush()
        for _ in range(100):
            if sent and sent[-1]["lines"][0]["count"] == 2:
                break
            run.flush()
            time.sleep(0.05)
        assert sent[-1]["lines"][0]["count"] == 2
    for _ in range(100):
        if sent[-1]["head"]["status"] == "finished":
            break
        time.sleep(0.05)
    assert sent[-1]["head"]["status"] == "finished"
    plot.close()


def test_cell_that_is_run_again_ends_the_runs_that_it_began_before(home, monkeypatch):
    from lmvp.tracking import provenance

    def begin(cell, execution):
        monkeypatch.setattr(provenance, "this_cell", lambda: cell)
        monkeypatch.setattr(provenance, "this_execution", lambda: execution)
        return lmvp.start_run("digits", system_metrics=False, plot=False)

    first, other, again = begin("id:one", 1), begin("id:two", 2), begin("id:one", 3)
    beside, elsewhere = begin("id:one", 3), begin("id:one", 1)  # a task of the first execution goes on
    runs = (first, other, again, beside, elsewhere)
    assert [run.ended for run in runs] == [True, False, False, False, False]
    for run in runs:
        run.finish()


NESTED = """
import asyncio, lmvp
def begin(name, project="sweep"):
    return lmvp.start_run(project, name=name, system_metrics=False, plot=False)

with begin("parent") as parent:
    for rate in (1, 2):
        with begin(f"child-{rate}") as child:
            child.log({"loss": 1 / rate})
        parent.log({"best": rate})

left, right = begin("left"), begin("right", "other")
for number in range(3):
    left.log({"x": number})
    right.log({"x": number})
left.finish(); right.finish()

async def train(name):
    with begin(name) as run:
        for number in range(3):
            run.log({"x": number})
            await asyncio.sleep(0.01)

await asyncio.gather(train("task-1"), train("task-2"))
"""
AGAIN = """
import lmvp
run = lmvp.start_run("again", name=f"run-{len(lmvp.runs('again')) if TIMES else 0}", system_metrics=False, plot=False)
TIMES.append(run)
run.log({"x": 1.0})
run.flush()
print([each.ended for each in TIMES])
"""


@pytest.mark.slow
def test_runs_of_one_execution_of_a_cell_are_all_logged_to(home):
    """In a real kernel: nested, side by side, of two projects, and of tasks. Only a later execution ends a run."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [nbformat.v4.new_code_cell(source) for source in (NESTED, "TIMES = []", AGAIN)]
    book = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(book, timeout=120, kernel_name="python3")
    with client.setup_kernel():
        for number, cell in [*enumerate(book.cells), (2, book.cells[2])]:
            client.execute_cell(cell, number)
    runs = {run.name: (run.status, dict(run.metrics)) for run in [*lmvp.runs("sweep"), *lmvp.runs("other")]}
    assert runs == {
        "parent": ("finished", {"best": 2}),
        "child-1": ("finished", {"loss": 1}),
        "child-2": ("finished", {"loss": 0.5}),
        **dict.fromkeys(("left", "right", "task-1", "task-2"), ("finished", {"x": 2})),
    }
    printed = "".join(output.get("text", "") for output in book.cells[2].outputs).splitlines()
    assert [line for line in printed if not line.startswith("run again/run-")] == ["[True, False]"]
    assert {run.name: dict(run.metrics) for run in lmvp.runs("again")} == {"run-0": {"x": 1}, "run-1": {"x": 1}}


@pytest.fixture
def modelled(home):
    for number in range(2):
        with lmvp.start_run("digits", name=f"made-{number}", system_metrics=False) as run:
            run.log({"loss": 1 / (number + 1)})
            run.update("mlp", {"w": np.full(3, float(number))}, metrics={"acc": 0.5 + number / 4}, progress=False)
    with lmvp.start_run("digits", name="made-nothing", system_metrics=False) as run:
        run.log({"loss": 3.0})
    lmvp.update("digits/bare", {"w": np.zeros(3)}, progress=False)
    lmvp.update("birds/song", {"w": np.zeros(3)}, metrics={"f1": 0.25}, progress=False)


def test_metrics_of_a_model_are_those_of_its_versions_and_of_its_runs(ip, modelled):
    for found in (ip.run_line_magic("lmvp", "metrics digits/mlp"), lmvp.metrics("digits/mlp")):
        assert [(history.title, metric) for history, metric in found.charts] == [("digits/mlp", "acc")]
        assert ([run.name for run in found.runs], [line.key for line in found.lines]) == (
            ["made-1", "made-0"],
            ["loss", "loss"],
        )
        text = repr(found).splitlines()
        assert text[:2] == ["digits/mlp  by version", "acc  ▁█  0.500 at v1 to 0.750 at v2"]
        assert "made-1 loss" in text[3]
        assert found._repr_html_().count("<img") >= 2
    assert ip.run_line_magic("lmvp", "metrics digits/mlp --key acc").lines == []
    assert ip.run_line_magic("lmvp", "metrics digits/mlp --key loss").charts == ()
    with pytest.raises(errors.NotFound, match="has the metric 'nope'"):
        ip.run_line_magic("lmvp", "metrics digits/mlp --key nope")


def test_metrics_of_a_project_are_the_curves_of_its_runs(ip, modelled):
    found = ip.run_line_magic("lmvp", "metrics digits")
    assert [run.name for run in found.runs] == ["made-nothing", "made-1", "made-0"]
    assert [line.values for line in found.lines] == [[3.0], [0.5], [1.0]]
    found = ip.run_line_magic("lmvp", "metrics birds")  # it has no runs
    assert [(history.title, metric) for history, metric in found.charts] == [("birds/song", "f1")]


def test_metrics_of_a_model_without_any_tell_how_to_add_one(ip, modelled):
    found = ip.run_line_magic("lmvp", "metrics digits/bare")
    assert "No version of digits/bare has a metric yet" in repr(found)
    assert "metrics={" in repr(found)
    assert "metrics={" in found._repr_html_()


def test_runs_of_a_model_are_those_that_made_its_versions(ip, modelled):
    assert [run.name for run in lmvp.runs("digits/mlp")] == ["made-1", "made-0"]
    assert [run.name for run in ip.run_line_magic("lmvp", "runs digits/mlp --where 'metrics.loss > 0.7'")] == ["made-0"]
    assert repr(ip.run_line_magic("lmvp", "runs digits/bare")) == "no run made a version of digits/bare"
    with pytest.raises(errors.NotFound, match="no model 'none'"):
        lmvp.runs("digits/none")


def test_the_status_tells_the_active_run(ip):
    with lmvp.start_run("digits", name="here-and-now", system_metrics=False, plot=False):
        assert "digits/here-and-now" in repr(ip.run_line_magic("lmvp", ""))


def test_a_broken_picture_does_not_break_a_training(home):
    run = lmvp.start_run("digits", system_metrics=False, plot=False)
    LiveRun(run, lambda plot: 1 / 0)
    run.log({"x": 1.0})
    run.finish()
    assert lmvp.run(run.id, "digits").status == "finished"
