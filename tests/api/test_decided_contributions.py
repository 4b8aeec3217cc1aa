"""Files of contributions that were declined, withdrawn or accepted: how long they are kept, and that they are freed."""

import os
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.workshop import ADA, Shop, bytes_of, step, weights

from lmvp.core.schemas import Fork, Prune
from lmvp.errors import NotFound
from lmvp_server.services import Services
from lmvp_server.services.paging import Page

WEEK, NOTHING = timedelta(days=7), timedelta(microseconds=1)
FIRST = weights(0, 2)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    opened(shop, WEEK)
    shop.push(FIRST)
    tidy(shop)
    yield shop
    shop.services.close()


def opened(shop, keep):
    """Open the services again, with another time for which removed objects are kept."""
    shop.services.close()
    shop.services = Services.open(shop.folder, keep_removed=keep)


def propose(shop, tree, **fields):
    return shop.push(tree, propose=True, **fields)


def decline(shop, name="c1"):
    return shop.services.contributions.decline(ADA, "p", "m", name, "worse")


def tidy(shop):
    shop.services.tidy_up(lambda: True)


def content(shop):
    return shop.on_disk("chunks", "manifests", "notes", "staging")


def sizes(shop):
    return {row["name"]: row["stored"] for row in shop.services.usage.of_model(ADA, "p", "m")["rows"]}


def sound(shop):
    return shop.services.fsck.check(ADA, False, lambda *_: None, ())["problems"] == []


def test_declined_contribution_frees_its_bytes_after_the_time_of_removed_objects(shop):
    before = content(shop)
    propose(shop, weights(1, 2))
    declined = decline(shop)
    decided = datetime.fromisoformat(declined["decided_at"])
    assert datetime.fromisoformat(declined["until"]) == decided + WEEK
    tidy(shop)
    done = shop.services.trash.collect(ADA)
    assert (done["decided"], done["decided_until"]) == (1, declined["until"])
    assert sizes(shop)["p/m@c1 (declined)"] > 1_000_000
    assert shop.files("c1")["weights.safetensors"] == bytes_of(weights(1, 2))
    opened(shop, NOTHING)
    tidy(shop)
    assert content(shop) == before
    assert set(sizes(shop)) == {"p/m@v1"}
    with pytest.raises(NotFound, match=r"the files of c1 of p/m were deleted on .*: it was declined on"):
        shop.files("c1")
    kept = shop.services.contributions.one(ADA, "p", "m", "c1")
    assert (kept["status"], kept["reason"], kept["until"], kept["version"]["stored"]) == ("declined", "worse", None, 0)
    assert kept["deleted_at"] > kept["decided_at"]
    assert shop.services.trash.collect(ADA)["decided"] == 0
    assert sound(shop)


@pytest.mark.parametrize("way", ["gc", "gc with what was removed", "idle"])
def test_withdrawn_contribution_is_freed_by(shop, way):
    before = content(shop)
    propose(shop, weights(1, 2))
    shop.services.contributions.withdraw(ADA, "p", "m", "c1")
    if way == "gc with what was removed":
        assert shop.services.trash.collect(ADA, removed=True)["bytes"] > 1_000_000
    else:
        opened(shop, NOTHING)
        tidy(shop) if way == "idle" else shop.services.trash.collect(ADA)
    assert content(shop) == before
    events = [one for one in shop.services.records.events(shop.space) if one["action"] == "contribution.purge"]
    assert [(one["what"], one["before"]["status"]) for one in events] == [("p/m@c1", "withdrawn")]


@pytest.mark.parametrize("packed", [False, True])
def test_chunks_that_others_use_are_kept(shop, packed):
    """Versions, an open contribution and a fork share chunks with a declined contribution and depend on others."""
    declined = {**FIRST, "head": weights(1, 1)["layers.0.weight"]}
    sibling = {**declined, "other": weights(2, 1)["layers.0.weight"]}
    later = step(declined, 3)
    propose(shop, declined)
    propose(shop, sibling)
    shop.push(later)
    shop.services.forks.fork(ADA, "p", "m", Fork(to="q/m").to)
    if packed:
        shop.services.upkeep.compact(ADA)
    decline(shop)
    opened(shop, NOTHING)
    tidy(shop)
    assert shop.files("v1")["weights.safetensors"] == bytes_of(FIRST)
    assert shop.files("v2")["weights.safetensors"] == bytes_of(later)
    assert shop.files("c2")["weights.safetensors"] == bytes_of(sibling)
    assert shop.files("v2", project="q")["weights.safetensors"] == bytes_of(later)
    assert sound(shop)


