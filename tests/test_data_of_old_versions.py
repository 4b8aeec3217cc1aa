"""A data folder, journal, export and backup of commit 9d7a6ec open, with the values that 9d7a6ec itself read."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.real_server import Server

import lmvp
from lmvp.client.models import Client
from lmvp_server.restore import restore

FOLDER = Path(__file__).parent / "vectors" / "data_of_9d7a6ec"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


def unpack(name: str, target: Path) -> Path:
    target.mkdir(parents=True)
    with tarfile.open(FOLDER / f"{name}.tar.xz") as tar:
        tar.extractall(target, filter="data")
    return target


@pytest.fixture
def serve(home, monkeypatch):
    """Starts a server on a data folder, and returns a client of its owner."""
    servers = []

    def start(data: Path) -> Client:
        servers.append(server := Server(data))
        token = server.start()
        monkeypatch.setenv("LMVP_URL", server.url)
        monkeypatch.setenv("LMVP_TOKEN", token)
        return Client(server.url, token)

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def client(serve, tmp_path):
    """A client of the owner of the old data folder."""
    return serve(unpack("data", tmp_path / "data"))


def digests(values: dict[str, np.ndarray]) -> dict[str, str]:
    """Return dtype, shape and SHA-256 of each tensor, as `vectors/make_data.py` states them."""

    def digest(array: np.ndarray) -> str:
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

    return {name: f"{one.dtype.str} {list(one.shape)} {digest(one)}" for name, one in sorted(values.items())}


def description(version: lmvp.Version) -> dict[str, object]:
    return {
        "number": version.number,
        "message": version.message,
        "digest": version.digest,
        "author": version.author,
        "created": version.created_at.isoformat(),
        "metrics": dict(version.metrics),
        "params": dict(version.params),
        "tags": dict(version.tags),
    }


def check_models(client: Client) -> None:
    """Compare versions, tensors and aliases with those that the old code read, and verify every digest."""
    assert [description(client.version(f"digits/mlp@v{number}")) for number in (1, 2, 3)] == EXPECTED["versions"]
    for number in (1, 2, 3):
        values = client.download(f"digits/mlp@v{number}", progress=False)
        assert digests(values) == EXPECTED["tensors"][str(number)]
    with pytest.raises(lmvp.errors.NotFound):
        client.version("digits/mlp@v4")
    assert {one.name: one.number for one in client.aliases("digits/mlp")} == EXPECTED["aliases"]


def check_server(client: Client) -> None:
    """Compare all that the old server held."""
    check_models(client)
    assert digests(client.download("copies/mlp@v2", progress=False)) == EXPECTED["fork"]
    assert digests(client.download("digits/mlp@c1", progress=False)) == EXPECTED["contribution"]
    assert {one.name: one.role for one in client.members("digits")} == EXPECTED["members"]
    assert [one.url for one in client.webhooks("digits")] == EXPECTED["webhooks"]
    check_run(client)
    assert client.check().problems == ()


def check_run(client: Client) -> None:
    run = client.run("digits", EXPECTED["run"])
    loss = run.history("loss")["loss"]
    assert (run.status, run.params, {"best": run.summary["best"]}) == ("finished", {"lr": 0.5}, EXPECTED["summary"])
    assert len(loss) == EXPECTED["loss"]["count"]
    assert loss["step"][::500].tolist() == EXPECTED["loss"]["steps"]
    assert loss["value"][::500].tolist() == EXPECTED["loss"]["values"]


def test_old_data_folder_opens_with_its_values(client):
    check_server(client)
    pushed = client.update("digits/mlp", {"layer.weight": np.zeros((96, 96), "<f4")}, progress=False)
    assert pushed.number == 5, "the number of a removed version is not given again"
    assert client.accept("digits/mlp@c1").status == "accepted"
    assert client.check().problems == ()


def test_old_tokens_and_passwords_keep_their_rights(client):
    grace = Client(client.url, EXPECTED["tokens"]["grace"])
    assert grace.me().name == "grace"
    assert digests(grace.download("digits/mlp@v3", progress=False)) == EXPECTED["tensors"]["3"]
    with pytest.raises(lmvp.errors.AccessDenied):
        grace.remove("digits/mlp@v1")
    ada = Client(client.url, EXPECTED["tokens"]["ada"])
    assert ada.remove("digits/mlp@v1")
    assert Client(client.url, EXPECTED["token"]).me().admin


def test_old_backup_restores_the_server(serve, tmp_path):
    backup = unpack("backup", tmp_path / "backup")
    assert restore(backup, tmp_path / "restored").problems == []
    check_server(serve(tmp_path / "restored"))


def test_old_export_imports_with_its_history(serve, tmp_path):
    client = serve(tmp_path / "empty")
    unpack("export", tmp_path / "export")
    client.import_model(tmp_path / "export" / "mlp.tar", "digits/mlp", progress=False)
    check_models(client)


def test_old_journal_is_delivered_whole(client, home):
    unpack("journals", home / "journals")
    target = home / "journals" / EXPECTED["offline"] / "target.json"
    target.write_text(json.dumps(json.loads(target.read_text()) | {"url": client.url}))
    lmvp.sync()
    run = client.run("digits", EXPECTED["offline"])
    points = run.history()
    assert (run.name, run.params, run.tags) == ("offline", {"lr": 0.5}, {"host": "gpu"})
    assert points["loss"]["value"].tolist() == [1 / (step + 1) for step in range(200)]
    assert points["acc/val"]["value"].tolist() == [step / 200 for step in range(200)]
    assert run.status == "killed"
    assert not target.parent.exists(), "a delivered journal is deleted"
