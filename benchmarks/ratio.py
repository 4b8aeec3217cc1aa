"""Stored size of training histories in percent of the raw size, compared with the layouts of other systems.

Every version is pushed to a real server, which then compacts; the result is the size that `lmvp du` reports. For
comparison, the same chunks are encoded with the other layouts along the same chain: the first version standalone, each
later one against its parent, the newest standalone again. The same pass measures the cost of one step as a delta.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean

import torch
from blake3 import blake3

import lmvp
from benchmarks import histories, layouts
from benchmarks.measure import Row, at_most
from lmvp.core import (
    chunk_frames,
    chunking,
    codecs,
    safetensors,
)
from lmvp.core.chunk_frames import HEADER_SIZE, Frame

NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
STEPS = {"gpt fine-tune bf16": 10.0, "gpt fine-tune pure bf16": 1.5}
"""Maximum size of the newest version as a delta, in percent of raw. The mean of all later versions is shown too."""


@dataclass(frozen=True)
class Chunk:
    """The bytes of a chunk, and the bytes at the same place in the parent."""

    data: memoryview
    dtype: str
    place: int

    @property
    def id(self) -> str:
        """The digest of the chunk."""
        return blake3(self.data).hexdigest()


def chunks(state: histories.State) -> list[Chunk]:
    """Split a version into chunks, as a push does."""
    spans, pieces, offset = [], [], 0
    for name, value in state.items():
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        spans.append(safetensors.Span(name, NAMES[value.dtype], tuple(value.shape), offset, len(data)))
        pieces.append(data)
        offset += len(data)
    whole = memoryview(b"".join(pieces))
    dtypes = {place: span.dtype for span in spans for place in range(span.offset, span.offset + span.size, 1 << 22)}
    return [
        Chunk(whole[cut.offset : cut.offset + cut.size], dtypes[cut.offset], cut.offset)
        for cut in chunking.cut(offset, spans)
    ]


@dataclass
class Kept:
    """Stored sizes of a history in bytes: on the server (`ours`), and with the other layouts.

    `steps` contains, for each version after the first, its size as deltas and its raw size.
    """

    raw: int = 0
    ours: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=lambda: dict.fromkeys(layouts.LAYOUTS, 0))

    def percent(self, size: int) -> float:
        """Return a size in percent of raw."""
        return 100 * size / self.raw


class Chain:
    """Encodes the versions of a history one after the other; chunks that are already stored cost nothing."""

    def __init__(self) -> None:
        self.kept = Kept()
        self._depths: dict[str, int] = {}
        self._parent: dict[int, Chunk] = {}

    def add(self, version: list[Chunk], *, newest: bool) -> None:
        """Add one more version; the newest is also encoded as a delta, to measure the cost of the step."""
        raw = sum(len(chunk.data) for chunk in version)
        step = sum(
            self._keep(chunk, self._parent.get(chunk.place), newest)
            for chunk in version
            if chunk.id not in self._depths
        )
        self.kept.raw += raw
        if self._parent:
            self.kept.steps.append((step, raw))
        self._parent = {chunk.place: chunk for chunk in version}

    def _keep(self, chunk: Chunk, parent: Chunk | None, newest: bool) -> int:
        """Return the stored size of a chunk in LMVP; add its size in the other layouts."""
        self._depths[chunk.id], size = self._delta(chunk, parent)
        for name, layout in layouts.LAYOUTS.items():
            base = None if parent is None or newest else parent.data
            self.kept.others[name] += HEADER_SIZE + layout(chunk.data, base, chunk.dtype)
        return size

    def _delta(self, chunk: Chunk, parent: Chunk | None) -> tuple[int, int]:
        """Return depth and size of a chunk as a delta if that is smaller, otherwise standalone."""
        depth = 1 + (self._depths[parent.id] if parent else codecs.DEPTH_LIMIT)
        size = self._code(chunk, parent, depth) if parent and depth <= codecs.DEPTH_LIMIT else 0
        return (depth, size) if size else (0, self._code(chunk, None, 0))

    def _code(self, chunk: Chunk, parent: Chunk | None, depth: int) -> int:
        """Return the size of the frame, or 0 without a delta; decode it to verify the codec."""
        if parent is None:
            coded = codecs.encode(chunk.data, chunk.dtype)
        else:
            found = codecs.encode_delta(chunk.data, chunk.dtype, parent.data, codecs.Link(parent.id, depth))
            if found is None:
                return 0
            coded = found
        frame = chunk_frames.read_header(
            chunk_frames.header(Frame(chunk.id, len(chunk.data), len(coded.payload), coded.codec))
        )
        decoded = codecs.decode(frame, coded.payload, lambda _: parent.data if parent else b"")
        assert decoded == chunk.data, "not what was encoded"
        return HEADER_SIZE + len(coded.payload)


def keep(history: histories.History) -> Kept:
    """Push all versions of a history to the server, and encode them with the other layouts."""
    chain, project = Chain(), history.name.replace(" ", "-")
    for state, newest in _marked(history):
        lmvp.update(f"{project}/model", state, progress=False)
        chain.add(chunks(state), newest=newest)
    chain.kept.ours = _stored(project)
    return chain.kept


def _stored(project: str) -> int:
    """Return the stored size of a project on the server after compaction and fsck."""
    client = lmvp.Client()
    client.compact()
    assert client.check().problems == (), "the server lost something"
    return client.usage(f"{project}/").disk["chunks"]


def _marked(history: histories.History) -> Iterator[tuple[histories.State, bool]]:
    """Yield each version, and whether it is the last."""
    before: histories.State = {}
    for state in history.versions():
        if before:
            yield before, False
        before = {name: value.detach().clone() for name, value in state.items()}
    yield before, True


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    kept = {history.name: keep(history) for history in histories.ALL}
    rows = [_history(name, each) for name, each in kept.items()]
    rows += [_step(name, kept[name], limit) for name, limit in STEPS.items()]
    total = Kept(raw=sum(each.raw for each in kept.values()), ours=sum(each.ours for each in kept.values()))
    for name in layouts.LAYOUTS:
        total.others[name] = sum(each.others[name] for each in kept.values())
    rows.append(at_most("all histories", total.percent(total.ours), "% of raw", 50, _others(total)))
    rows.append(at_most("all histories against BitX", total.ours / total.others["BitX"], "× BitX", 0.95))
    return rows


def _history(name: str, kept: Kept) -> Row:
    return at_most(name, kept.percent(kept.ours), "% of raw", kept.percent(kept.others["BitX"]), _others(kept))


def _others(kept: Kept) -> str:
    return ", ".join(f"{name} {kept.percent(size):.1f}" for name, size in kept.others.items())


def _step(name: str, kept: Kept, limit: float) -> Row:
    percents = [100 * size / raw for size, raw in kept.steps]
    return at_most(f"newest step of {name}", percents[-1], "% of raw", limit, f"mean of all {mean(percents):.1f}")
