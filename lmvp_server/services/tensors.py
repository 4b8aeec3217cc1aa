"""Reader for the tensors of a version, block by block, across chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate

from lmvp.core.codecs import Buffer
from lmvp.core.manifest import Manifest, Tensor
from lmvp.errors import IntegrityError
from lmvp_server.process import cancellation
from lmvp_server.services.chunk_reader import Decoder

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

    def __init__(self, decoder: Decoder, space: str, manifest: Manifest) -> None:
        self._decoder, self._space = decoder, space
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
            data = self._decoder.data(self._space, chunk)
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
