"""The configuration for nginx in docs/security.md, as it stands there, with real TLS before a real server."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from support.ports import reserved_port
from support.real_server import Server

from lmvp.client.models import Client

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)


class Proxied(Server):
    """A server that is told the name that people know it by."""

    def command(self):
        return [*super().command(), "--public-url", self.public_url]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("nginx"), reserved_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = Proxied(folder / "data")
    server.public_url, server.certificate = f"https://localhost:{port}", str(folder / "cert.pem")
    server.token = server.start()
    told = re.search(r"```nginx\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    for theirs, ours in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/models.pem", server.certificate),
        ("/etc/ssl/models.key", str(folder / "key.pem")),
        ("models.example.org", "localhost"),
        ("127.0.0.1:8650", f"127.0.0.1:{server.port}"),
    ):
        assert theirs in told
        told = told.replace(theirs, ours)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    whole = f"pid {folder}/pid;\ndaemon off;\nerror_log {folder}/errors;\nevents {{}}\n"
    whole += f"http {{\naccess_log off;\n{temporary}\n{told}}}\n"
    (folder / "nginx.conf").write_text(whole)
    nginx = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-p", folder, "-e", folder / "errors"])
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert nginx.poll() is None, (folder / "errors").read_text()
        time.sleep(0.02)
    yield server
    nginx.terminate()
    nginx.wait()
    server.kill()


def test_models_travel_both_ways(proxied, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", proxied.certificate)
    client = Client(proxied.public_url, proxied.token)
    model = {"w": np.random.default_rng(0).standard_normal((3000, 2000))}  # 48 MB
    client.update("digits/mlp", model, create=True, progress=False)
    assert np.array_equal(client.download("digits/mlp", progress=False)["w"], model["w"])


def test_links_are_right_and_cookies_secure(proxied, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", proxied.certificate)
    client = Client(proxied.public_url, proxied.token)
    client.update("digits/mlp", {"w": np.ones(3)}, create=True, progress=False)
    client.add_user("ada", "a long password")
    assert client.invite("digits").url.startswith(f"{proxied.public_url}/join?code=")
    browser = requests.Session()
    page = browser.get(f"{proxied.public_url}/login", timeout=9)
    xsrf = re.search(r'name="_xsrf" value="(\w+)"', page.text)[1]
    form = {"_xsrf": xsrf, "name": "ada", "password": "a long password"}
    answer = browser.post(f"{proxied.public_url}/login", data=form, timeout=9, allow_redirects=False)
    assert answer.status_code == 303
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "<h2>digits" not in browser.get(f"{proxied.public_url}/", timeout=9).text, "she is no member"
    events = client.events(action="session.begin")
    assert events[0].what == "127.0.0.1"


def test_client_chooses_neither_its_address_nor_its_scheme(proxied, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", proxied.certificate)
    Client(proxied.public_url, proxied.token).add_user("grace", "a long password")
    browser = requests.Session()
    page = browser.get(f"{proxied.public_url}/login", timeout=9)
    form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page.text)[1], "name": "grace", "password": "wrong"}
    for at in range(2):
        names = ("X-Real-Ip", "X-Forwarded-For", "Forwarded", "X-Client-Ip", "True-Client-Ip")
        chosen = dict.fromkeys(names, f"203.0.113.{at}") | {"X-Scheme": "http", "X-Forwarded-Proto": "http"}
        chosen |= {"X-Forwarded-Prefix": "/evil", "X-Forwarded-Xsrf": "chosen"}
        answer = browser.post(f"{proxied.public_url}/login", headers=chosen, data=form, timeout=9)
        assert answer.status_code == 401
    failures = Client(proxied.public_url, proxied.token).events(action="session.fail")
    assert {one.after["from"] for one in failures} == {"127.0.0.1"}, "the audit log has the address that nginx adds"
    asked = browser.post(f"{proxied.public_url}/api/v1/device/code", headers=chosen, json={}, timeout=9).json()
    assert asked["verification_uri"] == f"{proxied.public_url}/device"


def test_other_names_are_refused(proxied):
    for host, status in (("localhost", 200), ("evil.example", 403)):
        answer = requests.get(f"{proxied.url}/api/v1/health", headers={"Host": host}, timeout=9)
        assert answer.status_code == status
