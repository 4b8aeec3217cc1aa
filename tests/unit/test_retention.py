"""Rules of which versions are kept: their limits, and the work of long ones that an older server accepted."""

import random
import sys
from datetime import datetime, timezone

import pytest
from support.workshop import ADA, Shop, weights

from lmvp.core import retention_rules
from lmvp.core.schemas import (
    ModelChange,
    Parent,
    Prune,
    Version,
)
from lmvp.errors import InvalidArgument
from lmvp_server.stores.base import Put

AT = datetime(2026, 11, 20, tzinfo=timezone.utc)


def version(number, **fields):
    return Version(
        project="p", model="m", number=number, digest="", content="", format="files", created_at=AT, **fields
    )


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.services.close()


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("max:" + "a" * 2000 + ":1", "has 2,006 characters; the limit is 2,000"),
        (",".join(["last:1"] * 101), "has 101 clauses; the limit is 100"),
    ],
)
def test_long_rule_is_refused(shop, rule, problem):
    shop.push(weights(0, 1, 8))
    for change in (
        lambda: shop.services.retention.change_model(ADA, "p", "m", ModelChange(keep=rule)),
        lambda: shop.services.retention.prune(ADA, "p", "m", Prune(keep=rule, dry_run=True)),
    ):
        with pytest.raises(InvalidArgument, match=problem):
            change()
    longest = ",".join(["last:1"] * 100)
    assert shop.services.retention.change_model(ADA, "p", "m", ModelChange(keep=longest))["keep"] == longest


def test_long_rule_of_an_older_server_is_applied(shop):
    for seed in range(3):
        shop.push(weights(seed, 1, 8), metrics={"a": float(seed == 0)})
    services = shop.services
    place = services.catalog.find_model(ADA, "p", "m")
    rule = ",".join(["max:a:1"] * 5000)
    services.retention._records.commit(
        place.space, [Put("models", place.model.id, {**place.model.data, "keep": rule}, place.model.rev)]
    )
    services.retention.apply_rules(lambda: True)
    left = services.versions._records.find(place.space, "versions", {"model": place.model.id})
    assert sorted(one.data["number"] for one in left) == [1, 3]


def test_rule_keeps_what_each_of_its_clauses_keeps():
    rng = random.Random(0)
    for _ in range(200):
        versions = [
            version(
                number,
                metrics={key: rng.choice([0.0, 1.0, 2.0, float("nan")]) for key in "abc" if rng.random() < 0.7},
                aliases=("best",) if rng.random() < 0.1 else (),
                parents=(Parent(number=number - 1, digest=""),) if number > 1 else (),
            )
            for number in range(12, 0, -1)
        ]
        clauses = [rng.choice(["last", "max:a", "min:a", "max:b", "min:c"]) + f":{rng.randrange(5)}" for _ in range(4)]
        expected = {12}
        for one in versions:
            if one.aliases:
                expected |= {one.number, *(parent.number for parent in one.parents)}
        for clause in clauses:
            kind, *metric, count = clause.split(":")
            measured = versions
            if metric:
                sign = 1 if kind == "min" else -1
                measured = [
                    one for one in versions if one.metrics.get(metric[0], float("nan")) == one.metrics.get(metric[0])
                ]
                measured.sort(key=lambda one, sign=sign, metric=metric: (sign * one.metrics[metric[0]], -one.number))
            expected |= {one.number for one in measured[: int(count)]}
        assert retention_rules.kept(retention_rules.stored(",".join(clauses)), versions) == expected


def test_work_of_a_rule_is_linear_in_clauses_plus_versions():
    def work(n):
        versions = [version(number, metrics={"a": 1.0}) for number in range(n, 0, -1)]
        clauses = [retention_rules.Clause(10**6, f"metric{i % 2}" if i % 3 else "a", 1) for i in range(n)]
        clauses += [retention_rules.Clause(1, f"m{i}", 1) for i in range(n)]
        count = 0

        def trace(frame, event, _):
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(lambda frame, *_: trace if frame.f_code.co_filename == retention_rules.__file__ else None)
        try:
            retention_rules.kept(clauses, versions)
        finally:
            sys.settrace(before)
        return count

    assert work(200) < 2.5 * work(100)
