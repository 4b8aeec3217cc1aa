"""Chunks in a folder keep the contract, and leave no half-written file."""

import os

import pytest

from lmvp.errors import StorageFull, StorageReadOnly
from lmvp_server.stores.local.chunks import FolderChunks
from lmvp_server.stores.testing import ChunkStoreContract


class TestFolderChunks(ChunkStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        self.folder = tmp_path
        return FolderChunks(tmp_path)

    def reopen(self, store):
        return FolderChunks(self.folder)


@pytest.mark.parametrize(("number", "error"), [(28, StorageFull), (30, StorageReadOnly), (13, StorageReadOnly)])
def test_a_disk_that_refuses(tmp_path, monkeypatch, number, error):
    store = FolderChunks(tmp_path)
    store.put("p1", "b" * 64, [b"first"])

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(error, match=r"disk|cannot write"):
        store.put("p1", "a" * 64, [b"data"])
    monkeypatch.undo()
    assert store.missing("p1", ["a" * 64]) == ["a" * 64]
    assert list((tmp_path / "staging" / "p1").iterdir()) == []
    assert store.put("p1", "a" * 64, [b"data"]) == 4


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    FolderChunks(tmp_path).put("p1", "a" * 64, [b"x"])
    (tmp_path / "staging" / "p1" / "tmp-123").write_bytes(b"half")
    FolderChunks(tmp_path)
    assert list((tmp_path / "staging" / "p1").iterdir()) == []
