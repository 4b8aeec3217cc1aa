"""Pushes of the same bytes at the same time: each byte that is stored is counted by one of them."""

import threading

import numpy as np
import pytest
from workshop import ADA, Shop, weights

from lmvp.storage.frames import Frame


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
