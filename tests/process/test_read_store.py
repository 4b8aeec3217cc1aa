"""A reader that was written from docs/format.md alone reads what the server leaves on the disk."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lmvp
from lmvp import local

READER = Path(__file__).resolve().parents[2] / "examples" / "read_store.py"


def read(*words):
    return subprocess.run([sys.executable, str(READER), *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture
def store(home, tmp_path):
    """A data folder with every codec, several versions, a removed one and a snapshot; and the files of each version."""
    random = np.random.default_rng(0)
    weights = {
        "a": random.normal(0, 0.02, (300, 700)).astype("f4"),
        "h": random.normal(0, 0.02, (500, 600)).astype("f2"),
        "i": np.arange(50_000),
        "text": np.frombuffer(b"names and dates " * 9000, "u1"),
        "flag": np.array([True, False]),
    }
    for turn in range(5):
        weights["a"] += random.normal(0, 1e-6, (300, 700)).astype("f4")
        weights["h"] += random.normal(0, 1e-4, (500, 600)).astype("f2")
        lmvp.update("digits/mlp", weights, message=f"turn {turn}", metrics={"acc": float("nan")}, progress=False)
    lmvp.alias("digits/mlp@v2", "best")
    client = lmvp.Client()
    client.remove("digits/mlp@v1")
    for turn in range(24):  # so much is written of it that the server takes a snapshot of the records
        client.amend("digits/mlp@v3", params={"notes": str(turn) + "…" * 20_000})
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "noise.bin").write_bytes(random.bytes(5_000_000))
    (tmp_path / "in" / "empty").touch()
    (tmp_path / "in" / "cafe\u0301.txt").write_text("macOS stores names in the form NFD")
    lmvp.update("other/files", tmp_path / "in", progress=False)
    client.compact()
    wanted = {}
    for name in ("digits/mlp", "other/files"):
        for version in lmvp.show_history(name):
            for path in lmvp.download(version.reference, to=tmp_path / "wanted" / version.reference, progress=False):
                wanted.setdefault(version.reference, {})[path.relative_to(tmp_path / "wanted" / version.reference)] = (
                    path
                )
    local.stop(home)
    assert list(home.glob("records/projects/*.json"))
    return home, wanted


def codecs(home):
    return {path.read_bytes()[3] for path in (home / "chunks").rglob("*") if path.is_file()}


def test_it_writes_the_files_of_every_version(store, tmp_path):
    home, wanted = store
    assert codecs(home) == {0, 1, 2, 3}
    for number, (reference, files) in enumerate(wanted.items()):
        out = tmp_path / f"out{number}"
        assert read(home, reference, out).returncode == 0
        found = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert found == {name: path.read_bytes() for name, path in files.items()}


def test_it_lists_what_is_there_and_finds_aliases(store, tmp_path):
    home, _ = store
    listed = read(home).stdout
    assert "digits/mlp@v5  digits/mlp@latest  'turn 4'" in listed
    assert "digits/mlp@v2  digits/mlp@best" in listed
    assert "digits/mlp@v1" not in listed
    assert read(home, "digits/mlp@best", tmp_path / "out").returncode == 0


def test_it_refuses_a_flipped_bit(store, tmp_path):
    home, _ = store
    victim = max(
        (path for path in (home / "chunks").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    assert "bytes left over, or wrong ones" in read(home, "other/files@v1", tmp_path / "out").stderr
