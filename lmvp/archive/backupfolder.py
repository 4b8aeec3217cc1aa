"""The folder of a backup: see docs/format.md, "Backups"."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from lmvp import durable, private
from lmvp.archive import disk, recordfile, seriesfile
from lmvp.archive.recordfile import RecordFile
from lmvp.archive.seriesfile import Copy
from lmvp.errors import Conflict, DamagedFile, IntegrityError, NotFound, ServerMismatch
from lmvp.records import Struct
from lmvp.storage import digest
from lmvp.storage import manifest as manifests
from lmvp.storage.check import check_manifest
from lmvp.storage.frames import CHUNK_LIMIT, HEADER_SIZE
from lmvp.storage.manifest import MANIFEST_LIMIT, Manifest

T = TypeVar("T")

KIND, FORMAT = "lmvp backup", 1
"""What a folder of a backup says that it is; a reader refuses another format."""

MARK, INDEX, LOCK = "format.json", "backup.json", "lock"
CHUNKS, MANIFESTS, NOTES, SERIES, RECORDS = "chunks", "manifests", "notes", "series", "records"
_OURS = ("records", "manifests", "notes", "series", "chunks", MARK, INDEX, LOCK, disk.PART)
SERVER = "server"
"""The space that belongs to no project."""

_JSON_LIMIT = 256 << 20
_SLICE = 1 << 20
_SPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Space(Struct, frozen=True, kw_only=True):
    """A space in a backup.

    Attributes
    ----------
    name : str
        Of the project; empty for the server.
    file, size, digest : str, int, str
        The file of its records: name below `records`, bytes, BLAKE3.
    notes : dict of str to str
        BLAKE3 of the notes, under which they lie, by the digests of their manifests.
    series : dict of str to str
        BLAKE3 of the points of runs, under which they lie, by the ids of the runs.
    versions, chunks, bytes : int
        What is in it; bytes of the chunks as they are when decoded.
    lacking : tuple of str
        Chunks, and manifests of versions, that were damaged or gone on the server and never in this backup; ids of runs
        of which points were.
    earlier_series : dict of str to str
        BLAKE3 of sound, earlier copies of points, by the ids of the runs. They are kept beside a copy in `series` that
        has a damaged log.
    """

    space: str
    name: str = ""
    file: str
    size: int
    digest: str
    records: int
    events: int
    versions: int = 0
    chunks: int = 0
    bytes: int = 0
    lacking: tuple[str, ...] = ()
    notes: dict[str, str] = msgspec.field(default_factory=dict)
    series: dict[str, str] = msgspec.field(default_factory=dict)
    earlier_series: dict[str, str] | msgspec.UnsetType = msgspec.UNSET  # unset in backups of earlier releases

    def copies_of(self, run: str) -> list[str]:
        """Return the BLAKE3 of the copies of the points of a run, the one to restore first."""
        earlier = self.earlier_series or {}
        return list(dict.fromkeys(each[run] for each in (self.series, earlier) if run in each))


class Index(Struct, frozen=True, kw_only=True):
    """`backup.json`: what the backup is of. `digest` is the BLAKE3 of its canonical JSON with an empty `digest`."""

    kind: str
    format: int
    created_at: datetime
    server: str
    spaces: tuple[Space, ...]
    digest: str = ""

    def sealed(self) -> Index:
        """Return it with its digest."""
        empty = msgspec.structs.replace(self, digest="")
        return msgspec.structs.replace(self, digest=digest.of_bytes(msgspec.json.encode(empty, order="sorted")))

    def encoded(self) -> bytes:
        """Return what stands in the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class _Head(msgspec.Struct):
    kind: Any = None
    format: int = 0


