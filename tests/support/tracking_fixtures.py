"""Runs of a server of its own process, and that server."""

import pytest
from support.local_server import SharedServer
from support.real_server import Server

import lmvp
from lmvp import local
from lmvp.tracking import unsent


@pytest.fixture
def server(request, home, tmp_path, monkeypatch):
    monkeypatch.setattr(unsent, "_SOONEST", 1e6)  # nothing is delivered in the background
    needs_process = request.node.get_closest_marker("server_process")
    server = (Server if needs_process else SharedServer)(tmp_path / "served")
    monkeypatch.setenv("LMVP_TOKEN", server.start())
    monkeypatch.setenv("LMVP_URL", server.url)
    yield server
    for run in list(lmvp.tracking.active_run.every()):
        run.finish()
    if not needs_process:
        server.kill()
    elif server.process.poll() is None:
        server.go_on()
        server.kill()


@pytest.fixture
def begin(home):
    """Begins runs on this machine's server; what is left of them ends with the test."""
    from lmvp.tracking import active_run

    yield lambda project="digits", **options: lmvp.start_run(project, **{"system_metrics": False, **options})
    for run in active_run.every():
        run.finish()
    local.stop()
