"""Fixtures that all tests share: a home of their own, whose server ends with them."""

import os

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
