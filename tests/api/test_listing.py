"""Lists of versions by filter, by order and by page, over HTTP."""

import numpy as np
import pytest
from support.in_process import Served

import lmvp
from lmvp import errors


@pytest.fixture
def many(home):
    for i in range(1, 8):
        metrics = {"val/acc": i / 10} if i != 4 else {}
        message = "Frozen body" if i % 2 else "all of it"
        lmvp.update("digits/mlp", {"w": np.full(3, i)}, message=message, metrics=metrics, params={"lr": 0.1 * i})
    lmvp.update("digits/mlp", {"w": np.zeros(3)}, metrics={"val/acc": float("nan")}, alias="odd-one")
    lmvp.update("digits/other", {"w": np.zeros(4)}, metrics={"val/acc": 0.55})


def numbers(**how):
    return [version.number for version in lmvp.show_history("digits/mlp", **how)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ('metrics["val/acc"] > 0.45', [7, 6, 5]),
        ("'frozen' in text", [7, 5, 3, 1]),
        ("'v3' in text or number == 6", [6, 3]),
        ("'odd-one' in aliases", [8]),
        ("params.lr < 0.25 and message == 'all of it'", [2]),
        ('metrics["val/acc"] is None', [4]),
        ("name == 'v2'", [2]),
    ],
)
def test_filters(many, where, expected):
    assert numbers(where=where) == expected


def test_orders(many):
    assert numbers(order='-metrics["val/acc"]') == [7, 6, 5, 3, 2, 1, 8, 4]
    assert numbers(order='metrics["val/acc"]')[:3] == [1, 2, 3]
    assert numbers(order="number")[0] == 1
    assert numbers(order="-message")[0] in (2, 4, 6)
    assert [v.model for v in lmvp.show_history("digits", order='-metrics["val/acc"]')][:3] == ["mlp", "mlp", "other"]


def test_pages(many):
    history = lmvp.show_history("digits/mlp", limit=3)
    assert (len(history), history.total, history.older) == (3, 8, 5)
    page = history.page(3, 3)
    assert ([version.number for version in page], page.first, page.older, page.total) == ([5, 4, 3], 3, 2, 8)
    found = history.page(1, 2, where="'frozen' in text", order="number")
    assert ([version.number for version in found], found.total, found.older) == ([3, 5], 4, 1)
    assert [version.model for version in lmvp.show_history("digits").page(0, 1)] == ["other"]
    assert lmvp.show_history("digits").page(8, 9)[0].number == 1
    assert page.layers.strips.keys() == {"5", "4", "3"}


def test_what_cannot_be_read_is_said(many):
    for where in ("metrics.acc >", "__import__('os')", "phase == 1", "x" * 3000):
        with pytest.raises(errors.InvalidArgument):
            numbers(where=where)
    for order in ("-", "number + 1", "1", "loss"):
        with pytest.raises(errors.InvalidArgument):
            numbers(order=order)
    with pytest.raises(errors.InvalidArgument, match="of no server"):
        lmvp.History([], title="x").page()


def test_hint_names_no_project_that_the_caller_may_not_read(tmp_path):
    with Served(tmp_path / "data") as served:
        for project in ("p", "secret"):
            assert served("POST", "/projects", json={"name": project}).ok
        assert served("POST", "/projects/secret/models", json={"name": "mlp"}).ok
        token = served.user("ada", "viewer")["token"]
        for path in (
            "/projects/p/models/mlp",
            "/projects/p/models/secret",
            "/projects/none/models/mlp",
            "/projects/p/runs/mlp",
        ):
            seen = served("GET", path, token=token)
            assert seen.status_code == 404
            assert "did you mean" not in seen.text
            assert "secret/" not in seen.text
        assert "did you mean 'secret/mlp'?" in served("GET", "/projects/p/models/mlp").text
