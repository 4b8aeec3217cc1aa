"""Compaction makes a history small, keeps every byte, and can be stopped or killed anywhere."""

import numpy as np
import pytest
from support.workshop import ADA, Shop, bytes_of, step, weights

from lmvp.core.chunk_frames import HEADER_SIZE
from lmvp.core.codecs import DEPTH_LIMIT
from lmvp.errors import IntegrityError
from lmvp_server.services.layers import LayerStrips
from lmvp_server.services.paging import Page


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


def history(shop, length, **fields):
    """Push a line of versions, each a step on from the one before; return their trees."""
    trees = [weights(0)]
    for seed in range(1, length):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree, **fields)
    return trees


def check(shop, trees, model="m"):
    for number, tree in enumerate(trees, 1):
        assert shop.files(number, model)["weights.safetensors"] == bytes_of(tree)


def test_a_history_gets_small_and_keeps_every_byte(shop):
    trees = history(shop, 6)
    raw = shop.on_disk("chunks")
    done = shop.services.upkeep.compact(ADA)
    assert done["versions"] == 6
    assert done["before"] - done["after"] == raw - shop.on_disk("chunks")
    assert shop.on_disk("chunks") < 0.7 * raw
    check(shop, trees)
    check(shop.reopen(), trees)


def test_the_second_time_there_is_nothing_to_do(shop):
    history(shop, 3)
    shop.services.upkeep.compact(ADA)
    again = shop.services.upkeep.compact(ADA)
    assert again == {"versions": 0, "chunks": 0, "before": 0, "after": 0}
    assert shop.reopen().services.upkeep.compact(ADA) == again


def test_the_newest_and_the_named_stay_quick_to_read(shop):
    history(shop, 4)
    shop.services.aliases.move(ADA, "p", "m", "production", "2")
    shop.services.upkeep.compact(ADA)
    links = shop.links()
    assert not any(chunk in links for number in (1, 2, 4) for chunk in shop.chunks_of(number))
    assert any(chunk in links for chunk in shop.chunks_of(3))
    assert {links.base(c) for c in shop.chunks_of(3) if c in links} <= set(shop.chunks_of(2))


def test_a_version_that_lost_its_alias_is_compacted_too(shop):
    history(shop, 4)
    shop.services.aliases.move(ADA, "p", "m", "best", "3")
    shop.services.upkeep.compact(ADA)
    before = shop.on_disk("chunks")
    shop.services.aliases.move(ADA, "p", "m", "best", "4")
    shop.services.upkeep.compact(ADA)
    assert shop.on_disk("chunks") < before
    assert any(chunk in shop.links() for chunk in shop.chunks_of(3))


def test_no_delta_stands_on_more_than_the_limit(shop):
    tree = {"w": weights(0, 1, 64)["layers.0.weight"]}
    trees = [tree]
    for seed in range(DEPTH_LIMIT + 6):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree)
        shop.services.upkeep.compact(ADA)
    links = shop.links()
    depths = [max(links.depth(chunk) for chunk in shop.chunks_of(number)) for number in range(1, len(trees))]
    assert max(depths) == DEPTH_LIMIT
    assert depths[DEPTH_LIMIT + 1] == 0
    check(shop, trees)


def test_a_model_that_goes_back_and_forth(shop):
    """A chunk that comes back is its own grandparent; it must not come to lean on itself."""
    one = weights(0)
    two = step(one, 1)
    trees = [one, two, one, two, one]
    for number, tree in enumerate(trees):
        shop.push(tree, message=str(number))
        shop.services.upkeep.compact(ADA)
    check(shop, trees)
    links = shop.links()
    for chunk in {chunk for number in range(1, 6) for chunk in shop.chunks_of(number)}:
        assert len(links.with_bases([chunk])) <= 2


def test_tensors_that_change_places(shop):
    one = weights(0, 2)
    a, b = one.values()
    two = {"layers.0.weight": b, "layers.1.weight": step({"x": a}, 3)["x"]}
    three = step(two, 4)
    for tree in (one, two, three):
        shop.push(tree)
    shop.services.upkeep.compact(ADA)
    check(shop, [one, two, three])


def test_it_stops_where_it_is_told_and_goes_on_later(shop):
    trees = history(shop, 4)
    raw, asked = shop.on_disk("chunks"), iter(range(1000))
    shop.services.tidy_up(lambda: next(asked) < 12)
    partly = shop.on_disk("chunks")
    assert partly < raw
    check(shop, trees)
    shop.reopen().services.tidy_up(lambda: True)
    assert shop.on_disk("chunks") < partly
    check(shop, trees)
    assert shop.services.upkeep.compact(ADA)["versions"] == 0


def test_what_a_version_takes_is_told_anew(shop):
    history(shop, 3)
    shop.services.upkeep.compact(ADA)
    stored = [shop.services.versions.version(ADA, "p", "m", str(n))["stored"] for n in (1, 2, 3)]
    assert sum(stored) == shop.on_disk("chunks")
    rows = shop.services.usage.of_model(ADA, "p", "m")["rows"]
    assert [row["stored"] for row in rows] == stored[::-1]


