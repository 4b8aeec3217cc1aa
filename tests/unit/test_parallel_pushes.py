"""Pushes of the same bytes at the same time: each byte that is stored is counted by one of them."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pytest
from support.workshop import ADA, Shop, weights

from lmvp.core.chunk_frames import Frame
from lmvp.core.schemas import Amendment
from lmvp.errors import NotFound


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


def at_once(*works):
    """Do several things, begun at the same moment."""
    gate = threading.Barrier(len(works))

    def one(work):
        gate.wait()
        work()

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("models", [("a", "b"), ("a", "b", "c", "d")])
def test_each_byte_is_counted_by_one_of_them(shop, models):
    tree = weights(0, layers=6)
    begun = {model: shop.begin(tree, model) for model in models}

    def send(model):
        push_id, described, answer = begun[model]
        shop.send(push_id, described, answer.missing, model)

    at_once(*(lambda model=model: send(model) for model in models))
    versions = [shop.services.pushes.commit(ADA, "p", model, begun[model][0]) for model in models]
    assert sum(version["stored"] for version in versions) == shop.on_disk("chunks")
    assert all(version["sent"] == sum(place.size for place in begun["a"][1].places.values()) for version in versions)


def test_a_push_whose_requests_come_at_once_counts_all_of_them(shop):
    tree = {f"w{i}": np.full((300, 1000), i, np.float32) for i in range(12)}
    push_id, described, answer = shop.begin(tree)
    push = shop.services.pushes.resume(ADA, "p", "m", push_id)

    def send(chunk):
        data = b"".join(described.places[chunk].read())
        for _ in range(2):
            shop.services.pushes.receive(push, Frame(chunk, len(data), len(data)), [memoryview(data)])

    at_once(*(lambda chunk=chunk: send(chunk) for chunk in answer.missing))
    version = shop.services.pushes.commit(ADA, "p", "m", push_id)
    assert version["stored"] == shop.on_disk("chunks")
    assert version["sent"] == described.bytes


@pytest.fixture
def slow_sync(monkeypatch):
    """Let the next sync of records wait for `release`, then fail; `entered` tells that it waits."""
    entered, release, real = threading.Event(), threading.Event(), os.fdatasync

    def sync(descriptor):
        if not entered.is_set():
            entered.set()
            assert release.wait(20)
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    return entered, release


@pytest.mark.parametrize(
    "way", ["the same push", "the same content", "a new project", "the same alias", "an amendment"]
)
def test_nothing_is_promised_that_another_is_still_writing(shop, slow_sync, way):
    entered, release = slow_sync
    services, tree = shop.services, weights(0, 1, 50)
    if way == "a new project":
        first = second = lambda: shop.push(tree)
    else:
        entered.set()
        shop.push(weights(1, 1, 50))
        push, described, answer = shop.begin(tree)
        shop.send(push, described, answer.missing)
        entered.clear()
        commit = partial(services.pushes.commit, ADA, "p", "m", push)
        move = partial(services.aliases.move, ADA, "p", "m", "best", "v1")
        amend = partial(services.versions.amend, ADA, "p", "m", "v1", Amendment(message="said"))
        first, second = {
            "the same push": (commit, commit),
            "the same content": (commit, lambda: shop.push(tree)),
            "the same alias": (move, move),
            "an amendment": (amend, amend),
        }[way]
    with ThreadPoolExecutor() as pool:
        one = pool.submit(first)
        assert entered.wait(20)
        other = pool.submit(second)
        early = wait([other], timeout=0.3).done
        release.set()
        assert isinstance(one.exception(), OSError)
        assert not early
        assert isinstance(other.exception(), OSError)
    assert second()


def test_the_id_of_a_push_to_another_model_names_nothing_here(shop):
    push_id, described, answer = shop.begin({"w": np.zeros(4)})
    shop.send(push_id, described, answer.missing)
    shop.services.pushes.commit(ADA, "p", "m", push_id)
    shop.push({"w": np.ones(4)}, "other")
    assert shop.services.pushes.commit(ADA, "p", "m", push_id)["number"] == 1
    with pytest.raises(NotFound):
        shop.services.pushes.commit(ADA, "p", "other", push_id)


def test_open_pushes_of_many_chunks_are_not_all_held_in_memory(shop, monkeypatch):
    """Those that are let go of are read again when they go on."""
    monkeypatch.setattr("lmvp_server.services.pushes._REMEMBERED_CHUNKS", 10)
    begun = [shop.begin(weights(seed, layers=6), f"m{seed}") for seed in range(4)]
    assert len(shop.services.pushes._open) == 1
    for seed, (push_id, described, answer) in enumerate(begun):
        shop.send(push_id, described, answer.missing, f"m{seed}")
        assert shop.services.pushes.commit(ADA, "p", f"m{seed}", push_id)["number"] == 1
