"""A small learning rate beside a large one keeps its digits in every table: console, notebook and text."""

import re

import numpy as np
import pytest
import requests
from support.in_process import TOKEN, Served

from lmvp.client.models import Client

RATES = (0.1, 7.5e-05)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("digits") / "data") as served:
        served.client = Client(served.url, TOKEN)
        served("POST", "/projects", json={"name": "p"})
        for number, rate in enumerate(RATES):
            values = {"params": {"lr": rate}, "metrics": {"rate": rate}}
            weights = {"w": np.full(4, number + 1.0)}
            served.client.update("p/m", weights, create=True, progress=False, **values)
            run = {"run": f"{number:032x}", "name": f"run-{number}", "params": {"lr": rate}}
            made = served("POST", "/projects/p/runs", json=run)
            assert made.ok, made.text
        yield served


PAGES = {
    "runs": "~/p/p/-/runs",
    "compared runs": "~/p/p/-/compare?run=run-0&run=run-1",
    "model": "~/p/p/m",
    "version": "~/p/p/m@v2",
    "diff": "~/p/p/m/-/diff?from=v1&to=v2",
}


@pytest.mark.parametrize("page", PAGES)
def test_small_rate_keeps_its_digits_on_pages(served, page):
    answer = requests.get(served.url + PAGES[page][1:], headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    text = re.sub(r"<[^>]+>", " ", answer.text)
    assert answer.status_code == 200
    assert re.search(r"7\.5e[−-]0?5", text)
    assert not re.search(r"(?<![\d.])0\.0000*(?!\d)", text)


VIEWS = {
    "runs": lambda client: client.runs("p"),
    "compared runs": lambda client: client.compare("p/run-0", "run-1"),
    "history": lambda client: client.history("p/m", metric="rate"),
    "diff": lambda client: client.diff("p/m@v1", "p/m@v2"),
    "version": lambda client: client.show("p/m@v2"),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("form", ["text", "html"])
def test_small_rate_keeps_its_digits_in_views(served, view, form):
    shown = VIEWS[view](served.client)
    text = repr(shown) if form == "text" else re.sub(r"<[^>]+>", " ", shown._repr_html_())
    assert re.search(r"7\.5e[−-]0?5", text)
    assert not re.search(r"(?<![\d.])0\.0000*(?!\d)", text)
