"""The console below a prefix, behind nginx and behind Jupyter: no page, form, island or event leaves the prefix."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from support.ports import reserved_port

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from console_pictures import Looker, pages

from lmvp.client.models import Client

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
TOKEN = "jupyter-token-for-tests"

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")


@contextlib.contextmanager
def running(command, address, **options):
    """A process that answers at an address, until the end."""
    process = subprocess.Popen(command, **options)
    try:
        for _ in range(600):
            assert process.poll() is None, "it did not start"
            with contextlib.suppress(requests.ConnectionError):
                requests.get(address, timeout=5)
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def nginx(server, tmp_path_factory):
    """The address of the console below `/our/models/`, as docs/security.md has it, without TLS."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), reserved_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (place,) = re.findall(r"```nginx\n(location .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    told = place.replace("127.0.0.1:8650", f"127.0.0.1:{server.port}")
    (folder / "nginx.conf").write_text(f"""
        pid {folder}/pid; daemon off; error_log {folder}/errors; events {{}}
        http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; {told} }} }}""")
    base = f"http://127.0.0.1:{port}/our/models"
    command = [NGINX, "-c", folder / "nginx.conf", "-p", folder, "-e", folder / "errors"]
    with running(command, f"{base}/login"):
        yield base


@pytest.fixture(scope="module")
def jupyter(server, tmp_path_factory):
    """The address of the console in a Jupyter server that knows of ours by its address and a token."""
    folder, port = tmp_path_factory.mktemp("jupyter"), reserved_port()
    (folder / "jupyter_server_config.d").mkdir()
    turned_on = {"ServerApp": {"jpserver_extensions": {"lmvp_jupyter": True}}}
    (folder / "jupyter_server_config.d" / "lmvp.json").write_text(json.dumps(turned_on))
    names = ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "LMVP_HOME")
    environment = {**os.environ, **{name: str(folder / name) for name in names}, "JUPYTER_CONFIG_DIR": str(folder),
                   "LMVP_URL": server.url, "LMVP_TOKEN": server.token,
                   "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
               "--allow-root", f"--IdentityProvider.token={TOKEN}", "--ServerApp.base_url=/user/ada/",
               f"--ServerApp.root_dir={folder}"]  # fmt: skip
    base = f"http://127.0.0.1:{port}/user/ada"
    with (folder / "log").open("wb") as log, running(command, f"{base}/api", env=environment, stdout=log, stderr=log):
        yield f"{base}/lmvp"


@pytest.fixture(params=["nginx", "jupyter"])
def looker(request, server, chromium):
    base = request.getfixturevalue(request.param)
    looker = Looker(chromium.browser, base, server.token if request.param == "nginx" else "", "light")
    if request.param == "jupyter":
        looker.page.goto(f"{base}/?token={TOKEN}")
    yield looker
    assert looker.wrong == []


ADDRESSES = """() => [...document.querySelectorAll("*")]
  .flatMap((one) => ["href", "src", "action", "data-live", "data-curves", "data-histograms"]
    .filter((name) => one.hasAttribute(name)).map((name) => new URL(one.getAttribute(name), document.baseURI).href))
  .filter((href) => href.startsWith("http"))"""


def test_no_address_of_any_page_leaves_the_prefix(server, looker, tmp_path):
    for name, where in pages(server.client).items():
        if where == "account" and "/lmvp" in looker.url:
            continue
        looker.shoot(where, tmp_path / f"{name}.png")
        outside = [each for each in looker.page.evaluate(ADDRESSES) if not each.startswith(looker.url)]
        assert outside == [], name


def test_a_form_works(server, looker):
    looker.page.goto(f"{looker.url}/p/birdsong/tagger")
    looker.page.get_by_text("Edit the model card").click()
    words = f"written below {looker.url.rpartition('/')[2]}"
    looker.page.fill("#description", words)
    looker.page.get_by_role("button", name="Save").click()
    looker.page.locator(".prose", has_text=words).wait_for()
    assert looker.page.url == f"{looker.url}/p/birdsong/tagger"
    assert server.client.model("birdsong/tagger").description == words


def test_a_run_is_followed(server, looker):
    with server.client.start_run("birdsong", params={}) as run:
        run.log({"train/loss": 4.0}, step=0)
        while not server.client.runs("birdsong", where="status == 'running' and points > 0"):
            time.sleep(0.1)
        looker.page.goto(f"{looker.url}/p/birdsong/-/runs/{run.id}")
        looker.page.locator(".island[data-alive] .plot").first.wait_for()
        run.log({"train/loss": 0.25}, step=1)
        looker.page.wait_for_selector('.plot[aria-label*="to 0.25"]', timeout=15_000)


def test_histograms_come(server, looker):
    looker.page.goto(f"{looker.url}/p/birdsong/tagger/-/diff?from=v8&to=v12")
    with looker.page.expect_response(re.compile("/-/histograms")) as answer:
        looker.page.locator(".island[data-alive] tr button[aria-expanded=false]").first.click()
    assert answer.value.ok


def test_a_client_works_below_a_prefix(server, nginx):
    client = Client(nginx, server.token)
    assert client.version("birdsong/tagger@latest").message == "cleaner labels"
    assert client.invite("birdsong").url.startswith(f"{nginx}/join?code=")
    answer = requests.post(f"{nginx}/api/v1/device/code", json={"client_name": "laptop"}, timeout=9).json()
    assert answer["verification_uri"] == f"{nginx}/device"
    assert requests.get(answer["verification_uri_complete"], timeout=9).ok
