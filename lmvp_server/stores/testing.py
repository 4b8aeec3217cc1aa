"""Contract test suites that every implementation of a store must pass.

Subclass a suite in a test module, and define a `store` fixture and `reopen`, which closes the store and opens it again
on the same data.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lmvp.core import digest
from lmvp_server.stores.base import ChunkStore, ConcurrentChange, Delete, Document, Put, RecordStore


class RecordStoreContract:
    """The contract of `RecordStore`. The store must index `color` in the table `things`."""

    def reopen(self, store: RecordStore) -> RecordStore:  # noqa: ARG002
        """Close a store and open it again on the same data."""
        raise AssertionError("a contract suite needs reopen()")

    @staticmethod
    def fill(store: RecordStore, count: int = 6) -> None:
        """Put some records, each in a separate commit."""
        for i in range(count):
            store.commit("p1", [Put("things", f"t{i}", {"n": i, "color": "red" if i % 2 else "blue"})])

    def test_a_space_begins_empty(self, store: RecordStore) -> None:
        """An unused space contains no records and no events."""
        assert store.get("p1", "things", "t0") is None
        assert store.find("p1", "things") == []
        assert store.count("p1", "things") == 0
        assert store.events("p1") == []

    def test_a_moment_can_be_restored(self, store: RecordStore) -> None:
        """A snapshot of a space can be restored under any name, and accepts further commits."""
        for number in range(5):
            event = {"who": "ada", "action": "put", "after": {"n": number, "x": [0.1, None, "ü"]}}
            store.commit("p1", [Put("things", f"t{number}", {"n": number, "color": "red"})], [event])
        store.commit("p1", [Put("things", "t0", {"n": 0, "color": "blue"}), Delete("things", "t4")])
        snapshot = store.snapshot("p1")
        store.commit("p1", [Put("things", "later", {"n": 9})], [{"who": "grace", "action": "put"}])
        assert (snapshot.count, len(list(snapshot.events()))) == (5, 5)
        store.commit("p2", [Put("things", "old", {"n": 1})], [{"who": "ada", "action": "put"}])
        store.restore("p2", snapshot)
        store = self.reopen(store)
        rows = store.find("p2", "things")
        assert [(row.id, row.seq, row.rev) for row in rows] == [("t0", 1, 2), ("t1", 2, 1), ("t2", 3, 1), ("t3", 4, 1)]
        assert [row.id for row in store.find("p2", "things", {"color": "blue"})] == ["t0"]
        assert store.events("p2") == store.events("p1", limit=5)
        store.verify("p2")
        store.commit("p2", [Put("things", "t4", {})], [{"who": "ada", "action": "put"}])
        found = store.get("p2", "things", "t4")
        assert found is not None
        assert found.seq == 6
        store.verify("p2")
        store = self.reopen(store)
        assert store.count("p2", "things") == 5
        assert store.snapshot("nowhere").count == 0

    def test_put_get(self, store: RecordStore) -> None:
        """A record is returned with equal data and revision 1."""
        data = {"text": "ünï\n\u2028", "list": [1, 2.5, None, True], "nested": {"a": {}}, "big": "x" * 100_000}
        store.commit("p1", [Put("things", "odd id/ö", data, expect=0)])
        found = store.get("p1", "things", "odd id/ö")
        assert found is not None
        assert (found.id, found.rev, found.data) == ("odd id/ö", 1, data)

    def test_replace_keeps_the_place(self, store: RecordStore) -> None:
        """A new version of a record has a higher revision and the same `seq`."""
        self.fill(store, 3)
        before = store.get("p1", "things", "t0")
        store.commit("p1", [Put("things", "t0", {"n": 100}, expect=1)])
        after = store.get("p1", "things", "t0")
        assert before is not None
        assert after is not None
        assert (after.seq, after.rev, after.data) == (before.seq, 2, {"n": 100})
        assert [record.id for record in store.find("p1", "things")] == ["t0", "t1", "t2"]

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("where", [None, {"color": "red"}, {"n": 3}, {"color": "red", "n": 3}, {"color": "none"}])
    def test_find(self, store: RecordStore, where: dict[str, Any] | None, newest_first: bool) -> None:
        """`find` returns matching records in order, with and without an index, and can continue after a cursor."""
        self.fill(store, 10)
        everything = [(f"t{i}", {"n": i, "color": "red" if i % 2 else "blue"}) for i in range(10)]
        fitting = [i for i, data in everything if all(data[k] == v for k, v in (where or {}).items())]
        expected = fitting[::-1] if newest_first else fitting
        found = store.find("p1", "things", where, newest_first=newest_first)
        assert [record.id for record in found] == expected
        assert store.count("p1", "things", where) == len(expected)
        pages: list[str] = []
        cursor = None
        while page := store.find("p1", "things", where, newest_first=newest_first, after=cursor, limit=2):
            pages += [record.id for record in page]
            cursor = page[-1].seq
        assert pages == expected

    def test_an_index_follows_changes(self, store: RecordStore) -> None:
        """A record is found only under its new indexed value; a deleted record is not found."""
        self.fill(store, 4)
        store.commit("p1", [Put("things", "t0", {"color": "green"}), Delete("things", "t1")])
        assert [r.id for r in store.find("p1", "things", {"color": "green"})] == ["t0"]
        assert [r.id for r in store.find("p1", "things", {"color": "blue"})] == ["t2"]
        assert [r.id for r in store.find("p1", "things", {"color": "red"})] == ["t3"]

    @pytest.mark.parametrize(
        "change",
        [
            Put("things", "t0", {}, expect=0),
            Put("things", "t0", {}, expect=2),
            Put("things", "new", {}, expect=1),
            Delete("things", "t0", expect=7),
            Delete("things", "new", expect=1),
        ],
    )
    def test_what_is_not_as_expected_changes_nothing(self, store: RecordStore, change: Put | Delete) -> None:
        """A commit is atomic, including its events."""
        self.fill(store, 2)
        with pytest.raises(ConcurrentChange):
            store.commit("p1", [Put("things", "t1", {"n": -1}), change], [{"what": "x"}])
        found = store.get("p1", "things", "t1")
        assert found is not None
        assert found.data["n"] == 1
        assert store.events("p1") == []
        assert self.reopen(store).count("p1", "things") == 2

    def test_changes_of_one_commit_see_each_other(self, store: RecordStore) -> None:
        """The expected revisions consider the earlier changes of the same commit."""
        store.commit("p1", [Put("things", "a", {"n": 1}, expect=0), Put("things", "a", {"n": 2}, expect=1)])
        found = store.get("p1", "things", "a")
        assert found is not None
        assert (found.rev, found.data) == (2, {"n": 2})
        store.commit("p1", [Delete("things", "a", expect=2), Put("things", "a", {"n": 3}, expect=0)])
        again = store.get("p1", "things", "a")
        assert again is not None
        assert again.data == {"n": 3}

    def test_spaces_and_sizes(self, store: RecordStore) -> None:
        """A space is listed and has a size after its first commit."""
        assert (store.spaces(), store.size("p1")) == ([], 0)
        self.fill(store, 1)
        assert store.spaces() == ["p1"]
        assert store.size("p1") > 0
        store.verify("p1")

    def test_seq_is_never_used_again(self, store: RecordStore) -> None:
        """A record that is created after a deletion has a new `seq`, also after reopening."""
        self.fill(store, 3)
        last = store.find("p1", "things", newest_first=True, limit=1)[0].seq
        store.commit("p1", [Delete("things", "t2")])
        store = self.reopen(store)
        store.commit("p1", [Put("things", "t9", {})])
        assert store.find("p1", "things", newest_first=True, limit=1)[0].seq > last

    def test_spaces_are_apart(self, store: RecordStore) -> None:
        """Spaces are independent; dropping one does not change another."""
        self.fill(store, 2)
        store.commit("server", [Put("things", "t0", {"n": "server"})], [{"what": "x"}])
        store.drop("p1")
        assert store.count("p1", "things") == 0
        found = store.get("server", "things", "t0")
        assert found is not None
        assert found.data == {"n": "server"}

    def test_everything_is_there_after_reopening(self, store: RecordStore) -> None:
        """Records, revisions, indexes and events are persistent."""
        self.fill(store, 50)
        store.commit("p1", [Put("things", "t7", {"color": "green"}), Delete("things", "t8")], [{"what": "y"}])
        before = store.find("p1", "things"), store.events("p1")
        store = self.reopen(store)
        assert (store.find("p1", "things"), store.events("p1")) == before
        assert [r.id for r in store.find("p1", "things", {"color": "green"})] == ["t7"]

    def test_events_are_a_chain(self, store: RecordStore) -> None:
        """Events are numbered from 1, can be paged in both directions, and form a chain of digests."""
        for i in range(7):
            store.commit("p1", [], [{"what": f"a{i}"}, {"what": f"b{i}"}])
        store = self.reopen(store)
        events = store.events("p1")
        assert [event["seq"] for event in events] == list(range(1, 15))
        assert [event["what"] for event in events[:3]] == ["a0", "b0", "a1"]
        assert len({event["chain"] for event in events}) == 14
        assert store.events("p1", newest_first=True) == events[::-1]
        assert store.events("p1", after=3, limit=2) == events[3:5]
        assert store.events("p1", newest_first=True, after=3) == events[1::-1]

    def test_many_writers_lose_nothing(self, store: RecordStore) -> None:
        """Eight threads that increment one record, with retries after conflicts, lose no increment."""
        store.commit("p1", [Put("things", "counter", {"n": 0})])

        def count_up() -> None:
            for _ in range(25):
                store.update("p1", "things", "counter", lambda data: {"n": data["n"] + 1}, [{"what": "count"}])

        threads = [threading.Thread(target=count_up) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reopened = self.reopen(store)
        counter = reopened.get("p1", "things", "counter")
        assert counter is not None
        assert counter.data == {"n": 200}
        assert len(reopened.events("p1")) == 200

    def test_update_starts_again_after_a_concurrent_change(self, store: RecordStore) -> None:
        """`update` applies its function to the newest document, and writes its events once."""
        store.commit("p1", [Put("things", "a", {"n": 0})])
        seen: list[int] = []

        def change(data: Document) -> Document:
            seen.append(data["n"])
            if len(seen) == 1:
                store.commit("p1", [Put("things", "a", {"n": 10})])
            return {"n": data["n"] + 1}

        assert store.update("p1", "things", "a", change, [{"what": "x"}])
        record = store.get("p1", "things", "a")
        assert record is not None
        assert (seen, record.data, record.rev) == ([0, 10], {"n": 11}, 3)
        assert [event["what"] for event in store.events("p1")] == ["x"]

    def test_update_leaves_records(self, store: RecordStore) -> None:
        """`update` writes nothing for a missing record, after None, and if the check fails."""
        store.commit("p1", [Put("things", "a", {"n": 0})])

        def refuse() -> None:
            raise PermissionError

        assert not store.update("p1", "things", "b", lambda _: {"n": 1}, [{"what": "x"}])
        assert not store.update("p1", "things", "a", lambda _: None, [{"what": "x"}])
        with pytest.raises(PermissionError):
            store.update("p1", "things", "a", lambda _: {"n": 1}, [{"what": "x"}], check=refuse)
        record = store.get("p1", "things", "a")
        assert record is not None
        assert (record.data, record.rev, store.events("p1")) == ({"n": 0}, 1, [])

    def test_retry_returns_the_result_of_the_last_attempt(self, store: RecordStore) -> None:
        """`retry` repeats a function only after concurrent changes."""
        revisions = iter([7, 0])

        def attempt() -> int:
            revision = next(revisions)
            store.commit("p1", [Put("things", "a", {}, expect=revision), Put("things", "b", {})])
            return revision

        assert store.retry(attempt) == 0
        assert store.count("p1", "things") == 2


class ChunkStoreContract:
    """The contract of `ChunkStore`."""

    ONE, TWO = digest.of_bytes(b"one"), digest.of_bytes(b"two")
    PUSH = "0" * 32

    def reopen(self, store: ChunkStore) -> ChunkStore:  # noqa: ARG002
        """Open a store on the data of another one."""
        raise AssertionError("a contract suite needs reopen()")

    def test_put_and_get(self, store: ChunkStore) -> None:
        """A frame is returned complete, also after reopening."""
        assert store.put("p1", self.ONE, [b"he", memoryview(b"ad"), b"body"]) == 8
        store.settle("p1", [self.ONE])
        for each in (store, self.reopen(store)):
            assert each.get("p1", self.ONE) == b"headbody"
            assert each.size("p1", self.ONE) == 8
            assert list(each.chunks("p1")) == [self.ONE]

    def test_what_is_there_is_not_written_again(self, store: ChunkStore) -> None:
        """The second put of a chunk writes nothing."""
        assert store.put("p1", self.ONE, [b"one"]) == 3
        assert store.put("p1", self.ONE, [b"other"]) == 0
        assert store.get("p1", self.ONE) == b"one"

    def test_missing_keeps_the_order(self, store: ChunkStore) -> None:
        """`missing` returns the missing chunks in the requested order."""
        store.put("p1", self.ONE, [b"x"])
        third = digest.of_bytes(b"three")
        assert store.missing("p1", [third, self.ONE, self.TWO]) == [third, self.TWO]

    def test_projects_are_apart(self, store: ChunkStore) -> None:
        """Projects are independent; dropping one does not change another."""
        store.put("p1", self.ONE, [b"x"])
        assert store.missing("p2", [self.ONE]) == [self.ONE]
        store.put("p2", self.ONE, [b"x"])
        store.drop("p1")
        assert store.missing("p1", [self.ONE]) == [self.ONE]
        assert store.get("p2", self.ONE) == b"x"

    def test_what_is_not_there(self, store: ChunkStore) -> None:
        """Reading something that is not stored raises KeyError."""
        for ask in (store.get, store.size, store.manifest):
            with pytest.raises(KeyError):
                ask("p1", self.ONE)
        with pytest.raises(KeyError):
            store.staged("p1", self.PUSH)
        assert list(store.chunks("p1")) == []

    @pytest.mark.parametrize("name", ["../../etc/passwd", "", "ab", "A" * 64, "a" * 63 + "/"])
    def test_names_that_are_no_digests(self, store: ChunkStore, name: str) -> None:
        """An invalid name cannot reach a file outside the store."""
        with pytest.raises(KeyError):
            store.get("p1", name)
        with pytest.raises(KeyError):
            store.get(name + "/..", self.ONE)

    def test_manifests(self, store: ChunkStore) -> None:
        """A manifest is returned complete; putting it twice is allowed."""
        for _ in range(2):
            store.put_manifest("p1", self.ONE, b"{}")
        assert self.reopen(store).manifest("p1", self.ONE) == b"{}"

    def test_pushes(self, store: ChunkStore) -> None:
        """An open push is persistent, can be touched, and can be deleted twice."""
        store.stage("p1", self.PUSH, b"body")
        store = self.reopen(store)
        body, touched = store.staged("p1", self.PUSH)
        assert body == b"body"
        store.touch("p1", self.PUSH)
        assert store.staged("p1", self.PUSH)[1] >= touched
        store.touch("p1", self.PUSH, at=1000.0)
        assert store.staged("p1", self.PUSH)[1] == 1000.0
        assert store.pushes("p1") == [self.PUSH]
        store.unstage("p1", self.PUSH)
        store.unstage("p1", self.PUSH)
        store.touch("p1", self.PUSH)
        assert store.pushes("p1") == []

    def test_the_start_of_a_frame(self, store: ChunkStore) -> None:
        """`start` returns the first bytes, or all bytes of a shorter frame."""
        store.put("p1", self.ONE, [b"head", b"body"])
        assert [store.start("p1", self.ONE, size) for size in (0, 5, 100)] == [b"", b"headb", b"headbody"]
        with pytest.raises(KeyError):
            store.start("p1", self.TWO, 4)

    def test_replace(self, store: ChunkStore) -> None:
        """`replace` replaces an existing frame; for a missing one, it raises KeyError."""
        store.put("p1", self.ONE, [b"long frame"])
        assert store.replace("p1", self.ONE, [b"sho", b"rt"]) == 5
        assert self.reopen(store).get("p1", self.ONE) == b"short"
        with pytest.raises(KeyError):
            store.replace("p1", self.TWO, [b"x"])
        assert store.missing("p1", [self.TWO]) == [self.TWO]

    def test_remove(self, store: ChunkStore) -> None:
        """A removed chunk is missing and can be put again; `remove` returns the freed bytes."""
        store.put("p1", self.ONE, [b"12345"])
        assert store.remove("p1", [self.TWO, self.ONE]) == 5
        assert store.missing("p1", [self.ONE]) == [self.ONE]
        assert store.put("p1", self.ONE, [b"12345"]) == 5

    def test_adopt(self, store: ChunkStore) -> None:
        """After `adopt`, both projects have the chunk, and neither sees changes of the other."""
        store.put("p1", self.ONE, [b"frame"])
        store.adopt("p2", "p1", self.ONE)
        store.adopt("p2", "p1", self.ONE)
        store.settle("p2", [self.ONE])
        store.replace("p1", self.ONE, [b"another"])
        assert store.get("p2", self.ONE) == b"frame"
        store.replace("p2", self.ONE, [b"a third"])
        assert store.get("p1", self.ONE) == b"another"
        store.remove("p1", [self.ONE])
        assert store.get("p2", self.ONE) == b"a third"
        with pytest.raises(KeyError):
            store.adopt("p2", "p1", "f" * 64)

    def test_share(self, store: ChunkStore) -> None:
        """Equal frames of two projects can be shared after changes; their bytes then count once."""
        store.put("p1", self.ONE, [b"frame"])
        store.put("p3", self.ONE, [b"frame"])
        store.adopt("p2", "p1", self.ONE)
        assert set(store.sharers("p1", self.ONE, ["p1", "p2", "p3", "p4"])) <= {"p2"}
        store.replace("p1", self.ONE, [b"another"])
        assert store.sharers("p1", self.ONE, ["p2", "p3"]) == []
        store.share("p2", "p1", self.ONE)
        store.share("p2", "p1", self.ONE)
        assert self.reopen(store).get("p2", self.ONE) == b"another"
        if store.sharers("p1", self.ONE, ["p2"]):  # if the file system supports shared files
            assert store.usage("p2", ["p1"])["chunks"] == 0
            assert store.remove("p1", [self.ONE]) == 0
            assert store.usage("p2", ["p1"])["chunks"] == 7
        assert store.usage("p2")["chunks"] == 7
        for project, source in (("p4", "p2"), ("p2", "p4")):
            with pytest.raises(KeyError):
                store.share(project, source, self.ONE)

    def test_set_aside(self, store: ChunkStore) -> None:
        """A frame that is set aside is missing but still counts as damaged, each time."""
        for count in (1, 2):
            store.put("p1", self.ONE, [b"12345"])
            store.set_aside("p1", self.ONE)
            assert store.missing("p1", [self.ONE]) == [self.ONE]
            assert store.usage("p1")["damaged"] == 5 * count

    def test_manifests_and_notes_go_together(self, store: ChunkStore) -> None:
        """A note can be replaced, is not listed, and is removed with its manifest."""
        store.put_manifest("p1", self.ONE, b"{}")
        store.put_note("p1", self.ONE, b"first")
        store.put_note("p1", self.ONE, b"2nd")
        assert self.reopen(store).note("p1", self.ONE) == b"2nd"
        assert list(store.manifests("p1")) == [self.ONE]
        taken = sum(store.usage("p1").values())
        assert store.remove_manifests("p1", [self.ONE, self.TWO]) == taken >= 5
        assert list(store.manifests("p1")) == []
        for ask in (store.manifest, store.note):
            with pytest.raises(KeyError):
                ask("p1", self.ONE)

    def test_usage(self, store: ChunkStore) -> None:
        """Every stored byte is counted once."""
        assert set(store.usage("p1").values()) == {0}
        store.put("p1", self.ONE, [b"12345"])
        store.put_manifest("p1", self.ONE, b"{}")
        store.put_note("p1", self.ONE, b"abc")
        store.stage("p1", self.PUSH, b"body")
        found = store.usage("p1")
        least = {"chunks": 5, "manifests": 2, "notes": 3, "staging": 4, "damaged": 0}
        assert found.keys() == least.keys()
        assert all(found[kind] >= least[kind] for kind in least)
        assert (found["chunks"], found["manifests"], found["damaged"]) == (5, 2, 0)
        assert store.projects() == ["p1"]

    def test_sweeping_waits_for_pinning(self, store: ChunkStore) -> None:
        """Sweeping is exclusive, pinning is shared, and the projects are independent."""
        order: list[str] = []

        def sweep() -> None:
            with store.exclusive_lock("p1"):
                order.append("swept")

        with store.shared_lock("p1"), store.shared_lock("p1"):
            thread = threading.Thread(target=sweep)
            thread.start()
            with store.exclusive_lock("p2"):
                order.append("pinned")
        thread.join()
        with store.shared_lock("p1"):
            assert order == ["pinned", "swept"]

    def test_many_writers_of_one_chunk(self, store: ChunkStore) -> None:
        """Threads that put the same chunk concurrently store one complete frame, and one of them counts its bytes."""
        frame = b"x" * 100_000
        added: list[int] = []
        threads = [threading.Thread(target=lambda: added.append(store.put("p1", self.ONE, [frame]))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get("p1", self.ONE) == frame
        assert sum(added) == len(frame)
