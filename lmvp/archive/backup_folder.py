"""The folder of a backup on disk. See docs/format.md, "Backups"."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from lmvp.archive import backup_records, backup_series
from lmvp.archive.backup_records import RecordFile
from lmvp.archive.backup_series import Copy
from lmvp.core import digest, files
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import CHUNK_LIMIT, HEADER_SIZE
from lmvp.core.files import sync_folder
from lmvp.core.manifest import MANIFEST_LIMIT, Manifest
from lmvp.core.manifest_validation import check_manifest
from lmvp.core.schemas import Struct
from lmvp.errors import Conflict, DamagedFile, IntegrityError, NotFound, ServerMismatch

T = TypeVar("T")

KIND, FORMAT = "lmvp backup", 1
"""Type and version in `format.json` and `backup.json`; a reader refuses another version."""

MARK, INDEX, LOCK = "format.json", "backup.json", "lock"
CHUNKS, MANIFESTS, NOTES, SERIES, RECORDS = "chunks", "manifests", "notes", "series", "records"
# `private.secure` restricts the access to these files only; other files in the folder belong to the user.
_OURS = ("records", "manifests", "notes", "series", "chunks", MARK, INDEX, LOCK, files.PART)
SERVER = "server"
"""The space of the server, which belongs to no project."""

# Limit of a JSON file in memory: the index has two digests of 64 digits for each version with a note.
_JSON_LIMIT = 256 << 20
_SLICE = 1 << 20
_SPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Space(Struct, frozen=True, kw_only=True):
    """The entry of a space in the index of a backup.

    Attributes
    ----------
    name : str
        Name of the project; empty for the server.
    file, size, digest : str, int, str
        The file of records: name in `records/`, bytes, BLAKE3.
    notes : dict of str to str
        BLAKE3 of the notes, which is also the name of their file, by the digests of their manifests.
    series : dict of str to str
        BLAKE3 of the points of runs, which is also the name of their file, by the ids of the runs.
    versions, chunks, bytes : int
        Counts of versions and chunks, and bytes of the decoded chunks.
    lacking : tuple of str
        Chunks and manifests that were damaged or missing on the server and are in no earlier backup in this folder,
        and ids of runs with missing points.
    earlier_series : dict of str to str
        BLAKE3 of undamaged earlier copies of points, by the ids of the runs. They exist where the copy in `series`
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
        """Return the BLAKE3 of the copies of the points of a run, with the copy to restore first."""
        earlier = self.earlier_series or {}
        return list(dict.fromkeys(each[run] for each in (self.series, earlier) if run in each))


