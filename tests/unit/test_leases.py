"""What a backup under way counts on stays, and is deleted when it has ended, or is not heard of any more."""

import pytest
from support.workshop import ADA, GRACE, Shop, step, weights

from lmvp.core.schemas import WantedPieces
from lmvp.errors import AccessDenied, Conflict, NotFound
from lmvp_server.services import backups

OLD = weights(0, 1, 200)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    shop.push(OLD)
    shop.push(weights(1, 1, 200))
    yield shop
    shop.services.close()


def frames(shop, backup, chunks, kind="chunks"):
    reads = shop.services.backups.pieces(ADA, backup.id, shop.space, kind, WantedPieces(want=tuple(chunks)))
    return [len(read()) for read in reads]


def records(shop, backup):
    return b"".join(shop.services.backups.records(ADA, backup.id, shop.space))


def test_what_is_removed_during_a_backup_stays_until_it_ends(shop):
    services, chunks = shop.services, shop.chunks_of(1)
    backup = services.backups.begin(ADA)
    before = records(shop, backup)
    assert services.trash.remove_version(ADA, "p", "m", "1")["bytes"] == 0
    assert services.upkeep.collect(ADA)["bytes"] == 0
    assert all(frames(shop, backup, chunks))
    assert records(shop, backup) == before
    services.backups.end(ADA, backup.id)
    assert services.chunks.missing(shop.space, chunks) == chunks[-1:]
    assert services.usage.of_project(ADA, "p")["stored"] == services.usage.of_project(ADA, "p")["disk"]["chunks"]


def test_a_project_that_is_removed_during_a_backup(shop):
    services, chunks, space = shop.services, shop.chunks_of(1), shop.space
    backup = services.backups.begin(ADA)
    assert services.trash.remove_project(ADA, "p")["bytes"] == 0
    services.upkeep.collect(ADA)
    reads = services.backups.pieces(ADA, backup.id, space, "chunks", WantedPieces(want=tuple(chunks)))
    assert all(read() for read in reads)
    assert b"".join(services.backups.records(ADA, backup.id, space)).count(b'"table":"versions"') == 2
    services.backups.end(ADA, backup.id)
    assert services.chunks.projects() == []
    assert services.records.spaces() == ["server"]


def test_pushes_and_compaction_go_on_and_do_not_show(shop):
    backup = shop.services.backups.begin(ADA)
    before = records(shop, backup)
    chunks = shop.chunks_of(1)
    shop.push(step(OLD))
    shop.services.upkeep.compact(ADA)
    assert records(shop, backup) == before
    assert before.count(b'"table":"versions"') == 2
    assert all(frames(shop, backup, chunks))
    assert records(shop, shop.services.backups.begin(ADA)).count(b'"table":"versions"') == 3


def test_a_backup_that_is_not_heard_of_any_more(shop):
    services, chunks = shop.services, shop.chunks_of(1)
    backup = services.backups.begin(ADA)
    services.trash.remove_version(ADA, "p", "m", "1")
    services.upkeep._leases.lifetime = -1.0
    services.tidy_up(lambda: True)
    assert services.chunks.missing(shop.space, chunks) == chunks[-1:]
    assert services.backups._open == {}
    with pytest.raises(NotFound, match="no backup"):
        records(shop, backup)


def test_a_sweep_that_began_before_the_backup_deletes_nothing_after_it(shop, monkeypatch):
    """The lease is looked at again when nobody can begin a backup any more."""
    services, begun = shop.services, []
    services.records.commit(shop.space, [], [])
    chunks = shop.chunks_of(1)
    mark = services.upkeep._sweeping._mark

    def late(*args):
        marked = mark(*args)
        begun.append(services.backups.begin(ADA))
        return marked

    monkeypatch.setattr(services.upkeep._sweeping, "_mark", late)
    assert services.trash.remove_version(ADA, "p", "m", "1")["bytes"] == 0
    assert services.chunks.missing(shop.space, chunks) == []
    services.backups.end(ADA, begun[0].id)


def test_only_an_owner_of_the_server_may_back_it_up(shop):
    grace, backup = GRACE, shop.services.backups.begin(ADA)
    for work in (
        lambda: shop.services.backups.begin(grace),
        lambda: shop.services.backups.about(grace, backup.id),
        lambda: shop.services.backups.end(grace, backup.id),
        lambda: shop.services.backups.records(grace, backup.id, shop.space),
        lambda: shop.services.backups.pieces(grace, backup.id, shop.space, "chunks", WantedPieces(want=())),
    ):
        with pytest.raises(AccessDenied):
            work()


def test_backups_that_nobody_ended_make_room_for_new_ones(shop):
    first = shop.services.backups.begin(ADA)
    later = [shop.services.backups.begin(ADA) for _ in range(backups.AT_ONCE)]
    with pytest.raises(NotFound):
        shop.services.backups.about(ADA, first.id)
    assert shop.services.backups.about(ADA, later[-1].id) == later[-1]
    assert len(shop.services.backups._open) == backups.AT_ONCE


def test_more_backups_than_may_be_begun_at_once_are_told_so(shop, monkeypatch):
    shop.push(weights(1, 1, 20), project="other")
    begin, snapshot = shop.services.backups.begin, shop.services.records.snapshot

    def slow(space):
        monkeypatch.setattr(shop.services.records, "snapshot", snapshot)
        for _ in range(backups.AT_ONCE):
            begin(ADA)
        return snapshot(space)

    monkeypatch.setattr(shop.services.records, "snapshot", slow)
    with pytest.raises(Conflict, match="too many"):
        begin(ADA)
    assert len(shop.services.backups._leases.alive()) == backups.AT_ONCE
