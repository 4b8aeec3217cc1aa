"""Backups whose client or server is killed while chunks are transferred, or whose connection is cut, at random moments.

`make soak` kills 200 times.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from process.test_backup import ADA, files_below, original, restored
from support.proxy import Proxy
from support.soak import size

import lmvp
from lmvp import errors, local
from lmvp_server.restore import restore
from lmvp_server.services import Services

KILLS, FLIPS = size("KILLS", 6), size("FLIPS", 12)
CHUNKS = 150
VERB = "import sys; from lmvp.cli import main; sys.exit(main(sys.argv[1:]))"
RNG = np.random.default_rng(11)


def fill():
    """Push a model of many chunks, most of which are in no other version."""
    for turn in range(2):
        weights = {f"w{i}": RNG.standard_normal((40, 400)).astype(("f4", "f2")[i % 2]) for i in range(CHUNKS // 2)}
        lmvp.update("digits/mlp", weights, message=f"turn {turn}", progress=False)
    with lmvp.start_run("digits", name="kept", system_metrics=False) as run:
        run.log_batch(range(2000), {"loss": np.arange(2000) / 7})


def chunks_in(folder):
    return [path for path in (folder / "chunks").glob("*/??/*") if path.is_file()]


def wait_for_chunks(folder, count, is_over):
    """Wait until so many chunks have arrived, or the transfer is over."""
    while len(chunks_in(folder)) < count and not is_over():
        time.sleep(0.002)


@pytest.fixture
def filled(home):
    fill()
    return lmvp.Client()


def unfinished(folder, data):
    """Make sure that a backup that was never finished is not taken for one."""
    with pytest.raises(errors.NotFound, match=r"no backup to .* was finished"):
        restore(folder, data)
    assert not (data / "format.json").exists()
    shutil.rmtree(data, ignore_errors=True)


@pytest.mark.soak
@pytest.mark.server_process
def test_backup_survives_kills_of_its_client_while_chunks_arrive(filled, home, tmp_path):
    chance, folder, killed = random.Random(1), tmp_path / "backup", 0
    for _ in range(KILLS):
        before = len(chunks_in(folder))
        command = [sys.executable, "-c", VERB, "backup", str(folder), "--no-progress"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        wait_for_chunks(folder, before + chance.randint(1, 12), lambda one=process: one.poll() is not None)
        process.kill()
        process.wait()
        if (folder / "backup.json").exists():  # it was quicker: begin with a new folder
            assert restored(folder, tmp_path / "data")
            shutil.rmtree(folder)
            shutil.rmtree(tmp_path / "data")
            continue
        killed += 1
        assert len(chunks_in(folder)) >= before, "what was copied stays"
        unfinished(folder, tmp_path / "data")
    assert killed > KILLS // 3
    there = len(chunks_in(folder))
    done = filled.back_up(folder, progress=False)
    assert done.kept >= there
    assert done.copied == done.chunks - done.kept, "only what was missing is sent"
    assert restored(folder, tmp_path / "data") == original(home)


@pytest.mark.soak
@pytest.mark.server_process
def test_backup_survives_kills_of_the_server_while_chunks_are_sent(filled, home, tmp_path):
    chance, killed = random.Random(2), 0
    for turn in range(max(2, KILLS // 3)):
        folder, over, done = tmp_path / f"backup{turn}", threading.Event(), []
        moments = sorted(chance.randint(1, CHUNKS - 10) for _ in range(3))  # fewer than a backup begins anew

        def kill(folder=folder, over=over, moments=moments, done=done):
            for moment in moments:
                wait_for_chunks(folder, moment, over.is_set)
                found = local.find(home)
                if not over.is_set() and found is not None:
                    os.kill(found.pid, signal.SIGKILL)
                    done.append(moment)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            result = lmvp.Client().back_up(folder, progress=False)
        finally:
            over.set()
            killer.join()
        killed += len(done)
        assert result.copied == result.chunks, "no chunk was copied twice"
        restored(folder, tmp_path / f"data{turn}")
    assert killed > 0
    expected = original(home)
    assert restored(folder, tmp_path / "again") == expected


def test_cut_connections_only_cost_time(filled, home, tmp_path):
    found = local.find(home)
    with Proxy(int(found.url.rpartition(":")[2])) as proxy:
        proxy.cut(down=200_000, times=4)
        client = lmvp.Client(proxy.url, found.token)
        done = client.back_up(tmp_path / "backup", progress=False)
        assert proxy.cuts == 0, "all of them happened"
    assert done.copied == done.chunks
    assert restored(tmp_path / "backup", tmp_path / "data") == original(home)


@pytest.mark.soak
def test_flipped_byte_of_a_backup_is_refused_by_name_and_healed(filled, home, tmp_path):
    folder, chance = tmp_path / "backup", random.Random(3)
    filled.back_up(folder, progress=False)
    for turn in range(FLIPS):
        names = sorted(name for name in files_below(folder) if name not in ("lock", "format.json"))
        kind = chance.choice(("chunks", "manifests", "records", "series", "notes", "backup.json"))
        name = chance.choice([name for name in names if name.startswith(kind)] or names)
        path, good = folder / name, (folder / name).read_bytes()
        at, bit = chance.randrange(len(good)), 1 << chance.randrange(8)
        path.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
        with pytest.raises((errors.IntegrityError, errors.DamagedFile, errors.ServerMismatch)) as raised:
            restore(folder, tmp_path / f"data{turn}")
        assert path.name in raised.value.message, name
        shutil.rmtree(tmp_path / f"data{turn}", ignore_errors=True)
        if turn % 4:
            path.write_bytes(good)
        else:
            filled.back_up(folder, progress=False)
    filled.back_up(folder, progress=False)  # the server has ended the run since, and packed what it has
    assert restored(folder, tmp_path / "data") == original(home)


def test_dead_backup_does_not_hold_deletions_for_long(tmp_path):
    services = Services.open(tmp_path / "data")
    try:
        services.backups._leases.lifetime = 0.2
        services.backups.begin(ADA)
        assert len(services.backups._open) == 1
        time.sleep(0.3)
        services.backups.forget_dead()
        assert services.backups._open == {}
        with pytest.raises(errors.NotFound, match="is under way"):
            services.backups.about(ADA, "0" * 32)
    finally:
        services.close()
