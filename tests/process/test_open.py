"""`lmvp open`: finds the page of a thing and hands the browser a link; programs stand in for the browser."""

import http.client
import os
import socket
import stat
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests

import lmvp
from lmvp import config, hints, local
from lmvp.cli import main
from lmvp.cli.tables import Status
from lmvp.client import console
from lmvp.client.models import Client
from lmvp.errors import InvalidArgument, NotAuthenticated, NotFound
from lmvp_server.http.sockets import stable_ports

BROWSER = '#!/bin/sh\nPATH=/usr/bin:/bin\nprintf "%s" "$1" > "{0}.new" && mv "{0}.new" "{0}"\n'


def program(path, seen):
    """Write a program that notes its argument in a file."""
    path.write_text(BROWSER.format(seen))
    path.chmod(0o755)
    return path


@pytest.fixture
def no_browser(monkeypatch):
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # it reads the environment once in a process
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def browser(home, monkeypatch, tmp_path, no_browser):
    """A program that `BROWSER` names; returns the file with the address that it got."""
    seen = tmp_path / "seen"
    monkeypatch.setenv("BROWSER", str(program(tmp_path / "browser", seen)))
    return seen


@pytest.fixture
def things(home):
    lmvp.update("digits/cnn", {"w": np.ones(3)}, alias="best", progress=False)
    lmvp.update("digits/cnn", {"w": np.zeros(3)}, progress=False)
    with lmvp.start_run("digits", name="quiet-wren-44", system_metrics=False) as run:
        run.log({"loss": 1.0})
    return run