class BackupFolder:
    """Where the pieces of a backup lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.part = root / disk.PART

    @classmethod
    @contextmanager
    def open(cls, root: Path) -> Iterator[BackupFolder]:
        """Make the folder, or go on with it; nobody else does so meanwhile.

        Raises
        ------
        Conflict
            If it holds something else, or somebody is at it.
        """
        from filelock import FileLock, Timeout

        with disk.explained(root):
            cls._prepare(root)
            try:
                with FileLock(root / LOCK, timeout=0, mode=private.FILE):
                    yield cls(root)
            except Timeout:
                raise Conflict(f"another backup to {root} is under way") from None

    @classmethod
    def _prepare(cls, root: Path) -> None:
        others = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        if [name for name in others if not name.startswith(f"{MARK}.")]:
            cls.existing(root)
            private.secure(root, _OURS)
            return
        private.make_folder(root)
        private.secure(root, ())
        mark = msgspec.json.encode({"kind": KIND, "format": FORMAT})
        disk.write_whole(root / MARK, [mark], root / f"{MARK}.{secrets.token_hex(4)}")
        durable.sync_folder(root)

    @classmethod
    def existing(cls, root: Path) -> BackupFolder:
        """Return a folder that is a backup already.

        Raises
        ------
        NotFound
            If there is no folder.
        Conflict
            If it is something else.
        ServerMismatch
            If a newer LMVP made it.
        """
        if not root.is_dir():
            raise NotFound(f"there is no folder {root}")
        hint = "name an empty folder, or one that `lmvp backup FOLDER` made"
        try:
            head = msgspec.json.decode(disk.read_some(root / MARK, 1 << 16), type=_Head)
        except (NotFound, DamagedFile, msgspec.MsgspecError, UnicodeDecodeError):
            raise Conflict(f"{root} is not a backup: its {MARK} does not say so", hint=hint) from None
        if head.kind != KIND:
            raise Conflict(f"{root} is not a backup, but something else of LMVP's", hint=hint)
        if head.format != FORMAT:
            raise ServerMismatch(f"{root} has format {head.format}; this side reads {FORMAT}", hint="update lmvp")
        return cls(root)

    # -- what lies where

    def piece(self, kind: str, space: str, key: str) -> Path:
        """Return where a chunk, a manifest or a note lies."""
        return self.root / kind / space / key[:2] / key[2:]

    def pieces(self, kind: str, space: str) -> Iterator[tuple[str, Path]]:
        """Walk over the pieces that are there, by their keys."""
        for path in (self.root / kind / space).glob("??/*"):
            yield path.parent.name + path.name, path

    def put(self, path: Path, *pieces: Any) -> None:
        """Write a file, whole or not at all, and for good."""
        with disk.explained(self.root):
            disk.write_whole(path, pieces, self.part)

    # -- reading

    def index(self) -> Index:
        """Return what the backup is of.

        Raises
        ------
        NotFound
            If no backup to this folder was ever finished.
        DamagedFile
            If the file is damaged.
        """
        path = self.root / INDEX
        try:
            data = disk.read_some(path, _JSON_LIMIT)
        except NotFound:
            raise NotFound(f"no backup to {self.root} was finished", hint="do it again: it goes on") from None
        try:
            index = msgspec.json.decode(data, type=Index)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedFile(f"{path} is damaged: {error}") from None
        if index.kind == KIND and index.format != FORMAT:
            raise ServerMismatch(f"{path} has format {index.format}; this side reads {FORMAT}", hint="update lmvp")
        if data != index.encoded() or index != index.sealed() or not all(map(_is_sound, index.spaces)):
            raise DamagedFile(f"{path} is damaged: it does not match its digest")
        return index

    def records(self, space: Space) -> RecordFile:
        """Return the records of a space, proved."""
        found = recordfile.open_file(self.root / RECORDS / space.file, space.space)
        if found.digest != space.digest:
            raise DamagedFile(f"{found.path} is damaged: it is another one than {INDEX} tells of")
        return found

    def manifest(self, space: str, key: str) -> tuple[bytes, Manifest]:
        """Return a manifest, proved, and as the bytes that it is.

        Raises
        ------
        NotFound, DamagedFile
            Naming the file.
        """
        path = self.piece(MANIFESTS, space, key)
        data = disk.read_some(path, MANIFEST_LIMIT)
        return data, proved_manifest(data, key, str(path))

    def note(self, space: Space, key: str) -> bytes:
        """Return the note about a manifest, proved."""
        found = space.notes[key]
        path = self.piece(NOTES, space.space, found)
        data = disk.read_some(path, _JSON_LIMIT)
        if digest.of_bytes(data) != found:
            raise DamagedFile(f"{path} is damaged: it does not match its digest")
        return data

    def series(self, space: str, key: str) -> Iterator[bytes]:
        """Return the points of a run in pieces."""
        return _slices(self.piece(SERIES, space, key))

    def check_series(self, space: str, key: str) -> Copy:
        """Check a copy of the points of a run, down to the files in it.

        Raises
        ------
        NotFound, DamagedFile
            Naming the file.
        """
        path, hasher = self.piece(SERIES, space, key), blake3()
        for data in _slices(path):
            hasher.update(data)
        if hasher.hexdigest() != key:
            raise DamagedFile(f"{path} is damaged: it does not match its digest")
        try:
            return seriesfile.check_file(path)
        except IntegrityError as error:  # the copy of an earlier release, of a server with a damaged file
            raise DamagedFile(f"{path} is damaged: {error.message}") from None

    def frame(self, space: str, chunk: str) -> bytes:
        """Return a frame as it lies there; raises `NotFound` or `DamagedFile`."""
        return disk.read_some(self.piece(CHUNKS, space, chunk), HEADER_SIZE + CHUNK_LIMIT)


def _slices(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file that may be longer than the memory."""
    try:
        with disk.open_read(path) as file:
            while data := file.read(_SLICE):
                yield data
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None


