"""The cache of chunks: bounded, private, shared by processes, never believed, and never a cause of failure."""

import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from lmvp import errors
from lmvp.cli import main
from lmvp.core import chunk_frames, codecs, digest
from lmvp.core.chunk_frames import DELTA, Frame
from lmvp.transfer.model_cache import Cache, Path, opened

KIB = 1 << 10


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", limit=1 << 20)


def keep(cache, data, codec=chunk_frames.RAW, payload=None):
    chunk = digest.of_bytes(data)
    payload = data if payload is None else payload
    cache.keep(Frame(chunk, len(data), len(payload), codec), [payload])
    return chunk


def path_of(cache, chunk):
    return cache.folder / "chunks" / chunk[:2] / chunk[2:]


def test_what_is_kept_is_read_again(cache):
    assert cache.read("0" * 64, 4) is None
    chunk = keep(cache, b"data")
    assert bytes(cache.read(chunk, 4)) == b"data"
    assert cache.has(chunk)


def test_frames_are_kept_as_they_came(cache):
    data = np.random.default_rng(0).standard_normal(4000).astype(np.float32).tobytes()
    encoded = codecs.encode(data, "F32")
    assert encoded.codec == chunk_frames.SOLO
    chunk = keep(cache, data, encoded.codec, encoded.payload)
    assert bytes(cache.read(chunk, len(data))) == data
    assert cache.usage().bytes == chunk_frames.HEADER_SIZE + len(encoded.payload)


def test_a_delta_is_not_kept(cache):
    assert not cache.has(keep(cache, b"x" * 100, DELTA, b"y" * 50))


@pytest.mark.parametrize("harm", [lambda d: d[:-1], lambda d: d[:-1] + b"!", lambda d: b"", lambda d: b"LF" * 60])
def test_a_damaged_chunk_is_dropped(cache, harm):
    chunk = keep(cache, b"data")
    path = path_of(cache, chunk)
    path.write_bytes(harm(path.read_bytes()))
    assert cache.read(chunk, 4) is None
    assert not path.exists()
    keep(cache, b"data")
    assert bytes(cache.read(chunk, 4)) == b"data"


def test_another_chunk_under_the_name_of_one_is_dropped(cache):
    one, other = keep(cache, b"data"), keep(cache, b"else")
    path_of(cache, one).write_bytes(path_of(cache, other).read_bytes())
    assert cache.read(one, 4) is None
    assert cache.read(other, 5) is None  # of another size than the manifest says


def test_manifests_are_kept_by_their_digest(cache):
    name = digest.of_bytes(b"{}")
    assert cache.manifest(name) is None
    cache.keep_manifest(name, b"{}")
    assert cache.manifest(name) == b"{}"
    (cache.folder / "manifests" / name[:2] / name[2:]).write_bytes(b"[]")
    assert cache.manifest(name) is None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_names_that_are_no_digests_lead_nowhere(cache, name):
    for use in (cache.has, cache.manifest, lambda name: cache.read(name, 5), lambda name: cache.note("m", name)):
        with suppress(errors.IntegrityError):
            assert not use(name)
    assert cache.versions("m") == []


def test_the_versions_of_a_model_are_remembered_newest_first(cache):
    names = [digest.of_bytes(bytes([i])) for i in range(10)]
    for name in [*names, names[5]]:
        cache.note("http://h p/m", name)
    assert cache.versions("http://h p/m")[:3] == [names[5], names[9], names[8]]
    assert len(cache.versions("http://h p/m")) == 8
    assert cache.versions("http://other p/m") == []


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = Cache(tmp_path / "cache", limit=100 * KIB)
    chunks = []
    for i in range(9):
        chunks.append(keep(cache, bytes([i]) * 10 * KIB))
        past = time.time() - 1000 + i
        os.utime(path_of(cache, chunks[-1]), (past, past))
    cache.read(chunks[0], 10 * KIB)
    for i in range(9, 12):
        keep(cache, bytes([i]) * 10 * KIB)
    assert cache.has(chunks[0])
    assert not cache.has(chunks[1])
    assert cache.usage().bytes <= 100 * KIB


