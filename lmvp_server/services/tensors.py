"""Reader for the tensors of a version, verification of their digests, and measured changes between versions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec
from blake3 import blake3

from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import CHUNK_LIMIT
from lmvp.core.codecs import Buffer
from lmvp.core.layers import layer_of
from lmvp.core.manifest import Manifest, Tensor
from lmvp.core.schemas import Amount, Changes, encode_float
from lmvp.errors import IntegrityError, InvalidManifest
from lmvp_server.process import cancellation
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.chunk_reader import ChunkReader, read_manifest
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import ChunkStore, Record

BLOCK = 4 << 20
"""The maximum size of a block in bytes. It is a multiple of the size of every dtype."""

_KEPT = 2  # decoded chunks in memory: a block usually touches at most two


class TensorReader:
    """The tensors of one version.

    Parameters
    ----------
    space : str
        The id of the project.
    """

    def __init__(self, chunk_reader: ChunkReader, space: str, manifest: Manifest) -> None:
        self._chunk_reader, self._space = chunk_reader, space
        self._ids = {file.path: [chunk.id for chunk in file.chunks] for file in manifest.files}
        self._ends = {file.path: list(accumulate(chunk.size for chunk in file.chunks)) for file in manifest.files}
        self._sizes = {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}
        self._kept: OrderedDict[str, Buffer] = OrderedDict()

    def blocks(self, tensor: Tensor) -> Iterator[Buffer]:
        """Yield the bytes of a tensor, in blocks of `BLOCK` bytes and a shorter last one."""
        for start in range(0, tensor.size, BLOCK):
            yield self.read(tensor.path, tensor.offset + start, min(BLOCK, tensor.size - start))

    def some_blocks(self, tensor: Tensor, most: int) -> Iterator[Buffer]:
        """Yield at most `most` blocks of a tensor, evenly spaced and including the first one."""
        starts = range(0, tensor.size, BLOCK)
        step = max(1, -(-len(starts) // most))
        for start in starts[::step]:
            yield self.read(tensor.path, tensor.offset + start, min(BLOCK, tensor.size - start))

    def read(self, path: str, offset: int, size: int) -> Buffer:
        """Return a range of bytes of a file. The range must be inside the file."""
        cancellation.check()
        pieces = list(self._pieces(path, offset, size))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _pieces(self, path: str, offset: int, size: int) -> Iterator[memoryview]:
        ids, ends = self._ids[path], self._ends[path]
        index = bisect_right(ends, offset)
        while size:
            data = memoryview(self._chunk(ids[index]))
            start = offset - (ends[index] - len(data))
            piece = data[start : start + size]
            yield piece
            offset, size, index = offset + len(piece), size - len(piece), index + 1

    def _chunk(self, chunk: str) -> Buffer:
        """Return a decoded chunk. The last ones are cached, because small tensors share chunks."""
        if chunk not in self._kept:
            data = self._chunk_reader.data(self._space, chunk)
            if len(data) != self._sizes[chunk]:
                raise IntegrityError(
                    f"the manifest states {self._sizes[chunk]:,} bytes for the chunk {chunk[:12]}, "
                    f"which has {len(data):,}",
                    hint="`lmvp fsck` names every such version",
                )
            self._kept[chunk] = data
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(chunk)
        return self._kept[chunk]


_BYTES_TIMES, _CHUNKS_TIMES, _DIGEST_FREE = 4, 4, 64 << 20
"""Limits of reading: multiples of the bytes and chunks of a version, and bytes that are always allowed."""

_PROVED = 200_000
"""The number of verified digests that are cached, at about 100 bytes each."""


class _Place(NamedTuple):
    """A tensor with its chunks, and the position of its first byte in the first chunk."""

    tensor: Tensor
    chunks: tuple[str, ...]
    start: int

    @property
    def fact(self) -> bytes:
        """A key of the cache: the digest of the tensor's position, size, digest and chunks."""
        stated = (self.start, self.tensor.size, self.tensor.digest, self.chunks)
        return blake3(repr(stated).encode()).digest(16)


