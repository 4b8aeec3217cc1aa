"""TinyDB records keep the contract; TinyDB itself can read what they write."""

import pytest
import tinydb

from lmvp.errors import AlreadyExists, InvalidName
from lmvp_server.stores.base import ConcurrentChange, Put
from lmvp_server.stores.local.records import Database, TinyDbRecords
from lmvp_server.stores.testing import RecordStoreContract

INDEXES = {"things": ("color",)}


class TestTinyDbRecords(RecordStoreContract):
    compact_at = 1 << 20

    @pytest.fixture
    def store(self, tmp_path):
        self.folder = tmp_path
        self.stores = [TinyDbRecords(tmp_path, INDEXES, compact_at=self.compact_at)]
        yield self.stores[0]
        for store in self.stores:
            store.close()

    def reopen(self, store):
        store.close()
        self.stores.append(TinyDbRecords(self.folder, INDEXES, compact_at=self.compact_at))
        return self.stores[-1]


class TestWithASnapshotAtEveryTurn(TestTinyDbRecords):
    compact_at = 1


def test_a_snapshot_is_a_plain_tinydb_file(tmp_path):
    store = TinyDbRecords(tmp_path, INDEXES, compact_at=1)
    for i in range(20):
        store.commit("server", [Put("things", f"t{i}", {"n": i})])
    store.close()
    plain = tinydb.TinyDB(tmp_path / "server.json")
    found = plain.table("things").all()
    plain.close()
    assert found
    assert all(row["data"]["n"] == int(row["id"][1:]) for row in found)


@pytest.mark.parametrize("space", ["../x", "", "a/b", "a b"])
def test_bad_names_of_spaces(tmp_path, space):
    store = TinyDbRecords(tmp_path, INDEXES)
    with pytest.raises((InvalidName, KeyError, ValueError)):
        store.commit(space, [Put("things", "a", {})])
    store.close()


def test_the_query_structure_that_indexes_rely_on():
    query = tinydb.where("color") == "red"
    assert query._hash == ("==", ("color",), "red")
    nested, other = tinydb.where("data")["color"] == "red", tinydb.where("id") == "a"
    assert nested._hash == ("==", ("data", "color"), "red")
    assert (nested & other)._hash == ("and", frozenset([nested._hash, other._hash]))


def document(name, color):
    return {"id": name, "rev": 1, "data": {"color": color, "list": [1]}}


@pytest.fixture
def table(tmp_path):
    with Database(tmp_path / "space.json", INDEXES) as database:
        yield database.table("things")


def test_tinydb_finds_by_index_and_by_scan(table):
    assert table.insert(document("a", "red")) == 1
    assert table.insert_multiple([document("b", "blue"), document("c", "red")]) == [2, 3]
    red = tinydb.where("data")["color"] == "red"
    for condition, expected in [
        (red, [1, 3]),
        (~red, [2]),
        (red & (tinydb.where("id") == "c"), [3]),
        (red | (tinydb.where("id") == "b"), [1, 2, 3]),
        (tinydb.where("data")["list"] == [1], [1, 2, 3]),
        (tinydb.where("data")["color"] == "none", []),
    ]:
        assert [found.doc_id for found in table.search(condition)] == expected
        assert table.count(condition) == len(expected)
    assert table.get(red).doc_id == 1
    assert [found.doc_id for found in table.get(doc_ids=[3, 9])] == [3]


def test_an_indexed_query_looks_at_its_answer_only(table):
    table.insert_multiple(document(f"t{i}", "red" if i == 70 else "blue") for i in range(100))
    seen = []
    rare = (tinydb.where("data")["color"] == "red") & tinydb.where("id").test(lambda name: not seen.append(name))
    assert [found["id"] for found in table.search(rare)] == ["t70"]
    assert seen == ["t70"]


def test_tinydb_writes_only_what_it_touched(table, tmp_path):
    table.insert_multiple(document(f"t{i}", "blue") for i in range(100))
    journal = tmp_path / "space.json.j0"
    before = journal.stat().st_size
    table.update(lambda found: found["data"].update(color="red"), tinydb.where("id") == "t7")
    assert journal.stat().st_size - before < 150
    assert [found["rev"] for found in table.search(tinydb.where("data")["color"] == "red")] == [2]
    assert table.remove(doc_ids=[100]) == [100]
    assert table.insert(document("new", "blue")) == 101
    with pytest.raises(AlreadyExists, match="'new'"):
        table.insert(document("new", "blue"))
    table.truncate()
    with Database(tmp_path / "space.json", INDEXES) as again:
        assert again.tables() == set()


def test_tinydb_drops_tables(tmp_path):
    with Database(tmp_path / "space.json", INDEXES) as database:
        database.table("things").insert(document("a", "red"))
        database.table("others").insert(document("a", "red"))
        database.drop_table("others")
        assert database.tables() == {"things"}
        database.drop_tables()
        assert database.tables() == set()


def test_what_is_refused_leaves_nothing(tmp_path):
    store = TinyDbRecords(tmp_path / "records", INDEXES)
    with pytest.raises(UnicodeEncodeError):
        store.commit("p1", [Put("things", "a", {}), Put("things", "b", {"text": "\ud800"})])
    with pytest.raises(ConcurrentChange):
        store.commit("p1", [Put("things", "a", {}, expect=5)])
    assert store.count("p1", "things") == 0
    assert store.spaces() == []
    assert not (tmp_path / "records").exists()
    store.close()
