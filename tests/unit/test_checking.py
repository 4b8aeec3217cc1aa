"""`fsck` finds every flipped bit, says whom it hits, and its repair loses nothing."""

import os
from datetime import datetime, timezone

import pytest
from support.workshop import ADA, Shop, bytes_of, step, weights

from lmvp.core.schemas.runs import NewPoints, NewRun, RunEnd
from lmvp.errors import IntegrityError


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


@pytest.fixture
def trees(shop):
    trees = [weights(0, 2)]
    for seed in (1, 2, 3):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree)
    shop.services.upkeep.compact(ADA)
    return trees


def fsck(shop, repair=False):
    return shop.services.fsck.check(ADA, repair)


def path_of(shop, chunk):
    return shop.folder / "chunks" / shop.space / chunk[:2] / chunk[2:]


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_a_whole_store(shop, trees):
    seen = []
    found = shop.services.fsck.check(ADA, repair=False, advance=lambda *far: seen.append(far))
    assert found["problems"] == []
    assert found["versions"] == 4
    assert seen[-1] == (found["chunks"], found["chunks"])


@pytest.mark.parametrize("where", [0, 3, 8, 20, 50, 90, -1])
@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_flipped_bit(shop, trees, number, where):
    chunk = shop.chunks_of(number)[-1]
    flip(path_of(shop, chunk), where)
    found = fsck(shop)["problems"]
    assert found
    assert all(one.kind == "chunk" and f"p/m@v{number}: weights.safetensors" in one.what for one in found[:1])
    with pytest.raises(IntegrityError, match="chunk"):
        shop.files(number)


@pytest.mark.parametrize("harm", ["truncate", "empty", "unlink", "other"])
def test_a_frame_that_is_not_whole(shop, trees, harm):
    path = path_of(shop, shop.chunks_of(4)[-1])
    if harm == "truncate":
        os.truncate(path, path.stat().st_size - 1)
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "unlink":
        path.unlink()
    else:
        path.write_bytes(path_of(shop, shop.chunks_of(1)[-1]).read_bytes())
    assert len(fsck(shop)["problems"]) == 1


def test_repair_lets_a_push_heal(shop, trees):
    """The damaged frame is kept aside; a push of the same bytes brings the chunk back, and what depends on it."""
    chunk = shop.chunks_of(2)[-1]
    flip(path_of(shop, chunk), 90)
    broken = {one.what for one in fsck(shop)["problems"]}
    assert len(broken) > 1
    assert len(fsck(shop, repair=True)["problems"]) == len(broken)
    assert shop.services.chunks.usage(shop.space)["damaged"] > 0
    shop.push(trees[1])
    assert fsck(shop)["problems"] == []
    for number, tree in enumerate(trees, 1):
        assert shop.files(number)["weights.safetensors"] == bytes_of(tree)


def test_a_manifest_that_is_not_the_one(shop, trees):
    digest = shop.services.versions.version(ADA, "p", "m", "2")["digest"]
    flip(shop.folder / "manifests" / shop.space / digest[:2] / digest[2:], 40)
    [problem] = fsck(shop)["problems"]
    assert problem.kind == "manifest"
    assert "p/m@v2" in problem.what


def test_an_event_that_was_altered(shop, trees):
    [events] = (shop.folder / "records" / "projects").glob("*.events.jsonl")
    with events.open("r+b") as file:
        file.seek(events.read_bytes().index(b"p/m@v2"))
        file.write(b"p/m@v9")
    [problem] = fsck(shop)["problems"]
    assert problem.kind == "events"


def test_a_base_that_leans_on_its_own_delta(shop, trees):
    """A cycle can only be made by hand; it is told, not followed for ever."""
    links = shop.links()
    chunk = next(c for c in shop.chunks_of(3) if c in links)
    base = links.base(chunk)
    frame = bytearray(path_of(shop, chunk).read_bytes())
    frame[16:48] = bytes.fromhex(base)
    frame[48:80] = bytes.fromhex(chunk)
    path_of(shop, base).write_bytes(frame)
    assert len(fsck(shop)["problems"]) >= 2
    shop.services.upkeep._links.clear()
    shop.services.upkeep.collect(ADA)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("space", ["server", "project"])
