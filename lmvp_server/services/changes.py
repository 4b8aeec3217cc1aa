"""How much the tensors of a version changed since another one: measured once, and kept beside its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from lmvp.records import Amount, Changes, encode_float
from lmvp.storage import manifest as manifests
from lmvp.storage.frames import CHUNK_LIMIT
from lmvp.storage.manifest import Manifest, Tensor
from lmvp.views.diff import layer_of
from lmvp_server import cancellation
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.decoding import Decoder, read_manifest
from lmvp_server.services.tensors import TensorReader
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import ChunkStore, Record

AT_ONCE = 1 << 30
"""Bytes of a version up to which its changes are measured while somebody waits without a word."""

AT_ONCE_TENSORS = 20_000
"""Tensors up to which the same holds: each costs about 0.1 ms, however small it is."""
_TIMES, _FREE = 4, 64 << 20
"""Tensors may share bytes, all of them, and 100,000 tensors of one file would take hours. A comparison reads as many
bytes as both versions have, so many times, and some more; tensors beyond that are not measured."""

_REPEATED, _REPEATS = 1 << 30, 64
"""A file may name one chunk 200,000 times, which makes 800 GB of 4 MiB. A version counts with at most this many bytes,
plus so many times the bytes of its distinct chunks."""

Tell = Callable[[int, int], None]
"""Told how many bytes are compared, and how many there are in all."""


class Measuring:
    """The use cases around how much changed."""

    def __init__(self, chunks: ChunkStore, catalog: Catalog, versions: Versions, decoder: Decoder) -> None:
        self._chunks, self._catalog, self._versions, self._decoder = chunks, catalog, versions, decoder

    def changes(self, caller: Caller, project: str, model: str, revision: str, against: str) -> Changes:
        """Return how much each tensor of a version changed since another one; measured now if it was not.

        What is larger than `AT_ONCE` is left to idle time, or to `measured`; until then, its tensors are not told of.

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
        """Return what `changes` does, however large the versions are, and tell how many bytes are compared."""
        space, new, old = self._pair(caller, project, model, revision, against)
        return self.kept(space, new.data["digest"], old.data["digest"]) or self._measured(space, new, old, tell)

    def _tensors(self, space: str, version: Record) -> int:
        return len(manifests.decode(self._versions.manifest_bytes(space, version.data["digest"])).tensors)

    def _pair(
        self, caller: Caller, project: str, model: str, revision: str, against: str
    ) -> tuple[str, Record, Record]:
        place = self._catalog.find_model(caller, project, model)
        other, _, wanted = against.rpartition("@")
        before = self._catalog.find_model(caller, project, other) if other else place
        return place.space, self._versions.find(place, revision), self._versions.find(before, wanted)

    def kept(self, space: str, digest: str, against: str) -> Changes | None:
        """Return what was measured before, or None."""
        try:
            note = msgspec.json.decode(self._chunks.note(space, digest), type=Changes)
        except (KeyError, msgspec.DecodeError):  # a note is worked out again, so a damaged one is no loss
            return None
        return note if note.against == against else None

    def keep(self, space: str, digest: str, changes: Changes) -> None:
        """Keep what was measured between a version and its first parent."""
        self._chunks.put_note(space, digest, msgspec.json.encode(changes))

    def measure(
        self,
        space: str,
        digest: str,
        against: str,
        go_on: Callable[[], bool] = lambda: True,
        tell: Tell = lambda *_: None,
    ) -> Changes | None:
        """Compare two versions, tensor by tensor; None if it was told to stop.

        Raises
        ------
        IntegrityError
            If bytes of either are damaged.
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
        if [parent["digest"] for parent in new.data["parents"][:1]] == [found.against]:
            self.keep(space, new.data["digest"], found)
        return found

    def _pairs(
        self, space: str, old: Manifest, new: Manifest
    ) -> Iterator[tuple[Tensor, Tensor, tuple[TensorReader, TensorReader]]]:
        """Give the tensors of equal name and form in each layer that changed, the identical ones too."""
        readers = TensorReader(self._decoder, space, old), TensorReader(self._decoder, space, new)
        known = {tensor.name: tensor for tensor in old.tensors}
        pairs = [(known[after.name], after) for after in new.tensors if _same_form(known.get(after.name), after)]
        changed = {layer_of(after.name) for before, after in pairs if before.digest != after.digest}
        wanted = [pair for pair in pairs if layer_of(pair[1].name) in changed]
        for before, after in wanted[: affordable(wanted, old, new)]:
            yield before, after, readers


def affordable(pairs: Sequence[tuple[Tensor, Tensor]], old: Manifest, new: Manifest) -> int:
    """Return how many pairs of tensors are compared, the first ones.

    A tensor costs its bytes. Where the tensor before it lies in another chunk, it also costs the chunk, which is then
    decoded for it alone.
    """
    sizes = [{file.path: file.size for file in manifest.files} for manifest in (old, new)]
    room = _TIMES * sum(_counted(manifest) for manifest in (old, new)) + _FREE
    last: tuple[tuple[str, int], ...] = (("", 0), ("", 0))
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
    """Return the bytes of a version, as far as its distinct chunks account for them."""
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
    """Compare two tensors block by block: one may be long, and whoever waits for upkeep waits for this."""
    from lmvp.storage.change import Change, measure  # needs numpy, which an idle server does without

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
