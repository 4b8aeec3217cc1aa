import json
import os
import socket
import struct
import sys

import numpy as np
import pytest
from support.memory_reader import content, push, read_all

from lmvp import formats
from lmvp.core import safetensors
from lmvp.errors import DamagedFile, FileChanged, InvalidArgument, InvalidName, MissingDependency, NotFound


def write_weights(path, tensors):
    """Write a safetensors file with one byte repeated in each tensor: name -> (dtype, shape, byte)."""
    head = safetensors.header([(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()])
    data = [bytes([byte]) * safetensors.tensor_size(dtype, shape) for dtype, shape, byte in tensors.values()]
    path.write_bytes(head + b"".join(data))
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "b.bin").write_bytes(b"b" * 5000)
    (root / ".hidden").write_bytes(b"h")
    (root / "empty").write_bytes(b"")
    (root / "sub" / "ä.txt").write_text("inner")
    (root / "B.bin").write_bytes(b"B")
    return root


def test_a_file_is_one_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    for given in (path, str(path)):
        reader = push(given)
        assert reader.files == {"notes.txt": b"hello"}
        assert (reader.manifest.format, reader.manifest.meta) == ("files", {"kind": "file"})


def test_a_folder_is_all_its_files_in_the_order_of_their_bytes(folder):
    reader = push(folder)
    assert list(reader.files) == [".hidden", "B.bin", "b.bin", "empty", "sub/ä.txt"]
    assert reader.files["b.bin"] == b"b" * 5000
    assert reader.manifest.meta == {"kind": "folder"}
    assert content(folder) == content(str(folder) + "/")


def test_an_object_is_asked_for_but_files_were_pushed(folder):
    with pytest.raises(InvalidArgument, match="this version is a folder") as error:
        formats.unpack(push(folder))
    assert "`to='folder/'`" in str(error.value)
    with pytest.raises(InvalidArgument, match=r"the file 'b\.bin'"):
        formats.unpack(push(folder / "b.bin"))
    with pytest.raises(InvalidArgument, match="did you mean `to="):
        formats.unpack(push(folder), into=folder)


def test_nothing_there(tmp_path):
    with pytest.raises(NotFound, match="no file or folder"):
        formats.pack(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="no files in the folder"):
        formats.pack(tmp_path)


def test_tensors_of_safetensors_files_are_known(tmp_path):
    path = write_weights(tmp_path / "Model.SafeTensors", {"w": ("F32", (2, 3), 0), "b": ("BOOL", (4,), 1)})
    reader = push(path)
    assert [(t.name, t.dtype, t.shape) for t in reader.manifest.tensors] == [("w", "F32", (2, 3)), ("b", "BOOL", (4,))]
    back = formats.unpack(reader)
    assert list(back) == ["w", "b"]
    assert np.array_equal(back["w"], np.zeros((2, 3), "f4"))
    assert back["b"].all()


def test_tensors_that_numpy_lacks_come_back_as_torch(tmp_path):
    torch = pytest.importorskip("torch")
    reader = push(write_weights(tmp_path / "m.safetensors", {"w": ("BF16", (2,), 0), "b": ("F32", (1,), 0)}))
    back = formats.unpack(reader)
    assert torch.equal(back["w"], torch.zeros(2, dtype=torch.bfloat16))
    assert torch.equal(back["b"], torch.zeros(1))


def test_tensors_that_numpy_lacks_need_torch(tmp_path, monkeypatch):
    reader = push(write_weights(tmp_path / "m.safetensors", {"b": ("F32", (1,), 0), "w": ("BF16", (2,), 0)}))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match="'w' is BF16") as error:
        formats.unpack(reader)
    assert "pip install torch" in str(error.value)


def test_a_file_fills_arrays_and_modules(tmp_path):
    path = write_weights(tmp_path / "m.safetensors", {"weight": ("F32", (2, 3), 0), "bias": ("F32", (2,), 0)})
    into = {"weight": np.ones((2, 3), "f4"), "bias": np.ones(2, "f4")}
    formats.unpack(push(path), into=into)
    assert not into["weight"].any()
    torch = pytest.importorskip("torch")
    net = formats.unpack(push(path), into=torch.nn.Linear(3, 2))
    assert not net.weight.any()


def test_the_same_name_in_two_files_fills_nothing(tmp_path):
    for name in ("a", "b"):
        write_weights(tmp_path / f"{name}.safetensors", {"w": ("F32", (2,), 0)})
    with pytest.raises(InvalidArgument, match=r"'w' stands in 'a\.safetensors' and in 'b\.safetensors'"):
        formats.unpack(push(tmp_path), into={"w": np.zeros(2, "f4")})