class TensorDigests:
    """Verifies the tensor digests of manifests that `check_manifest` has accepted.

    Memory is bounded: a tensor is hashed in blocks, and only the last two chunks are cached. Verified digests are
    cached by chunk, so only the chunks that differ from earlier versions are read.
    """

    def __init__(self, chunk_reader: ChunkReader) -> None:
        self._chunk_reader = chunk_reader
        self._proved: set[bytes] = set()

    def require_true(self, space: str, manifest: Manifest) -> None:
        """Verify all digests of a push.

        Raises
        ------
        InvalidManifest
            If a digest is wrong; the message names the first such tensor. Also if tensors share so many bytes that the
            verification would be too expensive.
        IntegrityError
            If a chunk is missing or damaged.
        """
        for tensor in self.false(space, manifest):
            raise InvalidManifest(
                f"the tensor {tensor.name[:80]!r} has a wrong digest",
                hint="a tensor that shares its chunk has the BLAKE3 of its bytes: see docs/format.md, Digests",
            )

    def require_stored(self, space: str, manifest: Manifest) -> None:
        """Verify all digests of a stored version, which an older server may have accepted without verification.

        Raises
        ------
        IntegrityError
            If a digest is wrong. The message names the first such tensor.
        """
        for tensor in self.false(space, manifest):
            raise IntegrityError(
                f"the tensor {tensor.name[:80]!r} has a wrong digest",
                hint="`lmvp fsck` names every such version; remove it, and push its files again",
            )

    def cost(self, manifest: Manifest) -> int:
        """Return the number of bytes to hash, without those of cached digests.

        Raises
        ------
        InvalidManifest
            If tensors share so many bytes that the verification would be too expensive.
        """
        return sum(place.tensor.size for place in _places(manifest) if place.fact not in self._proved)

    def false(self, space: str, manifest: Manifest) -> Iterator[Tensor]:
        """Yield the tensors with wrong digests. Bytes are read as the caller iterates."""
        reader: TensorReader | None = None
        for place in _places(manifest):
            fact = place.fact
            if fact in self._proved:
                continue
            reader = reader or TensorReader(self._chunk_reader, space, manifest)
            hasher = blake3()
            for block in reader.blocks(place.tensor):
                hasher.update(block)
            if hasher.hexdigest() != place.tensor.digest:
                yield place.tensor
                continue
            # Clearing all is simpler than removing the oldest. It costs a repeated verification at most.
            if len(self._proved) >= _PROVED:
                self._proved.clear()
            self._proved.add(fact)


def _places(manifest: Manifest) -> list[_Place]:
    """Return the tensors that do not fill their chunks, sorted by position, so that each chunk is read once.

    Raises
    ------
    InvalidManifest
        If tensors share so many bytes that the verification would cost far more than reading the version.
    """
    places: list[_Place] = []
    ends = {file.path: list(accumulate(chunk.size for chunk in file.chunks)) for file in manifest.files}
    ids = {file.path: [chunk.id for chunk in file.chunks] for file in manifest.files}
    # Tensors can overlap, so a small manifest could demand a large amount of hashing.
    room = _DIGEST_FREE + _BYTES_TIMES * sum(file.size for file in manifest.files)
    chunks = 2 * len(manifest.tensors) + _CHUNKS_TIMES * sum(map(len, ids.values()))
    for tensor in sorted(manifest.tensors, key=lambda one: (one.path, one.offset, one.size)):
        end, of = tensor.offset + tensor.size, ends[tensor.path]
        # `check_manifest` has verified tensors that fill their chunks.
        if not tensor.size or (_is_boundary(of, tensor.offset) and _is_boundary(of, end)):
            continue
        first, last = bisect_right(of, tensor.offset), bisect_left(of, end)
        room, chunks = room - tensor.size, chunks - (last + 1 - first)
        if room < 0 or chunks < 0:
            raise InvalidManifest(f"too many tensors share the bytes of {tensor.path!r}")
        start = tensor.offset - (of[first - 1] if first else 0)
        places.append(_Place(tensor, tuple(ids[tensor.path][first : last + 1]), start))
    return places


def _is_boundary(ends: list[int], offset: int) -> bool:
    if offset == 0:
        return True
    at = bisect_left(ends, offset)
    return at < len(ends) and ends[at] == offset


