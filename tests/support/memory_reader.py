"""A pushed version that lives in memory: a real manifest, real digests, no server."""

from lmvp import formats
from lmvp.core import digest, manifest
from lmvp.core.chunk_frames import CHUNK_LIMIT
from lmvp.core.manifest_validation import check_manifest

PIECE = 1 << 20


def read_all(file):
    """Read a packed file in uneven pieces, as a push with chunks across sources does."""
    data = bytearray()
    for source in file.sources:
        for offset in range(0, source.size, PIECE - 3):
            piece = source.read(offset, min(PIECE - 3, source.size - offset))
            assert isinstance(piece, memoryview)
            data += piece
    assert len(data) == file.size
    return bytes(data)


class MemoryReader:
    """Keeps a package as bytes and gives them back; `tampered` files replace what was pushed."""

    def __init__(self, package, tampered=None):
        self.files = {file.path: read_all(file) for file in package.files} | (tampered or {})
        package.finish()
        tensors = [
            manifest.Tensor(
                span.name,
                span.dtype,
                tuple(span.shape),
                file.path,
                span.offset,
                span.size,
                digest.of_chunks(self._chunk_ids(self.files[file.path][span.offset : span.offset + span.size])),
            )
            for file in package.files
            for span in file.tensors
        ]
        files = tuple(self._file(path, data) for path, data in self.files.items())
        self.manifest = manifest.Manifest(package.format, files, tuple(tensors), package.meta)
        assert manifest.decode(manifest.encode(self.manifest)) == self.manifest
        check_manifest(self.manifest)
        self.filled = []

    def _chunk_ids(self, data):
        return [digest.of_bytes(data[at : at + CHUNK_LIMIT]) for at in range(0, len(data), CHUNK_LIMIT)]

    def _file(self, path, data):
        ids = self._chunk_ids(data)
        sizes = [min(CHUNK_LIMIT, len(data) - at) for at in range(0, len(data), CHUNK_LIMIT)]
        chunks = tuple(manifest.Chunk(chunk, size) for chunk, size in zip(ids, sizes, strict=True))
        return manifest.File(path, len(data), digest.of_chunks(ids), chunks)

    def read(self, path):
        return self.files[path]

    def fill_all(self, targets):
        for path, buffers in targets.items():
            self.fill(path, buffers)

    def fill(self, path, targets):
        spans = {t.name: t for t in self.manifest.tensors if t.path == path}
        for name, target in targets.items():
            span = spans[name]
            assert not target.readonly
            assert target.nbytes == span.size
            assert target.format == "B"
            target[:] = self.files[path][span.offset : span.offset + span.size]
            self.filled.append(name)


def push(obj, **options):
    """Pack an object into a reader."""
    return MemoryReader(formats.pack(obj), **options)


def round_trip(obj, **options):
    """Push and pull."""
    return formats.unpack(push(obj), **options)


def content(obj):
    """Return the digest of what a push of `obj` would make."""
    return manifest.content_of(push(obj).manifest)
