"""A server of its own process, on a port that it keeps, that can be killed, stopped and started again."""

import os
import signal
import socket
import subprocess
import sys
import time


class Server:
    """A real server; `lmvp` is set up to speak to it."""

    def __init__(self, data):
        self.data = data
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def command(self):
        return [sys.executable, "-m", "lmvp_server", "--data", str(self.data), "--port", str(self.port)]

    def start(self):
        command = self.command()
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

    def end(self):
        """Let it end as it likes, which leaves what it has covered; a server that does not is killed."""
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
