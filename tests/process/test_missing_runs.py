"""A run that the server does not find: every point waits on this machine until the server acknowledges it."""

import shutil
import time

import pytest
from support.in_process import Served

import lmvp
from lmvp.cli import main
from lmvp.core.run_frames import START, note, read_journal
from lmvp.errors import NotFound
from lmvp.tracking import unsent
from lmvp.tracking.destination import journals


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served") / "data") as served:
        yield served


@pytest.fixture
def place(served, home, monkeypatch, request):
    """A project of its own, and a contributor whose token this machine has."""
    monkeypatch.setattr(unsent, "_SOONEST", 1e6)  # nothing is delivered in the background
    project = f"{getattr(request, 'param', 'birds')}-{served.services.records.count('server', 'users')}"
    assert served("POST", "/projects", json={"name": project}).ok
    name = f"bob{project.rpartition('-')[2]}"
    token = served.user(name, "contributor", project, scope="write")["token"]
    monkeypatch.setenv("LMVP_URL", served.url)
    monkeypatch.setenv("LMVP_TOKEN", token)
    yield Place(served, project, name)
    for run in list(lmvp.tracking.active_run.every()):
        run.finish()


class Place:
    """Takes a run from its writer, and gives it back."""

    def __init__(self, served, project, name):
        self.served, self.project, self.name = served, project, name

    def take(self, how, run):
        if how == "project":
            assert self.served("DELETE", f"/projects/{self.project}").ok
        elif how == "role":
            assert self.served("DELETE", f"/projects/{self.project}/members/{self.name}").ok
        else:
            ended = {"status": "killed", "ended_at": "2026-11-30T00:00:00Z"}
            assert self.served("POST", f"/projects/{self.project}/runs/{run}/end", json=ended).ok
            assert self.served("DELETE", f"/projects/{self.project}/runs/{run}").ok

    def give_back(self, how, run):
        if how == "project":
            assert self.served("POST", f"/projects/{self.project}/undelete").ok
        elif how == "role":
            member = {"role": "contributor"}
            assert self.served("PUT", f"/projects/{self.project}/members/{self.name}", json=member).ok
        else:
            assert self.served("POST", f"/projects/{self.project}/runs/{run}/undelete").ok


def logged(run, steps):
    for step in steps:
        run.log({"loss": step / 2}, step=step)


def log_until_refused(run, steps):
    logged(run, steps)
    until(lambda: run._sender.trouble is not None)


def log_and_finish(run, steps):
    logged(run, steps)
    run.finish()


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def steps_of(run, project):
    return lmvp.run(run, project).history()["loss"]["step"].tolist()


WAYS = ["project", "role", "run"]


@pytest.mark.parametrize("how", WAYS)
def test_run_that_is_not_found_for_a_while_loses_no_point(place, how):
    run = lmvp.start_run(place.project, system_metrics=False)
    logged(run, range(100))
    run.flush()
    place.take(how, run.id)
    with pytest.warns(UserWarning, match="the metrics of this run wait on this machine") as warned:
        log_until_refused(run, range(100, 200))
    place.give_back(how, run.id)
    assert len([one for one in warned if "wait on this machine" in str(one.message)]) == 1
    assert f"`lmvp sync --discard {run.id[:8]}` deletes them" in str(warned[0].message)
    logged(run, range(200, 300))
    run.finish()
    assert steps_of(run.id, place.project) == list(range(300))
    assert not run.folder.exists()
    assert lmvp.run(run.id, place.project).status == "finished"


