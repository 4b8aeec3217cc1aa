"""Requests that name one thing more than once cost no more than requests that name it once."""

from __future__ import annotations

import pytest
from support.workshop import ADA, Shop, weights

from lmvp.core.schemas import Head, NewUser
from lmvp.core.schemas.runs import NewPoints, NewRun
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.histograms import TensorHistograms
from lmvp_server.services.metrics import CurveQuery

RUN = "a" * 32


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "data")
    yield shop
    shop.services.close()


def calls(monkeypatch, owner, name):
    found, original = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: (found.append(given), original(*given, **named))[1])
    return found


def test_push_sets_an_alias_once(shop):
    """Two changes of one alias in a commit would each expect the alias as it was, and the push would never end."""
    tree = weights(0, layers=1, rows=8)
    version = shop.push(tree, aliases=("best", "Best", "other", "best"))
    aliases = shop.services.aliases.of_model(ADA, "p", "m")["items"]
    assert (version["number"], {one["name"] for one in aliases}) == (1, {"best", "other"})
    moved = [one for one in shop.services.records.events(shop.space) if one["action"] == "alias.move"]
    assert [one["what"] for one in moved] == ["p/m@best", "p/m@other"]
    shop.push(tree, aliases=("third", "THIRD"))  # the same version, so only the alias is new
    assert shop.services.aliases.alias(ADA, "p", "m", "third")["number"] == 1


def test_strips_of_a_version_are_made_once(shop, monkeypatch):
    shop.push(weights(0, layers=2, rows=8))
    strip = calls(monkeypatch, type(shop.services.layers), "_strip")
    state = calls(monkeypatch, type(shop.services.layers), "_state")
    once = shop.services.layers.strips(ADA, "p", "m", [1])
    work = len(strip), len(state)
    assert shop.services.layers.strips(ADA, "p", "m", [1] * 5000) == once
    assert (len(strip), len(state)) == (2 * work[0], 2 * work[1])


def test_histograms_of_a_tensor_are_made_once(shop, monkeypatch):
    shop.push(weights(0, layers=1, rows=8))
    made = calls(monkeypatch, TensorHistograms, "_of_tensor")
    shop.services.histograms.of_version(ADA, "p", "m", "v1", ["layers.0.weight"] * 10)
    assert len(made) == 1


def test_curves_and_streams_name_a_run_and_a_key_once(shop):
    services = shop.services
    services.catalog.create_project(ADA, "p")
    home = services.catalog.find_project(ADA, "p")
    services.runs.begin(ADA, home, NewRun(run=RUN))
    for step in range(10):
        services.metrics.add(ADA, "p", RUN, NewPoints(values={"loss": 0.5}, step=step))
    curves = services.metrics.curves(ADA, "p", CurveQuery((RUN,) * 9, ("loss",) * 9, 100, None, None, "step"))
    assert [(one.run, one.key, one.count) for one in curves] == [(RUN, "loss", 10)]
    assert services.metrics.watched(ADA, "p", [RUN] * 9) == (home.id, [RUN])


def test_heads_are_proved_once(shop, monkeypatch):
    shop.push(weights(0, layers=1, rows=8))
    head = Head(space=SERVER, name="", seq=1, chain="0" * 64)
    assert len(list(shop.services.audit.prove((head,) * 1000))) == 1


def test_group_names_a_user_once(shop):
    shop.services.users.add(ADA, NewUser(name="grace"))
    group = shop.services.members.set_group(ADA, "team", ("grace", "Grace", "GRACE"))
    assert group.users == ("grace",)
    assert shop.services.records.count(SERVER, "belongings") == 1
