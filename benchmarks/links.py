"""Push and pull over links of several speeds, compared with a plain file transfer; and the speed of the codecs.

A small GPT is trained, then fine-tuned for ten more steps, in bf16. The benchmark pushes and pulls the first version,
an unchanged one, one with 5 % changes, and the fine-tuned one. The reference is a file of the same size, sent through
the same proxy to a server that writes and syncs it, or received from a server that reads it.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

import lmvp
from benchmarks import histories
from benchmarks.histories import State
from benchmarks.measure import Row, at_most, seconds
from benchmarks.ratio import chunks
from lmvp import local
from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_frames import Frame
from lmvp.core.codecs import Link

SPEEDS = {10: 1, 100: 3, 1000: 5}
"""Speeds of the link in Mbit/s, with the number of rounds."""

AIMS = {10: 1.1, 100: 1.1, 1000: 1.1}
SOON = 1 / 6
"""Limit for pushing a fine-tuned version, as a fraction of the time for the plain file, at 100 Mbit/s."""

_PROXY = Path(__file__).parent.parent / "tests" / "transfer" / "proxy.py"
_TRAINED, _TUNED = 40, 10


# -- the versions


def versions(width: int, layers: int) -> tuple[State, State]:
    """Return a pre-trained model and its fine-tuned version."""
    torch.manual_seed(1)
    model = histories.Gpt(width, layers)
    for _ in histories.train(model, histories.Text("library"), 1e-3, 2, _TRAINED):
        pass
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in histories.train(model, histories.Text("json"), 1e-5, 2, _TUNED):
        pass
    return before, {name: value.clone() for name, value in model.state_dict().items()}


def halved(state: State) -> State:
    """Return a state in bf16, the usual format for storage."""
    return {name: value.bfloat16() for name, value in state.items()}


def partly(before: State, after: State, share: float) -> State:
    """Return a state in which tensors with a given share of the bytes come from another state."""
    left = share * size(before)
    mixed = dict(before)
    for name, value in before.items():
        if 0 < value.nbytes <= left:
            mixed[name], left = after[name], left - value.nbytes
    return mixed


def size(state: State) -> int:
    """Return the size of all tensors in bytes."""
    return sum(value.nbytes for value in state.values())


# -- the links


class Plain:
    """A server that receives and syncs a file, or sends it.

    The protocol is one byte for the direction, eight bytes for the length, then the file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "plain"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        asked = connection.recv(1)
        if asked == b"d":
            with self._file.open("rb") as file:
                connection.sendfile(file)
            return
        left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little")
        with self._file.open("wb") as file:
            while left:
                data = connection.recv(min(left, 1 << 20))
                file.write(data)
                left -= len(data)
            os.fsync(file.fileno())
        connection.sendall(b"!")

    @staticmethod
    def up(port: int, data: bytes) -> None:
        """Send a file."""
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"u" + len(data).to_bytes(8, "little"))
            connection.sendall(data)
            connection.recv(1)

    @staticmethod
    def down(port: int) -> None:
        """Receive the file into memory."""
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"d")
            while connection.recv(1 << 20):
                pass


