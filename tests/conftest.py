"""Fixtures that all tests share: a home of their own, whose server ends with them."""

import os
import signal
import sys
from contextlib import suppress

import pytest
from support.local_server import LocalServers

from lmvp import config, local

pytest_plugins = [f"support.{name}_fixtures" for name in ("link", "runs", "services", "tracking")]

os.environ.setdefault("KERAS_BACKEND", "torch")  # by itself, Keras takes TensorFlow, which no test needs


_kill = os.kill


def _kill_others(pid, number):
    """Send a signal, but refuse to end this process: a test that kills its local server needs a server process."""
    ends = number in (signal.SIGKILL, signal.SIGSTOP) or (number and signal.getsignal(number) == signal.SIG_DFL)
    assert pid != os.getpid() or not ends, "mark this test `server_process`: its local server is a thread"
    _kill(pid, number)


@pytest.fixture
def local_servers(request, monkeypatch):
    """Start local servers in threads of this process, unless the test or its module is marked `server_process`."""
    if request.node.get_closest_marker("server_process"):
        yield None
        return
    servers = LocalServers()
    monkeypatch.setattr(local, "_launch", servers.launch)
    monkeypatch.setattr(local, "stop", servers.stop)
    monkeypatch.setattr(os, "kill", _kill_others)
    yield servers
    servers.close()


@pytest.fixture
def home(tmp_path, monkeypatch, local_servers):
    """A fresh LMVP_HOME; the server that the test starts in it is ended."""
    folder = tmp_path / "home"
    for name in [name for name in os.environ if name.startswith("LMVP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LMVP_HOME", str(folder))
    config.set_project(None)
    yield folder
    config.set_project(None)
    monkeypatch.setenv("LMVP_HOME", str(folder))
    local.stop(folder)


@pytest.fixture(autouse=True)
def in_a_script(request, monkeypatch):
    """Let messages be those of a script, whatever shell of IPython a test of the notebook has left in this process."""
    if not request.node.get_closest_marker("notebook") and "IPython" in sys.modules:
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
        monkeypatch.delattr(sys, "ps1", raising=False)  # a shell of IPython sets it


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Save what a worker has covered: one that takes long to end is killed, and all that it knows would be lost."""
    if hasattr(session.config, "workerinput"):
        with suppress(ImportError):
            import coverage

            if running := coverage.Coverage.current():
                running.save()