def test_the_limit_holds_over_several_processes(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from lmvp.transfer.model_cache import Cache; from lmvp.core import chunk_frames, digest\n"
        "cache = Cache(Path(sys.argv[1]), 256 << 10)\n"
        "for i in range(200):\n"
        "    data = bytes([i, int(sys.argv[2])]) * 2048\n"
        "    cache.keep(chunk_frames.Frame(digest.of_bytes(data), 4096, 4096), [data])\n"
        "    found = cache.read(digest.of_bytes(data), 4096)\n"
        "    assert found is None or bytes(found) == data\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "c"), str(i)]) for i in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    cache = Cache(tmp_path / "c", 256 * KIB)
    assert 0 < cache.usage().bytes <= 1.3 * 256 * KIB
    assert not list((tmp_path / "c").rglob(".*"))


def test_threads_may_use_it_at_once(cache):
    pieces = [os.urandom(4 * KIB) for _ in range(50)]
    wrong = []

    def use():
        for data in pieces:
            found = cache.read(keep(cache, data), len(data))
            if found is not None and bytes(found) != data:
                wrong.append(data)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.usage().files == 50


def test_only_its_owner_may_look_in(cache):
    chunk = keep(cache, b"secret")
    path = path_of(cache, chunk)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (cache.folder, path.parent.parent, path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_place_that_takes_no_files_is_no_failure(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/lmvp-cache"):
        cache = Cache(Path(folder), 1 << 20)
        chunk = keep(cache, b"data")
        assert cache.read(chunk, 4) is None
        assert cache.versions("m") == []
        cache.note("m", chunk)
        assert cache.clear().bytes == 0


def test_a_full_disk_is_no_failure(cache, monkeypatch):
    def full(*_, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmvp.transfer.model_cache.atomic_write", full)
    assert cache.read(keep(cache, b"data"), 4) is None


def test_what_a_killed_process_left_goes_too(tmp_path):
    cache = Cache(tmp_path / "cache", limit=10 * KIB)
    chunk = keep(cache, b"a" * KIB)
    left = path_of(cache, chunk).with_name(".0123456789abcdef")
    left.write_bytes(b"x" * 100)
    os.utime(left, (1, 1))
    for i in range(12):
        keep(cache, bytes([i]) * KIB)
    assert not left.exists()


def test_a_chunk_beyond_the_limit_is_not_kept(tmp_path):
    cache = Cache(tmp_path / "cache", limit=100)
    assert not cache.has(keep(cache, b"x" * 200))


@pytest.mark.parametrize(("text", "size"), [("10GiB", 10 << 30), ("1.5 kb", 1500), ("7", 7), ("2T", 2 * 10**12)])
def test_limits_as_users_write_them(home, monkeypatch, text, size):
    monkeypatch.setenv("LMVP_CACHE_LIMIT", text)
    assert opened().limit == size


@pytest.mark.parametrize("text", ["much", "-1", "10 parsecs", "1e9", "٣"])
def test_a_limit_that_is_no_size(home, monkeypatch, text):
    monkeypatch.setenv("LMVP_CACHE_LIMIT", text)
    if text == "٣":  # a digit, of another script
        assert opened().limit == 3
        return
    with pytest.raises(errors.InvalidArgument, match="LMVP_CACHE_LIMIT is"):
        opened()


def test_a_limit_of_nothing_switches_it_off(home, monkeypatch):
    monkeypatch.setenv("LMVP_CACHE_LIMIT", "0")
    assert opened() is None


def test_it_lies_where_it_is_told(home, monkeypatch, tmp_path):
    assert opened().folder == home / "cache"
    monkeypatch.setenv("LMVP_CACHE", str(tmp_path / "elsewhere"))
    assert opened().folder == tmp_path / "elsewhere"


def test_the_verb_shows_and_clears_it(home, capsys, monkeypatch):
    monkeypatch.setenv("LMVP_CACHE_LIMIT", "1MB")
    keep(opened(), b"x" * 952)
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"1 kB of 1.0 MB in {home / 'cache'}\n"
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"1 file deleted, 1 kB freed in {home / 'cache'}\n"
    assert opened().usage().files == 0
    monkeypatch.setenv("LMVP_CACHE_LIMIT", "0")
    assert main(["cache"]) == 0
    assert "no cache" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"5", b"null", b"{}", b"[" * 100_000, b"\xff", b'[1, null, "v1", "../.."]'])
def test_a_damaged_list_of_versions_is_an_empty_one_and_is_written_anew(cache, data):
    cache.note("model", "a" * 64)
    [path] = (cache.folder / "models").glob("??/*")
    path.write_bytes(data)
    assert cache.versions("model") == []
    cache.note("model", "b" * 64)
    assert cache.versions("model") == ["b" * 64]
