"""What axe-core, the usual checker of accessibility, finds in each view and page, in both themes: nothing."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timezone

import numpy as np
import pytest
from support import sample_history as sample
from support.real_server import Server
from test_hard_places import curves
from unit.test_diff_data import found, tensor

from lmvp.client.models import Client
from lmvp.core.schemas import Model
from lmvp.views.version import Showing
from lmvp_jupyter.widgets import CurvesPlot, DiffView, HistoryTable, MetricsPlot, ModelView

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OF_THE_HOST = {name: {"enabled": False} for name in ("landmark-one-main", "region", "page-has-heading-one")}
"""Rules for a whole page: around a widget it is that of JupyterLab, or the console's."""


def showing():
    at = datetime(2026, 11, 26, tzinfo=timezone.utc)
    model = Model(id="m", project="birdsong", name="tagger", created_at=at, description="Hears birds.")
    tensors = tuple(tensor(f"{layer.path}.weight") for layer in sample.AXIS[:12])
    return Showing(sample.versions()[0], model, tensors, (), layers=sample.layers())


VIEWS = {
    "history": lambda: HistoryTable(sample.history()),
    "diff": lambda: DiffView(found()[0]),
    "model": lambda: ModelView(showing()),
    "metric over versions": lambda: MetricsPlot(sample.history()),
    "curves": lambda: CurvesPlot(curves(([0, 1, 2], [1.0, 0.5, 0.2]), ([0, 1, 2], [0.1, 0.5, 0.7]))),
}


def findings(page, rules):
    """What axe finds, as `rule: elements`."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    options = {"runOnly": {"type": "tag", "values": TAGS}, "rules": rules}
    answer = axe.Axe().run(page, options=options).response
    assert len(answer["passes"]) > 5, "axe looked at the page"
    return [f"{each['id']}: {[node['html'] for node in each['nodes']][:3]}" for each in answer["violations"]]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", VIEWS)
def test_views(host, name, dark):
    page, _ = host.show(VIEWS[name](), dark=dark)
    page.locator(".lmvp").first.wait_for()
    assert findings(page, OF_THE_HOST) == []
    page.close()


def test_the_check_can_fail(host):
    page, _ = host.show(HistoryTable(sample.history()))
    page.evaluate("() => document.body.append(document.createElement('button'))")
    assert re.match("button-name", findings(page, OF_THE_HOST)[0])
    page.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    owner = Client(server.url, server.token)
    for value in (1.0, 2.0):
        owner.update("digits/mlp", {"a.w": np.full(3, value)}, metrics={"acc": value}, create=True, progress=False)
    owner.alias("digits/mlp", "production")
    server.code = owner.invite("digits").secret
    yield server
    server.end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/device",
        "/login",
        "/open",
        "/join?code={code}",
        "/p/digits",
        "/p/digits/mlp",
        "/p/digits/mlp@v1",
        "/p/digits/none",
    ],
)
def test_pages(chromium, served, path, scheme):
    page = chromium.new_page()
    page.set_extra_http_headers({"Authorization": f"Bearer {served.token}"})
    page.emulate_media(color_scheme=scheme)
    answer = page.goto(served.url + path.format(code=served.code))
    assert answer.ok or path.endswith("none")
    assert findings(page, {}) == []
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    page.close()