def file_of(space: str, digest: str) -> str:
    """Return the name of the file of records of a space.

    Raises
    ------
    DamagedFile
        If the id of the space is none, and would lead elsewhere.
    """
    if not _SPACE.fullmatch(space):
        raise DamagedFile(f"{space[:80]!r} is no id of a space")
    return f"{space}.{digest[:16]}.jsonl"


def _is_sound(space: Space) -> bool:
    earlier = space.earlier_series or {}
    digests = (space.digest, *space.notes.values(), *space.series.values(), *earlier.values())
    named = all(map(_SPACE.fullmatch, (*space.series, *earlier))) and space.file == file_of(space.space, space.digest)
    return all(map(_DIGEST.fullmatch, digests)) and named


def proved_manifest(data: bytes | bytearray | memoryview, key: str, where: str) -> Manifest:
    """Hold a manifest against its digest and its rules.

    Raises
    ------
    DamagedFile
        If it does not match.
    """
    if digest.of_bytes(data) != key:
        raise DamagedFile(f"{where} is damaged: it does not match its digest")
    manifest = manifests.decode(bytes(data))
    check_manifest(manifest)
    return manifest


def versions_of(records: RecordFile) -> Iterator[str]:
    """Yield the digests of the versions of a space, oldest first."""
    for record in records.records():
        if record.table == "versions":
            found = str(record.data.get("digest"))
            if not _DIGEST.fullmatch(found):
                raise DamagedFile(f"{records.path} is damaged: the version {record.id[:80]!r} has no digest")
            yield found


def runs_of(records: RecordFile) -> Iterator[tuple[str, int]]:
    """Yield the ids of the runs of a space, and of those that were removed and can be restored.

    With each comes the number of points at the end of the run; 0 of a run that has not ended.
    """
    for record in records.records():
        if record.table == "runs" or (record.table == "removed_runs" and "removed" in record.data):
            points = record.data.get("points")
            yield record.id, points if isinstance(points, int) else 0


def is_digest(text: str) -> bool:
    """Tell whether a text is a digest, and not the id of a run."""
    return _DIGEST.fullmatch(text) is not None


def chunks_of(manifest: Manifest) -> dict[str, int]:
    """Return the sizes of the chunks of a version, by id."""
    return {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}
