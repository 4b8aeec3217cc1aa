"""Forks: a history in another project that costs names alone, lives on by itself, and is contributed back."""

import os

import numpy as np
import pytest
from support.local_server import SharedServer

from lmvp import errors
from lmvp.cli import main
from lmvp.client.models import Client


def weights(step):
    rng = np.random.default_rng(7)
    base = rng.standard_normal((700, 512)).astype("f4")
    for turn in range(step):
        base = base + np.random.default_rng(turn).standard_normal(base.shape).astype("f4") * np.float32(1e-5)
    return {"w": base, "b": np.full(9, step, "f4")}


@pytest.fixture
def team(home, tmp_path):
    server = SharedServer(tmp_path / "served")
    server.root = Client(server.url, server.start())
    for name in ("ada", "grace", "eve"):
        server.root.add_user(name, "a long password")
        setattr(server, name, Client(server.url, server.root.create_token("t", scope="admin", user=name).token))
    for step in range(5):
        server.ada.update(
            "digits/mlp", weights(step), message=f"step {step}", metrics={"acc": step / 10}, create=True, progress=False
        )
    server.ada.alias("digits/mlp@v3", "production")
    server.root.set_member("digits", "grace", "contributor")
    yield server
    server.end()


def same(client, name, step):
    return np.array_equal(client.download(name, progress=False)["w"], weights(step)["w"])


def blocks(folder):
    """Bytes of all files below, each once, whatever the names it has."""
    files = [path.stat() for path in (folder / "chunks").rglob("*") if path.is_file()]
    return sum({one.st_ino: one.st_size for one in files}.values())


@pytest.mark.parametrize("packed", [False, True])
def test_a_fork_has_the_history_and_costs_names_alone(team, packed):
    if packed:
        team.root.compact()
    before = blocks(team.data)
    made = team.grace.fork("digits/mlp", "mine/mlp")
    assert (made.project, made.name, made.latest, made.origin) == ("mine", "mlp", 5, "digits/mlp")
    assert blocks(team.data) == before
    ours, theirs = team.grace.show_history("mine/mlp"), team.ada.show_history("digits/mlp")
    assert [one.digest for one in ours] == [one.digest for one in theirs]
    assert [(one.message, one.author, one.metrics) for one in ours] == [
        (one.message, one.author, one.metrics) for one in theirs
    ]
    assert all(same(team.grace, f"mine/mlp@v{step + 1}", step) for step in range(5))
    assert team.grace.aliases("mine/mlp") == []
    assert team.root.check().problems == ()
    assert [one.action for one in team.grace.events("mine")] == ["model.fork"]


def stored(team):
    """The bytes of each version of both models, as the API tells them."""
    return {one.reference: one.stored for name in ("digits/mlp", "mine/mlp") for one in team.root.show_history(name)}


@pytest.mark.parametrize("packed", [False, True])
def test_fork_is_not_stored_again_by_packing(team, packed):
    if packed:
        team.root.compact()
    team.grace.fork("digits/mlp", "mine/mlp")
    before = blocks(team.data)
    team.root.compact()
    assert blocks(team.data) <= before
    files = [path.stat() for path in (team.data / "chunks").rglob("*") if path.is_file()]
    assert {one.st_nlink for one in files} == {2}, "each frame is in both projects, and on the disk once"
    assert team.root.check().problems == ()
    assert all(same(team.grace, f"mine/mlp@v{step + 1}", step) for step in range(5))
    alone = blocks(team.data)
    team.ada.alias("digits/mlp@v4", "production", yes=True)
    team.ada.update("digits/mlp", weights(6), progress=False)
    team.grace.update("mine/mlp", weights(7), progress=False)
    added = blocks(team.data) - alone
    team.root.compact()
    assert blocks(team.data) <= alone + added
    assert team.root.check().problems == ()
    assert all(same(client, f"{name}@v{step + 1}", step) for step in range(5)
               for client, name in ((team.grace, "mine/mlp"), (team.ada, "digits/mlp")))  # fmt: skip


def test_du_counts_bytes_of_a_fork_once(team):
    team.root.compact()
    alone = team.root.usage()
    team.grace.fork("digits/mlp", "mine/mlp")
    both = team.root.usage()
    assert both.disk["chunks"] == alone.disk["chunks"] == blocks(team.data)
    assert {row.name: row.stored for row in both.rows} == {"digits": alone.stored, "mine": 0}
    assert both.stored == alone.stored
    assert team.grace.usage("mine/").stored == team.grace.usage("mine/mlp").stored == 0
    assert team.grace.usage("mine/").disk["chunks"] == 0
    assert team.ada.usage("digits/").disk["chunks"] == blocks(team.data)
    assert team.ada.remove("digits/", now=True, yes=True).bytes < blocks(team.data), "the fork still needs its chunks"
    assert team.root.usage().disk["chunks"] == blocks(team.data) == team.grace.usage("mine/").disk["chunks"]


def test_version_of_a_fork_tells_its_bytes_after_packing(team):
    team.grace.fork("digits/mlp", "mine/mlp")
    team.root.compact()
    told = stored(team)
    assert [told[f"mine/mlp@v{n}"] for n in range(1, 6)] == [told[f"digits/mlp@v{n}"] for n in range(1, 6)]
    assert sum(told[f"mine/mlp@v{n}"] for n in range(1, 6)) == blocks(team.data)


