"""An active run takes all kinds of numbers, from all kinds of processes, and nothing that is none."""

import enum
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import lmvp
from lmvp import errors
from lmvp.core.run_frames import AUTO
from lmvp.tracking import active_run

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
    from lmvp.core import metric_values

    fetched = []
    real = torch.stack
    monkeypatch.setattr(torch, "stack", lambda rows: fetched.append(len(rows)) or real(rows))

    class Away(torch.Tensor):
        device = torch.device("cuda")

    found = {key: torch.tensor(value).as_subclass(Away) for key, value in (("a", 1.5), ("b", 2.5))}
    metric_values._fetch(found)
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


class Odd:
    """A value of a foreign type: whatever is asked of it raises."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __float__(self):
        raise ZeroDivisionError

    __index__ = __bool__ = __str__ = __repr__ = __len__ = __float__


class OddMapping(dict):
    def items(self):
        raise ZeroDivisionError


class OddKey:
    def __str__(self):
        raise ZeroDivisionError


class OddDatetime(datetime):
    def timestamp(self):
        raise OverflowError


ODD_CALLS = [
    {"values": {"x": Odd()}},
    {"values": Odd()},
    {"values": OddMapping(x=1.0)},
    {"values": {OddKey(): 1.0}},
    {"values": {"\udce9": 1.0}},
    {"values": {"x": 10**5000}},
    {"values": {"x": {"y": {}}, "z": Odd()}},
    {"values": {"x": 1.0}, "step": Odd()},
    {"values": {"x": 1.0}, "step": 10**5000},
    {"values": {"x": 1.0}, "step": np.datetime64("2026-01-01")},
    {"values": {"x": 1.0}, "time": Odd()},
    {"values": {"x": 1.0}, "time": 10**400},
    {"values": {"x": 1.0}, "time": OddDatetime(2026, 1, 1)},
    {"values": {"x": 1.0}, "time": float("inf")},
]


@pytest.mark.parametrize("call", ODD_CALLS, ids=range(len(ODD_CALLS)))
def test_log_raises_nothing_but_invalid_argument(begin, call):
    run = begin()
    run.log({"ok": 1.0})
    with pytest.raises(errors.InvalidArgument):
        run.log(**call)
    run.log({"ok": 2.0})
    assert list(run.history()) == ["ok"]
    assert values(run, "ok") == [1, 2]


def test_log_of_a_tensor_without_a_value_raises_invalid_argument(begin):
    torch = pytest.importorskip("torch")
    run = begin()
    for values_ in ({"x": torch.empty((), device="meta")}, {"x": torch.empty(2, device="meta"), "y": 1.0}):
        with pytest.raises(errors.InvalidArgument, match="'x'"):
            run.log(values_)


@pytest.mark.parametrize("given", [{"x": [Odd()]}, {"x": Odd()}, Odd(), {OddKey(): [1.0]}], ids=range(4))
def test_log_batch_raises_nothing_but_invalid_argument(begin, given):
    run = begin()
    with pytest.raises(errors.InvalidArgument):
        run.log_batch([0], given)


class Name(str, enum.Enum):
    A = "a"


NUMBERS = {
    "int": (3, 3),
    "bool": (True, True),
    "float": (1.0, 1.0),
    "large": (10**30, 10**30),
    "infinite": (float("-inf"), float("-inf")),
    "numpy/int": (np.int64(7), 7),
    "numpy/float": (np.float32(0.5), 0.5),
    "numpy/bool": (np.bool_(True), True),
    "numpy/array": (np.array([5]), 5),
    "enum": (Name.A, "a"),
    "int enum": (enum.IntEnum("Kind", "A B").B, 2),
    "fraction": (Fraction(1, 4), 0.25),
    "none": (None, None),
    "list": ([1, 2], "[1, 2]"),
}


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "later"])
def test_params_keep_the_type_of_numbers(begin, late):
    given = {key: value for key, (value, _) in NUMBERS.items()}
    with begin(params={} if late else given) as run:
        if late:
            run.params.update(given)
        assert {key: (type(run.params[key]), run.params[key]) for key in given} == {
            key: (type(value), value) for key, (_, value) in NUMBERS.items()
        }
    found = lmvp.run(run.id, "digits").params
    assert {key: (type(value), value) for key, value in found.items()} == {
        key: (type(value), value) for key, (_, value) in NUMBERS.items()
    }


def test_nested_params_and_summaries_are_the_same_whenever_they_are_set(begin):
    nested = {"model": {"layers": 3, "name": {"long": "mlp"}}, "lr": 0.1}
    plain = {"model/layers": 3, "model/name/long": "mlp", "lr": 0.1}
    with begin(params=nested, tags=nested) as first, begin() as second:
        second.params.update(nested)
        second.params["model"] = nested["model"]
        second.summary.update(nested)
        second.tags.update(nested)
    for run in (first, lmvp.run(first.id, "digits"), second, lmvp.run(second.id, "digits")):
        assert run.params == plain
        assert run.tags == {key: str(value) for key, value in plain.items()}
    assert lmvp.run(second.id, "digits").summary == plain


def test_text_that_is_not_utf8_is_stored_escaped_and_costs_nothing_else(begin, monkeypatch, tmp_path):
    byte, folder = os.fsdecode(b"caf\xe9"), tmp_path / os.fsdecode(b"data\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", f"--data={byte}"])
    with begin(params={"path": byte, byte: 1}, tags={"tag": byte}) as run:
        run.log({"x": 1.0})
        run.params["later"] = byte
        run.summary["best"] = {byte: byte, "high": "\ud800"}
        run.tags[byte] = "yes"
        run.finish("failed", f"no file {byte}")
    record = lmvp.run(run.id, "digits").record
    assert record.params == {"path": r"caf\xe9", r"caf\xe9": 1, "later": r"caf\xe9"}
    assert record.tags == {"tag": r"caf\xe9", r"caf\xe9": "yes"}
    assert record.summary == {r"best/caf\xe9": r"caf\xe9", "best/high": r"\ud800"}
    assert record.error == r"no file caf\xe9"
    assert record.environment["command"] == {
        "arguments": ["train.py", r"--data=caf\xe9"],
        "folder": str(tmp_path / r"data\xe9"),
    }
    assert values(run, "x") == [1]


@pytest.mark.parametrize(
    "given", [{"a" * 251: 1}, {"a": "b" * 200_000}, {"a\nb": 1}, {Odd(): 1}, {"x": Odd()}], ids=range(5)
)
def test_params_that_no_server_stores_are_refused_at_once(begin, given):
    """The server would refuse the record, and with it all points that come after."""
    with begin() as run:
        for field in (run.params, run.summary, run.tags):
            with pytest.raises(errors.InvalidArgument):
                field.update(given)
        run.log({"x": 1.0})
    with pytest.raises(errors.InvalidArgument):
        begin(params=given)
    assert values(run, "x") == [1]


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


def test_ended_run_keeps_what_is_logged_to_it_and_says_so_once(begin):
    run = begin()
    run.log({"x": 1.0})
    run.finish()
    with pytest.warns(UserWarning, match="has ended") as told:
        run.log({"x": 2.0})
    assert len(told) == 1
    run.log({"x": 3.0, "new": 4.0})
    run.log_batch(None, {"x": [5.0]})
    run.summary["best"] = 6
    run.tags["late"] = "yes"
    assert values(run, "x") == [1, 2, 3, 5]  # delivers, and reads
    assert (steps(run, "x"), values(run, "new")) == ([0, 1, 2, 3], [4])
    record = lmvp.run(run.id, "digits").record
    assert (record.status, record.summary, record.tags) == ("finished", {"best": 6}, {"late": "yes"})
    run.deliver_late()
    assert not run.folder.exists()


LATE = """
import lmvp
run = lmvp.start_run("digits", name="late", system_metrics=False)
run.log({"x": 1.0})
run.finish()
for step in range(1000):
    run.log({"x": 2.0})
