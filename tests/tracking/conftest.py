"""A server of its own process, on a port that it keeps, that can be killed, stopped and started again."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import lmvp
from lmvp import local


class Server:
    """A real server; `lmvp` is set up to speak to it."""

    def __init__(self, data):
        self.data = data
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "lmvp_server", "--data", str(self.data), "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LMVP_")}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        for _ in range(1000):
            token = self.data / "token"
            if token.exists() and self._answers():
                return token.read_text().strip()
            assert self.process.poll() is None, "the server did not start"
            time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def _answers(self):
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture
def server(home, tmp_path, monkeypatch):
    server = Server(tmp_path / "served")
    monkeypatch.setenv("LMVP_TOKEN", server.start())
    monkeypatch.setenv("LMVP_URL", server.url)
    yield server
    for run in list(lmvp.tracking.active_runs.every()):
        run.finish()
    if server.process.poll() is None:
        server.go_on()
        server.kill()


@pytest.fixture
def begin(home):
    """Begins runs on this machine's server; what is left of them ends with the test."""
    from lmvp.tracking import active_runs

    yield lambda project="digits", **options: lmvp.start_run(project, **{"system_metrics": False, **options})
    for run in active_runs.every():
        run.finish()
    local.stop()
