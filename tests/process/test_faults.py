"""A server that is killed before any of its steps on the disk loses nothing that it acknowledged, and nothing stays
behind that a collection of garbage does not reclaim. Not one lucky kill: every step, one after the other."""

import shutil
from contextlib import suppress

import pytest
from support.faults import WRITES, acting_at, full, killed_at
from support.workshop import ADA, Shop, bytes_of, step, weights

from lmvp.core.schemas import Prune
from lmvp.errors import StorageFull

TREES = [weights(0, 1, 40)]
for _seed in range(1, 6):
    TREES.append(step(TREES[-1], _seed))


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "compacted"])
def made(request, tmp_path_factory):
    """A data folder with three versions."""
    folder = tmp_path_factory.mktemp("made") / "data"
    shop = Shop(folder)
    for number, tree in enumerate(TREES[:3], 1):
        shop.push(tree, message=f"tree {number}", metrics={"loss": 1 / number})
    if request.param:
        shop.services.upkeep.compact(ADA)
    shop.services.close()
    return folder


def push(shop, acknowledge):
    for number in (4, 5):
        acknowledge(str(shop.push(TREES[number - 1], message=f"tree {number}")["number"]))


def compact(shop, _acknowledge):
    shop.services.upkeep.compact(ADA)


def remove(shop, acknowledge):
    shop.services.trash.remove_version(ADA, "p", "m", "2")
    acknowledge("-2")


def prune(shop, acknowledge):
    shop.services.retention.prune(ADA, "p", "m", Prune(keep="last:1"))
    acknowledge("-1")
    acknowledge("-2")


def collect(shop, _acknowledge):
    push_id, described, answer = shop.begin(weights(9, 1, 40))
    shop.send(push_id, described, answer.missing)
    shop.services.chunks.unstage(shop.space, push_id)
    shop.services.upkeep.collect(ADA)


def drop_model(shop, acknowledge):
    shop.services.trash.remove_model(ADA, "p", "m")
    acknowledge("all")


def versions_of(shop):
    found = shop.services.records.find(shop.space, "versions")
    return {record.data["number"]: record.data for record in found}


def check(shop, acknowledged):
    """What is there is whole and what it was; what was acknowledged is there, or gone."""
    assert shop.services.fsck.check(ADA, repair=False)["problems"] == []
    versions = versions_of(shop)
    for number, data in versions.items():
        tree = TREES[int(data["message"].removeprefix("tree ")) - 1]
        assert shop.files(number)["weights.safetensors"] == bytes_of(tree)
    if "all" in acknowledged:
        assert versions == {}
        return
    assert {int(word) for word in acknowledged if word[0] != "-"} <= set(versions)
    assert not {int(word[1:]) for word in acknowledged if word[0] == "-"} & set(versions)


def check_clean(shop):
    """No byte is left that no version needs."""
    shop.services.upkeep.collect(ADA)
    assert shop.services.chunks.usage(shop.space)["staging"] == 0
    usage = shop.services.usage.of_project(ADA, "p")
    assert usage["stored"] == usage["disk"]["chunks"]
    named = {data["digest"] for data in versions_of(shop).values()}
    assert set(shop.services.chunks.manifests(shop.space)) == named


@pytest.mark.parametrize("work", [push, compact, remove, prune, collect, drop_model])
def test_killed_before_every_step(made, tmp_path, work):
    number, killed = 0, True
    while killed:
        number += 1
        folder = tmp_path / "data"
        shutil.copytree(made, folder)

        def run(acknowledge, folder=folder):
            shop = Shop(folder)
            work(shop, acknowledge)
            shop.services.close()

        killed, acknowledged = killed_at(number, run)
        shop = Shop(folder)
        check(shop, acknowledged)
        for push_id in shop.services.chunks.pushes(shop.space):
            shop.services.chunks.unstage(shop.space, push_id)
        check_clean(shop)
        check(shop, acknowledged)
        shop.services.close()
        shutil.rmtree(folder)
    assert number > 3


def test_a_push_that_was_killed_goes_on(made, tmp_path):
    """Every chunk that came before the kill is not asked for again, and the push commits under its own id."""
    folder = tmp_path / "data"
    shutil.copytree(made, folder)
    shop = Shop(folder)
    push_id, described, answer = shop.begin(weights(8, 6, 600))
    shop.services.close()

    def send(_acknowledge):
        other = Shop(folder)
        other.send(push_id, described, answer.missing)

    assert killed_at(40, send)[0]
    shop = Shop(folder)
    left = shop.services.pushes.status(ADA, "p", "m", push_id).missing
    assert 0 < len(left) < len(answer.missing)
    shop.send(push_id, described, left)
    assert shop.services.pushes.commit(ADA, "p", "m", push_id)["number"] == 4
    shop.services.close()


@pytest.mark.parametrize("work", [push, compact, remove])
def test_a_disk_that_is_full_at_every_write(made, tmp_path, work):
    """The error says so, and the same work goes through once there is room."""
    number = 0
    while True:
        number += 1
        folder = tmp_path / "data"
        shutil.copytree(made, folder)
        shop, acknowledged = Shop(folder), set()
        with acting_at(number, full, WRITES) as done, suppress(StorageFull):
            work(shop, acknowledged.add)
        check(shop, acknowledged)
        if not acknowledged and (work is not remove or 2 in versions_of(shop)):
            work(shop, acknowledged.add)
        check(shop, acknowledged)
        shop.services.close()
        check(Shop(folder), acknowledged)
        shutil.rmtree(folder)
        if len(done) < number:
            break