"""


def test_ended_run_delivers_what_was_logged_to_it_when_the_process_ends(home):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LATE], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.count("has ended") == 1
    run = lmvp.run("late", "digits")
    assert (run.status, len(run.history()["x"])) == ("finished", 1001)
    assert list(run_folders()) == []


def run_folders():
    from lmvp.tracking.destination import journals

    return journals().iterdir()


def test_ended_run_of_a_forked_or_sent_process_keeps_what_is_logged(begin):
    run = begin()
    copy = pickle.loads(pickle.dumps(run))
    copy.log({"x": 1.0}, step=0)
    copy.finish()
    with pytest.warns(UserWarning, match="has ended"):
        copy.log({"x": 2.0}, step=1)
    assert values(run, "x") == [1, 2]


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


def test_run_that_was_rewound_by_a_fast_clock_is_resumed_by_a_right_one(begin, monkeypatch):
    """The record has the highest attempt of any frame, also that of a child, so that a resume is above it."""
    now = time.time
    monkeypatch.setattr(active_run, "_now", lambda: now() + 600)
    run = begin()
    run.log_batch(range(6), {"a": np.arange(6.0)})
    run.rewind(3)
    run.log({"a": 4.5}, step=4)
    copy = pickle.loads(pickle.dumps(run))
    copy.rewind(4)
    run.finish()
    monkeypatch.setattr(active_run, "_now", now)
    record = lmvp.run(run.id, "digits").record
    assert record.epoch == copy._epoch > run._epoch > (now() + 500) * 1000
    for step in (5, 6):
        with begin(resume=run.id) as again:
            again.log({"a": float(step)}, step=step)
        assert again._epoch > record.epoch
        assert lmvp.run(run.id, "digits").status == "finished"
    assert (steps(run, "a"), values(run, "a")) == ([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4.5, 5, 6])


def test_duration_of_a_run_of_a_fast_clock_is_by_the_clock_of_the_server(begin, monkeypatch):
    from lmvp.tracking import start

    class Fast(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(time.time() + 600, tz)

    monkeypatch.setattr(start, "datetime", Fast)
    run = begin()
    run.flush()
    began = time.monotonic()
    while (took := lmvp.run(run.id, "digits").record.duration) == 0:
        time.sleep(0.1)
        run.log({"a": 1.0})
        run.flush()
    assert 0 < took < 60 + time.monotonic() - began


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
    assert active_run.active() is run


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


def test_small_delivery_prints_no_progress(capsys):
    from lmvp.tracking.active_run import _progress

    tell = _progress("quiet-wren-44", time.monotonic() - 10)
    tell(0, 2000)
    assert capsys.readouterr().err == ""
    tell(0, 5_000_000)
    assert "0.0 of 5.0 MB" in capsys.readouterr().err


def test_journal_of_another_process_is_delivered_later(begin, monkeypatch, capsys):
    later = []
    monkeypatch.setattr("lmvp.tracking.unsent.deliver_later", later.append)
    run = begin(name="parent")
    run.log({"loss": 1.0})
    run.flush()
    monkeypatch.setattr(type(run._sender), "has_all", lambda _: False)
    run.finish()
    assert later == [run.folder]
    assert "from another process are kept on this machine" in capsys.readouterr().err
