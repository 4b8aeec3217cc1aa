"""Clients and the server are killed at random moments under mixed load: pushes, removals, alias moves, points of runs,
compaction, garbage collection. No acknowledged data is lost, and garbage collection reclaims everything else.

`make soak` kills 200 times.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
from support.soak import size

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
    lmvp.alias(version.reference, "best")
    print("*", version.number, flush=True)
    if turn % 5 == 4:
        print("-", version.number - 2, flush=True)
        lmvp.Client().remove(f"soak/{who}@v{version.number - 2}", now=turn % 10 == 4)
"""

POINTS = """
import sys, requests
from lmvp import local
from lmvp.errors import LmvpError
run, step = sys.argv[1], int(sys.argv[2])
while True:
    try:
        server = local.connection()
    except LmvpError:
        continue
    try:
        answer = requests.post(
            f"{server.url}/api/v1/projects/soak/runs/{run}/metrics",
            json={"values": {"loss": step / 2}, "step": step},
            headers={"Authorization": f"Bearer {server.token}"},
            timeout=30,
        )
    except requests.RequestException:
        local.forget(server)
        continue
    if answer.status_code == 201:
        print(step, flush=True)
        step += 1
    elif answer.status_code not in (401, 503):  # a new server has another token; one that ends refuses
        sys.exit(answer.text)
    else:
        local.forget(server)
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
        """Return {number: (seed, turn)} of the versions that were acknowledged and not removed."""
        kept, removed = {}, set()
        for line in self.log.read_text().splitlines():
            words = line.split()
            if words[:1] == ["+"] and len(words) == 4:
                kept[int(words[1])] = int(words[2]), int(words[3])
            elif words[:1] == ["-"] and len(words) == 2:
                removed.add(int(words[1]))
        return {number: kept[number] for number in set(kept) - removed}


class Logger:
    """A process that adds points to a run over HTTP, killed now and then; its log has the acknowledged steps."""

    def __init__(self, log):
        self.run, self.log = secrets.token_hex(16), log
        self.log.touch()
        server = local.connection()
        headers = {"Authorization": f"Bearer {server.token}"}
        made = requests.post(
            f"{server.url}/api/v1/projects/soak/runs", json={"run": self.run}, headers=headers, timeout=30
        )
        assert made.status_code == 201, made.text
        self.start()

    def start(self):
        command = [sys.executable, "-c", POINTS, self.run, str(self.acknowledged())]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def acknowledged(self):
        """Return the number of acknowledged points: their steps are 0, 1, 2, …"""
        steps = [int(line) for line in self.log.read_text().splitlines()]
        assert steps == list(range(len(steps)))
        return len(steps)

    def check(self):
        """Compare the stored points with the acknowledged ones; return the number of the latter."""
        count = self.acknowledged()
        points = lmvp.Client().run("soak", self.run).history(["loss"])["loss"]
        # the point that was on its way at a kill may be stored, too, or be stored again by its next sender
        assert set(points["step"]) in (set(range(count)), set(range(count + 1)))
        assert (points["value"] == points["step"] / 2).all()
        return count


def check(client):
    versions = {version.number: version for version in lmvp.show_history(f"soak/{client.who}", limit=None)}
    told = client.told()
    assert set(told) <= set(versions)
    moves = [int(line[2:]) for line in client.log.read_text().splitlines() if line.startswith("*") and line[2:]]
    best = {alias.name: alias.number for alias in lmvp.Client().aliases(f"soak/{client.who}")}["best"]
    assert best >= moves[-1], "an acknowledged move of an alias is lost"
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
    started.append(Logger(tmp_path / "points"))
    yield started
    for client in started:
        client.kill()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(120 + 10 * KILLS)
@pytest.mark.server_process
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
    *pushers, logger = clients
    versions, points = sum(check(client) for client in pushers), logger.check()
    print(f"{sum(kills)} kills; {versions} versions and {points} points were acknowledged, and all are stored")
    assert versions
    assert points
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
        home = local.server_file.data_home() / "staging" / project.id
        for push in home.glob("*"):
            os.utime(push, (0, 0))  # as if a day had passed: nobody will go on with these
    client.collect_garbage()
    usage = client.usage()
    assert usage.disk["staging"] == 0
    assert usage.stored == usage.disk["chunks"]
