"""Fixtures that all tests share: a home of their own, whose server ends with them."""

import os
import sys
from contextlib import suppress

import pytest

from lmvp import config, local

os.environ.setdefault("KERAS_BACKEND", "torch")  # by itself, Keras takes TensorFlow, which no test needs


@pytest.fixture
def home(tmp_path, monkeypatch):
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
    if not {"jupyter", "browser"}.intersection(request.path.parts) and "IPython" in sys.modules:
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