@pytest.mark.parametrize("first", [False, True])
def test_what_one_project_does_later_the_other_does_not_feel(team, first):
    if first:
        team.root.compact()
    team.grace.fork("digits/mlp", "mine/mlp")
    team.grace.update("mine/mlp", weights(6), progress=False)
    team.grace.remove("mine/mlp@v2", now=True)
    team.root.compact(), team.root.collect_garbage()
    assert team.root.check().problems == ()
    team.ada.remove("digits/", now=True, yes=True)
    assert team.root.check().problems == ()
    assert same(team.grace, "mine/mlp@v1", 0)
    assert same(team.grace, "mine/mlp@v5", 4)
    assert same(team.grace, "mine/mlp", 6)
    assert team.grace.models("mine")[0].origin == ""
    with pytest.raises(errors.Conflict, match="no fork of anything that you can see"):
        team.grace.contribute("mine/mlp")


def test_into_a_project_that_has_some_of_it_already(team):
    """What is there stands where it stands: a delta never depends on something that stands too deep."""
    for step in (4, 3, 2):
        team.grace.update("mine/other", weights(step), create=True, progress=False)
    team.root.compact()
    team.grace.fork("digits/mlp", "mine/mlp")
    team.root.compact(), team.root.collect_garbage()
    assert team.root.check().problems == ()
    assert all(same(team.grace, f"mine/mlp@v{step + 1}", step) for step in range(5))
    assert same(team.grace, "mine/other@v2", 3)


def test_a_version_is_contributed_back(team):
    team.grace.fork("digits/mlp", "mine/mlp")
    team.grace.update("mine/mlp", weights(6), metrics={"acc": 0.9}, progress=False)
    team.ada.update("digits/mlp", weights(5), progress=False)
    team.grace.update("mine/mlp", weights(7), message="two steps on", metrics={"acc": 0.95}, progress=False)
    before = blocks(team.data)
    done = team.grace.contribute("mine/mlp")
    assert blocks(team.data) == before, "its chunks have another name, and no other bytes"
    (found,) = team.ada.contributions("digits")
    assert (found.number, found.version.message, found.version.author) == (1, "two steps on", "grace")
    assert found.version.metrics == {"acc": 0.95}
    assert done.parents[0].number == 5, "the last version that both have"
    assert same(team.ada, "digits/mlp@c1", 7)
    assert team.ada.accept("digits/mlp@c1").accepted == 7
    assert same(team.ada, "digits/mlp@v7", 7)
    team.root.compact()
    assert team.root.check().problems == ()


def test_who_may_not_read_it_cannot_fork_it_nor_see_where_one_came_from(team):
    with pytest.raises(errors.NotFound, match="no project 'digits'"):
        team.eve.fork("digits/mlp", "hers/mlp")
    assert [one.name for one in team.eve.projects()] == []
    team.grace.fork("digits/mlp", "mine/mlp")
    team.grace.set_member("mine", "eve", "maintainer")
    assert team.eve.models("mine")[0].origin == ""
    with pytest.raises(errors.Conflict, match="no fork of anything that you can see"):
        team.eve.contribute("mine/mlp")
    with pytest.raises(errors.AccessDenied):
        team.grace.fork("mine/mlp", "digits/mine")
    team.root.set_member("digits", "eve", "viewer")
    assert team.eve.models("mine")[0].origin == "digits/mlp"
    with pytest.raises(errors.AccessDenied):
        team.eve.contribute("mine/mlp@v5")


def test_slips(team):
    team.grace.fork("digits/mlp", "mine/mlp")
    with pytest.raises(errors.AlreadyExists, match="there is a model 'mine/MLP'"):
        team.grace.fork("digits/mlp", "mine/MLP")
    with pytest.raises(errors.Conflict, match="no fork of anything"):
        team.ada.contribute("digits/mlp")
    with pytest.raises(errors.InvalidReference):
        team.grace.fork("digits/mlp", "mine/")
    assert team.ada.fork("digits/mlp", "digits/copy").latest == 5, "inside one project too"
    assert same(team.ada, "digits/copy@v2", 1)


def test_where_the_disk_knows_no_second_names(team, monkeypatch):
    from lmvp_server.stores.local.chunks import FolderChunks

    team.kill()
    space = next(path.name for path in (team.data / "chunks").iterdir())
    store = FolderChunks(team.data)
    chunk = next(store.chunks(space))

    def refuse(*_, **__):
        raise OSError(1, "no such thing here")

    monkeypatch.setattr(os, "link", refuse)
    store.adopt("0" * 16, space, chunk)
    assert store.get("0" * 16, chunk) == store.get(space, chunk)
    store.drop("0" * 16)


def test_the_shell(team, monkeypatch, capsys):
    monkeypatch.setenv("LMVP_URL", team.url)
    monkeypatch.setenv("LMVP_TOKEN", team.grace._token)
    assert main(["fork", "digits/mlp", "mine/mlp"]) == 0
    assert capsys.readouterr().out == "mine/mlp is a fork of digits/mlp, up to v5\n"
    team.grace.update("mine/mlp", weights(6), progress=False)
    assert main(["contribute", "mine/mlp", "-m", "better"]) == 0
    assert capsys.readouterr().out == "digits/mlp@c1 is proposed\n"
