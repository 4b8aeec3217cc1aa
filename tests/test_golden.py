"""The public surface and the views equal the files in `golden/`.

A change of a name, an option, a route or a view shows as a difference of a file, for the reviewer to read. After an
intended change, write the files again and commit them:

    LMVP_GOLDEN=write python -m pytest -n0 tests/test_golden.py

The views and pages are those of a data folder that never changes: the one that commit 9d7a6ec wrote.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import json
import os
import platform
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.real_server import Server

import lmvp
from lmvp.cli import main
from lmvp.cli.parser import NOTEBOOK, SHELL, verbs_of
from lmvp.client.models import Client
from lmvp_server.openapi import document
from lmvp_server.routes import API, PAGES, ROUTES

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
DATA = HERE / "vectors" / "data_of_9d7a6ec"
EXPECTED = json.loads((DATA / "expected.json").read_text())
WRITE = os.environ.get("LMVP_GOLDEN") == "write"
RUN = EXPECTED["run"]


def compare(name: str, text: str) -> None:
    """Compare a text with a file of `golden/`, or write the file."""
    path = GOLDEN / name
    text = text.rstrip("\n") + "\n"
    if WRITE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    golden = path.read_text() if path.exists() else ""
    if text != golden:
        lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), name, "now", lineterm="", n=1)
        pytest.fail("\n".join([*list(lines)[:80], "see the docstring of tests/test_golden.py"]), pytrace=False)


def compare_json(name: str, document: Any) -> None:
    compare(name, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False))


# -- names, signatures, options, errors, routes


def signatures() -> Iterator[str]:
    """Yield a line for each public function, class, method and attribute."""
    for name in lmvp.__all__:
        value = getattr(lmvp, name)
        if not isinstance(value, type):
            yield f"{name}{inspect.signature(value)}"
            continue
        bases = ", ".join(base.__name__ for base in value.__mro__[1:-1])
        yield f"class {name}({bases})"
        ours = {name for base in value.__mro__ if base.__module__.startswith("lmvp") for name in vars(base)}
        for member in sorted(name for name in ours if not name.startswith("_")):
            found = inspect.getattr_static(value, member)
            if isinstance(found, staticmethod | classmethod):
                found = found.__func__
            parameters = inspect.signature(found) if inspect.isfunction(found) else ""
            yield f"    {member}{parameters}"


def test_public_signatures_are_golden():
    compare("python.txt", re.sub(r" at 0x[0-9a-f]+", "", "\n".join(signatures())))


def test_options_of_every_verb_are_golden():
    lines = []
    for host in (SHELL, NOTEBOOK):
        for verb in verbs_of(host):
            lines.append(f"{host}: {verb.name}")
            for one in verb.arguments:
                if one.only in (None, host):
                    settings = {key: value for key, value in sorted(one.settings.items()) if key != "help"}
                    lines.append(f"    {' '.join(one.flags)} {settings}")
    compare("verbs.txt", "\n".join(lines))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse of Python 3.13 formats options in another way")
def test_help_of_every_verb_is_golden(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    pages = []
    for words in (["--help"], *([verb.name, "--help"] for verb in verbs_of(SHELL))):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            main(words)
        pages.append(f"$ lmvp {' '.join(words)}\n{out.getvalue()}")
    compare("help.txt", "\n".join(pages))


def test_error_codes_are_golden():
    names = [name for name in lmvp.__all__ if isinstance(getattr(lmvp, name), type)]
    errors = [getattr(lmvp, name) for name in names if issubclass(getattr(lmvp, name), lmvp.LmvpError)]
    compare("errors.txt", "\n".join(f"{one.__name__} {one.code} {one.http_status} {one.exit_code}" for one in errors))


def test_routes_are_golden():
    lines = [f"{API}{pattern} {' '.join(sorted(methods(handler)))}" for pattern, handler in ROUTES]
    compare("routes.txt", "\n".join([*lines, *(pattern for pattern, *_ in PAGES)]))


def methods(handler: type) -> Iterator[str]:
    for base in handler.__mro__:
        if base.__module__.startswith("lmvp_server"):
            yield from {"get", "head", "post", "put", "patch", "delete"} & set(vars(base))


def without_words(value: Any) -> Any:
    """Return an OpenAPI document without its sentences and the names of its handlers."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in ("summary", "operationId")}
        if isinstance(kept.get("description"), str):
            del kept["description"]
        return {key: without_words(item) for key, item in kept.items()}
    return [without_words(item) for item in value] if isinstance(value, list) else value