@pytest.mark.parametrize("packed", [False, True])
def test_strip_of_a_version_compares_with_an_older_one_when_its_parent_was_removed(shop, packed):
    """No layer looks new only because the parent is gone; where no older version is left, there is no strip."""
    one = weights(0)
    two = {**one, "layers.1.weight": one["layers.1.weight"] * np.float32(1.02)}
    three = {**two, "layers.2.weight": two["layers.2.weight"] * np.float32(1.02)}
    shop.push(one), shop.push(two), shop.push(three)
    if packed:
        shop.services.upkeep.compact(ADA)
    shop.services.trash.remove_version(ADA, "p", "m", "2")
    shop.services.trash.collect(ADA)
    layers = LayerStrips(shop.services.catalog, shop.services.versions, shop.services.tensor_changes)
    assert layers.strips(ADA, "p", "m", [3, 1]).strips == {"3": "0xx", "1": "+++"}
    assert layers.one(ADA, "p", "m", "3").strips == {"3": "0xx"}
    shop.services.trash.remove_version(ADA, "p", "m", "1")
    shop.services.trash.collect(ADA)
    layers = LayerStrips(shop.services.catalog, shop.services.versions, shop.services.tensor_changes)
    assert layers.strips(ADA, "p", "m", [3]).strips == {}, "nothing is left to compare with"
    assert layers.one(ADA, "p", "m", "3").strips == {}


def test_how_much_each_layer_changed_is_known_then(shop):
    one = weights(0)
    two = {**one, "layers.1.weight": one["layers.1.weight"] * np.float32(1.02)}
    shop.push(one), shop.push(two)
    assert shop.services.layers.strips(ADA, "p", "m", [2, 1]).strips["2"] == "0x0"
    shop.services.upkeep.compact(ADA)
    assert shop.services.layers.strips(ADA, "p", "m", [2, 1]).strips == {"2": "030", "1": "+++"}
    changes = shop.services.tensor_changes.changes(ADA, "p", "m", "2", "@1")
    assert list(changes.tensors) == ["layers.1.weight"]
    amount = changes.tensors["layers.1.weight"]
    assert (amount.count, amount.share) == (700 * 512, 1.0)
    assert amount.relative == pytest.approx(0.02, rel=1e-4)


def test_changes_against_any_version(shop):
    trees = history(shop, 3)
    changes = shop.services.tensor_changes.changes(ADA, "p", "m", "3", "1")
    for name, amount in changes.tensors.items():
        difference = trees[2][name].astype(np.float64) - trees[0][name]
        assert amount.relative == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(trees[0][name]), rel=1e-6)
        assert amount.largest == pytest.approx(np.abs(difference).max(), rel=1e-6)


def test_a_damaged_chunk_stops_its_version_alone(shop, caplog):
    trees = history(shop, 4)
    broken = next(c for c in shop.chunks_of(2) if c not in shop.chunks_of(1))
    path = shop.folder / "chunks" / shop.space / broken[:2] / broken[2:]
    data = bytearray(path.read_bytes())
    data[HEADER_SIZE + 9] ^= 4
    path.write_bytes(data)
    shop.services.upkeep.compact(ADA)
    assert path.read_bytes() == data
    assert "is not compacted" in caplog.text
    assert shop.files(1)["weights.safetensors"] == bytes_of(trees[0])
    assert shop.files(4)["weights.safetensors"] == bytes_of(trees[3])
    with pytest.raises(IntegrityError, match=broken[:12]):
        shop.files(2)


def test_a_base_that_is_encoded_anew_while_it_is_read(shop, monkeypatch):
    """A reader that finds the base gone looks again at the chunk, which depends on something else by then."""
    trees = history(shop, 3)
    shop.services.upkeep.compact(ADA)
    leaning = next(chunk for chunk in shop.chunks_of(2) if chunk in shop.links())
    real, calls = shop.services.chunks.get, []

    def get(space, chunk):
        calls.append(chunk)
        if len(calls) == 2:  # the base, when the chunk was read; meanwhile version 1 goes
            shop.services.trash.remove_version(ADA, "p", "m", "1")
        return real(space, chunk)

    monkeypatch.setattr(shop.services.chunks, "get", get)
    data = shop.services.files._chunk_reader.data(shop.space, leaning)
    assert len(calls) > 2
    assert bytes(data) in bytes_of(trees[1])


def test_what_a_version_takes_is_told_as_usage_tells_it_whoever_shares_its_chunks(shop):
    first, second = weights(0), step(weights(0), 1)
    for tree, model in ((first, "m"), (second, "n"), (first, "n"), (second, "m"), (first, "m"), (step(second, 2), "n")):
        shop.push(tree, model)
    shop.services.upkeep.compact(ADA)
    for model in ("m", "n"):
        rows = {row["name"]: row["stored"] for row in shop.services.usage.of_model(ADA, "p", model)["rows"]}
        versions = shop.services.versions.of_model(ADA, "p", model, Page())["items"]
        assert {f"p/{model}@v{one['number']}": one["stored"] for one in versions} == rows
        assert rows[f"p/{model}@v1"] > 0


def test_measuring_stops_in_the_middle_of_a_long_tensor(tmp_path):
    shop, asked = Shop(tmp_path), []
    for seed in range(2):
        shop.push({"w": np.full((5, 1 << 20), seed, np.float32)})
    digests = [shop.services.versions.version(ADA, "p", "m", f"v{number}")["digest"] for number in (2, 1)]
    measure = shop.services.tensor_changes.measure
    assert measure(shop.space, *digests, lambda: len(asked) < 2 and not asked.append(1)) is None
    assert len(asked) == 2
    assert measure(shop.space, *digests).tensors["w"].count == 5 << 20
    shop.services.close()
