"""What is removed can be brought back for a while: as it was, by those who may, on a real server."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from support.local_server import SharedServer

from lmvp import errors
from lmvp.client.models import Client


def weights(seed):
    return {"w": np.random.default_rng(seed).standard_normal((200, 300)).astype("f4")}


@pytest.fixture
def team(tmp_path, home):
    server = SharedServer(tmp_path / "data")
    server.token = server.start()
    server.root = Client(server.url, server.token)
    for name in ("ada", "grace", "eve"):
        server.root.add_user(name, "a long password")
        token = server.root.create_token("t", scope="admin", user=name).token
        setattr(server, name, Client(server.url, token))
    for seed in range(1, 4):
        server.ada.update("digits/mlp", weights(seed), metrics={"acc": seed / 10}, create=True, progress=False)
    server.ada.alias("digits/mlp@v2", "production")
    server.root.set_member("digits", "grace", "contributor")
    yield server
    server.end()


def names(client, of="digits/mlp"):
    return [one.name for one in client.show_history(of)]


def test_a_version_comes_back_where_it_stood(team):
    before = team.ada.version("digits/mlp@v1")
    gone = team.ada.remove("digits/mlp@v1")
    assert (gone.versions, gone.bytes) == (1, 0)
    assert timedelta(days=6.9) < gone.until - datetime.now(timezone.utc) < timedelta(days=7.1)
    assert names(team.ada) == names(team.ada, "digits/") == ["v3", "v2"]
    assert team.ada.show_history("digits/").total == 2
    for ask in (team.ada.version, team.ada.download, team.ada.show):
        with pytest.raises(errors.NotFound, match="it was removed"):
            ask("digits/mlp@v1")
    with pytest.raises(errors.NotFound):
        team.ada.version(f"digits/mlp@{before.digest[:12]}")
    (item,) = team.ada.removed()
    assert (item.kind, item.name, item.versions, item.removed_by) == ("version", "digits/mlp@v1", 1, "ada")
    assert team.ada.removed("digits") == [item]
    assert team.ada.undelete("digits/mlp@v1") == before
    assert team.ada.undelete("digits/mlp@v1") == before, "said twice, it is there once"
    assert names(team.ada) == ["v3", "v2", "v1"]
    assert team.ada.removed() == []
    assert np.array_equal(team.ada.download("digits/mlp@v1", progress=False)["w"], weights(1)["w"])


def test_the_newest_version_is_the_newest_again(team):
    team.ada.remove("digits/mlp@v3")
    assert team.ada.version("digits/mlp").number == 2
    team.ada.undelete("digits/mlp@v3")
    assert team.ada.version("digits/mlp").number == 3
    team.ada.remove("digits/mlp@v3")
    assert team.ada.update("digits/mlp", weights(9), progress=False).number == 4
    team.ada.undelete("digits/mlp@v3")
    assert names(team.ada) == ["v4", "v3", "v2", "v1"]
    assert team.ada.version("digits/mlp").number == 4


def test_a_model_comes_back_with_its_aliases_and_contributions(team):
    team.grace.update("digits/mlp", weights(5), propose=True, progress=False)
    team.ada.remove("digits/mlp@v1")
    assert team.ada.remove("digits/mlp", yes=True).versions == 2
    with pytest.raises(errors.NotFound):
        team.grace.version("digits/mlp@c1")
    assert (names(team.ada, "digits/"), team.ada.contributions("digits")) == ([], [])
    team.root.collect_garbage(), team.root.compact()
    assert team.root.check().problems == ()
    model = team.ada.undelete("digits/mlp")
    assert (model.name, model.latest) == ("mlp", 3)
    assert team.ada.version("digits/mlp@production").number == 2
    assert np.array_equal(team.ada.download("digits/mlp@c1", progress=False)["w"], weights(5)["w"])
    assert [one.name for one in team.ada.removed()] == ["digits/mlp@v1"], "it was removed by itself"
    team.ada.undelete("digits/mlp@v1")
    assert names(team.ada) == ["v3", "v2", "v1"]


def test_a_name_that_was_taken_again_is_not_taken_back(team):
    team.ada.remove("digits/mlp", yes=True)
    team.ada.update("digits/MLP", weights(7), create=True, progress=False)
    with pytest.raises(errors.Conflict, match="there is a new 'digits/mlp'"):
        team.ada.undelete("digits/mlp")
    team.ada.remove("digits/MLP", now=True, yes=True)
    assert team.ada.undelete("digits/mlp").latest == 3
    team.ada.remove("digits/", yes=True)
    team.eve.update("digits/other", weights(8), create=True, progress=False)
    with pytest.raises(errors.Conflict, match="there is a new 'digits/'"):
        team.root.undelete("digits/")
    assert team.eve.removed() == []


def test_a_project_comes_back_for_who_removed_it_or_an_admin(team):
    before = team.root.members("digits")
    team.ada.remove("digits/", yes=True)
    for client in (team.eve, team.grace):
        assert client.removed() == []
        with pytest.raises(errors.NotFound, match="nothing called 'digits/' that you can bring back"):
            client.undelete("digits/")
    assert [one.name for one in team.ada.removed()] == [one.name for one in team.root.removed()] == ["digits/"]
    assert team.ada.undelete("digits/").name == "digits"
    assert team.root.members("digits") == before
    assert names(team.grace) == ["v3", "v2", "v1"]
    actions = [one.action for one in team.root.events() if one.action.startswith("project.")]
    assert actions == ["project.undelete", "project.remove", "project.create"]


def test_who_may_not_maintain_brings_nothing_back(team):
    team.ada.remove("digits/mlp@v1")
    assert team.grace.removed() == []
    with pytest.raises(errors.AccessDenied):
        team.grace.undelete("digits/mlp@v1")
    with pytest.raises(errors.AccessDenied):
        team.grace.removed("digits")
    with pytest.raises(errors.NotFound, match="no project"):
        team.eve.undelete("digits/mlp@v1")
    with pytest.raises(errors.InvalidReference, match="no number"):
        team.ada.undelete("digits/mlp@production")


def test_it_is_all_there_after_a_kill_and_in_a_backup(team, tmp_path):
    team.ada.remove("digits/mlp@v1")
    team.ada.update("letters/cnn", weights(4), create=True, progress=False)
    team.ada.remove("letters/", yes=True)
    done = team.root.back_up(tmp_path / "backup", progress=False)
    assert (done.projects, done.versions) == (2, 4)
    team.kill(), team.start()
    root = Client(team.url, team.token)
    assert sorted(one.name for one in root.removed()) == ["digits/mlp@v1", "letters/"]
    root.undelete("letters/"), root.undelete("digits/mlp@v1")
    assert np.array_equal(root.download("letters/cnn", progress=False)["w"], weights(4)["w"])


def test_for_good_is_for_good(team):
    freed = team.ada.remove("digits/mlp@v1", now=True)
    assert freed.bytes > 200_000
    assert freed.until is None
    with pytest.raises(errors.NotFound, match="can be brought back"):
        team.ada.undelete("digits/mlp@v1")
    team.ada.remove("digits/mlp@v3")
    with pytest.raises(errors.AccessDenied):
        team.ada.collect_garbage(removed=True)
    assert team.root.collect_garbage().bytes == 0, "what can come back is in use"
    assert team.root.collect_garbage(removed=True).bytes > 200_000
    team.ada.remove("digits/", yes=True)
    assert team.root.collect_garbage(removed=True).bytes > 200_000
    assert team.root.usage().total < 50_000
    assert team.root.check().problems == ()


def test_removal_of_a_whole_model_needs_yes(team):
    for name in ("digits/mlp", "digits/"):
        with pytest.raises(errors.InvalidArgument, match="yes=True"):
            team.ada.remove(name)
    assert [one.number for one in team.ada.show_history("digits/mlp")] == [3, 2, 1]
