"""Contract suites: what every implementation of a store must pass.

Subclass one in a test module, and give it a `store` fixture and `reopen`, which closes the store and opens it anew on
what it kept.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lmvp.storage import digest
from lmvp_server.stores.base import ChunkStore, ConcurrentChange, Delete, Put, RecordStore


class RecordStoreContract:
    """What `RecordStore` promises. The store must index `color` in the table `things`."""

    def reopen(self, store: RecordStore) -> RecordStore:  # noqa: ARG002
        """Close a store and open it on what it kept."""
        raise AssertionError("a contract suite needs reopen()")

    @staticmethod
    def fill(store: RecordStore, count: int = 6) -> None:
        """Put some records, each in a commit of its own."""
        for i in range(count):
            store.commit("p1", [Put("things", f"t{i}", {"n": i, "color": "red" if i % 2 else "blue"})])

    def test_a_space_begins_empty(self, store: RecordStore) -> None:
        """Nothing is found where nothing was put."""
        assert store.get("p1", "things", "t0") is None
        assert store.find("p1", "things") == []
        assert store.count("p1", "things") == 0
        assert store.events("p1") == []

    def test_a_moment_can_be_restored(self, store: RecordStore) -> None:
        """What a space held at a moment comes back as it was, under any name, and goes on from there."""
        for number in range(5):
            event = {"who": "ada", "action": "put", "after": {"n": number, "x": [0.1, None, "ü"]}}
            store.commit("p1", [Put("things", f"t{number}", {"n": number, "color": "red"})], [event])
        store.commit("p1", [Put("things", "t0", {"n": 0, "color": "blue"}), Delete("things", "t4")])
        moment = store.moment("p1")
        store.commit("p1", [Put("things", "later", {"n": 9})], [{"who": "grace", "action": "put"}])
        assert (moment.count, len(list(moment.events()))) == (5, 5)
        store.commit("p2", [Put("things", "old", {"n": 1})], [{"who": "ada", "action": "put"}])
        store.restore("p2", moment)
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
        assert store.moment("nowhere").count == 0

    def test_put_get(self, store: RecordStore) -> None:
        """A record comes back as it was put, with revision 1."""
        data = {"text": "ünï\n\u2028", "list": [1, 2.5, None, True], "nested": {"a": {}}, "big": "x" * 100_000}
        store.commit("p1", [Put("things", "odd id/ö", data, expect=0)])
        found = store.get("p1", "things", "odd id/ö")
        assert found is not None
        assert (found.id, found.rev, found.data) == ("odd id/ö", 1, data)

    def test_replace_keeps_the_place(self, store: RecordStore) -> None:
        """A new revision counts up and keeps `seq`."""
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
        """Find gives what equals, in order, with and without an index, and can go on behind a cursor."""
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
        """What changes its value is found under the new one only; what is deleted, nowhere."""
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
        """A commit is made whole or not at all, its events too."""
        self.fill(store, 2)
        with pytest.raises(ConcurrentChange):
            store.commit("p1", [Put("things", "t1", {"n": -1}), change], [{"what": "x"}])
        found = store.get("p1", "things", "t1")
        assert found is not None
        assert found.data["n"] == 1
        assert store.events("p1") == []
        assert self.reopen(store).count("p1", "things") == 2

    def test_changes_of_one_commit_see_each_other(self, store: RecordStore) -> None:
        """Expectations hold against what earlier changes of the same commit leave."""
        store.commit("p1", [Put("things", "a", {"n": 1}, expect=0), Put("things", "a", {"n": 2}, expect=1)])
        found = store.get("p1", "things", "a")
        assert found is not None
        assert (found.rev, found.data) == (2, {"n": 2})
        store.commit("p1", [Delete("things", "a", expect=2), Put("things", "a", {"n": 3}, expect=0)])
        again = store.get("p1", "things", "a")
        assert again is not None
        assert again.data == {"n": 3}

    def test_spaces_and_sizes(self, store: RecordStore) -> None:
        """A space is listed once it was committed to, and takes room then."""
        assert (store.spaces(), store.size("p1")) == ([], 0)
        self.fill(store, 1)
        assert store.spaces() == ["p1"]
        assert store.size("p1") > 0
        store.verify("p1")

    def test_seq_is_never_used_again(self, store: RecordStore) -> None:
        """A record made after a deletion stands behind, also after reopening."""
        self.fill(store, 3)
        last = store.find("p1", "things", newest_first=True, limit=1)[0].seq
        store.commit("p1", [Delete("things", "t2")])
        store = self.reopen(store)
        store.commit("p1", [Put("things", "t9", {})])
        assert store.find("p1", "things", newest_first=True, limit=1)[0].seq > last

    def test_spaces_are_apart(self, store: RecordStore) -> None:
        """A space knows nothing of another; dropping one leaves the other."""
        self.fill(store, 2)
        store.commit("server", [Put("things", "t0", {"n": "server"})], [{"what": "x"}])
        store.drop("p1")
        assert store.count("p1", "things") == 0
        found = store.get("server", "things", "t0")
        assert found is not None
        assert found.data == {"n": "server"}

    def test_everything_is_there_after_reopening(self, store: RecordStore) -> None:
        """Records, revisions, indexes and events survive."""
        self.fill(store, 50)
        store.commit("p1", [Put("things", "t7", {"color": "green"}), Delete("things", "t8")], [{"what": "y"}])
        before = store.find("p1", "things"), store.events("p1")
        store = self.reopen(store)
        assert (store.find("p1", "things"), store.events("p1")) == before
        assert [r.id for r in store.find("p1", "things", {"color": "green"})] == ["t7"]

    def test_events_are_a_chain(self, store: RecordStore) -> None:
        """Events count from 1, page both ways, and each is bound to the one before."""
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
        """Eight threads that count up one record, each trying again when it was beaten, count all."""
        store.commit("p1", [Put("things", "counter", {"n": 0})])

        def count_up() -> None:
            for _ in range(25):
                while True:
                    found = store.get("p1", "things", "counter")
                    assert found is not None
                    try:
                        store.commit("p1", [Put("things", "counter", {"n": found.data["n"] + 1}, found.rev)])
                        break
                    except ConcurrentChange:
                        continue

        threads = [threading.Thread(target=count_up) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = self.reopen(store).get("p1", "things", "counter")
        assert found is not None
        assert found.data == {"n": 200}


class ChunkStoreContract:
    """What `ChunkStore` promises."""

    ONE, TWO = digest.of_bytes(b"one"), digest.of_bytes(b"two")
    PUSH = "0" * 32

    def reopen(self, store: ChunkStore) -> ChunkStore:  # noqa: ARG002
        """Open a store on what another one kept."""
        raise AssertionError("a contract suite needs reopen()")

    def test_put_and_get(self, store: ChunkStore) -> None:
        """A frame comes back whole, from a store opened later too."""
        assert store.put("p1", self.ONE, [b"he", memoryview(b"ad"), b"body"]) == 8
        store.settle("p1", [self.ONE])
        for each in (store, self.reopen(store)):
            assert each.get("p1", self.ONE) == b"headbody"
            assert each.size("p1", self.ONE) == 8
            assert list(each.chunks("p1")) == [self.ONE]

    def test_what_is_there_is_not_written_again(self, store: ChunkStore) -> None:
        """The second put of a chunk adds nothing."""
        assert store.put("p1", self.ONE, [b"one"]) == 3
        assert store.put("p1", self.ONE, [b"other"]) == 0
        assert store.get("p1", self.ONE) == b"one"

    def test_missing_keeps_the_order(self, store: ChunkStore) -> None:
        """Missing names what is not there, as it was asked."""
        store.put("p1", self.ONE, [b"x"])
        third = digest.of_bytes(b"three")
        assert store.missing("p1", [third, self.ONE, self.TWO]) == [third, self.TWO]

    def test_projects_are_apart(self, store: ChunkStore) -> None:
        """What one project holds, another does not; dropping one leaves the other."""
        store.put("p1", self.ONE, [b"x"])
        assert store.missing("p2", [self.ONE]) == [self.ONE]
        store.put("p2", self.ONE, [b"x"])
        store.drop("p1")
        assert store.missing("p1", [self.ONE]) == [self.ONE]
        assert store.get("p2", self.ONE) == b"x"

    def test_what_is_not_there(self, store: ChunkStore) -> None:
        """Asking for it is a KeyError, whatever was asked for."""
        for ask in (store.get, store.size, store.manifest):
            with pytest.raises(KeyError):
                ask("p1", self.ONE)
        with pytest.raises(KeyError):
            store.staged("p1", self.PUSH)
        assert list(store.chunks("p1")) == []

    @pytest.mark.parametrize("name", ["../../etc/passwd", "", "ab", "A" * 64, "a" * 63 + "/"])
    def test_names_that_are_no_digests(self, store: ChunkStore, name: str) -> None:
        """Nothing outside the store can be named."""
        with pytest.raises(KeyError):
            store.get("p1", name)
        with pytest.raises(KeyError):
            store.get(name + "/..", self.ONE)

    def test_manifests(self, store: ChunkStore) -> None:
        """A manifest comes back whole; putting it again is harmless."""
        for _ in range(2):
            store.put_manifest("p1", self.ONE, b"{}")
        assert self.reopen(store).manifest("p1", self.ONE) == b"{}"

    def test_pushes(self, store: ChunkStore) -> None:
        """An open push survives the process, can be touched, and is gone when it is forgotten."""
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
        """The first bytes come back, or all of a frame that is shorter."""
        store.put("p1", self.ONE, [b"head", b"body"])
        assert [store.start("p1", self.ONE, size) for size in (0, 5, 100)] == [b"", b"headb", b"headbody"]
        with pytest.raises(KeyError):
            store.start("p1", self.TWO, 4)

    def test_replace(self, store: ChunkStore) -> None:
        """Another frame takes the place of one, and of nothing."""
        store.put("p1", self.ONE, [b"long frame"])
        assert store.replace("p1", self.ONE, [b"sho", b"rt"]) == 5
        assert self.reopen(store).get("p1", self.ONE) == b"short"
        with pytest.raises(KeyError):
            store.replace("p1", self.TWO, [b"x"])
        assert store.missing("p1", [self.TWO]) == [self.TWO]

    def test_remove(self, store: ChunkStore) -> None:
        """What is removed is missing, can be put again, and its bytes are told."""
        store.put("p1", self.ONE, [b"12345"])
        assert store.remove("p1", [self.TWO, self.ONE]) == 5
        assert store.missing("p1", [self.ONE]) == [self.ONE]
        assert store.put("p1", self.ONE, [b"12345"]) == 5

    def test_adopt(self, store: ChunkStore) -> None:
        """Two projects have it, and neither sees what the other does."""
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
        """Frames of two projects are one again after they were adopted, replaced and shared; bytes count once."""
        store.put("p1", self.ONE, [b"frame"])
        store.put("p3", self.ONE, [b"frame"])
        store.adopt("p2", "p1", self.ONE)
        assert set(store.sharers("p1", self.ONE, ["p1", "p2", "p3", "p4"])) <= {"p2"}
        store.replace("p1", self.ONE, [b"another"])
        assert store.sharers("p1", self.ONE, ["p2", "p3"]) == []
        store.share("p2", "p1", self.ONE)
        store.share("p2", "p1", self.ONE)
        assert self.reopen(store).get("p2", self.ONE) == b"another"
        if store.sharers("p1", self.ONE, ["p2"]):  # where the disk can do that
            assert store.usage("p2", ["p1"])["chunks"] == 0
            assert store.remove("p1", [self.ONE]) == 0
            assert store.usage("p2", ["p1"])["chunks"] == 7
        assert store.usage("p2")["chunks"] == 7
        for project, source in (("p4", "p2"), ("p2", "p4")):
            with pytest.raises(KeyError):
                store.share(project, source, self.ONE)

    def test_set_aside(self, store: ChunkStore) -> None:
        """A frame that is set aside is missing but still takes room, as often as it happens."""
        for count in (1, 2):
            store.put("p1", self.ONE, [b"12345"])
            store.set_aside("p1", self.ONE)
            assert store.missing("p1", [self.ONE]) == [self.ONE]
            assert store.usage("p1")["damaged"] == 5 * count

    def test_manifests_and_notes_go_together(self, store: ChunkStore) -> None:
        """A note can be replaced, is listed with nothing, and goes with its manifest."""
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
        """Every byte that is kept is counted once."""
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
        """Whoever sweeps does so alone; those who pin do so together, and each project is by itself."""
        order: list[str] = []

        def sweep() -> None:
            with store.sweeping("p1"):
                order.append("swept")

        with store.pinning("p1"), store.pinning("p1"):
            thread = threading.Thread(target=sweep)
            thread.start()
            with store.sweeping("p2"):
                order.append("pinned")
        thread.join()
        with store.pinning("p1"):
            assert order == ["pinned", "swept"]

    def test_many_writers_of_one_chunk(self, store: ChunkStore) -> None:
        """Threads that put the same chunk at once leave one whole frame, and one of them counts its bytes."""
        frame = b"x" * 100_000
        added: list[int] = []
        threads = [threading.Thread(target=lambda: added.append(store.put("p1", self.ONE, [frame]))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get("p1", self.ONE) == frame
        assert sum(added) == len(frame)