AT_ONCE = 1 << 30
"""The largest version, in bytes, that is measured within a request without a report of progress."""

AT_ONCE_TENSORS = 20_000
"""The most tensors of such a version. Each costs about 0.1 ms, however small it is."""

_COMPARISON_TIMES, _COMPARISON_FREE = 4, 64 << 20
"""A comparison reads at most `_COMPARISON_TIMES` times the bytes of both versions plus `_COMPARISON_FREE` bytes,
and skips the tensors beyond that. Tensors can overlap in a file, so 100,000 tensors of one file could otherwise
take hours."""

_REPEATED, _REPEATS = 1 << 30, 64
"""For this limit, a version has at most `_REPEATED` bytes plus `_REPEATS` times the bytes of its distinct chunks. A
file can name one chunk of 4 MiB 200,000 times, which makes 800 GB."""

Tell = Callable[[int, int], None]
"""A progress callback: the number of compared bytes, and their total."""


class TensorChanges:
    """Use cases of measured changes."""

    def __init__(self, chunks: ChunkStore, catalog: Catalog, versions: Versions, chunk_reader: ChunkReader) -> None:
        self._chunks, self._catalog, self._versions, self._chunk_reader = chunks, catalog, versions, chunk_reader

    def changes(self, caller: Caller, project: str, model: str, revision: str, against: str) -> Changes:
        """Return how much each tensor of a version changed since another one. Measure it now if it is not stored.

        Larger versions than `AT_ONCE` are measured when the server is idle, or by `measured`. Until then, the answer
        has no tensors.

        Parameters
        ----------
        against : str
            `[model]@revision` in the same project, or a bare revision of the same model.
        """
        space, new, old = self._pair(caller, project, model, revision, against)
        kept = self.kept(space, new.data["digest"], old.data["digest"])
        if kept is not None:
            return kept
        if max(new.data["size"], old.data["size"]) > AT_ONCE or self._tensors(space, new) > AT_ONCE_TENSORS:
            return Changes(against=old.data["digest"])
        return self._measured(space, new, old)

    def measured(
        self, caller: Caller, project: str, model: str, revision: str, against: str, tell: Tell = lambda *_: None
    ) -> Changes:
        """Return the result of `changes` for versions of any size, and report the progress to `tell`."""
        space, new, old = self._pair(caller, project, model, revision, against)
        return self.kept(space, new.data["digest"], old.data["digest"]) or self._measured(space, new, old, tell)

    def _tensors(self, space: str, version: Record) -> int:
        return len(manifests.decode(self._versions.manifest_bytes(space, version.data["digest"])).tensors)

    def _pair(
        self, caller: Caller, project: str, model: str, revision: str, against: str
    ) -> tuple[str, Record, Record]:
        place = self._catalog.find_model(caller, project, model)
        other, _, wanted = against.rpartition("@")  # `other` is empty for a bare revision
        before = self._catalog.find_model(caller, project, other) if other else place
        return place.space, self._versions.find(place, revision), self._versions.find(before, wanted)

    def kept(self, space: str, digest: str, against: str) -> Changes | None:
        """Return the stored measurement between two versions; None without one."""
        try:
            note = msgspec.json.decode(self._chunks.note(space, digest), type=Changes)
        except (KeyError, msgspec.DecodeError):  # a damaged note loses nothing: it is computed again
            return None
        return note if note.against == against else None

    def keep(self, space: str, digest: str, changes: Changes) -> None:
        """Store the measurement between a version and its first parent. A version has one note."""
        self._chunks.put_note(space, digest, msgspec.json.encode(changes))

    def measure(
        self,
        space: str,
        digest: str,
        against: str,
        go_on: Callable[[], bool] = lambda: True,
        tell: Tell = lambda *_: None,
    ) -> Changes | None:
        """Compare two versions tensor by tensor; return None if `go_on` returns False.

        Raises
        ------
        IntegrityError
            If bytes of either version are missing or damaged.
        """
        new, old = (read_manifest(self._chunks, space, one) for one in (digest, against))
        amounts: dict[str, Amount] = {}
        pairs = list(self._pairs(space, old, new))
        total, done = sum(after.size for _, after, _ in pairs), 0
        for before, after, readers in pairs:
            cancellation.check()
            amount = _amount(readers[0], before, readers[1], after, go_on, lambda at: tell(done + at, total))  # noqa: B023
            if amount is None:
                return None
            amounts[after.name] = amount
            done += after.size
        return Changes(against=against, tensors=amounts)

    def _measured(self, space: str, new: Record, old: Record, tell: Tell = lambda *_: None) -> Changes:
        found = self.measure(space, new.data["digest"], old.data["digest"], tell=tell)
        assert found is not None
        # The only note of a version is about its first parent, which the history and the layer strip show.
        if [parent["digest"] for parent in new.data["parents"][:1]] == [found.against]:
            self.keep(space, new.data["digest"], found)
        return found

    def _pairs(
        self, space: str, old: Manifest, new: Manifest
    ) -> Iterator[tuple[Tensor, Tensor, tuple[TensorReader, TensorReader]]]:
        """Yield the pairs of tensors with equal name, dtype and shape in each changed layer.

        The identical tensors of a changed layer are included: the amount of a layer is the sum over all its tensors.
        """
        readers = TensorReader(self._chunk_reader, space, old), TensorReader(self._chunk_reader, space, new)
        known = {tensor.name: tensor for tensor in old.tensors}
        pairs = [(known[after.name], after) for after in new.tensors if _same_form(known.get(after.name), after)]
        changed = {layer_of(after.name) for before, after in pairs if before.digest != after.digest}
        wanted = [pair for pair in pairs if layer_of(pair[1].name) in changed]
        for before, after in wanted[: affordable(wanted, old, new)]:
            yield before, after, readers


