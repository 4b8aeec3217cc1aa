"""What an import may say of a version, who may say it, and what the server makes sure of itself."""

from datetime import datetime, timedelta, timezone

import msgspec
import pytest
from support.workshop import ADA, GRACE, Shop, weights

from lmvp import errors
from lmvp.core import manifest as manifests
from lmvp.core.schemas import ImportedMetadata, NewPush, Parent
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe

AT = datetime(2021, 2, 3, 4, 5, 6, 789, tzinfo=timezone(timedelta(hours=5)))
TREE = weights(3, 1, 20)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    yield shop
    shop.services.close()


def recorded(number, parents=(), tree=TREE, **fields):
    manifest = describe(pack(tree)).manifest
    whole = msgspec.structs.replace(manifest, parents=tuple(parent.digest for parent in parents))
    said = {"author": "grace", "created_at": AT, "digest": manifests.digest_of(whole)}
    return ImportedMetadata(number=number, parents=tuple(parents), **{**said, **fields})


def put(shop, said, tree=TREE, **fields):
    return shop.push(tree, recorded=said, **fields)


def test_what_was_recorded_is_kept(shop):
    parent = Parent(number=3, digest="ab" * 32)
    version = put(shop, recorded(7, [parent]), message="old", metrics={"loss": "NaN"})
    assert (version["number"], version["author"], version["message"]) == (7, "grace", "old")
    assert version["created_at"] == "2021-02-02T23:05:06.000789Z"
    assert version["parents"] == [{"number": 3, "digest": "ab" * 32}]
    event = shop.services.records.events(shop.space, newest_first=True, limit=1)[0]
    assert (event["action"], event["who"], event["what"]) == ("version.import", "ada", "p/m@v7")
    assert event["at"] > "2026"
    assert (event["after"]["author"], event["after"]["created_at"]) == ("grace", version["created_at"])
    assert shop.push(weights(4, 1, 20))["number"] == 8


def test_equal_neighbours_stay_two_versions(shop):
    first = put(shop, recorded(1))
    parent = Parent(number=1, digest=first["digest"])
    assert put(shop, recorded(2, [parent]))["number"] == 2
    assert put(shop, recorded(2, [parent]))["number"] == 2  # and a retry makes no third
    assert shop.services.records.count(shop.space, "versions") == 2


def test_numbers_above_are_not_used_again(shop):
    put(shop, recorded(2, last=9))
    assert shop.push(weights(4, 1, 20))["number"] == 10


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"number": 0}, "is no number of a version"),
        ({"number": -5}, "is no number of a version"),
        ({"number": 10**12}, "is no number of a version"),
        ({"last": 10**12}, "is no number of a version"),
        ({"created_at": datetime(2021, 1, 1)}, "is no time"),
        ({"created_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, "is no time"),
        ({"created_at": datetime(9999, 12, 31, tzinfo=timezone(-timedelta(hours=12)))}, "is no time"),
        ({"author": "a" * 1000}, "is not a name"),
        ({"author": "ada\n"}, "is not a name"),
        ({"digest": "0" * 64}, "has another digest"),
        ({"digest": "no"}, "has another digest"),
        ({"parents": (Parent(number=5, digest="0" * 64),)}, "cannot be a parent"),
        ({"parents": (Parent(number=0, digest="0" * 64),)}, "cannot be a parent"),
        ({"parents": (Parent(number=1, digest="../x"),)}, "cannot be a parent"),
        ({"parents": (Parent(number=1, digest="0" * 64),) * 100}, "parents; the limit is 64"),
        ({"parents": (Parent(number=1, digest="0" * 64),)}, "has another digest"),
    ],
)
def test_what_makes_no_sense_is_refused(shop, fields, error):
    said = msgspec.structs.replace(recorded(5), **fields)
    with pytest.raises(errors.UserError, match=error):
        put(shop, said)
    assert shop.services.records.spaces() == []  # not even a project was made for it


def test_it_goes_without_what_contradicts_it(shop):
    for fields in ({"parent": "0" * 64}, {"expect_parent": ""}, {"aliases": ("best",)}):
        with pytest.raises(errors.InvalidRequest, match="names its parents"):
            put(shop, recorded(1), **fields)


def test_a_number_that_is_taken_or_passed(shop):
    shop.push(weights(4, 1, 20))
    shop.push(weights(5, 1, 20))
    shop.services.trash.remove_version(ADA, "p", "m", "1")
    with pytest.raises(errors.Conflict, match="v2 of p/m is another one"):
        put(shop, recorded(2))
    with pytest.raises(errors.Conflict, match="v1 cannot be put in"):
        put(shop, recorded(1))


def test_a_parent_that_is_another_one_here(shop):
    there = shop.push(weights(4, 1, 20))
    for parent in (Parent(number=1, digest="0" * 64), Parent(number=2, digest=there["digest"])):
        with pytest.raises(errors.Conflict, match="a parent was recorded as"):
            put(shop, recorded(3, [parent]))


def test_only_an_owner_may_write_history_in_the_names_of_others(shop):
    shop.push(weights(4, 1, 20))
    manifest = msgspec.Raw(manifests.encode(describe(pack(TREE)).manifest))
    push = NewPush(push="0" * 32, manifest=manifest, recorded=recorded(2))
    with pytest.raises(errors.AccessDenied):
        shop.services.pushes.begin(GRACE, "p", "m", push)
