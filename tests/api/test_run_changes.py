"""Changes of runs after their end: from Python, the shell and the console; nothing is a silent no-op."""

import math
import re

import pytest
import requests
from support.in_process import TOKEN, Served

import lmvp
from lmvp import errors
from lmvp.cli import main


@pytest.fixture
def ended(home):
    with lmvp.start_run(
        "digits", name="quiet-wren-44", params={"lr": 0.1}, tags={"gpu": "a100"}, system_metrics=False
    ) as run:
        run.log({"loss": 0.5}, step=0)
        run.summary["best"] = 0.97
    return run


def read():
    return lmvp.run("quiet-wren-44", "digits")


def test_tags_params_and_summary_of_a_read_run_are_sent(ended):
    found = read()
    found.tags.update(by="ada", gpu="h100")
    found.params["momentum"] = 0.9
    found.summary["worst"] = math.inf
    del found.summary["best"]
    assert found.tags == read().tags == {"by": "ada", "gpu": "h100"}
    assert found.params == read().params == {"lr": 0.1, "momentum": 0.9}
    assert found.summary == read().summary == {"worst": math.inf}
    assert found.tags.pop("by") == "ada"
    tags = found.tags
    tags |= {"team": "vision"}
    assert tags.setdefault("gpu", "none") == "h100"
    assert read().tags == {"gpu": "h100", "team": "vision"}
    tags.clear()
    assert tags == read().tags == {}


def test_name_and_notes_of_a_read_run_are_sent(ended):
    found = read()
    found.notes = "too many epochs\nsee the next one"
    found.name = "baseline"
    again = lmvp.run("baseline", "digits")
    assert (again.id, again.name, again.notes) == (ended.id, "baseline", "too many epochs\nsee the next one")
    with pytest.raises(errors.NotFound):
        read()


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.params.pop("lr"),
        lambda run: run.params.clear(),
        lambda run: run.metrics.update(loss=0.1),
        lambda run: run.environment.update(host="x"),
        lambda run: setattr(run, "name", ""),
        lambda run: setattr(run, "notes", "x" * 20_001),
    ],
    ids=["pop", "clear", "metrics", "environment", "name", "notes"],
)
def test_change_that_cannot_be_kept_is_refused(ended, change):
    before = read().record
    with pytest.raises(errors.InvalidArgument):
        change(read())
    after = read().record
    assert (after.name, after.params, after.metrics, after.notes) == (before.name, {"lr": 0.1}, {"loss": 0.5}, "")


def test_run_that_this_process_ended_can_be_changed(ended):
    ended.tags["by"] = "ada"
    ended.params.update(momentum=0.9)
    ended.name, ended.notes = "baseline", "good"
    found = lmvp.run("baseline", "digits")
    assert (found.tags, found.params, found.notes) == (
        {"gpu": "a100", "by": "ada"},
        {"lr": 0.1, "momentum": 0.9},
        "good",
    )
    assert (ended.name, ended.notes) == ("baseline", "good")


def test_active_run_can_be_renamed_and_annotated(home):
    with lmvp.start_run("digits", name="quiet-wren-44", system_metrics=False) as run:
        run.notes = "first try"
        run.name = "baseline"
        run.flush()
        assert lmvp.run("baseline", "digits").notes == run.notes == "first try"


def test_metrics_and_environment_are_there_after_finish(ended):
    assert ended.metrics == {"loss": 0.5}
    assert ended.environment["python"]
    assert ended.environment == read().environment


def test_annotate_changes_a_run_from_the_shell(ended, capsys):
    line = ["annotate", "digits/quiet-wren-44", "--tag", "by=ada", "--untag", "gpu", "--param", "lr=0.2"]
    assert main([*line, "--name", "baseline", "--notes", "good"]) == 0
    assert capsys.readouterr().out == "digits/baseline\n  by: ada\ngood\n"
    found = lmvp.run("baseline", "digits")
    assert (found.tags, found.params, found.notes) == ({"by": "ada"}, {"lr": 0.2}, "good")
    assert main(["annotate", "digits/baseline"]) == 2
    assert "nothing to change" in capsys.readouterr().err
    assert lmvp.annotate("baseline", "digits", tags={"by": None}).tags == {}