def follow(link):
    """Redeem a link as its page does; return where it leads, and the session."""
    code, session = urlsplit(link).fragment, requests.Session()
    page = session.get(link.partition("#")[0], timeout=20).text
    xsrf = page.partition('name="_xsrf" value="')[2].partition('"')[0]
    answer = session.post(link.partition("#")[0], data={"code": code, "_xsrf": xsrf}, timeout=20, allow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"], session


def test_open_shows_the_page_of_each_thing_signed_in(things, browser):
    url, run = Client().url, f"p/digits/-/runs/{things.id}"
    pages = {
        "digits": "p/digits",
        "digits/": "p/digits",
        "digits/cnn": "p/digits/cnn",
        "digits/cnn@1": "p/digits/cnn@v1",
        "digits/cnn@best": "p/digits/cnn@v1",
        "digits/cnn@latest": "p/digits/cnn@v2",
        "digits/quiet-wren-44": run,
        f"digits/{things.id}": run,
        "digits/runs/quiet-wren-44": run,
    }
    for name, page in pages.items():
        assert main(["open", name]) == 0
        where, session = follow(browser.read_text())
        assert where == page, name
        assert session.get(f"{url}/{where}", timeout=20, allow_redirects=False).status_code == 200, name
    assert main(["ui"]) == 0
    assert follow(browser.read_text())[0] == "."


def test_open_knows_names_of_the_current_project(things, browser, monkeypatch):
    monkeypatch.setenv("LMVP_PROJECT", "digits")
    assert console.page_of(Client(), "cnn").path == "p/digits/cnn"
    assert console.page_of(Client(), "quiet-wren-44").path == f"p/digits/-/runs/{things.id}"


def test_open_takes_versions_and_runs(things, browser):
    assert lmvp.open(Client().version("digits/cnn@v1")).url == f"{Client().url}/p/digits/cnn@v1"
    assert lmvp.open(lmvp.run("quiet-wren-44", "digits")).path == f"p/digits/-/runs/{things.id}"
    assert lmvp.open(things).path == f"p/digits/-/runs/{things.id}"
    with pytest.raises(InvalidArgument, match="a dict has no page"):
        lmvp.open({})


@pytest.mark.parametrize("name", ["nothing", "digits/nothing", "digits/cnn@v9", "digits/runs/nothing", "nowhere/"])
def test_open_starts_no_browser_for_what_is_not_there(things, browser, name, capsys):
    assert main(["open", name]) == NotFound.exit_code
    assert not browser.exists()


@pytest.mark.server_process
def test_open_prints_no_secret_where_the_browser_opens(things, browser, capfd):
    page = lmvp.open("digits/cnn")
    assert main(["open", "digits/cnn"]) == 0
    code = urlsplit(browser.read_text()).fragment
    assert len(code) >= 43
    out, err = capfd.readouterr()
    assert f"{page.url} is open in the browser" in out
    shown = out + err + repr(page) + page._repr_html_() + str(vars(page))
    log = (config.data_home() / local.LOG).read_text()
    events = "".join(str(event) for event in Client().events(limit=None))
    assert "session.link" in events
    for text in (shown, log, events):
        assert code not in text


def test_open_prints_the_link_where_there_is_no_browser(home, no_browser, capsys):
    for words in (["open"], ["open", "--print"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert ("there is no browser here" in out) is (words == ["open"])
        link = next(line for line in out.splitlines() if line.startswith("http"))
        where, session = follow(link)
        assert where == "."
        assert session.get(Client().url, timeout=20).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the arguments of other users' processes")
def test_open_hides_the_link_from_the_list_of_processes(things, no_browser, monkeypatch, tmp_path, capsys):
    """The browser gets the address of a file that only this user reads, as from Jupyter."""
    bin_, seen = tmp_path / "bin", tmp_path / "seen"
    bin_.mkdir()
    program(bin_ / "xdg-open", seen)
    code = "import lmvp, sys; sys.exit(not lmvp.open('digits/cnn').is_opened)"
    environment = {**os.environ, "DISPLAY": ":99", "PATH": str(bin_)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    ends = time.monotonic() + 30
    while not seen.exists() or not seen.read_text():
        assert time.monotonic() < ends, "the browser was not started"
        time.sleep(0.02)
    given = seen.read_text()
    assert given.startswith("file://")
    file = Path(urlsplit(given).path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert '<meta name="referrer" content="no-referrer">' in text
    link = text.partition('href="')[2].partition('"')[0]
    assert urlsplit(link).fragment not in given
    assert follow(link)[0] == "p/digits/cnn"


def test_open_without_a_token_opens_the_page_to_sign_in(things, browser, monkeypatch):
    url, token = Client().url, local.connection().token
    monkeypatch.setenv("LMVP_URL", url)
    assert main(["open"]) == 0
    assert browser.read_text() == f"{url}/"
    monkeypatch.setenv("LMVP_TOKEN", "no-such-token")
    with pytest.raises(NotAuthenticated):
        lmvp.open()
    monkeypatch.setenv("LMVP_TOKEN", token)
    lmvp.open()
    assert follow(browser.read_text())[0] == "."


def test_status_tells_where_the_console_is(home):
    assert "`lmvp.open()` starts the server and opens it" in repr(Status.now())
    url = Client().url
    assert f"console  {url}/ (`lmvp.open()` opens it signed in)" in repr(Status.now())
    with hints.using(hints.SHELL):
        assert f"console  {url}/ (`lmvp open` opens it signed in)" in repr(Status.now())
    with hints.using(hints.MAGIC):
        assert f"{url}/ (`%lmvp open` opens it signed in)" in repr(Status.now())
    assert "Sign in" in requests.get(f"{url}/", timeout=20).text


def test_start_run_tells_where_the_run_is(home, capsys):
    with lmvp.start_run("digits", name="first", system_metrics=False) as run:
        assert "run digits/first: `lmvp open digits/first` opens its page" in capsys.readouterr().err
        run.log({"loss": 1.0})
    url = Client().url
    with lmvp.start_run("digits", name="two words", system_metrics=False) as run:
        run.log({"loss": 1.0})
    out, err = capsys.readouterr()
    page = f"{url}/p/digits/-/runs/{run.id}"
    assert f"run digits/two words: {page} (`lmvp open 'digits/two words'` opens it signed in)" in err
    assert "digits/" not in out
    _, session = follow(console.page_of(Client(), "digits/two words").signed_in_url())
    assert session.get(page, timeout=20, allow_redirects=False).status_code == 200


def test_start_run_survives_a_stderr_that_is_closed(home):
    code = (
        "import sys, lmvp\nsys.stderr.close()\n"
        "with lmvp.start_run('digits', system_metrics=False) as run: run.log({'loss': 1.0})\n"
        "print(lmvp.runs('digits')[0].status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "finished"


def test_embedded_server_keeps_its_port(home):
    first = local.connection().url
    assert urlsplit(first).port == stable_ports(home)[0] or port_is_taken(stable_ports(home)[0])
    local.stop()
    assert local.connection().url == first, "bookmarks and open tabs survive a restart"
    assert stable_ports(home) != stable_ports(home / "another")


def port_is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.server_process
def test_embedded_server_takes_another_port_where_its_own_is_taken(home):
    held = []
    for port in stable_ports(home):
        try:
            held.append(socket.create_server(("127.0.0.1", port)))
        except OSError:  # somebody else has it
            continue
    try:
        found = local.connection().url
        assert urlsplit(found).port not in stable_ports(home)
        asked = http.client.HTTPConnection(urlsplit(found).netloc, timeout=20)
        asked.request("GET", "/api/v1/health")
        assert asked.getresponse().status == 200
        asked.close()
    finally:
        for each in held:
            each.close()


def test_session_survives_a_restart_of_the_embedded_server(home):
    _, session = follow(console.page_of(Client()).signed_in_url())
    local.stop()
    assert session.get(f"{local.connection().url}/", timeout=20, allow_redirects=False).status_code == 200