def test_openapi_is_golden():
    whole = document(ROUTES, API)
    whole["info"]["version"] = ""
    compare_json("openapi.json", without_words(whole))


# -- views and pages


class KeepingServer(Server):
    """A server that keeps the removed version of the old data folder, so that the pages stay the same for years."""

    def command(self) -> list[str]:
        return [*super().command(), "--keep-removed", "36500"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on the data folder of commit 9d7a6ec."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(DATA / "data.tar.xz") as tar:
        tar.extractall(folder / "data", filter="data")
    server = KeepingServer(folder / "data")
    server.token = server.start()
    yield server
    server.end()


@pytest.fixture
def client(server, home, monkeypatch):
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setenv("LMVP_TOKEN", server.token)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("COLUMNS", "100")
    return Client(server.url, server.token)


def steady(text: str, server: Server) -> str:
    """Replace the parts that differ from one run of the test to the next: ages, addresses, marks of forms."""
    text = text.replace(server.url, "http://server")
    text = text.replace(str(server.data), "DATA").replace(platform.python_version(), "PYTHON")
    text = re.sub(r"(<time [^>]*>)[^<]*", r"\1AGO", text.replace(f"LMVP {lmvp.__version__}", "LMVP VERSION"))
    text = re.sub(r'(name="_xsrf" value|value|nonce|integrity)="[0-9a-f|]{20,}"', r'\1="MARK"', text)
    return re.sub(r"(\?v=)[0-9a-f]+|(static/)[0-9a-f]{8,}/", r"\1\2HASH", text)


VIEWS: dict[str, Callable[[Client], Any]] = {
    "history": lambda client: client.show_history("digits/mlp"),
    "project": lambda client: client.show_history("digits"),
    "diff": lambda client: client.diff("digits/mlp@v1", "digits/mlp@v3", progress=False),
    "version": lambda client: client.show("digits/mlp@v2"),
    "contribution": lambda client: client.show("digits/mlp@c1"),
    "runs": lambda client: client.runs("digits"),
    "run": lambda client: client.run("digits", RUN),
    "comparison": lambda client: lmvp.compare("digits/train", "digits/train"),
    "models": lambda client: client.models("digits"),
    "projects": lambda client: client.projects(),
    "aliases": lambda client: client.aliases("digits/mlp"),
    "contributions": lambda client: client.contributions("digits"),
    "members": lambda client: client.members("digits"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_golden(client, server, name):
    view = VIEWS[name](client)
    compare(f"views/{name}.txt", steady(repr(view), server))
    for method, suffix in (("_repr_html_", "html"), ("to_svg", "svg")):
        if callable(draw := getattr(view, method, None)):
            compare(f"views/{name}.{suffix}", steady(re.sub(r"(<(?!/))", r"\n\1", draw()).lstrip(), server))


ADDRESSES = {
    "overview": "/",
    "project": "/p/digits",
    "contributions": "/p/digits/-/contributions",
    "members": "/p/digits/-/members",
    "activity": "/p/digits/-/activity",
    "removed": "/p/digits/-/removed",
    "project_settings": "/p/digits/-/settings",
    "runs": "/p/digits/-/runs",
    "run": f"/p/digits/-/runs/{RUN}",
    "compare": f"/p/digits/-/compare?run={RUN}",
    "model": "/p/digits/mlp",
    "diff": "/p/digits/mlp/-/diff?before=v1&after=v3",
    "model_settings": "/p/digits/mlp/-/settings",
    "version": "/p/digits/mlp@v3",
    "contribution": "/p/digits/mlp@c1",
    "file": "/p/digits/files@v1/-/view/config.json",
    "histograms": "/p/digits/mlp@v3/-/histograms",
    "search": "/search?q=mlp",
    "account": "/account",
    "login": "/login",
    "users": "/admin",
    "groups": "/admin/groups",
    "storage": "/admin/storage",
    "audit": "/admin/audit",
    "server_settings": "/admin/settings",
    "not_found": "/p/nothing",
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_pages_are_golden(server, name):
    answer = requests.get(server.url + ADDRESSES[name], headers={"Authorization": f"Bearer {server.token}"}, timeout=60)
    lines = [line.strip() for line in re.sub(r"(<(?!/))", r"\n\1", answer.text).splitlines()]
    page = "\n".join(line for line in lines if line)
    compare(f"pages/{name}.html", f"{answer.status_code}\n{steady(page, server)}")