class Index(Struct, frozen=True, kw_only=True):
    """The content of `backup.json`. `digest` is the BLAKE3 of its canonical JSON with an empty `digest`."""

    kind: str
    format: int
    created_at: datetime
    server: str
    spaces: tuple[Space, ...]
    digest: str = ""

    def sealed(self) -> Index:
        """Return the index with its digest."""
        empty = msgspec.structs.replace(self, digest="")
        return msgspec.structs.replace(self, digest=digest.of_bytes(msgspec.json.encode(empty, order="sorted")))

    def encoded(self) -> bytes:
        """Return the content of the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class _Head(msgspec.Struct):
    kind: Any = None
    format: int = 0


class BackupFolder:
    """Paths and files of a backup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.part = root / files.PART

    @classmethod
    @contextmanager
    def open(cls, root: Path) -> Iterator[BackupFolder]:
        """Create or open the folder, and lock it while the context is active.

        Raises
        ------
        Conflict
            If the folder has other content, or another process has the lock.
        """
        from filelock import FileLock, Timeout

        with files.archive_errors(root):
            cls._prepare(root)
            try:
                with FileLock(root / LOCK, timeout=0, mode=files.FILE):
                    yield cls(root)
            except Timeout:
                raise Conflict(f"another backup to {root} is under way") from None

    @classmethod
    def _prepare(cls, root: Path) -> None:
        # `format.json.*` is left if a first backup was killed before the rename; such a folder counts as empty.
        others = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        if [name for name in others if not name.startswith(f"{MARK}.")]:
            cls.existing(root)
            files.secure(root, _OURS)
            return
        files.make_folder(root)
        files.secure(root, ())
        mark = msgspec.json.encode({"kind": KIND, "format": FORMAT})
        files.atomic_write(root / MARK, mark, temporary=root / f"{MARK}.{secrets.token_hex(4)}")
        sync_folder(root)

    @classmethod
    def existing(cls, root: Path) -> BackupFolder:
        """Open the folder of an existing backup.

        Raises
        ------
        NotFound
            If the folder does not exist.
        Conflict
            If it is not a backup.
        ServerMismatch
            If it has a newer format.
        """
        if not root.is_dir():
            raise NotFound(f"there is no folder {root}")
        hint = "name an empty folder, or one that `lmvp backup FOLDER` made"
        try:
            head = msgspec.json.decode(files.read_copy(root / MARK, 1 << 16), type=_Head)
        except (NotFound, DamagedFile, msgspec.MsgspecError, UnicodeDecodeError):
            raise Conflict(f"{root} is not a backup: its {MARK} does not say so", hint=hint) from None
        if head.kind != KIND:
            raise Conflict(f"{root} is not a backup, but something else of LMVP's", hint=hint)
        if head.format != FORMAT:
            raise ServerMismatch(f"{root} has format {head.format}; this side reads {FORMAT}", hint="update lmvp")
        return cls(root)

    # -- paths

    def piece(self, kind: str, space: str, key: str) -> Path:
        """Return the path of a chunk, manifest, note or series."""
        return self.root / kind / space / key[:2] / key[2:]

    def pieces(self, kind: str, space: str) -> Iterator[tuple[str, Path]]:
        """Yield the keys and paths of the stored pieces of a kind."""
        for path in (self.root / kind / space).glob("??/*"):
            yield path.parent.name + path.name, path

    def put(self, path: Path, *pieces: Any) -> None:
        """Write a file atomically and durably."""
        with files.archive_errors(self.root):
            files.atomic_write(path, *pieces, temporary=self.part)

    # -- reading

    def index(self) -> Index:
        """Read and verify `backup.json`.

        Raises
        ------
        NotFound
            If no backup to this folder was completed.
        DamagedFile
            If it does not match its digest.
        ServerMismatch
            If it has a newer format.
        """
        path = self.root / INDEX
        try:
            data = files.read_copy(path, _JSON_LIMIT)
        except NotFound:
            raise NotFound(f"no backup to {self.root} was finished", hint="do it again: it goes on") from None
        try:
            index = msgspec.json.decode(data, type=Index)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedFile(f"{path} is damaged: {error}") from None
        if index.kind == KIND and index.format != FORMAT:
            raise ServerMismatch(f"{path} has format {index.format}; this side reads {FORMAT}", hint="update lmvp")
        # Encode the index again and compare all bytes: the digest does not cover white space.
        if data != index.encoded() or index != index.sealed() or not all(map(_is_sound, index.spaces)):
            raise DamagedFile(f"{path} is damaged: it does not match its digest")
        return index

    def records(self, space: Space) -> RecordFile:
        """Return the verified records of a space."""
        found = backup_records.open_file(self.root / RECORDS / space.file, space.space)
        if found.digest != space.digest:
            raise DamagedFile(f"{found.path} is damaged: it is another one than {INDEX} tells of")
        return found

    def manifest(self, space: str, key: str) -> tuple[bytes, Manifest]:
        """Return a manifest as bytes and decoded, after verification.

        Raises
        ------
        NotFound, DamagedFile
            If the file is missing or damaged; the message names it.
        """
        path = self.piece(MANIFESTS, space, key)
        data = files.read_copy(path, MANIFEST_LIMIT)
        return data, verified_manifest(data, key, str(path))

    def note(self, space: Space, key: str) -> bytes:
        """Return the verified note of a manifest."""
        name = space.notes[key]
        path = self.piece(NOTES, space.space, name)
        data = files.read_copy(path, _JSON_LIMIT)
        if digest.of_bytes(data) != name:
            raise DamagedFile(f"{path} is damaged: it does not match its digest")
        return data

    def series(self, space: str, key: str) -> Iterator[bytes]:
        """Yield the points of a run in slices."""
        return _slices(self.piece(SERIES, space, key))

    def check_series(self, space: str, key: str) -> Copy:
        """Verify a copy of the points of a run, including the files in it.

        Raises
        ------
        NotFound, DamagedFile
            If the file is missing or damaged; the message names it.
        """
        path, hasher = self.piece(SERIES, space, key), blake3()
        for data in _slices(path):
            hasher.update(data)
        if hasher.hexdigest() != key:
            raise DamagedFile(f"{path} is damaged: it does not match its digest")
        try:
            return backup_series.check_file(path)
        except IntegrityError as error:  # an earlier release stored series of a damaged server unchecked
            raise DamagedFile(f"{path} is damaged: {error.message}") from None

    def frame(self, space: str, chunk: str) -> bytes:
        """Return the encoded frame of a chunk; raises `NotFound` or `DamagedFile`."""
        return files.read_copy(self.piece(CHUNKS, space, chunk), HEADER_SIZE + CHUNK_LIMIT)


