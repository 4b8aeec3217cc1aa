"""A server in a process of its own, on a port that it keeps, that can be killed, paused and started again."""

import hmac
import os
import secrets
import signal
import subprocess
import sys
import time

import requests
from support.ports import reserved_port

from lmvp.core import server_file


class Server:
    """A real server; `lmvp` is set up to speak to it."""

    def __init__(self, data):
        self.data = data
        self.port = reserved_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def command(self):
        return [sys.executable, "-m", "lmvp_server", "--data", str(self.data), "--port", str(self.port)]

    def start(self, log=subprocess.DEVNULL):
        """Start the process, wait until it answers, and return its token; `log` gets its output and errors."""
        command = self.command()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LMVP_")}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            self._wait()
        except BaseException:  # no fixture ends what it never got
            self.kill()
            raise
        return (self.data / "token").read_text().strip()

    def _wait(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server did not start"
            about = server_file.read(self.data)
            # a killed predecessor leaves its file behind: only the pid tells the two apart
            if about and about.pid == self.process.pid and self._proves(about):
                return
            time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def _proves(self, about):
        """Return whether the server that answers on the port knows the token in `server.json`."""
        nonce = secrets.token_hex(16)
        health = requests.get(f"{self.url}/api/v1/health", params={"nonce": nonce}, timeout=10).json()
        expected = hmac.new(about.token.encode(), nonce.encode(), "sha256").hexdigest()
        assert (health["proof"], health["instance"]) == (expected, about.instance), "another server has this port"
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """End the process with SIGTERM, so that it saves its coverage; kill it if that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)
