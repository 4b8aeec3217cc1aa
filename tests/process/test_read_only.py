"""A data folder that becomes read-only under a server: reads go on, writes say why not, and nothing is lost."""

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import requests
from support.read_only import NAMESPACE, can_mount, read_only, remount_read_only, remount_writable
from support.real_server import Server
from support.runs_over_http import begin, losses

from lmvp import errors
from lmvp.client.models import Client
from lmvp_server.app import App
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.settings import Settings

TOKEN = "t" * 40
PASSWORD = "correct horse battery"
WEIGHTS = {"w": np.arange(50_000, dtype="f4")}
READ_ONLY = r"(?i)read-only file system"
mounts = pytest.mark.skipif(not can_mount(), reason="no right to mount here")


class Serving:
    """A whole server in a thread of this process."""

    def __init__(self, data):
        self.data = data
        hooks = WebhookAllowlist.parse(["hooks.example.org"])
        self.app = App(Settings(data, token=TOKEN, grace_seconds=5, quiet_seconds=3600, webhook_to=hooks))
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.thread.start()
        assert self.ready.wait(60)
        self.url, self.root = self.app.url, Client(self.app.url, TOKEN)

    async def _serve(self):
        await self.app.start()
        self.loop = asyncio.get_running_loop()
        self.ready.set()
        await self.app.run()
        await self.app.stop()

    def ask(self, method, path, body=None, **options):
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.request(method, f"{self.url}/api/v1{path}", data=data, headers=headers, timeout=60, **options)

    def end(self):
        self.loop.call_soon_threadsafe(self.app.end)
        self.thread.join(60)
        assert not self.thread.is_alive()


def fill(client):
    """Fill a server; return the id of a run, and the last position of its writer."""
    client.update("digits/mlp", WEIGHTS, create=True, progress=False)
    client.update("digits/mlp", {"w": WEIGHTS["w"] + 1}, progress=False)
    client.alias("digits/mlp@v1", "best")


@pytest.fixture
def server(home, tmp_path):
    server = Serving(tmp_path / "data")
    fill(server.root)
    server.root.add_user("ada", PASSWORD)
    yield server
    server.end()


READS = ("/projects", "/projects/digits", "/projects/digits/models", "/projects/digits/models/mlp/versions",
         "/projects/digits/models/mlp/versions/1", "/projects/digits/models/mlp/versions/1/manifest",
         "/projects/digits/models/mlp/versions/1/files/weights.safetensors", "/projects/digits/models/mlp/aliases",
         "/projects/digits/models/mlp/layers", "/projects/digits/runs", "/projects/digits/events", "/events", "/users",
         "/projects/digits/usage", "/usage", "/me", "/tokens", "/health",
         "/projects/digits/models/mlp/versions/2/changes?against=1",
         "/projects/digits/models/mlp/versions/1/histograms?tensor=w",
         "/removed", "/groups", "/projects/digits/members", "/projects/digits/webhooks")  # fmt: skip

CHANGING = ("/health", "/tokens", "/usage", "/projects/digits/usage")
VERSION = "/projects/digits/models/mlp/versions/2"
WRITES = [
    ("POST", "/projects", {"name": "other"}),
    ("PATCH", "/projects/digits", {"description": "new"}),
    ("POST", "/projects/digits/models", {"name": "cnn"}),
    ("PATCH", "/projects/digits/models/mlp", {"description": "new"}),
    ("PATCH", VERSION, {"message": "new"}),
    ("PUT", "/projects/digits/models/mlp/aliases/prod", {"revision": "1"}),
    ("DELETE", "/projects/digits/models/mlp/aliases/best", None),
    ("DELETE", VERSION, None),
    ("DELETE", "/projects/digits/models/mlp", None),
    ("DELETE", "/projects/digits", None),
    ("POST", "/users", {"name": "grace", "password": PASSWORD}),
    ("PATCH", "/users/ada", {"disabled": True}),
    ("POST", "/tokens", {"name": "t"}),
    ("PUT", "/groups/vision", {"users": ["ada"]}),
    ("PUT", "/projects/digits/members/ada", {"role": "viewer"}),
    ("POST", "/invitations", {"project": "digits", "role": "viewer"}),
    ("POST", "/projects/digits/webhooks", {"url": "https://hooks.example.org/x"}),
    ("POST", "/projects/digits/models/mlp/fork", {"to": "digits/copy"}),
    ("PUT", "/projects/digits/runs/{run}/writers/{writer}?from=0", "journal"),
]