def test_console_renames_tags_and_annotates_a_run(home, tmp_path, monkeypatch):
    with Served(tmp_path / "data") as served:
        monkeypatch.setenv("LMVP_URL", served.url)
        monkeypatch.setenv("LMVP_TOKEN", TOKEN)
        assert served("POST", "/projects", json={"name": "digits"}).ok
        with lmvp.start_run("digits", name="quiet-wren-44", tags={"gpu": "a100"}, system_metrics=False) as run:
            run.log({"loss": 0.5}, step=0)
        served.user("ada", "owner", "digits")
        browser = requests.Session()
        page = browser.get(f"{served.url}/login", timeout=20).text
        xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1]
        sign_in = {"_xsrf": xsrf, "name": "ada", "password": "ada has a long one"}
        assert browser.post(f"{served.url}/login", data=sign_in, timeout=20).ok
        page = browser.get(run.url, timeout=20).text
        fields = dict(re.findall(r'type="hidden" name="(_xsrf|was)" value="([^"]*)"', page))
        given = {**fields, "do": "amend", "name": "baseline", "tags": "by: ada\nfast", "notes": "good\nrun"}
        shown = browser.post(run.url, data=given, timeout=20)
        assert shown.status_code == 200
        assert "good\nrun" in shown.text
        found = lmvp.run("baseline", "digits")
        assert (found.tags, found.notes) == ({"by": "ada", "fast": ""}, "good\nrun")
        late = browser.post(run.url, data=given | {"name": "other"}, timeout=20)
        assert late.status_code == 409, "somebody changed it since that page was read"
        assert lmvp.run("baseline", "digits").id == run.id


def test_deleted_run_is_restored_with_its_points(ended, capsys):
    found = read()
    found.delete()
    with pytest.raises(errors.NotFound):
        read()
    (listed,) = lmvp.Client().removed("digits")
    assert (listed.kind, listed.title, listed.name) == ("run", "quiet-wren-44", f"digits/runs/{ended.id}")
    assert found.restore().status == "finished"
    again = read()
    assert (again.id, again.record.created_at) == (ended.id, ended.record.created_at)
    assert again.history("loss")["loss"]["value"].tolist() == [0.5]
    assert lmvp.Client().removed("digits") == []
    assert [one.action for one in lmvp.Client().events("digits")][:2] == ["run.undelete", "run.remove"]
    assert main(["rm", "digits/runs/quiet-wren-44"]) == 0
    line = capsys.readouterr().out
    assert line == f"the run quiet-wren-44 is removed; `lmvp undelete digits/runs/{ended.id}` restores it\n"
    assert main(["undelete"]) == 0
    assert "(quiet-wren-44)" in capsys.readouterr().out
    assert main(["undelete", "digits/runs/quiet-wren-44"]) == 0
    assert read().history("loss")["loss"]["value"].tolist() == [0.5]
    assert lmvp.Client().check().problems == ()


@pytest.mark.parametrize("how", ["now", "gc"])
def test_run_deleted_permanently_cannot_be_restored(ended, how):
    found = read()
    before = lmvp.Client().usage().disk["series"]
    if how == "now":
        found.delete(now=True)
    else:
        found.delete()
        assert lmvp.Client().usage().disk["series"] == before, "its points wait with it"
        lmvp.Client().collect_garbage(removed=True)
    assert lmvp.Client().usage().disk["series"] < before
    assert lmvp.Client().removed("digits") == []
    with pytest.raises(errors.NotFound, match="can be restored"):
        found.restore()


def test_backup_keeps_a_removed_run_restorable(ended, tmp_path):
    read().delete()
    assert main(["backup", str(tmp_path / "backup"), "--no-progress"]) == 0
    index = (tmp_path / "backup" / "backup.json").read_text("utf-8")
    assert ended.id in index, "its points are in the backup"