def test_a_damaged_safetensors_file_is_told_before_anything_is_pushed(folder):
    (folder / "sub" / "bad.safetensors").write_bytes(struct.pack("<Q", 1 << 50) + b"{}")
    with pytest.raises(DamagedFile, match=r"sub/bad\.safetensors is a damaged safetensors file: its header claims"):
        formats.pack(folder)
    text = json.dumps({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (folder / "sub" / "bad.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(DamagedFile, match="tensor 'w' is 12 bytes"):
        formats.pack(folder)


def test_a_file_that_changes_is_told(folder):
    for change in (
        lambda path: path.write_bytes(b"x" * 4000),
        lambda path: path.write_bytes(b"x" * 6000),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.write_bytes(b"b" * 5000)),
        lambda path: os.truncate(path, 10),
    ):
        path = folder / "b.bin"
        path.write_bytes(b"b" * 5000)
        package = formats.pack(folder)
        (file,) = [file for file in package.files if file.path == "b.bin"]
        assert read_all(file) == b"b" * 5000
        package.finish()
        change(path)
        with pytest.raises(FileChanged, match=r"b\.bin' (changed|vanished) while"):
            package.finish()
        with pytest.raises(FileChanged, match=r"b\.bin' (changed|vanished) while"):
            read_all(file)


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot in the cache of the Hugging Face Hub."""
    repository = tmp_path / "hub" / "models--org--net"
    for name in ("blobs", "snapshots/0a1b/onnx"):
        (repository / name).mkdir(parents=True)
    (repository / "blobs" / "77aa").write_bytes(b"{}")
    (repository / "snapshots" / "0a1b" / "config.json").symlink_to("../../blobs/77aa")
    (repository / "snapshots" / "0a1b" / "onnx" / "config.json").symlink_to("../../../blobs/77aa")
    return repository / "snapshots" / "0a1b"


def test_hub_snapshot_is_pushed_as_the_files_that_its_links_lead_to(snapshot):
    assert push(snapshot).files == {"config.json": b"{}", "onnx/config.json": b"{}"}
    assert push(snapshot / "onnx").files == {"config.json": b"{}"}


def test_hub_snapshot_refuses_links_out_of_its_repository(snapshot, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (snapshot / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArgument, match="leads out of the folder"):
        formats.pack(snapshot)
    (snapshot / "out").unlink()
    (snapshot.parent.parent / "blobs" / "88bb").symlink_to(tmp_path / "secret")
    (snapshot / "out").symlink_to("../../blobs/88bb")
    with pytest.raises(InvalidArgument, match="leads out of the folder"):
        formats.pack(snapshot)
    (snapshot / "out").unlink()
    other = tmp_path / "hub" / "models--org--other" / "blobs" / "99cc"
    other.parent.mkdir(parents=True)
    other.write_text("other")
    (snapshot / "out").symlink_to(other)
    with pytest.raises(InvalidArgument, match="leads out of the folder"):
        formats.pack(snapshot)


def test_name_in_unicode_form_nfd_is_kept(folder):
    (folder / "a\u0308.bin").write_bytes(b"decomposed")
    assert push(folder).files["a\u0308.bin"] == b"decomposed"


def test_links_are_followed_inside_the_folder_only(folder, tmp_path):
    (folder / "inner").symlink_to(folder / "sub")
    (folder / "alias").symlink_to("b.bin")
    assert push(folder).files["inner/ä.txt"] == b"inner"
    assert push(folder).files["alias"] == b"b" * 5000
    (folder / "inner").unlink()
    outside = tmp_path / "secret"
    outside.write_text("secret")
    (folder / "sub" / "out").symlink_to(outside)
    with pytest.raises(InvalidArgument, match=r"sub/out' leads out of the folder, to '.*/secret'"):
        formats.pack(folder)


def test_a_link_given_by_name_is_followed(folder, tmp_path):
    (tmp_path / "file").symlink_to(folder / "b.bin")
    (tmp_path / "dir").symlink_to(folder)
    assert push(tmp_path / "file").files == {"file": b"b" * 5000}
    assert content(tmp_path / "dir") == content(folder)


def test_links_that_lead_in_circles_or_nowhere(folder):
    (folder / "sub" / "up").symlink_to(folder)
    with pytest.raises(InvalidArgument, match="leads back to a folder that it lies in"):
        formats.pack(folder)
    (folder / "sub" / "up").unlink()
    (folder / "sub" / "gone").symlink_to(folder / "nothing")
    with pytest.raises(InvalidArgument, match=r"cannot read '.*gone': No such file"):
        formats.pack(folder)
    (folder / "sub" / "gone").unlink()
    (folder / "sub" / "self").symlink_to("self")
    with pytest.raises(InvalidArgument, match=r"cannot read '.*self'"):
        formats.pack(folder)


def test_what_is_no_file_is_refused(folder, monkeypatch):
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidArgument, match="pipe' is no regular file but a named pipe"):
        formats.pack(folder)
    with pytest.raises(InvalidArgument, match="named pipe"):
        formats.pack(folder / "pipe")
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)  # the path of a socket is short
        server.bind("plug")
        with pytest.raises(InvalidArgument, match="plug' is no regular file but a socket"):
            formats.pack(folder)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"\xff", "surrogate"),
        (b"a\nb", "control character"),
        (b"a\\b", "backslash"),
    ],
)
def test_names_that_do_not_travel_are_refused(folder, name, why):
    place = folder / "sub" / os.fsdecode(name)
    place.touch()
    with pytest.raises(InvalidName, match=why) as error:
        formats.pack(folder)
    assert "sub/" in str(error.value)
    str(error.value).encode()
    with pytest.raises(InvalidName, match=why):
        formats.pack(place)


def test_a_path_that_is_too_long_is_refused(folder):
    place = folder
    for _ in range(5):
        place = place / ("d" * 220)
        place.mkdir()
    (place / "f").write_text("deep")
    with pytest.raises(InvalidName, match="the limit is 1,024"):
        formats.pack(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(folder):
    (folder / "b.bin").chmod(0)
    with pytest.raises(InvalidArgument, match=r"cannot read '.*b\.bin': Permission denied"):
        formats.pack(folder)


def test_a_read_that_fails_is_told(folder, monkeypatch):
    from pathlib import Path

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidArgument, match=r"cannot read '.*b\.bin': Permission denied"):
        formats.pack(folder / "b.bin")