def refused(answer, folder):
    """Make sure that an answer says which folder is read-only, and what to do."""
    assert answer.status_code in (503, 507), answer.text
    error = answer.json()["error"]
    assert str(folder) in error["message"], error
    assert "read-only file system" in error["message"].lower()
    assert "remount" in error["hint"]


def send_writes(server):
    """Send every write; yield the answers."""
    for method, path, body in WRITES:
        run = secrets.token_hex(16)
        path = path.format(run=run, writer="a" * 32)
        data = begin(run, name=f"run-{run[:8]}") + losses([1, 2, 3]) if body == "journal" else body
        yield method, path, server.ask(method, path, data)


def picture(server):
    """Return all that a server says of its content, but for what a read may change."""
    return {path: server.ask("GET", path).content for path in READS if path not in CHANGING}


def test_server_reads_and_refuses_writes_while_its_folder_is_read_only(server, caplog):
    before = picture(server)
    with read_only(server.data):
        for path in READS:
            assert server.ask("GET", path).status_code == 200, path
        assert (server.root.download("digits/mlp@v1", progress=False)["w"] == WEIGHTS["w"]).all()
        for method, path, answer in send_writes(server):
            assert answer.status_code in (503, 507), (method, path, answer.text)
            refused(answer, server.data)
        with pytest.raises(errors.StorageReadOnly, match=READ_ONLY) as raised:
            server.root.update("digits/mlp", {"w": WEIGHTS["w"] + 2}, progress=False)
        assert str(server.data) in raised.value.message
        with pytest.raises(errors.StorageReadOnly):
            server.root.compact()
        assert server.root.check().problems == ()
        assert picture(server) == before, "a refused write changes nothing"
    assert "Traceback" not in caplog.text
    assert picture(server) == before
    assert server.root.update("digits/mlp", {"w": WEIGHTS["w"] + 2}, progress=False).number == 3
    for method, path, answer in send_writes(server):
        if method != "DELETE":
            assert answer.status_code < 400 or answer.status_code == 404, (method, path, answer.text)
    assert server.root.check().problems == ()


def test_pages_say_that_the_folder_is_read_only(server):
    session = requests.Session()
    page = session.get(f"{server.url}/login", timeout=60).text
    fields = {"_xsrf": re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1], "name": "ada", "password": PASSWORD}
    with read_only(server.data):
        answer = session.post(f"{server.url}/login", data=fields, timeout=60, allow_redirects=False)
        assert answer.status_code in (503, 507)
        assert "lmvp_session" not in session.cookies
        assert "read-only file system" in answer.text.lower()
        assert session.get(f"{server.url}/login", timeout=60).status_code == 200
    assert session.post(f"{server.url}/login", data=fields, timeout=60, allow_redirects=False).status_code == 303


def test_push_that_was_begun_goes_on_when_the_folder_is_writable_again(server, monkeypatch):
    big = {"w": np.random.default_rng(3).standard_normal(6_000_000).astype("f4")}
    with read_only(server.data), pytest.raises(errors.StorageReadOnly):
        server.root.update("digits/mlp", big, progress=False)
    version = server.root.update("digits/mlp", big, progress=False)
    assert (server.root.download(version.reference, progress=False)["w"] == big["w"]).all()
    assert server.root.check().problems == ()


def test_server_ends_and_starts_again_after_it_was_read_only(home, tmp_path):
    server = Serving(tmp_path / "data")
    fill(server.root)
    before = picture(server)
    with read_only(server.data):
        server.end()
    server = Serving(tmp_path / "data")
    try:
        assert picture(server) == before
        assert server.root.check().problems == ()
    finally:
        server.end()


def test_server_start_on_a_read_only_folder_names_the_folder(home, tmp_path, capsys):
    from lmvp.cli import main

    data = tmp_path / "data"
    with read_only(data):
        assert main(["server", "--data", str(data), "--port", "0"]) == errors.StorageReadOnly.exit_code
        said = capsys.readouterr().err
        assert str(data) in said
        assert "read-only file system" in said
        assert "--data" in said
        assert "Traceback" not in said
    server = Serving(data)
    server.end()
    with read_only(data):
        assert main(["server", "--data", str(data), "--port", "0"]) == errors.StorageReadOnly.exit_code
        said = capsys.readouterr().err
        assert str(data) in said
        assert "Traceback" not in said