def _slices(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in slices, because a series can be larger than the memory."""
    try:
        with files.open_copy(path) as file:
            while data := file.read(_SLICE):
                yield data
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None


def file_of(space: str, digest: str) -> str:
    """Return the name of the file with the records of a space.

    Raises
    ------
    DamagedFile
        If the id is invalid. It is read from a file and could otherwise lead to another folder.
    """
    if not _SPACE.fullmatch(space):
        raise DamagedFile(f"{space[:80]!r} is no id of a space")
    return f"{space}.{digest[:16]}.jsonl"


def _is_sound(space: Space) -> bool:
    earlier = space.earlier_series or {}
    digests = (space.digest, *space.notes.values(), *space.series.values(), *earlier.values())
    named = all(map(_SPACE.fullmatch, (*space.series, *earlier))) and space.file == file_of(space.space, space.digest)
    return all(map(_DIGEST.fullmatch, digests)) and named


def verified_manifest(data: bytes | bytearray | memoryview, key: str, where: str) -> Manifest:
    """Verify a manifest against its digest and the rules of the format.

    Raises
    ------
    DamagedFile
        If it does not match its digest.
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
            version = str(record.data.get("digest"))
            if not _DIGEST.fullmatch(version):
                raise DamagedFile(f"{records.path} is damaged: the version {record.id[:80]!r} has no digest")
            yield version


def count_versions(folder: BackupFolder, spaces: Iterable[Space]) -> tuple[int, int]:
    """Return the number of versions in a backup, and how many of them are in the trash.

    These are the numbers of `fsck`. Versions with the same content share one manifest, and count one each.
    """
    rows = {
        space.space: [
            _row(record) for record in folder.records(space).records() if record.table in ("versions", "removed")
        ]
        for space in spaces
    }
    removed_projects = {id_ for table, id_, _ in rows.get(SERVER, ()) if table == "removed"}
    versions = removed = 0
    for space, found in rows.items():
        removed_models = {id_ for table, id_, _ in found if table == "removed"}
        for _, _, key in (row for row in found if row[0] == "versions"):
            model, _, name = key.partition(":")
            versions += 1
            removed += space in removed_projects or name == "gone" or model in removed_models
    return versions, removed


def _row(record: Any) -> tuple[str, str, str]:
    return record.table, record.id, str(record.data.get("model", ""))


def runs_of(records: RecordFile) -> Iterator[tuple[str, int]]:
    """Yield the ids of the runs of a space, including runs in the trash, with their numbers of points.

    This is the number when the run finished, and 0 for an unfinished run.
    """
    for record in records.records():
        if record.table == "runs" or (record.table == "removed_runs" and "removed" in record.data):
            points = record.data.get("points")
            yield record.id, points if isinstance(points, int) else 0


def is_digest(text: str) -> bool:
    """Return whether a string is a digest rather than the id of a run."""
    return _DIGEST.fullmatch(text) is not None


def chunks_of(manifest: Manifest) -> dict[str, int]:
    """Return the sizes of the chunks of a version by id."""
    return {chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}
