"""URLs that the API, the client and messages give: each one opens a page."""

import json
import re
from datetime import datetime, timezone

import numpy as np
import pytest
import requests
from support.in_process import TOKEN, Served

import lmvp
from lmvp.cli import main
from lmvp.client.models import Client
from lmvp.core.schemas.runs import RunRecord
from lmvp.views.runs import Run

AT = datetime(2026, 11, 26, tzinfo=timezone.utc)
URL = re.compile(r"https?://[^\s\"'<>)]+")


@pytest.fixture
def served(home, tmp_path, monkeypatch):
    with Served(tmp_path / "data") as served:
        monkeypatch.setenv("LMVP_URL", served.url)
        monkeypatch.setenv("LMVP_TOKEN", TOKEN)
        lmvp.update("digits/cnn", {"w": np.ones(3)}, message="first", create=True, progress=False)
        yield served


def page(url):
    """Return the page at a URL, as a signed-in user sees it."""
    return requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)


def urls(text, served):
    """Return the URLs of the server in a text."""
    return [url.rstrip(".,;") for url in URL.findall(text) if url.startswith(served.url)]


def answers(served, run):
    """Return the answers of the routes that a client reads or asks for a link, as one text."""
    reads = [
        "/projects", "/projects/digits", "/projects/digits/runs", f"/projects/digits/runs/{run}", "/events", "/me",
        "/projects/digits/models", "/projects/digits/models/cnn", "/projects/digits/models/cnn/versions/v1",
        "/projects/digits/webhooks", "/tokens", "/users", "/invitations", "/health", "/projects/digits/events",
    ]  # fmt: skip
    found = [served("GET", path) for path in reads]
    found.append(served("POST", "/device/code", json={"client_name": "laptop"}))
    found.append(served("POST", "/invitations", json={"project": "digits", "role": "viewer"}))
    assert all(answer.ok for answer in found), [(answer.url, answer.text) for answer in found if not answer.ok]
    return "\n".join(json.dumps(answer.json()) for answer in found)


def test_run_url_is_its_page(served):
    with lmvp.start_run("digits", name="quiet-wren-44", system_metrics=False) as run:
        run.log({"loss": 0.5}, step=0)
    read = Client(served.url, TOKEN).run("digits", "quiet-wren-44")
    assert run.url == read.url == f"{served.url}/p/digits/-/runs/{run.id}"
    shown = page(read.url)
    assert shown.status_code == 200
    assert "quiet-wren-44" in shown.text


def test_urls_of_the_api_client_and_messages_open(served, capsys):
    with lmvp.start_run("digits", name="quiet-wren-44", system_metrics=False) as run:
        run.log({"loss": 0.5}, step=0)
    invite = ["members", "digits", "invite", "--role", "viewer"]
    for line in (["runs", "digits"], ["history", "digits/cnn"], ["ls"], invite, ["status"]):
        assert main(line) == 0, line
    given = capsys.readouterr()
    texts = [answers(served, run.id), given.out, given.err, run.url, *(each.url for each in lmvp.runs("digits"))]
    found = sorted({url for text in texts for url in urls(text, served)})
    kinds = {re.sub(r"[0-9a-f]{32}", "RUN", url.removeprefix(served.url).partition("?")[0]) for url in found}
    assert {"/device", "/join", "/p/digits/-/runs/RUN"} <= kinds
    broken = [(url, answer.status_code) for url in found if (answer := page(url)).status_code != 200]
    assert broken == []


def test_run_url_keeps_the_prefix_of_the_server():
    record = RunRecord(id="a" * 32, project="digits", name="quiet-wren-44", status="finished", created_at=AT)
    run = Run(Client("https://models.example.org/team", TOKEN), record)
    assert run.url == f"https://models.example.org/team/p/digits/-/runs/{'a' * 32}"
