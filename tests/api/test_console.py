"""The pages of the console, without a script: what they show, to whom, and that every link leads somewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import numpy as np
import pytest
import requests
from support.local_server import SharedServer

from lmvp.client.models import Client

PASSWORD = "correct horse battery"
EVIL = "<script>alert(1)</script>\u202e" + "x" * 300


def weights(step):
    rng = np.random.default_rng(0)
    return {f"blocks.{i}.w": rng.standard_normal((20, 20)) + (step if i == step % 3 else 0) for i in range(3)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SharedServer(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    server.root = Client(server.url, server.token)
    for name in ("ada", "grace", "eve"):
        server.root.add_user(name, PASSWORD)
        setattr(server, name, Client(server.url, server.root.create_token("t", scope="admin", user=name).token))
    ada = server.ada
    for step in range(6):
        options = {"parent": "v2"} if step == 4 else {}
        ada.update(
            "digits/mlp", weights(step), message=f"step {step}", metrics={"val/acc": 0.5 + step / 20}, create=True,
            params={"lr": 0.001}, progress=False, **options,
        )  # fmt: skip
    ada.alias("digits/mlp@v3", "production")
    ada.update(
        "digits/other",
        {"w": np.ones(3)},
        message=EVIL,
        tags={"<b>": EVIL},
        params={"<b>": EVIL},
        create=True,
        progress=False,
    )
    server.root.set_member("digits", "grace", "contributor")
    token = {"Authorization": f"Bearer {server.token}"}
    server.post = lambda project, model: requests.post(
        f"{server.url}/api/v1/projects/{project}/models", json={"name": model}, headers=token, timeout=20
    )
    server.grace.update("digits/mlp", weights(9), message="mine", propose=True, progress=False)
    yield server
    server.end()


class Browser(requests.Session):
    def __init__(self, server, name=None):
        super().__init__()
        self.url = server.url
        if name:
            page = self.look("login").text
            xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1]
            data = {"_xsrf": xsrf, "name": name, "password": PASSWORD}
            assert self.post(f"{self.url}/login", data=data, timeout=10).ok

    def look(self, path, **options):
        return self.get(f"{self.url}/{path}", timeout=20, **options)


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in {"href", "src"} and value]


def test_a_project(server):
    page = Browser(server, "ada").look("p/digits")
    assert page.status_code == 200
    assert "2 models, 7 versions" in page.text
    assert 'href="../p/digits/mlp@v3">production v3</a>' in page.text
    assert "grace proposed <a" in page.text
    assert "step 5" not in page.text
    assert "0.750" in page.text
    assert 'class="spark"' in page.text


def test_a_model(server):
    page = Browser(server, "grace").look("p/digits/mlp")
    rows = re.findall(r'<a class="plain v" href="[^"]+">(v\d)</a>', page.text)
    assert rows == ["v6", "v5", "v4", "v3", "v2", "v1"]
    assert page.text.count('<div class="strip') == 6
    assert page.text.count('<td role="cell" class="track graph"><svg') == 6
    assert "lmvp pull digits/mlp --to mlp/" in page.text
    assert f"lmvp login {server.url}" in page.text
    assert "# Python\nmodel = lmvp.pull(" in re.sub(r"</?span[^>]*>", "", page.text)


def test_pages_behind_jupyter_name_the_address_for_clients(server):
    headers = {"X-Forwarded-Prefix": "/user/ada/lmvp"}
    page = Browser(server, "ada").look("p/digits/mlp", headers=headers).text
    assert f"lmvp login {server.url}" in page
    assert "/user/ada" not in page
    asked = requests.post(f"{server.url}/api/v1/device/code", headers=headers, json={}, timeout=20).json()
    assert asked["verification_uri"] == f"{server.url}/device"


@pytest.mark.parametrize("revision", ["v5", "5", "production", "latest", "c1"])
def test_a_version(server, revision):
    page = Browser(server, "ada").look(f"p/digits/mlp@{revision}")
    assert page.status_code == 200
    assert ("weights.safetensors" in page.text) == (revision != "c1")
    assert ("lr" in page.text) == (revision != "c1")
    if revision == "v5":
        assert re.search(r'parent</dt><dd><a href="[./]+p/digits/mlp@v2">v2</a>', page.text)
    if revision == "c1":
        assert "grace proposed a version of" in page.text
        assert "Accept as v7" in page.text


OURS = r'<script (type="module" |defer )src="(\.\./)*static/[^"]+">'


def test_what_others_wrote_is_text(server):
    ada = Browser(server, "ada")
    for path in ("", "p/digits", "p/digits/other", "p/digits/other@v1"):
        page = ada.look(path)
        for tag in re.findall(r"<script[^>]*>", page.text):  # none but our own files, and data
            assert re.fullmatch(
                r'<script (type="module" |defer )?src="(\.\./)*static/[^"]+">|<script type="application/json">', tag
            )
        assert "\u202e" not in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "script-src" not in policy
    assert "&lt;script&gt;" in ada.look("p/digits/other").text


@pytest.mark.parametrize("path", ["p/digits", "p/digits/mlp", "p/digits/mlp@v1"])
def test_who_may_not_look_is_led_to_the_login_and_back(server, path):
    answer = Browser(server).look(path, allow_redirects=False)
    assert answer.status_code == 303
    there = urljoin(f"{server.url}/{path}", answer.headers["Location"])
    assert urlsplit(there).path == "/login"
    assert f"next={path}" in there
    stranger = Browser(server, "eve").look(path)
    assert stranger.status_code == 404
    assert "no project &#x27;digits&#x27;" in stranger.text.replace("&#39;", "&#x27;")
    unknown = Browser(server, "eve").look(path.replace("digits", "digitz"))
    there, not_there = (re.sub('value="[0-9a-f]{128}"', "", each.text) for each in (stranger, unknown))
    assert there.replace("digits", "NAME") == not_there.replace("digitz", "NAME")


def test_a_public_project_is_looked_at_by_anybody(server):
    server.root.change_project("digits", public=True)
    try:
        for path in ("p/digits", "p/digits/mlp", "p/digits/mlp@v1"):
            page = Browser(server).look(path)
            assert page.status_code == 200
            assert "Sign in" in page.text
        assert "Members" not in Browser(server).look("p/digits").text
    finally:
        server.root.change_project("digits", public=False)


@pytest.mark.parametrize(
    "path", ["p/digits/nothing", "p/digits/mlp@v99", "p/digits/mlp@~", "p/a%20b", "p/%2e%2e/x", "p/digits/mlp/x", "p/"]
)
def test_what_is_not_there(server, path):
    page = Browser(server, "ada").look(path)
    assert page.status_code in {400, 404}
    assert f"<h1>{'Page not found' if page.status_code == 404 else 'Request refused'}</h1>" in page.text
    assert "Traceback" not in page.text


def test_every_link_leads_somewhere(server):
    """From the first page on, also where the pages lie below a prefix: all of them are relative."""
    ada, seen, waiting = Browser(server, "ada"), {}, [f"{server.url}/"]
    while waiting:
        url = waiting.pop()
        if url in seen:
            continue
        answer = ada.get(url, timeout=20)
        seen[url] = answer.status_code
        if "text/html" not in answer.headers["Content-Type"]:
            continue
        for link in Links(answer.text).found:
            assert not link.startswith(("/", "http:", "https:")), link
            there = urljoin(url, link).partition("#")[0]
            if urlsplit(there).netloc == urlsplit(server.url).netloc:
                waiting.append(there)
    assert set(seen.values()) == {200}
    assert len(seen) > 12


def test_a_long_history_has_pages(server):
    ada = Browser(server, "ada")
    client = server.ada
    client.update("long/m", {"w": np.zeros(2)}, create=True, progress=False)
    for turn in range(1, 55):
        client.update("long/m", {"w": np.full(2, turn)}, message=f"turn {turn}", progress=False)
    first = ada.look("p/long/m")
    assert len(re.findall('class="plain v"', first.text)) == 50
    older = re.search(r'href="([^"]+\?before=\d+)">Older', first.text)[1]
    second = ada.get(urljoin(first.url, older), timeout=20)
    assert re.findall(r'class="plain v" href="[^"]+">(v\d+)</a>', second.text) == ["v5", "v4", "v3", "v2", "v1"]
    assert "Newest" in second.text
    assert ada.look("p/long/m?before=x").status_code == 400


def send(browser, path, **fields):
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', browser.look(path).text)[1]
    data = {"_xsrf": xsrf, **fields}
    return browser.post(f"{browser.url}/{path}", data=data, timeout=10, allow_redirects=False)


def test_what_is_not_accepted_says_nothing_either(server):
    ada = Browser(server, "ada")
    server.ada.update("strict/m", weights(1), metrics={"acc": 0.9}, create=True, progress=False)
    server.ada.require("strict/m", "acc >= 0.9")
    server.ada.update("strict/m", weights(2), metrics={"acc": 0.8}, propose=True, progress=False)
    for _ in range(2):
        answer = send(ada, "p/strict/m@c1", do="accept", words="well done")
        assert answer.status_code == 409
        assert "does not meet the rule" in answer.text
        assert ">\nwell done</textarea>" in answer.text, "nothing typed is lost"
    assert server.ada.contribution("strict/m@c1").comments == ()
    server.ada.require("strict/m", "")
    answer = send(ada, "p/strict/m@c1", do="accept", words="well done")
    assert (answer.status_code, answer.headers["Location"]) == (303, "../../p/strict/m@v2")
    assert [one.words for one in server.ada.contribution("strict/m@c1").comments] == ["well done"]


@pytest.mark.parametrize("path", ["p/digits/mlp", "p/digits/mlp@v1", "p/digits/-/members", "p/digits/-/removed"])
def test_forms_of_others_and_words_that_do_nothing(server, path):
    ada = Browser(server, "ada")
    assert ada.post(f"{server.url}/{path}", data={"do": "remove"}, timeout=10).status_code == 403
    for word in ("look", "get", "__init__", ""):
        answer = send(ada, path, do=word)
        assert answer.status_code == 400
        assert "this form does nothing here" in answer.text
    grace = Browser(server, "grace")
    assert send(grace, "p/digits/mlp", do="remove").status_code == 403
    assert server.root.version("digits/mlp").number == 6


def test_what_pages_teach_is_there():
    """Each call and each command that a page tells to type."""
    import lmvp
    from lmvp.cli.parser import verbs_of

    templates = Path(__file__).parents[2] / "lmvp_server" / "templates"
    told = "".join(page.read_text("utf-8") for page in templates.rglob("*.html"))
    calls = set(re.findall(r"\blmvp\.(\w+)\(", told))
    commands = set(re.findall(r"""(?:<code>|^|[%`"'])lmvp (\w+)""", told, re.MULTILINE))
    assert {"update", "start_run"} <= calls
    assert {"login", "push", "users"} <= commands  # the code that pulls is made: see tests/frameworks/test_snippets.py
    assert {name for name in calls if not hasattr(lmvp, name)} == set()
    assert commands - {verb.name for verb in verbs_of("shell")} == set()


def test_many_models_come_a_page_at_a_time(server):
    ada, client = Browser(server, "ada"), server.ada
    client.update("wide/m000", {"w": np.zeros(2)}, create=True, progress=False)
    for number in range(1, 55):
        answer = server.post("wide", f"m{number:03}")
        assert answer.status_code == 201, answer.text
    first = ada.look("p/wide").text
    assert "50 of 55 models" in first
    assert 'href="../p/wide/m000"' in first
    after = re.search(r'href="\.\./(p/wide\?after=\d+)">More', first)[1]
    second = ada.look(after).text
    assert re.findall(r'class="plain name" href="[^"]+">(m\d+)<', second) == [f"m{n:03}" for n in range(50, 55)]
    assert "First" in second
    home = ada.look("").text
    assert 'href="p/wide/m000"' in home, "what has the newest versions comes first"
    assert "All 55 models" in home
    assert ada.look("p/wide?after=x").status_code == 400
