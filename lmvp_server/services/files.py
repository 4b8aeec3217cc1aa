"""Reading what a version is made of: frames for clients, files for browsers and other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmvp.errors import InvalidRequest, NotFound
from lmvp.references import suggest
from lmvp.storage import frames
from lmvp.storage.frames import Frame
from lmvp.storage.manifest import Chunk, File
from lmvp_server.services.access import Caller
from lmvp_server.services.decoding import Decoder
from lmvp_server.services.versions import Versions
from lmvp_server.stores.base import ChunkStore


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a chunk: `size` bytes from `offset` on, decoded."""

    chunk: str
    offset: int
    size: int


class Files:
    """The use cases around the bytes of a version."""

    def __init__(self, chunks: ChunkStore, versions: Versions, decoder: Decoder) -> None:
        self._chunks, self._versions, self._decoder = chunks, versions, decoder

    def wanted(self, caller: Caller, project: str, model: str, revision: str, want: Sequence[str]) -> str:
        """Check that a version has these chunks; return the space that they lie in.

        Raises
        ------
        InvalidRequest
            If a chunk is not one of this version's.
        """
        space, manifest = self._versions.content(caller, project, model, revision)
        known = {chunk.id for file in manifest.files for chunk in file.chunks}
        foreign = next((chunk for chunk in want if chunk not in known), None)
        if foreign is not None:
            raise InvalidRequest(f"the chunk {foreign[:12]!r} is not in the manifest of {project}/{model}@{revision}")
        return space

    def frame(self, space: str, chunk: str) -> bytes:
        """Return one chunk as a raw frame."""
        data = self._decoder.data(space, chunk)
        return frames.header(Frame(chunk, len(data), len(data))) + data

    def file(self, caller: Caller, project: str, model: str, revision: str, path: str) -> tuple[str, File]:
        """Return the space that a file's chunks lie in, and the file.

        Raises
        ------
        NotFound
            With the nearest path as the hint.
        """
        space, manifest = self._versions.content(caller, project, model, revision)
        found = manifest.file(path)
        if found is None:
            near = suggest(path, [file.path for file in manifest.files])
            raise NotFound(f"no file {path!r} in {project}/{model}@{revision}", hint=near and f"did you mean {near!r}?")
        return space, found

    def read(self, space: str, part: Part) -> bytes:
        """Return the bytes of a part.

        Raises
        ------
        IntegrityError
            If the frame on the disk is damaged.
        """
        return bytes(memoryview(self._decoder.data(space, part.chunk))[part.offset : part.offset + part.size])


def parts(chunks: Sequence[Chunk], start: int, end: int) -> list[Part]:
    """Return which parts of a file's chunks make up its bytes `start` to `end`.

    Examples
    --------
    >>> parts([Chunk("a", 10), Chunk("b", 10)], 5, 12)
    [Part(chunk='a', offset=5, size=5), Part(chunk='b', offset=0, size=2)]
    """
    found, position = [], 0
    for chunk in chunks:
        first, last = max(start, position), min(end, position + chunk.size)
        if first < last:
            found.append(Part(chunk.id, first - position, last - first))
        position += chunk.size
    return found