@contextmanager
def proxy(port: int, mbits: float) -> Iterator[int]:
    """Run a proxy with limited speed in a separate process; yield its port."""
    command = [sys.executable, str(_PROXY), str(port), str(mbits * 1e6 / 8)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        yield int(running.stdout.readline())
    finally:
        running.stdin.close()
        running.wait()


@dataclass
class Times:
    """Seconds of each kind of transfer, over several rounds."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Measure the time of a function."""
        self.seconds.setdefault(name, []).append(seconds(work))

    def ratio(self, name: str) -> float:
        """Return the median of the ratios to the plain file, round by round."""
        plain = self.seconds["plain " + name.partition(" ")[0]]
        return statistics.median(a / b for a, b in zip(self.seconds[name], plain, strict=True))


class Machine:
    """A user's machine: a client behind the link, with a separate cache."""

    def __init__(self, url: str, token: str, cache: Path) -> None:
        self._client, self._cache = lmvp.Client(url, token), str(cache)

    def push(self, model: str, state: State) -> None:
        """Push a state."""
        os.environ["LMVP_CACHE"] = self._cache
        self._client.update(model, state, progress=False)

    def pull(self, reference: str) -> None:
        """Pull a version."""
        os.environ["LMVP_CACHE"] = self._cache
        self._client.download(reference, progress=False)


def over(mbits: int, rounds: int, steps: dict[str, State], folder: Path) -> Times:
    """Measure all transfers over a link."""
    server, plain, times = local.connection(), Plain(folder), Times()
    data = b"".join(value.view(torch.uint8).numpy().tobytes() for value in steps["first"].values() if value.numel())
    with proxy(int(server.url.rpartition(":")[2]), mbits) as port, proxy(plain.port, mbits) as bare:
        for number in range(rounds):
            caches, model = folder / f"{mbits}-{number}", f"bench-{mbits}-{number}/m"  # projects share no chunks
            here, there = (Machine(f"http://127.0.0.1:{port}", server.token, caches / who) for who in ("here", "there"))
            times.measure("plain up", partial(Plain.up, bare, data))
            times.measure("plain down", partial(Plain.down, bare))
            for name, state in steps.items():
                os.sync()
                times.measure(f"up {name}", partial(here.push, model, state))
                times.measure(f"down {name}", partial(there.pull, model))
            shutil.rmtree(caches, ignore_errors=True)
    return times


# -- the codecs


def load_codecs() -> None:
    """Load the dependencies of the codecs before the measurement: numba, if installed, takes 70 MB once."""
    data = torch.randn(1 << 18).bfloat16().view(torch.uint8).numpy().tobytes()
    link = codecs.Link("0" * 64, 1)
    for base in (data, bytes(len(data))):
        found = codecs.encode_delta(data, "BF16", base, link) or codecs.encode(data, "BF16")
        head = Frame("0" * 64, len(data), len(found.payload), found.codec)
        codecs.decode(head, found.payload, lambda _, base=base: base)  # type: ignore[misc]


def codec_rows(states: dict[str, tuple[State, State]]) -> list[Row]:
    """Return the speed of each codec on one thread, and its compression ratio."""
    rows = []
    for kind, (before, after) in states.items():
        old, new = ([chunk for chunk in chunks(state) if len(chunk.data) > 1 << 18] for state in (before, after))
        for name, encode in (
            ("zstd or solo", lambda chunk, _: codecs.encode(chunk.data, chunk.dtype)),
            ("delta", lambda chunk, base: codecs.encode_delta(chunk.data, chunk.dtype, base.data, Link(base.id, 1))),
        ):
            encoded, took = [], 0.0
            for chunk, base in zip(new, old, strict=True):
                took += seconds(lambda: encoded.append(encode(chunk, base)))  # noqa: B023 - called at once
            back = sum(
                seconds(lambda: _decode(chunk, base, found))  # noqa: B023
                for chunk, base, found in zip(new, old, encoded, strict=True)
                if found
            )
            raw, left = sum(len(chunk.data) for chunk in new), sum(len(found.payload) for found in encoded if found)
            detail = f"{raw / took / 1e6:.0f} MB/s encoded, {raw / back / 1e6:.0f} decoded, one thread"
            rows.append(at_most(f"{kind}, {name}", 100 * left / raw, "% of raw", 100, detail))
    return rows


def _decode(chunk: object, base: object, found: codecs.Encoded) -> None:
    head = Frame(chunk.id, len(chunk.data), len(found.payload), found.codec)  # type: ignore[attr-defined]
    assert codecs.decode(chunk_frames.read_header(chunk_frames.header(head)), found.payload, lambda _: base.data)  # type: ignore[attr-defined]


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    load_codecs()
    before, after = versions(512, 6)
    steps = _steps(halved(before), halved(after))
    small = _steps(*(dict(list(state.items())[: len(state) // 5]) for state in (halved(before), halved(after))))
    rows = codec_rows({"bf16": (halved(before), halved(after)), "fp32": (before, after)})
    with tempfile.TemporaryDirectory() as folder:
        for mbits, rounds in SPEEDS.items():
            times = over(mbits, rounds, small if mbits < 100 else steps, Path(folder))
            rows += [_row(mbits, name, times) for name in times.seconds if not name.startswith("plain")]
    os.environ.pop("LMVP_CACHE", None)
    return rows


def _steps(before: State, after: State) -> dict[str, State]:
    """Return the states to push, in order."""
    mixed = partly(before, after, 0.05)
    return {"first": before, "unchanged": before, "5 % changed": mixed, "fine-tuned": after}


def _row(mbits: int, name: str, times: Times) -> Row:
    aim = SOON if mbits == 100 and name.endswith("fine-tuned") else AIMS[mbits]
    way = name.partition(" ")[0]
    took, plain = (statistics.median(times.seconds[one]) for one in (name, f"plain {way}"))
    detail = f"{took:.3f} s against {plain:.3f} s"
    return at_most(f"{mbits} Mbit/s, {name}", times.ratio(name), "× the file", round(aim, 3), detail)
