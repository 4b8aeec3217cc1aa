"""Clients and the server killed at random moments under load, with everything going on at once: pushes, compaction,
removals, collections. Nothing acknowledged is lost, and nothing is left that a collection does not reclaim.

`make soak` kills 200 times.
"""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from soak import size

import lmvp
from lmvp import local
from lmvp.errors import LmvpError

KILLS = size("KILLS", 12)

CLIENT = """
import os, random, sys, lmvp, numpy as np
who, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(seed)
weights = {f"w{i}": rng.standard_normal((256, 512)).astype("f4") for i in range(6)}
for turn in range(count):
    weights[f"w{turn % 6}"] += np.float32(1e-4) * rng.standard_normal((256, 512)).astype("f4")
    marked = {**weights, "mark": np.array([seed, turn])}
    version = lmvp.update(f"soak/{who}", marked, message=f"{seed} {turn}", progress=False)
    print("+", version.number, seed, turn, flush=True)
    if turn % 5 == 4:
        print("-", version.number - 2, flush=True)
        lmvp.Client().remove(f"soak/{who}@v{version.number - 2}", now=turn % 10 == 4)
"""


def expected(seed, turn):
    """Return what a client that began with this seed pushed at its nth turn."""
    rng = np.random.default_rng(seed)
    weights = {f"w{i}": rng.standard_normal((256, 512)).astype("f4") for i in range(6)}
    for each in range(turn + 1):
        weights[f"w{each % 6}"] += np.float32(1e-4) * rng.standard_normal((256, 512)).astype("f4")
    return {**weights, "mark": np.array([seed, turn])}


class Client:
    """A process that pushes and removes, killed now and then; remembers what it was told."""

    def __init__(self, who, log):
        self.who, self.log, self.seed = who, log, ord(who) * 1000
        self.start()

    def start(self):
        self.seed += 1
        command = [sys.executable, "-c", CLIENT, self.who, str(self.seed), "12"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def told(self):
        """Return {number: (seed, turn)} of what was acknowledged, and the numbers that were to be removed."""
        kept, removed = {}, set()
        for line in self.log.read_text().splitlines():
            words = line.split()
            if words[:1] == ["+"] and len(words) == 4:
                kept[int(words[1])] = int(words[2]), int(words[3])
            elif words[:1] == ["-"] and len(words) == 2:
                removed.add(int(words[1]))
        return {number: kept[number] for number in set(kept) - removed}


def check(client):
    versions = {version.number: version for version in lmvp.show_history(f"soak/{client.who}", limit=None)}
    told = client.told()
    assert set(told) <= set(versions)
    for number, version in versions.items():
        seed, turn = map(int, version.message.split())
        assert told.get(number, (seed, turn)) == (seed, turn)
        pulled = lmvp.download(version.reference, progress=False)
        wanted = expected(seed, turn)
        assert list(pulled) == list(wanted)
        assert all((pulled[name] == wanted[name]).all() for name in wanted)
    return len(told)


@pytest.fixture
def clients(home, tmp_path):
    lmvp.update("soak/first", {"w": np.zeros(2)}, progress=False)
    started = [Client(who, tmp_path / who) for who in ("a", "b")]
    yield started
    for client in started:
        client.kill()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(120 + 10 * KILLS)
def test_nothing_acknowledged_is_lost(home, clients):
    kills = [0, 0]
    while min(kills) < KILLS:
        time.sleep(random.uniform(0.05, 0.5))
        found = local.find(home)
        if found and kills[0] < KILLS:
            os.kill(found.pid, signal.SIGKILL)
            kills[0] += 1
        if kills[1] < KILLS:
            killed = random.choice(clients)
            killed.kill()
            killed.start()
            kills[1] += 1
        for client in clients:
            if client.process.poll() is not None:
                client.start()
        if kills[0] % 3 == 0:
            _keep_house()
    for client in clients:
        client.kill()
    acknowledged = sum(check(client) for client in clients)
    assert acknowledged > 0
    _is_clean()


def _keep_house():
    """Compact and collect in the middle of it all; the server may be killed under it."""
    try:
        client = lmvp.Client()
        client.compact()
        client.collect_garbage()
    except LmvpError:
        pass


def _is_clean():
    client = lmvp.Client()
    assert client.check().problems == ()
    for project in client.projects():
        home = local.config.data_home() / "staging" / project.id
        for push in home.glob("*"):
            os.utime(push, (0, 0))  # as if a day had passed: nobody will go on with these
    client.collect_garbage()
    usage = client.usage()
    assert usage.disk["staging"] == 0
    assert usage.stored == usage.disk["chunks"]
