"""The stored size of a version stays correct when a version that stored shared chunks first is removed."""

import numpy as np
import pytest
from support.workshop import ADA, Shop, step, weights

from lmvp_server.services.paging import Page


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


def sizes(shop):
    """Return the stored size of each version by its reference, as lists of versions state it."""
    found = {}
    for model in [one["name"] for one in shop.services.catalog.models(ADA, "p", Page())["items"]]:
        for one in shop.services.versions.of_model(ADA, "p", model, Page())["items"]:
            found[f"{model}@v{one['number']}"] = one["stored"]
            alone = shop.services.versions.version(ADA, "p", model, str(one["number"]))
            assert alone["stored"] == one["stored"]
    return found


@pytest.mark.parametrize("packed", [False, True], ids=["as pushed", "packed"])
@pytest.mark.parametrize("how", ["version", "model"])
def test_stored_size_includes_the_chunks_of_a_removed_owner(shop, packed, how):
    first = weights(0)
    second = {**first, "layers.2.weight": first["layers.2.weight"] + np.float32(1)}
    shop.push(first, "m")
    shop.push(second, "m" if how == "version" else "n")
    if packed:
        shop.services.upkeep.compact(ADA)
    before = sizes(shop)
    assert sum(before.values()) == shop.on_disk("chunks")
    if how == "version":
        shop.services.trash.remove_version(ADA, "p", "m", "1")
    else:
        shop.services.trash.remove_model(ADA, "p", "m")
    shop.services.trash.collect(ADA)
    (left,) = sizes(shop).values()
    assert left == shop.on_disk("chunks")
    assert left > 1_000_000


def test_stored_size_of_an_equal_version_is_that_of_its_removed_original(shop):
    shop.push(weights(0), "m")
    shop.push(weights(0), "n")
    assert sizes(shop) == {"m@v1": shop.on_disk("chunks"), "n@v1": 0}
    shop.services.trash.remove_model(ADA, "p", "m")
    shop.services.trash.collect(ADA)
    assert sizes(shop) == {"n@v1": shop.on_disk("chunks")}


def test_stored_size_grows_with_chunks_that_lose_their_base(shop):
    """A chunk that was a difference to one of a removed version is stored whole."""
    tree = weights(0)
    for seed in range(3):
        shop.push(tree, "m")
        tree = step(tree, seed)
    shop.services.upkeep.compact(ADA)
    assert sum(sizes(shop).values()) == shop.on_disk("chunks")
    shop.services.trash.remove_version(ADA, "p", "m", "3")
    shop.services.trash.collect(ADA)
    assert sum(sizes(shop).values()) == shop.on_disk("chunks")