def affordable(pairs: Sequence[tuple[Tensor, Tensor]], old: Manifest, new: Manifest) -> int:
    """Return how many of the pairs of tensors, from the first one, can be compared within the limit of bytes.

    A tensor costs its bytes. If the tensor before it is in another chunk, it also costs the chunk, which must then be
    decoded for it.
    """
    sizes = [{file.path: file.size for file in manifest.files} for manifest in (old, new)]
    room = _COMPARISON_TIMES * sum(_counted(manifest) for manifest in (old, new)) + _COMPARISON_FREE
    last: tuple[tuple[str, int], ...] = (("", 0), ("", 0))  # path and chunk of the tensors before, old and new
    for number, pair in enumerate(pairs):
        places = tuple((one.path, one.offset // CHUNK_LIMIT) for one in pair)
        room -= sum(one.size for one in pair)
        for place, before, side in zip(places, last, sizes, strict=True):
            room -= min(CHUNK_LIMIT, side[place[0]]) if place != before else 0
        if room < 0:
            return number
        last = places
    return len(pairs)


def _counted(manifest: Manifest) -> int:
    """Return the size of a version in bytes, limited by the size of its distinct chunks; see `_REPEATED`."""
    distinct = {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}
    return min(manifest.size, _REPEATED + _REPEATS * sum(distinct.values()))


def _same_form(before: Tensor | None, after: Tensor) -> bool:
    return before is not None and (before.dtype, before.shape) == (after.dtype, after.shape)


def _amount(
    old: TensorReader,
    before: Tensor,
    new: TensorReader,
    after: Tensor,
    go_on: Callable[[], bool],
    tell: Callable[[int], None],
) -> Amount | None:
    """Compare two tensors block by block, so that it can stop within a large one; None if `go_on` returns False."""
    from lmvp.core.tensor_change import Change, measure  # imports numpy, which an idle server does not load

    total, done = Change(), 0
    for base, data in zip(old.blocks(before), new.blocks(after), strict=True):
        cancellation.check()
        if not go_on():
            return None
        total += measure(data, base, after.dtype)
        done += len(data)
        tell(done)
    return Amount(
        count=total.count,
        changed=total.changed,
        squares=encode_float(total.squares),
        base_squares=encode_float(total.base_squares),
        largest=encode_float(total.largest),
        after_squares=encode_float(total.after_squares),
    )
