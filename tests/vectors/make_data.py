"""Write the files of `data_of_9d7a6ec`: a data folder, a journal, an export and a backup that later code must open.

Run once, with the packages of commit 9d7a6ec (the files in the folder are never written again):

    git worktree add --detach old 9d7a6ec
    cd old && PYTHONPATH=$PWD python ../tests/vectors/make_data.py ../tests/vectors/data_of_9d7a6ec

`expected.json` states the values that 9d7a6ec itself reads: a test compares with the old code, not with itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PASSWORD = "correct horse battery"
KILLED = """
import os, platform, time
platform.platform, platform.node = lambda **_: "Linux", lambda: "host"
import lmvp
run = lmvp.start_run("digits", name="offline", params={"lr": 0.5}, tags={"host": "gpu"}, system_metrics=False)
for step in range(200):
    run.log({"loss": 1 / (step + 1), "acc/val": step / 200}, step=step)
time.sleep(2)
print(run.id, flush=True)
os._exit(1)
"""


def tree(version: int) -> dict[str, np.ndarray]:
    """Return the tensors of a version; each is a small step from the version before."""
    random = np.random.default_rng(16)
    weights = random.normal(0, 0.02, (96, 96)).astype("<f4")
    for _ in range(version):
        weights = (weights + random.normal(0, 1e-5, weights.shape)).astype("<f4")
    return {"layer.weight": weights, "layer.bias": np.arange(96, dtype="<f8"), "steps": np.array(version * 100)}


def digest(values: dict[str, Any]) -> dict[str, str]:
    """Return dtype, shape and SHA-256 of each tensor."""

    def digest(array: np.ndarray) -> str:
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

    return {name: f"{one.dtype.str} {list(one.shape)} {digest(one)}" for name, one in sorted(values.items())}


def start(data: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers."""
    command = [
        sys.executable,
        "-m",
        "lmvp_server",
        "--data",
        str(data),
        "--port",
        str(port),
        "--webhook-to",
        "127.0.0.1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if (data / "token").exists() and probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def pack(source: Path, target: Path) -> None:
    with tarfile.open(target, "w:xz") as tar:
        tar.add(source, ".")


def fill(root: Any, make_client: Any) -> dict[str, Any]:
    """Fill a server, and return the values that its client reads."""
    root.add_user("ada", PASSWORD)
    root.add_user("grace", PASSWORD)
    tokens = {name: root.create_token(name, user=name, scope="admin").token for name in ("ada", "grace")}
    for version in range(4):
        alias = {1: "best", 2: "production"}.get(version, ())
        root.update(
            "digits/mlp",
            tree(version),
            message=f"step {version}",
            metrics={"val/acc": 0.9 + version / 100},
            params={"lr": 0.5, "depth": 3, "name": "mlp"},
            tags={"stage": f"s{version}"},
            alias=alias,
            create=version == 0,
            progress=False,
        )
    root.set_member("digits", "ada", "owner")
    root.set_member("digits", "grace", "contributor")
    root.protect("digits/mlp@production")
    make_client(tokens["grace"]).update("digits/mlp", tree(7), message="try", propose=True, progress=False)
    root.comment("digits/mlp@c1", "looks good")
    root.fork("digits/mlp", "copies/mlp")
    root.add_webhook("digits", "http://127.0.0.1:9/hook", ["version."])
    folder = Path(os.environ["LMVP_HOME"]) / "files"
    folder.mkdir()
    (folder / "config.json").write_text('{"layers": 3}\n')
    root.update("digits/files", folder, create=True, progress=False)
    root.remove("digits/mlp@v4")
    with root.start_run("digits", name="train", params={"lr": 0.5}, tags={"kind": "full"}, system_metrics=False) as run:
        for step in range(3000):
            run.log({"loss": 1 / (step + 1), "acc/val": step / 3000}, step=step)
        run.summary["best"] = 0.75
    root.compact()
    return {"tokens": tokens, "run": run.id, **read(root, run.id)}


def read(root: Any, run_id: str) -> dict[str, Any]:
    """Return the values that a client reads: versions, tensors, aliases, contributions, runs, members."""
    import lmvp

    versions = [root.version(f"digits/mlp@v{number}") for number in (1, 2, 3)]
    run = lmvp.run(run_id, "digits")
    loss = run.history("loss")["loss"]
    return {
        "versions": [
            {
                "number": one.number,
                "message": one.message,
                "digest": one.digest,
                "author": one.author,
                "created": one.created_at.isoformat(),
                "metrics": dict(one.metrics),
                "params": dict(one.params),
                "tags": dict(one.tags),
            }
            for one in versions
        ],
        "tensors": {str(n): digest(root.download(f"digits/mlp@v{n}", progress=False)) for n in (1, 2, 3)},
        "fork": digest(root.download("copies/mlp@v2", progress=False)),
        "contribution": digest(root.download("digits/mlp@c1", progress=False)),
        "aliases": {one.name: one.number for one in root.aliases("digits/mlp")},
        "members": {one.name: one.role for one in root.members("digits")},
        "loss": {
            "steps": [int(step) for step in loss["step"][::500]],
            "values": [float(value) for value in loss["value"][::500]],
            "count": len(loss),
        },
        "summary": {key: run.summary[key] for key in ("best",)},
        "webhooks": [one.url for one in root.webhooks("digits")],
    }


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    # Runs and versions store the command and the machine; those of this script do not belong in the repository.
    sys.argv = ["train.py", "--lr", "0.5"]
    platform.platform, platform.node = lambda **_: "Linux", lambda: "host"
    os.chdir("/")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LMVP_HOME"] = str(folder / "home")
        (folder / "home").mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        url, data = f"http://127.0.0.1:{port}", folder / "data"
        process = start(data, port)
        from lmvp.client import Client

        token = (data / "token").read_text().strip()
        os.environ |= {"LMVP_URL": url, "LMVP_TOKEN": token}
        root = Client(url, token)
        expected = fill(root, lambda one: Client(url, one))
        root.export_model("digits/mlp", folder / "mlp.tar", progress=False)
        root.back_up(folder / "backup", progress=False)
        stop(process)
        pack(data, target / "data.tar.xz")
        pack(folder / "backup", target / "backup.tar.xz")
        with tarfile.open(target / "export.tar.xz", "w:xz") as tar:
            tar.add(folder / "mlp.tar", "mlp.tar")
        trained = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
        expected |= {"token": token, "offline": trained.stdout.strip().splitlines()[-1]}
        pack(folder / "home" / "journals", target / "journals.tar.xz")
        expected["port"] = port
        (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