def test_push_in_flight_keeps_the_chunks_of_a_declined_contribution(shop):
    tree = weights(1, 2)
    propose(shop, tree)
    decline(shop)
    push_id, _, answer = shop.begin(tree, message="again")
    assert answer.missing == ()
    assert shop.services.trash.collect(ADA, removed=True)["chunks"] == 0
    made = shop.services.pushes.commit(ADA, "p", "m", push_id)
    assert made["number"] == 2
    assert shop.files("v2")["weights.safetensors"] == bytes_of(tree)
    assert sound(shop)


def test_push_that_is_sent_again_finds_its_deleted_contribution(shop):
    push_id, described, answer = shop.begin(weights(1, 2), propose=True)
    shop.send(push_id, described, answer.missing)
    made = shop.services.pushes.commit(ADA, "p", "m", push_id)
    decline(shop)
    shop.services.trash.collect(ADA, removed=True)
    again = shop.services.pushes.commit(ADA, "p", "m", push_id)
    assert (again["number"], again["digest"], again["status"]) == (1, made["digest"], "declined")
    assert shop.services.contributions.of_project(ADA, "p", Page(9))["total"] == 1


def test_list_has_contributions_without_files_in_their_order(shop):
    for number in range(1, 4):
        propose(shop, weights(number, 1))
    decline(shop, "c2")
    shop.services.trash.collect(ADA, removed=True)
    contributions = shop.services.contributions
    listed = contributions.of_project(ADA, "p", Page(9))
    assert [(one["number"], one["status"]) for one in listed["items"]] == [
        (3, "proposed"), (2, "declined"), (1, "proposed"),
    ]  # fmt: skip
    assert [one["number"] for one in contributions.of_project(ADA, "p", Page(9), "declined")["items"]] == [2]
    assert propose(shop, weights(4, 1))["number"] == 4
    assert contributions.comment(ADA, "p", "m", "c2", "a pity")["comments"][0]["words"] == "a pity"
    shop.services.trash.remove_model(ADA, "p", "m", for_good=True)
    assert shop.services.records.find(shop.space, "deleted_contributions") == []


def test_accepted_contribution_frees_its_bytes_after_its_version_is_deleted(shop):
    before = content(shop)
    propose(shop, weights(1, 2), metrics={"acc": 0.1})
    shop.services.contributions.accept(ADA, "p", "m", "c1")
    opened(shop, NOTHING)
    tidy(shop)
    assert shop.services.contributions.one(ADA, "p", "m", "c1")["until"] is None
    assert shop.files("c1")["weights.safetensors"] == bytes_of(weights(1, 2)), "its version is still there"
    shop.push(step(FIRST), metrics={"acc": 0.9})
    stated = shop.services.retention.prune(ADA, "p", "m", Prune(keep="last:1", dry_run=True))["bytes"]  # v1 and v2
    freed = shop.services.trash.remove_version(ADA, "p", "m", "v2", for_good=True)["bytes"]
    assert freed > 1_000_000, "the bytes that the contribution shares with v2"
    assert stated > freed
    shop.services.trash.remove_version(ADA, "p", "m", "v3", for_good=True)
    assert content(shop) == before
    with pytest.raises(NotFound, match="it was accepted on"):
        shop.files("c1")


def test_accepted_contribution_is_kept_while_its_version_can_be_restored(shop):
    propose(shop, weights(1, 2))
    shop.services.contributions.accept(ADA, "p", "m", "c1")
    shop.services.trash.remove_version(ADA, "p", "m", "v2")
    assert shop.services.trash.collect(ADA)["decided"] == 0
    shop.services.trash.restore_version(ADA, "p", "m", "v2")
    assert shop.files("v2")["weights.safetensors"] == bytes_of(weights(1, 2))


KILLED = """
    import os, signal, sys
    from datetime import timedelta
    from pathlib import Path

    from lmvp_server.services import Services
    from lmvp_server.stores.local.chunks import FolderChunks

    removed = FolderChunks.remove

    def remove(self, *given):
        if sys.argv[2] == "after":
            removed(self, *given)
        os.kill(os.getpid(), signal.SIGKILL)

    FolderChunks.remove = remove
    Services.open(Path(sys.argv[1]), keep_removed=timedelta(microseconds=1)).tidy_up(lambda: True)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_kill_between_the_record_and_the_chunks_loses_nothing(shop, moment):
    before = content(shop)
    propose(shop, weights(1, 2))
    decline(shop)
    shop.services.close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(Path(shop.folder)), moment]
    assert subprocess.run(command, env=environment, timeout=120).returncode == -signal.SIGKILL
    shop.services = Services.open(shop.folder, keep_removed=WEEK)
    kept = shop.services.contributions.one(ADA, "p", "m", "c1")
    assert (kept["status"], kept["reason"]) == ("declined", "worse")
    assert kept["deleted_at"] > kept["decided_at"]
    assert shop.files("v1")["weights.safetensors"] == bytes_of(FIRST)
    assert sound(shop)
    shop.services.trash.collect(ADA)
    assert content(shop) == before
    assert sound(shop)
