"""The verbs around people, in a shell, against a real server."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.local_server import SharedServer

import lmvp
from lmvp import errors
from lmvp.cli import main
from lmvp.client.models import Client


@pytest.fixture
def server(home, tmp_path, monkeypatch):
    server = SharedServer(tmp_path / "served")
    monkeypatch.setenv("LMVP_TOKEN", server.start())
    monkeypatch.setenv("LMVP_URL", server.url)
    yield server
    server.kill()


@pytest.fixture
def lmvp_(capsys, monkeypatch):
    """Run a verb; give what it says, which must be no error."""

    def run(*words, typed="", code=0):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(words) == code
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    return run


def test_a_team_is_made_and_works(server, lmvp_, monkeypatch):
    assert "no accounts" in lmvp_("users")
    assert "ada has an account" in lmvp_("users", "add", "ada", "--admin", typed="correct horse battery\n")
    lmvp_("users", "add", "grace", typed="staple staple staple\n")
    lmvp_("users", "add", "nightly", "--service")
    told = lmvp_("users")
    for words in (("ada", "admin"), ("grace", "person"), ("nightly", "service")):
        assert any(all(word in line for word in words) for line in told.splitlines())
    lmvp.update("digits/mlp", {"w": np.arange(3.0)}, create=True, progress=False)
    assert "grace is viewer in digits" in lmvp_("members", "digits", "add", "grace")
    assert "@vision: ada, grace" in lmvp_("groups", "add", "vision", "ada", "grace")
    lmvp_("members", "digits", "add", "@vision", "--role", "contributor")
    told = lmvp_("members", "digits")
    assert "@vision" in told
    token = lmvp_("tokens", "create", "laptop", "--user", "grace", "--scope", "write").splitlines()[0]
    all_rights = lmvp_("tokens", "create", "desk", "--user", "grace", "--scope", "admin").splitlines()[0]
    assert "grace" in lmvp_("tokens")
    monkeypatch.setenv("LMVP_TOKEN", token)
    assert Client().me().name == "grace"
    with lmvp.start_run("digits", system_metrics=False) as run:
        run.log({"loss": 0.5})
    assert [each.record.author for each in lmvp.runs("digits")] == ["grace"]
    with pytest.raises(errors.AccessDenied, match="grace has no right to write in 'digits'") as caught:
        lmvp.update("digits/mlp", {"w": np.ones(3)}, progress=False)
    assert "needs the role maintainer" in caught.value.hint
    assert "--propose" in caught.value.hint
    assert "--scope admin" in lmvp_("users", code=5)
    monkeypatch.setenv("LMVP_TOKEN", all_rights)
    assert "grace has no right to administer this server" in lmvp_("users", code=5)


def test_block_of_readme_works_on_a_new_server(server, lmvp_, tmp_path, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```console\n(lmvp push digits/cnn weights\.safetensors --create.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    save_file({"w": np.arange(3.0)}, "weights.safetensors")
    printed = [lmvp_(*shlex.split(line)[1:]) for line in block.splitlines()]
    assert "/join?code=" in printed[1]
    assert "c1" in printed[3]
    assert "v2 → v1" in printed[-1]


def test_what_does_not_work_says_why(server, lmvp_):
    assert "10 to 200 characters" in lmvp_("users", "add", "ada", typed="short\n", code=2)
    assert "--service" in lmvp_("users", "add", "ada", code=2)
    assert "user name missing" in lmvp_("users", "disable", code=2)
    lmvp_("users", "add", "grace", typed="staple staple staple\n")
    assert "there is a user 'grace'" in lmvp_("users", "add", "Grace", typed="staple staple staple\n", code=4)
    lmvp.update("digits/mlp", {"w": np.arange(3.0)}, create=True, progress=False)
    assert "did you mean 'grace'" in lmvp_("members", "digits", "add", "grase", code=3)
    assert "no group 'vision'" in lmvp_("members", "digits", "add", "@vision", code=3)
    assert "is no member" in lmvp_("members", "digits", "remove", "grace", code=3)
    assert "did you mean '--role'" in lmvp_("members", "digits", "add", "grace", "--rolle", "viewer", code=2)


def test_public_and_everyone(server, lmvp_, monkeypatch):
    lmvp.update("digits/mlp", {"w": np.arange(3.0)}, create=True, progress=False)
    assert "without an account" in lmvp_("members", "digits", "public")
    lmvp_("members", "digits", "everyone", "--role", "viewer")
    told = lmvp_("members", "digits")
    assert "the public" in told
    assert "everyone" in told
    token = os.environ["LMVP_TOKEN"]
    monkeypatch.delenv("LMVP_TOKEN")
    assert list(Client(server.url).download("digits/mlp")) == ["w"]
    monkeypatch.setenv("LMVP_TOKEN", token)
    lmvp_("members", "digits", "public", "--off")
    monkeypatch.delenv("LMVP_TOKEN")
    with pytest.raises(errors.NotAuthenticated):
        Client(server.url).download("digits/mlp@v1")
