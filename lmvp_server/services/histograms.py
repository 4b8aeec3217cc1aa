"""Histograms of the values of tensors, computed on request and cached in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import add
from typing import TYPE_CHECKING

from lmvp.core import manifest as manifests
from lmvp.core.codecs import Buffer
from lmvp.core.manifest import Manifest, Tensor
from lmvp.core.safetensors import BITS
from lmvp.core.schemas import Histogram, Histograms, encode_float
from lmvp.errors import InvalidArgument, NotFound
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog
from lmvp_server.services.chunk_reader import ChunkReader
from lmvp_server.services.tensors import TensorReader
from lmvp_server.services.versions import Versions

if TYPE_CHECKING:
    from lmvp.core.tensor_values import Spread

BINS, BINS_LIMIT = 28, 512
"""Bins of a histogram: the default and the limit."""

TENSORS_LIMIT = 64
"""Tensors of one request."""

LIMITS = f"1 to {TENSORS_LIMIT} tensors, 1 to {BINS_LIMIT} bins"
BLOCKS = 16
"""Blocks of a tensor that are read. Of a larger tensor, this many blocks are read at equal distances."""

_KEPT = 8192
"""Entries in each cache of results."""


class TensorHistograms:
    """The use case of `…/histograms`."""

    def __init__(self, catalog: Catalog, versions: Versions, chunk_reader: ChunkReader) -> None:
        self._catalog, self._versions, self._chunk_reader = catalog, versions, chunk_reader
        # Versions are immutable, so a cached value stays correct. A manifest can be large: the cache has only four.
        self._contents = lru_cache(4)(self._read_content)
        self._spread = lru_cache(_KEPT)(self._measured)
        self._counts = lru_cache(_KEPT)(self._counted)

    def of_version(
        self,
        caller: Caller,
        project: str,
        model: str,
        revision: str,
        tensors: Sequence[str],
        *,
        bins: int = BINS,
        against: str = "",
    ) -> Histograms:
        """Return histograms of tensors of a version. A tensor with packed values below 8 bits has no histogram.

        Parameters
        ----------
        tensors : sequence of str
            The names of the tensors.
        bins : int, default 28
            The number of bins of each histogram.
        against : str, default ""
            Another version, as `[model]@revision` in the same project or a bare revision of the same model. Both
            histograms of a tensor have the same bins.

        Raises
        ------
        InvalidArgument
            If too many tensors or bins are requested at once.
        NotFound
            If neither version has such a tensor.
        """
        if not 0 < len(tensors) <= TENSORS_LIMIT or not 0 < bins <= BINS_LIMIT:
            raise InvalidArgument(
                f"histograms of {len(tensors)} tensors with {bins} bins at once",
                hint=LIMITS,
            )
        place = self._catalog.find_model(caller, project, model)
        digests = [self._versions.find(place, revision).data["digest"]]
        if against:
            other, _, wanted = against.rpartition("@")
            before = self._catalog.find_model(caller, project, other) if other else place
            digests.append(self._versions.find(before, wanted).data["digest"])
        found: list[dict[str, Histogram]] = [{}, {}]
        for name in dict.fromkeys(tensors):
            for side, histogram in self._of_tensor(place.space, digests, name, bins):
                found[side][name] = histogram
        return Histograms(tensors=found[0], before=found[1])

    def _of_tensor(self, space: str, digests: Sequence[str], name: str, bins: int) -> Iterator[tuple[int, Histogram]]:
        """Yield the histograms of a tensor in each version that has it, with the index of the version."""
        sides = [side for side, digest in enumerate(digests) if name in self._contents(space, digest)[1]]
        if not sides:
            raise NotFound(f"there is no tensor {name[:200]!r} in this version")
        # Two passes over the values: the bins depend on the least and the greatest value of both versions.
        spreads = {side: spread for side in sides if (spread := self._spread(space, digests[side], name))}
        finite = [one for one in spreads.values() if one.finite]
        low, high = min((one.low for one in finite), default=0.0), max((one.high for one in finite), default=0.0)
        for side, spread in spreads.items():
            yield side, self._histogram(space, digests[side], name, spread, low, high, bins)

    def _histogram(
        self, space: str, digest: str, name: str, spread: Spread, low: float, high: float, bins: int
    ) -> Histogram:
        size = math.prod(self._contents(space, digest)[1][name].shape)
        return Histogram(
            low=encode_float(low),
            high=encode_float(high),
            counts=self._counts(space, digest, name, low, high, bins),
            count=spread.count,
            zeros=spread.zeros,
            odd=spread.odd,
            mean=encode_float(spread.mean),
            deviation=encode_float(spread.deviation),
            sampled=spread.count < size,
        )

    def _measured(self, space: str, digest: str, name: str) -> Spread | None:
        """Return the statistics of a tensor from one pass over its values; None if these are packed below 8 bits."""
        from lmvp.core.tensor_values import Spread

        dtype = self._contents(space, digest)[1][name].dtype
        if BITS[dtype] < 8:  # several values share a byte
            return None
        return sum((Spread.of(data, dtype) for data in self._blocks(space, digest, name)), Spread())

    def _counted(self, space: str, digest: str, name: str, low: float, high: float, bins: int) -> tuple[int, ...]:
        """Return the number of values in each bin between `low` and `high`."""
        from lmvp.core.tensor_values import counts

        dtype, total = self._contents(space, digest)[1][name].dtype, [0] * bins
        for data in self._blocks(space, digest, name):
            total = list(map(add, total, counts(data, dtype, low, high, bins)))
        return tuple(total)

    def _blocks(self, space: str, digest: str, name: str) -> Iterator[Buffer]:
        manifest, tensors = self._contents(space, digest)
        return TensorReader(self._chunk_reader, space, manifest).some_blocks(tensors[name], BLOCKS)

    def _read_content(self, space: str, digest: str) -> tuple[Manifest, Mapping[str, Tensor]]:
        manifest = manifests.decode(self._versions.manifest_bytes(space, digest))
        return manifest, {tensor.name: tensor for tensor in manifest.tensors}
