"""Whatever is killed at whatever moment: what was acknowledged is there, whole, once, and in a row."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lmvp
from lmvp import local

pytestmark = pytest.mark.server_process

PUSHER = """
import sys, lmvp, numpy as np
who, count, numbers = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for i in range(count):
    weights = {"w": np.full(1000, who * 1000 + i, dtype="f4"), "big": np.random.rand(numbers).astype("f4")}
    version = lmvp.update("d/m", weights, message=f"{who}-{i}", progress=False)
    print(version.number, version.digest, flush=True)
"""


def pushers(processes, count, numbers):
    command = [sys.executable, "-c", PUSHER]
    return [
        subprocess.Popen([*command, str(who), str(count), str(numbers)], stdout=subprocess.PIPE, text=True)
        for who in range(processes)
    ]


def acknowledged(process):
    with process:
        lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    return [(int(number), digest) for number, digest in map(str.split, lines)]


def check(acked):
    """Every acknowledged version is there under its number, whole; the numbers have no gap."""
    versions = {version.number: version for version in lmvp.show_history("d/m", limit=None)}
    assert sorted(versions) == list(range(1, len(versions) + 1))
    assert {number: versions[number].digest for number, _ in acked} == dict(acked)
    for version in versions.values():
        who, turn = map(int, version.message.split("-"))
        assert (lmvp.download(version.reference, progress=False)["w"] == who * 1000 + turn).all()


def test_ten_processes_push_to_one_model_at_once(home):
    acked = [one for process in pushers(10, 20, 10) for one in acknowledged(process)]
    assert sorted(number for number, _ in acked) == list(range(1, 201))
    check(acked)


@pytest.mark.slow
def test_the_server_is_killed_again_and_again(home):
    lmvp.update("d/other", {"w": np.zeros(2)})
    running = pushers(3, 40, 400_000)
    kills = 0
    while any(process.poll() is None for process in running):
        time.sleep(random.uniform(0.2, 0.6))
        found = local.find(home)
        if found and kills < 8:
            os.kill(found.pid, signal.SIGKILL)
            kills += 1
    acked = [one for process in running for one in acknowledged(process)]
    assert kills >= 3
    assert len(acked) == 120
    check(acked)


def test_a_stopped_server_lets_a_push_finish(home):
    lmvp.update("d/other", {"w": np.zeros(2)})
    running = pushers(1, 6, 8_000_000)
    for _ in range(3):
        time.sleep(0.7)
        found = local.find(home)
        if found:
            os.kill(found.pid, signal.SIGTERM)
    check(acknowledged(running[0]))


def test_a_killed_client_has_sent_what_it_sent(home):
    weights = {f"w{i}": np.random.default_rng(i).random(2 << 20, dtype=np.float32) for i in range(24)}
    np.savez(home.parent / "weights.npz", **weights)
    lmvp.update("d/other", {"w": np.zeros(2)})
    pushed = f"dict(np.load({str(home.parent / 'weights.npz')!r}))"
    code = f"import lmvp, numpy as np; lmvp.update('d/m', {pushed}, progress=tell)"
    tell = "def tell(done, total):\n    print(done, flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", tell + code], stdout=subprocess.PIPE, text=True)
    total = sum(value.nbytes for value in weights.values())
    for line in process.stdout:
        if int(line) > 0.7 * total:  # all is hashed, which is half of the way, and about half is sent
            process.kill()
            break
    process.wait()
    process.stdout.close()
    version = lmvp.update("d/m", weights, progress=False)
    assert version.number == 1
    assert 0 < version.sent < 0.9 * total
    pulled = lmvp.download("d/m", progress=False)
    assert all((pulled[name] == value).all() for name, value in weights.items())
