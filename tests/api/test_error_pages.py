"""Errors as pages in plain words for people, and as JSON for programs."""

import numpy as np
import pytest
import requests
from support.in_process import TOKEN, Served

from lmvp.client.models import Client

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served")) as served:
        client = Client(served.url, TOKEN)
        client.update("p/m", {"w": np.ones(3, "float32")}, create=True, progress=False)
        served.grace = served.user("grace", "viewer")["token"]
        yield served


def page(served, path, token=TOKEN, method="GET", **options):
    """Return the answer to a browser, which is a page."""
    found = served(method, f"~{path}", token=token, headers=BROWSER, **options)
    assert found.headers["Content-Type"].lower() == "text/html; charset=utf-8", found.text
    assert "default-src 'self'" in found.headers["Content-Security-Policy"]
    assert "{" not in found.text.partition("<main")[2]
    return found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nope", "there is no page at /nope."),
        ("/admin/nope/deep", "there is no page at /admin/nope/deep."),
        ("/p/p/nope", "nope"),
        ("/p/p/-/nope/x", "there is no such page"),
        ("/p/p/m@v1/-/files/none.bin", "no file"),
        ("/p/p/m@v9", "v9"),
    ],
)
def test_missing_page_is_said_in_plain_words(served, path, words):
    found = page(served, path)
    assert found.status_code == 404
    assert "<h1>Page not found</h1>" in found.text
    assert "<title>Page not found" in found.text
    assert words in found.text
    assert "All projects" in found.text
    assert "docs/api.md" not in found.text


def test_missing_page_leads_back_from_any_depth(served):
    found = page(served, "/a/b/c/d")
    assert 'href="../../../"' in found.text
    assert 'href="../../../static/look.css"' in found.text


def test_missing_page_is_not_a_place_for_scripts(served):
    found = page(served, "/%3Cscript%3Ealert(1)%3C/script%3E")
    assert found.status_code == 404
    assert "<script>alert" not in found.text


def test_anonymous_visitor_of_a_missing_page_can_sign_in(served):
    found = page(served, "/nope", token="")
    assert found.status_code == 404
    assert 'href="login?next=nope"' in found.text


def test_denied_page_is_said_in_plain_words(served):
    found = page(served, "/p/p/-/settings", token=served.grace)
    assert found.status_code == 403
    assert "<h1>Access denied</h1>" in found.text
    assert "You are signed in as grace." in found.text
    assert "Not done" not in found.text


def test_denied_file_is_a_page(served):
    found = page(served, "/p/p/m@v1/-/files/weights.safetensors", token="")
    assert found.status_code == 401
    assert "<h1>Sign in to continue</h1>" in found.text
    assert "attachment" not in found.headers.get("Content-Disposition", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_of_a_missing_page_are_answered(served, method):
    assert page(served, "/nope", method=method).status_code == 404


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
def test_programs_get_json(served, accept):
    found = requests.get(f"{served.url}/nope", headers={"Accept": accept}, timeout=30)
    assert (found.status_code, found.json()["error"]["code"]) == (404, "not_found")


def test_the_api_answers_browsers_with_json(served):
    found = requests.get(f"{served.url}/api/v1/nope", headers=BROWSER, timeout=30)
    assert (found.status_code, found.json()["error"]["code"]) == (404, "not_found")