def test_damaged_records_are_found_while_the_server_runs_and_written_anew(shop, trees, space, where):
    records = shop.folder / "records"
    journal = records / "server.json.j0" if space == "server" else records / "projects" / f"{shop.space}.json.j0"
    flip(journal, int(where * journal.stat().st_size))
    [problem] = fsck(shop)["problems"]
    assert problem.kind == "records"
    assert journal.name in problem.what
    assert len(fsck(shop, repair=True)["problems"]) == 1
    assert fsck(shop)["problems"] == []
    shop.reopen()
    assert fsck(shop)["problems"] == []
    assert shop.files(4)["weights.safetensors"] == bytes_of(trees[3])


def test_records_that_lost_what_was_acknowledged_are_not_gone_on_with(shop, trees):
    journal = shop.folder / "records" / "projects" / f"{shop.space}.json.j0"
    shop.services.close()
    flip(journal, journal.stat().st_size // 2)
    shop.reopen()
    [problem] = fsck(shop, repair=True)["problems"]
    assert (problem.kind, f"{journal.name} is damaged from byte" in problem.what) == ("records", True)
    with pytest.raises(IntegrityError, match=f"{journal.name} is damaged from byte"):
        shop.services.upkeep.collect(ADA)
    assert len(list((shop.folder / "chunks").rglob("*/*"))) > 4


def test_a_flipped_bit_in_a_note_costs_working_it_out_again(shop, trees):
    want = shop.services.tensor_changes.changes(ADA, "p", "m", "3", "m@2")
    notes = [path for path in (shop.folder / "notes").rglob("*") if path.is_file()]
    for note in notes:
        flip(note, -3)
    assert shop.services.tensor_changes.changes(ADA, "p", "m", "3", "m@2") == want


def test_what_is_removed_meanwhile_is_not_damage(shop):
    for seed in range(3):
        shop.push(weights(seed, 2))
    removed = []

    def advance(*_):
        if not removed:
            removed.append(shop.services.trash.remove_version(ADA, "p", "m", "v2"))

    assert shop.services.fsck.check(ADA, True, advance)["problems"] == []
    assert removed


def test_a_version_that_is_removed_before_its_manifest_is_read_is_not_damage(shop, monkeypatch):
    for seed in range(2):
        shop.push(weights(seed, 1))
    manifest = shop.services.chunks.manifest

    def slow(*names):
        monkeypatch.setattr(shop.services.chunks, "manifest", manifest)
        shop.services.trash.remove_version(ADA, "p", "m", "v1")
        return manifest(*names)

    monkeypatch.setattr(shop.services.chunks, "manifest", slow)
    assert fsck(shop)["problems"] == []


@pytest.mark.parametrize("space", ["server", "project"])
def test_records_that_are_gone_are_not_taken_for_a_new_store(shop, trees, space):
    """Events without the records that belong to them are damage: a collection would delete all that they name."""
    shop.services.close()
    folder = shop.folder / "records" / ("" if space == "server" else "projects")
    for path in folder.glob("*.json.j*"):
        path.unlink()
    for path in folder.glob("*.json"):
        path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        shop.reopen().services.catalog.find_model(ADA, "p", "m")


@pytest.mark.parametrize("harm", ["delete", "empty"])
def test_points_of_a_run_that_are_gone_are_found(shop, trees, harm):
    run = "a" * 32
    services = shop.services
    services.runs.start(ADA, "p", NewRun(run=run))
    for at in range(5):
        services.metrics.add(ADA, "p", run, NewPoints(values={"loss": 1.0}, step=at))
    services.runs.end(ADA, "p", run, RunEnd(status="finished", ended_at=datetime.now(timezone.utc)))
    assert fsck(shop)["problems"] == []
    services.close()
    for path in (shop.folder / "series").glob("*/*/*"):
        path.unlink() if harm == "delete" else path.write_bytes(b"")
    shop.reopen()
    assert any("5 points that it ended with" in one.what for one in fsck(shop)["problems"])