# -- for real


def wait_for_warning(server, run):
    """Wait until the server has refused points, and the run has heard of it."""
    while "507 PUT" not in server.log:
        time.sleep(0.05)
    run.flush()


class Mounted(Server):
    """A server in a namespace of mounts of its own; `log` is what it logs."""

    def command(self):
        log = self.data.parent / "log"
        return [*NAMESPACE, "sh", "-c", f'exec "$@" 2>>"{log}"', "sh", *super().command()]

    @property
    def log(self):
        return (self.data.parent / "log").read_text()


@mounts
def test_server_survives_a_real_read_only_mount(home, tmp_path):
    server = Mounted(tmp_path / "data")
    client = Client(server.url, server.start())
    try:
        fill(client)
        run = client.start_run("digits", name="kept", system_metrics=False)
        run.log({"loss": 0.0})
        run.flush()
        remount_read_only(server.process, server.data)
        with pytest.raises(errors.StorageReadOnly, match=READ_ONLY) as raised:
            client.update("digits/mlp", {"w": WEIGHTS["w"] + 5}, progress=False)
        assert str(server.data) in raised.value.message
        assert raised.value.hint
        assert len(client.show_history("digits/mlp")) == 2
        assert (client.download("digits/mlp@v2", progress=False)["w"] == WEIGHTS["w"] + 1).all()
        for step in range(1, 50):
            run.log({"loss": float(step)})
        with pytest.warns(UserWarning, match=READ_ONLY):
            wait_for_warning(server, run)
        assert client.check().problems == ()
        assert server.process.poll() is None
        remount_writable(server.process, server.data)
        run.finish()
        headers = {"Authorization": f"Bearer {client._connection._reach().token}"}
        url = f"{server.url}/api/v1/projects/digits/metrics"
        (curve,) = requests.get(url, {"run": run.id, "key": "loss"}, headers=headers, timeout=30).json()["curves"]
        assert curve["values"] == [float(step) for step in range(50)]
        assert client.update("digits/mlp", {"w": WEIGHTS["w"] + 5}, progress=False).number == 3
        assert client.check().problems == ()
        remount_read_only(server.process, server.data)
        server.end()
        assert server.process.returncode == 0
        assert "Traceback" not in server.log
    finally:
        if server.process.poll() is None:
            server.kill()


@mounts
def test_server_start_on_a_real_read_only_folder_names_it(home, tmp_path):
    data = tmp_path / "data"
    server = Server(data)
    server.start()
    server.end()
    for folder in (data, tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        script = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
        command = [*NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-m", "lmvp_server", "--data", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == errors.StorageReadOnly.exit_code, done.stderr
        assert str(folder) in done.stderr
        assert "read-only file system" in done.stderr
        assert "Traceback" not in done.stderr


CLIENT = """
import sys, warnings
import numpy as np
import lmvp
warnings.simplefilter("always")
url, token = sys.argv[1:]
client = lmvp.Client(url, token)
with client.start_run("digits", name="from-there", system_metrics=False) as run:
    for step in range(100):
        run.log({"loss": float(step)})
    run.log_batch(range(100, 200), {"loss": np.arange(100.0)})
print("logged")
print(client.update("digits/mlp", {"w": np.arange(9)}, progress=False).number)
print(len(client.download("digits/mlp@v1", progress=False)["w"]))
try:
    lmvp.login(url, token=token)
except lmvp.errors.StorageReadOnly as error:
    print("no login:", error.message)
"""


@mounts
def test_client_with_a_read_only_home_logs_pushes_and_pulls(server, tmp_path):
    home = tmp_path / "client home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "LMVP_HOME": str(home / "lmvp"), "XDG_CACHE_HOME": str(home / "c"),
                   "LMVP_CACHE": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config"),
                   "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)}  # fmt: skip
    script = f'mount --bind "{home}" "{home}" && mount -o remount,ro,bind "{home}" && exec "$@"'
    command = [*NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-c", CLIENT, server.url, TOKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "logged"
    assert said[1:3] == ["3", "50000"]
    assert "read-only file system" in said[3].lower()
    assert str(home) in said[3]
    assert "Traceback" not in done.stderr