@pytest.mark.parametrize("place", ["birds", "removed-birds"], indirect=True)
@pytest.mark.parametrize("how", WAYS)
def test_run_that_is_not_found_at_its_end_is_delivered_by_sync_later(place, how, capsys):
    """The name of the project is in the error message, which must decide nothing."""
    run = lmvp.start_run(place.project, name="night", system_metrics=False)
    logged(run, range(100))
    run.flush()
    place.take(how, run.id)
    with pytest.warns(UserWarning, match="wait on this machine"):
        log_and_finish(run, range(100, 200))
    told = capsys.readouterr().err
    assert "the run night is kept on this machine" in told
    assert f"`lmvp sync --discard {run.id[:8]}` deletes them" in told
    for _ in range(2):
        assert [one.state for one in unsent.deliver()] == ["removed" if how == "run" else "waiting"]
        assert len(list(run.folder.glob("*.journal"))) == 1
    assert main(["sync"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "waits" in text
    assert ("`lmvp undelete` restores the run" in text) is (how == "run")
    place.give_back(how, run.id)
    assert [one.state for one in unsent.deliver()] == ["delivered"]
    assert steps_of(run.id, place.project) == list(range(200))
    assert not run.folder.exists()


def test_run_that_was_deleted_permanently_is_kept_until_the_user_discards_it(place):
    run = lmvp.start_run(place.project, name="unwanted", system_metrics=False)
    logged(run, range(10))
    run.flush()
    place.take("run", run.id)
    assert place.served("POST", f"/projects/{place.project}/runs/{run.id}/undelete").ok
    assert place.served("DELETE", f"/projects/{place.project}/runs/{run.id}?now=1").ok
    with pytest.warns(UserWarning, match="wait on this machine"):
        log_and_finish(run, range(10, 20))
    (waiting,) = unsent.deliver()
    assert (waiting.state, waiting.why) == ("removed", f"the run {run.id} was removed")
    assert main(["sync", "--discard", "unwanted"]) == 0
    assert not run.folder.exists()
    with pytest.raises(NotFound):
        lmvp.run(run.id, place.project)


def test_background_delivery_waits_for_a_project_that_is_removed(place, monkeypatch):
    run = lmvp.start_run(place.project, system_metrics=False)
    logged(run, range(10))
    run.flush()
    place.take("project", run.id)
    monkeypatch.setattr(unsent, "_SOONEST", 0.02)
    monkeypatch.setattr(unsent, "_LATEST", 0.05)
    tried, deliver = [], unsent._deliver
    monkeypatch.setattr(unsent, "_deliver", lambda *args, **kw: (found := deliver(*args, **kw), tried.append(found))[0])
    with pytest.warns(UserWarning, match="wait on this machine"):
        log_and_finish(run, range(10, 20))
    until(lambda: len(tried) >= 3)
    assert {one.state for one in tried} == {"waiting"}
    place.give_back("project", run.id)
    until(lambda: not run.folder.exists())
    assert steps_of(run.id, place.project) == list(range(20))


def test_journal_of_a_child_that_grew_since_it_was_looked_at_is_not_deleted(home):
    """The names of the delivered journals are asked for while the locks of all journals are held."""
    folder = journals() / ("a" * 32)
    folder.mkdir(parents=True)
    journal = folder / f"{'b' * 32}.journal"
    journal.write_bytes(note(START, b'{"run":"' + b"a" * 32 + b'","joins":true}'))
    acknowledged = journal.stat().st_size

    def delivered():
        return {path.name for path in folder.glob("*.journal") if read_journal(path.read_bytes()).end <= acknowledged}

    assert delivered() == {journal.name}
    journal.write_bytes(journal.read_bytes() + note(START, b"{}"))
    unsent.forget(folder, delivered)
    assert journal.stat().st_size > acknowledged


# -- a server that was restored from a backup


def restored_without(server, copy):
    """Start the server on an earlier copy of its data, as a restore does."""
    server.kill()
    shutil.rmtree(server.data)
    shutil.copytree(copy, server.data)
    server.start()


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "finished"])
def test_run_that_a_restored_server_lacks_is_created_again_from_its_journal(server, tmp_path, is_running):
    lmvp.start_run("birds", name="earlier", system_metrics=False, create=True).finish()
    server.end()
    shutil.copytree(server.data, tmp_path / "copy")
    server.start()
    run = lmvp.start_run("birds", name="night", params={"lr": 0.5}, system_metrics=False)
    logged(run, range(100))
    run.flush()
    restored_without(server, tmp_path / "copy")
    if is_running:
        logged(run, range(100, 200))
        run.flush(60.0)
    run.finish()
    found = lmvp.run(run.id, "birds")
    assert (found.name, found.params, found.status) == ("night", {"lr": 0.5}, "finished")
    assert found.history()["loss"]["step"].tolist() == list(range(200 if is_running else 100))
    assert not run.folder.exists()


def test_child_of_a_run_that_a_restored_server_lacks_is_sent_again(server, tmp_path):
    """The journal of the child was acknowledged to its end before the restore."""
    lmvp.start_run("birds", name="earlier", system_metrics=False, create=True).finish()
    server.end()
    shutil.copytree(server.data, tmp_path / "copy")
    server.start()
    run = lmvp.start_run("birds", name="night", system_metrics=False)
    logged(run, range(10))
    child = leftovers_child(run)
    run.flush()
    until(lambda: child.stem in run._sender._transfers and run._sender._transfers[child.stem].sent)
    restored_without(server, tmp_path / "copy")
    run.finish()
    history = lmvp.run(run.id, "birds").history()
    assert history["loss"]["step"].tolist() == list(range(10))
    assert history["child"]["value"].tolist() == [0.25]
    assert not run.folder.exists()


def leftovers_child(run):
    """Log from a child process that ends at once; return its journal."""
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=run.log, args=({"child": 0.25}, 0))
    process.start()
    process.join()
    (journal,) = [path for path in run.folder.glob("*.journal") if path != run._main.journal.path]
    return journal
