"""The console behind a real Jupyter server: closed without its login, and nothing secret passes either way."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
from support.ports import reserved_port

import lmvp
from lmvp import config, local
from lmvp_jupyter.server_extension import PREFIX

pytestmark = pytest.mark.notebook

TOKEN = "jupyter-token-for-tests"


@pytest.fixture
def jupyter(home, tmp_path):
    """The address of a Jupyter server with the extension, below a base_url."""
    config, port = tmp_path / "config", reserved_port()
    (config / "jupyter_server_config.d").mkdir(parents=True)
    turned_on = {"ServerApp": {"jpserver_extensions": {"lmvp_jupyter": True}}}
    (config / "jupyter_server_config.d" / "lmvp.json").write_text(json.dumps(turned_on))
    folders = {name: str(tmp_path / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    environment = {**os.environ, **folders, "JUPYTER_CONFIG_DIR": str(config), "LMVP_HOME": str(home),
                   "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
               "--allow-root", f"--IdentityProvider.token={TOKEN}", "--ServerApp.base_url=/user/ada@x/",
               f"--ServerApp.root_dir={tmp_path}"]  # fmt: skip
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as it:
        base = f"http://127.0.0.1:{port}/user/ada@x/"
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{base}api", timeout=5)
                break
            time.sleep(0.1)
        yield base + PREFIX
        it.terminate()


def ask(url, method="GET", **more):
    headers = {"Authorization": f"token {TOKEN}", **more.pop("headers", {})}
    return requests.request(method, url, headers=headers, timeout=60, **more)


def test_it_is_closed_without_the_login(jupyter):
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in ("/", "/api/v1/projects", "/static/look.css"):
            answer = requests.request(method, jupyter + path, timeout=20, allow_redirects=False)
            assert answer.status_code in (302, 403), (method, path)
            wrong = requests.request(
                method, jupyter + path, headers={"Authorization": "token wrong"}, timeout=20, allow_redirects=False
            )
            assert wrong.status_code in (302, 403), (method, path)


def test_it_passes_on_pages_data_and_writes_and_no_secret(jupyter, home):
    version = lmvp.update("digits/mlp", {"w": np.arange(5_000_000)}, message="<b>first</b>", progress=False)
    secret = local.connection().token
    page = ask(f"{jupyter}/")
    assert "&lt;b&gt;first&lt;/b&gt;" in page.text
    assert "frame-ancestors 'self'" in page.headers["Content-Security-Policy"]
    assert ask(f"{jupyter}/static/look.css").headers["Content-Type"] == "text/css"
    base = f"{jupyter}/api/v1/projects/digits"
    assert ask(f"{base}/models/mlp/versions").json()["items"][0]["digest"] == version.digest
    made = ask(f"{base}/models", "POST", json={"name": "other"}, headers={"Cookie": "a=b", "X-Evil": "1"})
    assert made.status_code == 201
    name = f"{base}/models/mlp/versions/1/files/weights.safetensors"
    whole = ask(name)
    assert len(whole.content) > 40_000_000
    part = ask(name, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert ask(name, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    missing = ask(f"{base}/models/nothing", headers={"Accept": "application/json"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    for answer in (page, whole, part, made, missing):
        assert secret not in str(answer.headers)
        assert "Set-Cookie" not in answer.headers or secret not in answer.headers["Set-Cookie"]
    assert secret not in page.text + missing.text


def test_paths_do_not_climb_and_jupyters_arguments_stay_here(jupyter, home):
    lmvp.update("digits/mlp", {"w": np.zeros(3)})
    for path in (
        "/static/../../etc/passwd",
        "/static/%2e%2e/app.py",
        "/..%2f..%2fetc",
        "/a%0d%0ab",
        "/static/..%5c..%5cx",
    ):
        raw = requests.Request("GET", jupyter, headers={"Authorization": f"token {TOKEN}"}).prepare()
        raw.url = jupyter + path
        answer = requests.Session().send(raw, timeout=20)
        assert answer.status_code in (400, 404), path
    assert requests.get(f"{jupyter}/api/v1/projects?token={TOKEN}&limit=1", timeout=20).json()["total"] == 1


def test_cookies_need_the_mark_against_forgery(jupyter, home):
    session = requests.Session()
    session.get(f"{jupyter}/?token={TOKEN}", timeout=20)
    assert session.get(f"{jupyter}/api/v1/projects", timeout=20).status_code == 200
    url = f"{jupyter}/api/v1/projects"
    assert session.post(url, json={"name": "forged"}, timeout=20).status_code == 403
    mark = {"X-XSRFToken": session.cookies.get("_xsrf", path=re.sub(r"^http://[^/]*|lmvp$", "", jupyter)) or ""}
    assert session.post(url, json={"name": "meant"}, headers=mark, timeout=20).status_code == 201


def test_events_come_as_they_happen(jupyter, home):
    run = lmvp.start_run("digits", name="lively-wren-1", system_metrics=False)
    run.log({"loss": 1.0})
    run.flush()
    url = f"{jupyter}/api/v1/projects/digits/metrics/live?run={run.id}&key=loss"
    with requests.get(url, headers={"Authorization": f"token {TOKEN}"}, stream=True, timeout=30) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(line for line in lines if line.startswith(b"data:"))
        run.log({"loss": 0.25})
        run.flush()
        assert any(b"0.25" in line for line in lines)
    run.finish()


def test_a_server_that_ended_is_found_anew(jupyter, home):
    assert ask(f"{jupyter}/api/v1/projects").status_code == 200
    local.stop(home)
    assert ask(f"{jupyter}/api/v1/projects").status_code == 200
    assert ask(jupyter, allow_redirects=False).headers["Location"].endswith("/lmvp/")


def test_a_body_may_not_be_endless(jupyter, home):
    answer = ask(f"{jupyter}/api/v1/projects", "POST", data=b"x" * (65 << 20))
    assert answer.status_code == 413


def console_address(jupyter):
    return ask(jupyter.removesuffix(PREFIX) + "api/lmvp/console", "POST")


def test_console_address_starts_the_server_of_this_machine(jupyter, home):
    assert local.find(home) is None
    answer = console_address(jupyter)
    assert (answer.status_code, answer.json()) == (200, {"url": "/user/ada@x/lmvp/"})
    assert local.find(home).token not in answer.text + str(answer.headers)
    assert ask(jupyter.removesuffix(f"/user/ada@x/{PREFIX}") + answer.json()["url"]).status_code == 200


def test_console_address_names_the_login_that_is_missing(jupyter, home):
    config.login("https://models.example.org")
    error = console_address(jupyter).json()["error"]
    assert error["message"] == "no token is stored for https://models.example.org"
    assert error["hint"] == "run `lmvp login https://models.example.org` in a terminal of Jupyter"


def test_console_address_names_the_server_that_does_not_answer(jupyter, home):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets the port
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config.login(url, "t" * 40)
        error = console_address(jupyter).json()["error"]
    assert error["message"] == f"{url} does not answer: Connection refused"
    assert "t" * 40 not in str(error)


def test_console_address_names_the_login_that_has_ended(jupyter, home):
    url = local.connection().url
    config.login(url, "t" * 40)
    error = console_address(jupyter).json()["error"]
    assert error == {
        "code": "not_authenticated",
        "message": f"{url} does not accept the stored token",
        "hint": f"run `lmvp login {url}` in a terminal of Jupyter",
    }
