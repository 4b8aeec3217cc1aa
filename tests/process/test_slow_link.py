"""Over a slow link only the change travels: bytes are counted on the way."""

import re

import numpy as np
import pytest
from support.models import bfloat16, same, size, step, weights

import lmvp
from lmvp.errors import NotFound
from lmvp.transfer.model_cache import opened


def test_a_retrained_model_moves_the_entropy_of_its_change(link):
    client = link.client()
    first = weights()
    half, full = bfloat16(first), first
    for name, tree, retrained, share in (
        ("half", half, bfloat16(step(first)), 0.12),
        ("full", full, step(first), 0.72),
    ):
        client.update(f"d/{name}", tree, progress=False)
        link.reset()
        version = client.update(f"d/{name}", retrained, progress=False)
        assert link.up.bytes < share * size(tree) + 20_000
        assert version.sent < share * size(tree)
        assert version.size > size(tree)
        assert same(lmvp.download(f"d/{name}", progress=False), retrained)


def test_a_first_push_is_encoded(link):
    tree = bfloat16(weights(layers=12))
    link.client().update("d/m", tree, progress=False)
    assert link.up.bytes < 0.8 * size(tree)
    assert same(lmvp.download("d/m", progress=False), tree)


def test_what_did_not_change_does_not_travel(link):
    client, tree = link.client(), weights()
    client.update("d/m", tree, progress=False)
    link.reset()
    client.update("d/m", step(tree, names=["layers.1.weight"]), progress=False)
    assert link.up.bytes < 0.72 * size(tree) / 4 + 20_000
    link.reset()
    client.update("d/m", step(tree, names=["layers.1.weight"]), progress=False)
    assert link.up.bytes < 20_000


def test_a_pull_moves_what_changed_since_the_last_one(link, another_machine):
    tree = bfloat16(weights())
    versions = [tree, bfloat16(step(weights())), bfloat16(step(step(weights()), 2))]
    for one in versions:
        lmvp.update("d/m", one, progress=False)
    another_machine()
    client = link.client()
    assert same(client.download("d/m@v1", progress=False), tree)
    assert link.down.bytes < 0.95 * size(tree)
    for number in (3, 2):  # forward, two steps at once, and back
        link.reset()
        assert same(client.download(f"d/m@v{number}", progress=False), versions[number - 1])
        assert link.down.bytes < 0.25 * size(tree) + 20_000


def test_an_unchanged_pull_is_one_question(link, another_machine):
    tree = weights()
    lmvp.update("d/m", tree, progress=False)
    another_machine()
    client = link.client()
    client.download("d/m", progress=False)
    link.reset()
    assert same(client.download("d/m", progress=False), tree)
    assert link.requests == 1
    assert link.down.bytes < 4_000


def test_what_was_pushed_from_here_is_not_pulled_again(link):
    client, tree = link.client(), weights()
    client.update("d/m", tree, progress=False)
    link.reset()
    assert same(client.download("d/m", progress=False), tree)
    assert link.requests == 1


def test_a_deleted_version_is_not_pulled_from_the_cache(link):
    client = link.client()
    client.update("d/m", weights(), progress=False)
    client.remove("d/m@v1")
    with pytest.raises(NotFound):
        client.download("d/m@v1", progress=False)


def test_without_a_cache_all_is_well(link, monkeypatch, home):
    monkeypatch.setenv("LMVP_CACHE_LIMIT", "0")
    client, tree = link.client(), weights()
    client.update("d/m", tree, progress=False)
    client.update("d/m", step(tree), progress=False)
    assert same(client.download("d/m", progress=False), step(tree))
    assert not (home / "cache").exists()


def test_the_server_of_this_machine_needs_no_cache(home):
    tree = weights()
    lmvp.update("d/m", tree, progress=False)
    lmvp.update("d/m", step(tree), progress=False)
    assert same(lmvp.download("d/m", progress=False), step(tree))
    assert not (home / "cache").exists()


def test_chunks_of_the_cache_that_are_damaged_travel_again(link):
    client, tree = link.client(), bfloat16(weights())
    client.update("d/m", tree, progress=False)
    retrained = bfloat16(step(weights()))
    lmvp.update("d/m", retrained, progress=False)
    for path in (opened().folder / "chunks").glob("??/*"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    assert same(client.download("d/m", progress=False), retrained)
    assert same(client.download("d/m@v1", progress=False), tree)


def test_a_push_whose_base_is_damaged_in_the_cache(link):
    client, tree = link.client(), bfloat16(weights())
    client.update("d/m", tree, progress=False)
    for path in (opened().folder / "chunks").glob("??/*"):
        path.write_bytes(path.read_bytes()[:-1])
    retrained = bfloat16(step(weights()))
    client.update("d/m", retrained, progress=False)
    assert same(lmvp.download("d/m", progress=False), retrained)


def test_a_push_whose_base_is_damaged_on_the_server(link, home):
    client, tree = link.client(), bfloat16(weights())
    client.update("d/m", tree, progress=False)
    for path in (home / "chunks").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    retrained = bfloat16(step(weights()))
    assert client.update("d/m", retrained, progress=False).number == 2
    assert same(lmvp.download("d/m", progress=False), retrained)


def test_a_chunk_that_is_damaged_on_the_server_is_told_of_by_its_file(link, home, another_machine):
    client = link.client()
    client.update("d/m", weights(), progress=False)
    for path in (home / "chunks").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    another_machine()
    with pytest.raises(lmvp.errors.IntegrityError, match=r"the chunk \w+ of 'weights.safetensors' is damaged"):
        client.download("d/m", progress=False)


def test_shapes_and_dtypes_may_change(link):
    client, tree = link.client(), weights()
    client.update("d/m", tree, progress=False)
    other = {
        "layers.0.weight": tree["layers.0.weight"].astype(np.float64),
        "layers.1.weight": tree["layers.1.weight"][:500],
        "layers.2.bias": np.arange(300_000),
    }
    client.update("d/m", other, progress=False)
    assert same(client.download("d/m", progress=False), other)
    assert same(client.download("d/m@v1", progress=False), tree)
    assert same(lmvp.download("d/m", progress=False), other)


def test_files_of_a_folder_come_back_byte_for_byte(link, another_machine, tmp_path):
    (tmp_path / "in").mkdir()
    for name, data in {"a.bin": bytes(range(256)) * 9_000, "b.txt": b"x", "empty": b""}.items():
        (tmp_path / "in" / name).write_bytes(data)
    client = link.client()
    client.update("d/m", tmp_path / "in", progress=False)
    another_machine()
    for _ in range(2):
        for path in client.download("d/m", to=tmp_path / "out", progress=False):
            assert path.read_bytes() == (tmp_path / "in" / path.name).read_bytes()
    assert link.up.bytes < 200_000  # zstd finds the pattern


def test_the_bar_says_what_travelled(link, another_machine, capsys):
    link.client().update("d/m", weights(layers=8), progress=True)
    assert re.search(r"push: +\d+%.* MB sent", capsys.readouterr().err)
    another_machine()
    link.client().download("d/m", progress=True)
    assert re.search(r"pull: +\d+%.* MB received", capsys.readouterr().err)
