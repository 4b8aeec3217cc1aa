"""The number of requests of a transfer depends on its bytes, not on the number of its files and tensors."""

import unicodedata

import numpy as np
import pytest

import lmvp

COUNT = 1500


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for number in range(COUNT):
        (root / f"{number:05}").write_bytes(b"%d" % number)
    (root / "empty").touch()
    (root / "same").write_bytes(b"7")
    return root


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("rate", [4e6, None], ids=["slow", "fast"])
def test_folder_of_many_files_travels_in_few_requests(link, folder, tmp_path, rate, another_machine):
    link.up.rate = link.down.rate = rate
    link.client().update("small/files", folder)
    assert link.requests <= 12
    another_machine()
    link.reset()
    paths = link.client().download("small/files", to=tmp_path / "out")
    assert link.requests <= 12
    assert len(paths) == COUNT + 2
    assert files_of(tmp_path / "out") == files_of(folder)


def test_export_of_many_files_takes_few_requests(link, folder, tmp_path):
    link.client().update("small/files", folder)
    link.reset()
    link.client().export_model("small/files", tmp_path / "out")
    assert link.requests <= 12
    (files,) = (tmp_path / "out").rglob("00000")
    assert files_of(files.parent) == files_of(folder)


def test_tensors_of_many_files_fill_a_tree_in_few_requests(link, tmp_path, another_machine):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = {f"t{number}": np.full((2, 3), number, "f4") for number in range(200)}
    shards = tmp_path / "shards"  # not the folder above, to which the server of the test writes its log
    shards.mkdir()
    for name, tensor in tensors.items():
        safetensors.save_file({name: tensor}, shards / f"{name}.safetensors")
    link.client().update("small/shards", shards)
    another_machine()
    link.reset()
    half = list(tensors)[:100]  # not contiguous, so read through buffers
    into = {name: np.zeros((3, 2), "f4").T if name in half else np.zeros((2, 3), "f4") for name in tensors}
    link.client().download("small/shards", into=into)
    assert link.requests <= 12
    assert all(np.array_equal(into[name], tensor) for name, tensor in tensors.items())


def test_torch_tensors_that_are_not_contiguous_fill_in_few_requests(link, another_machine):
    """Each tensor has a chunk of its own: tensors of less than 1 MiB share one, which takes one request in any case."""
    torch = pytest.importorskip("torch")
    link.up.rate = link.down.rate = None
    tensors = {f"t{number}": torch.full((2, 140_000), float(number)) for number in range(20)}
    version = link.client().update("small/state", tensors)
    (file,) = link.client().manifest(version).files
    assert len(file.chunks) >= len(tensors)
    another_machine()
    link.reset()
    into = {name: torch.zeros(140_000, 2).T for name in tensors}
    link.client().download("small/state", into=into)
    assert link.requests <= 12
    assert all(torch.equal(into[name], tensor) for name, tensor in tensors.items())


def test_names_in_both_unicode_forms_come_back_as_they_are(home, tmp_path):
    names = [unicodedata.normalize(form, "é-ü.txt") for form in ("NFC", "NFD")]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_text(ascii(name))
    kept = sorted(path.name for path in (tmp_path / "in").iterdir())  # a disk of macOS has one file for both
    lmvp.update("forms/files", tmp_path / "in")
    lmvp.download("forms/files", to=tmp_path / "out")
    assert sorted(files_of(tmp_path / "out")) == kept
    assert files_of(tmp_path / "out") == files_of(tmp_path / "in")
