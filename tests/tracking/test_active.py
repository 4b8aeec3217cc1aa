"""An active run takes all kinds of numbers, from all kinds of processes, and nothing that is none."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.tracking import active_runs
from lmvp.tracking.frames import AUTO

ROOT = Path(__file__).resolve().parents[2]


def values(run, key):
    return run.history(key)[key]["value"].tolist()


def steps(run, key):
    return run.history(key)[key]["step"].tolist()


def test_a_loop(begin):
    with begin(params={"lr": 0.1, "model": {"layers": 3, "name": "mlp"}}, tags={"kind": "test"}) as run:
        for step in range(1000):
            run.log({"train/loss": 1 / (step + 1), "train": {"acc": step / 10}}, step=step)
        run.summary["best"] = 0.97
        run.tags["gpu"] = "none"
        run.params["epochs"] = np.int64(7)
    found = lmvp.run(run.name, "digits")
    assert found.status == "finished"
    assert found.params == {"lr": 0.1, "model/layers": 3, "model/name": "mlp", "epochs": 7}
    assert (found.tags, found.summary) == ({"kind": "test", "gpu": "none"}, {"best": 0.97})
    assert found.metrics == {"train/loss": 1 / 1000, "train/acc": 99.9}
    assert steps(found, "train/loss") == list(range(1000))
    assert values(found, "train/acc") == [step / 10 for step in range(1000)]
    assert not run.folder.exists()


def test_numbers_of_every_kind(begin):
    torch = pytest.importorskip("torch")
    run = begin()
    given = [
        1, True, 0.5, np.float32(0.25), np.int8(3), np.array([4.0]), np.array(5), torch.tensor(6.0), torch.tensor([7]),
        torch.tensor(8.0, dtype=torch.bfloat16), torch.tensor(9.0, requires_grad=True), float("nan"), float("-inf"),
        10**30,
    ]  # fmt: skip
    for value in given:
        run.log({"x": value})
    expected = [1, 1, 0.5, 0.25, 3, 4, 5, 6, 7, 8, 9, None, float("-inf"), 1e30]
    found = values(run, "x")
    assert np.isnan(found[11])
    assert [value for value in found if value == value] == [value for value in expected if value is not None]


def test_several_tensors_on_a_device_are_fetched_at_once(begin, monkeypatch):
    torch = pytest.importorskip("torch")
    from lmvp.tracking import numbers

    fetched = []
    real = torch.stack
    monkeypatch.setattr(torch, "stack", lambda rows: fetched.append(len(rows)) or real(rows))

    class Away(torch.Tensor):
        device = torch.device("cuda")

    found = {key: torch.tensor(value).as_subclass(Away) for key, value in (("a", 1.5), ("b", 2.5))}
    numbers._fetch(found)
    assert (found, fetched) == ({"a": 1.5, "b": 2.5}, [2])


@pytest.mark.parametrize(
    "bad",
    [
        {"x": "1"}, {"x": None}, {"x": [1]}, {"x": 1j}, {"x": np.zeros(2)}, {"x": object()}, {"": 1}, {"a\nb": 1},
        {"k" * 1025: 1}, [1], "x", {"ok": 1.0, "x": "no"}, {"x": b"1"}, {"x": 10**400}, {"x": np.array(["a"])},
    ],
)  # fmt: skip
def test_what_is_no_number_is_named_and_nothing_of_the_call_is_logged(begin, bad):
    run = begin()
    run.log({"ok": 1.0})
    with pytest.raises(errors.InvalidArgument) as caught:
        run.log(bad)
    assert "\n  hint" in str(caught.value) or "float64" in str(caught.value) or "number" in str(caught.value)
    assert values(run, "ok") == [1.0]


@pytest.mark.parametrize("step", [1.5, "3", True, 1 << 63, None])
def test_steps_that_are_none(begin, step):
    run = begin()
    if step is None:
        run.log({"x": 1}, step=step)
        assert steps(run, "x") == [0]
    else:
        with pytest.raises(errors.InvalidArgument, match="step="):
            run.log({"x": 1.0}, step=step)
    run.log({"x": 2}, step=np.int64(41))
    run.log({"x": 3})
    assert steps(run, "x")[-2:] == [41, 42]


def test_times_are_kept(begin):
    run = begin()
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    run.log({"x": 1}, time=at)
    run.log({"x": 2}, time=12.5)
    assert run.history("x")["x"]["time"].tolist() == [at.timestamp(), 12.5]
    with pytest.raises(errors.InvalidArgument, match="time="):
        run.log({"x": 3}, time="now")
    with pytest.raises(errors.InvalidArgument, match="time="):
        run.log({"x": 3}, time=float("nan"))
    with pytest.raises(errors.InvalidArgument, match="time="):
        run.log_batch([1], {"x": [1]}, time=[float("inf")])


def test_batches(begin):
    run = begin()
    run.log_batch(range(300_000), {"long": np.arange(300_000) / 2})
    run.log_batch([5, 3, 4], {"a": [1, 2, 3], "b": np.float32([4, 5, 6])}, time=[1, 2, 3])
    run.log_batch(None, {"a": [7, 8]})
    run.log_batch([], {"nothing": []})
    assert values(run, "long") == (np.arange(300_000) / 2).tolist()
    assert (steps(run, "a"), values(run, "a")) == ([3, 4, 5, 6, 7], [2, 3, 1, 7, 8])
    assert run.history("b")["b"]["time"].tolist() == [2, 3, 1]
    for steps_, given in (
        ([1], {"a": [1, 2]}),
        ([1.5], {"a": [1]}),
        ([1], {"a": ["x"]}),
        ([1], {"a": [[1]]}),
        ([1], 3),
    ):
        with pytest.raises(errors.InvalidArgument):
            run.log_batch(steps_, given)


def test_a_hundred_thousand_keys(begin):
    run = begin()
    run.log({f"layer/{i}": float(i) for i in range(100_000)}, step=1)
    run.log({f"layer/{i}": float(i) for i in range(100_000)}, step=2)
    assert len(run.keys()) == 100_000
    assert values(run, "layer/77777") == [77777, 77777]


def test_threads(begin):
    run = begin()

    def work(number):
        for step in range(500):
            run.log({f"thread/{number}": float(step)}, step=step)
            lmvp.log({"shared": 1.0})

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = run.history()
    assert all(history[f"thread/{number}"]["value"].tolist() == list(range(500)) for number in range(8))
    assert history["shared"]["step"].tolist() == list(range(4000))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children(begin):
    run = begin()
    run.log({"parent": 1.0})
    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            for step in range(100):
                run.log({f"child/{number}": float(step)}, step=step)
                run.log({"all": 1.0})
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    run.log({"parent": 2.0})
    run.finish()
    history = lmvp.run(run.id, "digits").history()
    assert all(len(history[f"child/{number}"]) == 100 for number in range(3))
    assert history["all"]["step"].tolist() == list(range(300))
    assert history["parent"]["value"].tolist() == [1, 2]
    assert lmvp.run(run.id, "digits").status == "finished"


def log_from_elsewhere(run, number):
    for step in range(50):
        run.log({f"spawned/{number}": float(step)}, step=step)


def test_spawned_processes(begin):
    run = begin()
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=log_from_elsewhere, args=(run, number)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert values(run, "spawned/1") == list(range(50))


def test_workers_of_a_data_loader(begin):
    torch = pytest.importorskip("torch")
    run = begin()

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            run.log({"read": float(index)})
            return index

    loader = torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=2)
    read = [int(i) for batch in loader for i in batch]
    run.log({"train/loss": 0.5})
    run.finish()
    assert sorted(values(lmvp.run(run.id, "digits"), "read")) == sorted(read)


def test_a_run_that_has_ended_takes_no_file_from_a_forked_process(begin):
    ended = begin()
    ended.log({"loss": 1.0})
    ended.flush()
    ended.finish()
    pipes = [os.pipe() for _ in range(40)]  # the first of them takes the place of the journal's file
    child = os.fork()
    if child == 0:
        try:
            alive = [os.fstat(end).st_mode for pipe in pipes for end in pipe]
            os._exit(0 if len(alive) == 80 else 1)
        except OSError:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for pipe in pipes:
        for end in pipe:
            os.close(end)


def test_the_outcome_is_told(begin):
    def ended(error):
        run = begin()
        with pytest.raises(type(error)), run:
            raise error
        return lmvp.run(run.id, "digits").record

    failed, killed = ended(ValueError("no such layer")), ended(KeyboardInterrupt())
    assert (failed.status, failed.error) == ("failed", "ValueError: no such layer")
    assert killed.status == "killed"
    run = begin()
    run.finish("failed", "told token ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    run.finish()
    assert lmvp.run(run.id, "digits").record.error == "told token [redacted]"
    with pytest.raises(errors.InvalidArgument):
        run.finish("done")


@pytest.mark.parametrize(
    ("end", "status"), [("", "finished"), ("raise ValueError('x')", "failed"), ("raise KeyboardInterrupt", "killed")]
)
def test_the_end_of_the_process_ends_its_runs(home, end, status):
    code = f"import lmvp\nrun = lmvp.start_run('digits', name='at-the-end')\nrun.log({{'x': 1.0}})\n{end}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, timeout=60)
    found = lmvp.run("at-the-end", "digits")
    assert found.status == status
    assert found.environment["command"]["arguments"] == ["-c"]
    assert found.environment["installed"]["numpy"] == np.__version__


def test_the_newest_run_is_the_active_one(begin):
    with pytest.raises(errors.NotFound, match="no run is active"):
        lmvp.log({"x": 1})
    with begin() as outer:
        with begin() as inner:
            lmvp.log({"x": 1.0})
            assert lmvp.active_run() is inner
        lmvp.log({"x": 2.0})
        lmvp.log({"x": 3.0})
        assert (values(inner, "x"), values(outer, "x")) == ([1], [2, 3])
    assert lmvp.active_run() is None


def test_a_run_goes_on(begin):
    first = begin(params={"lr": 0.1})
    first.log({"loss": 1.0})
    first.log({"loss": 0.5})
    for resume in (first, first.id, first.name, first.id[:8]):
        with begin(resume=resume) as again:
            assert again.id == first.id
            again.log({"loss": 0.25})
    found = lmvp.run(first.id, "digits")
    assert (found.status, found.params) == ("finished", {"lr": 0.1})
    assert (steps(found, "loss"), values(found, "loss")) == (list(range(6)), [1, 0.5] + [0.25] * 4)
    assert len(lmvp.runs("digits")) == 1
    with pytest.raises(errors.NotFound, match="no run"):
        begin(resume="nobody-knows-1")


def test_what_is_logged_after_the_end_is_told_to_be_lost(begin):
    run = begin()
    run.log({"x": 1.0})
    run.finish()
    with pytest.warns(UserWarning, match="has ended") as told:
        run.log({"x": 2.0})
    assert len(told) == 1
    run.log({"x": 3.0})
    assert values(lmvp.run(run.id, "digits"), "x") == [1]


def test_a_rewind_takes_back_what_came_after_the_checkpoint(begin):
    run = begin()
    run.log_batch(range(100), {"loss": np.arange(100.0)})
    run.log({"system/cpu": 1.0}, step=90)
    run.rewind(49)
    run.log({"loss": -1.0})
    assert steps(run, "loss") == list(range(51))
    assert values(run, "loss")[-1] == -1
    assert steps(run, "system/cpu") == [90]
    run.log_batch(range(51, 60), {"loss": [0.0] * 9})
    assert steps(run, "loss") == list(range(60))


def test_versions_know_their_run(begin):
    with begin() as run:
        version = run.update("mlp", {"w": np.arange(3.0)}, message="in a run")
        other = lmvp.update("digits/cnn", {"w": np.arange(4.0)})
        elsewhere = lmvp.update("letters/cnn", {"w": np.arange(4.0)})
    assert (version.run, other.run, elsewhere.run) == (run.id, run.id, "")
    assert lmvp.run(run.id, "digits").versions == ("digits/mlp@v1", "digits/cnn@v1")


def test_runs_are_found_and_read(begin):
    for lr in (0.1, 0.01):
        with begin(params={"lr": lr}, name=f"lr-{lr}") as run:
            run.log({"val/acc": 1 - lr}, step=3)
    runs = lmvp.runs("digits", where="metrics['val/acc'] > 0.95")
    assert [run.name for run in runs] == ["lr-0.01"]
    everything = lmvp.runs("digits")
    assert "lr-0.01" in repr(everything)
    assert "■ finished" in repr(everything)
    pandas = pytest.importorskip("pandas")
    assert everything.to_pandas()["params.lr"].tolist() == [0.01, 0.1]
    frame = everything[0].to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["value"].tolist() == [0.99]
    with pytest.raises(errors.NotFound, match="val/ac"):
        everything[0].history("val/ac")


def test_curves_and_exports(begin, tmp_path):
    with begin() as run:
        run.log_batch(range(10_000), {"loss": np.sin(np.arange(10_000) / 100)})
    client = lmvp.Client()
    (curve,) = client.curves("digits", [run.id], ["loss"], points=100).curves
    assert curve.count == 10_000
    assert 50 < len(curve.steps) <= 100
    path = client.export_metrics(tmp_path / "all.csv", "digits")
    assert len(path.read_text().splitlines()) == 10_001
    with pytest.raises(errors.InvalidArgument, match=r"\.csv"):
        client.export_metrics(tmp_path / "all.xls", "digits")


def test_the_machine_is_measured(begin):
    run = begin(system_metrics=0.1)
    time.sleep(2.5)
    known = {each.key for each in list(run.keys())}
    assert {"system/cpu_percent", "system/process/memory_bytes", "system/memory_percent"} <= known
    run.finish()
    assert lmvp.run(run.id, "digits").metrics == {}


def test_only_the_first_of_several_processes_logs(begin, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    quiet = begin()
    quiet.log({"x": "anything"})
    quiet.summary["x"] = 1
    with quiet:
        assert quiet.update("m", None) is None
    loud = begin(all_ranks=True)
    loud.log({"x": 1.0})
    assert values(loud, "x") == [1.0]
    assert len(lmvp.runs("digits")) == 1


def test_a_run_can_be_pickled_and_is_the_same_run(begin):
    run = begin()
    copy = pickle.loads(pickle.dumps(run))
    assert (copy.id, copy.name, dict(copy.params)) == (run.id, run.name, {})
    copy.log({"x": 1.0})
    assert AUTO < 0
    assert run not in [None, copy]
    assert active_runs.active() is run


def test_secrets_do_not_leave_the_process(begin):
    secret = "hf_" + "a" * 30
    with begin(params={"api_key": "abc", "note": f"use {secret}", "max_tokens": 5}, tags={"token": "xyz"}) as run:
        run.summary["password"] = "hunter2"
    found = lmvp.run(run.id, "digits").record
    assert found.params == {"api_key": "[redacted]", "note": "use [redacted]", "max_tokens": 5}
    assert (found.tags, found.summary) == ({"token": "[redacted]"}, {"password": "[redacted]"})


@pytest.mark.parametrize(
    "options", [{"name": ""}, {"name": "a\nb"}, {"params": 3}, {"project": "a b"}, {"params": {"a\nb": 1}}]
)
def test_runs_that_cannot_begin(begin, options):
    with pytest.raises(errors.UserError):
        begin(**options)
