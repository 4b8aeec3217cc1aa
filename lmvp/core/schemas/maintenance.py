"""Responses and requests for maintenance: disk usage, trash, pruning, gc, fsck and backups."""

from __future__ import annotations

from datetime import datetime

from lmvp.core.schemas.accounts import Head
from lmvp.core.schemas.base import Request, Struct, copied, freeze_fields


class Removed(Struct, frozen=True, kw_only=True):
    """The result of a removal.

    Attributes
    ----------
    versions : int
        Number of removed versions.
    bytes : int
        Bytes that were freed; 0 as long as the object can be restored.
    until : datetime or None
        Time until which the object can be restored; its bytes stay until then. None if it was deleted permanently.
    """

    versions: int
    bytes: int
    until: datetime | None = None


class RemovedItem(Struct, frozen=True, kw_only=True):
    """An object in the trash.

    Attributes
    ----------
    kind : str
        `project`, `model`, `version` or `run`.
    name : str
        The name for `undelete`: `digits/`, `digits/mlp`, `digits/mlp@v3`, or `digits/runs/` and the id of a run.
    versions : int
        Number of versions that a restore recovers.
    removed_at : datetime
        Time of the removal.
    removed_by : str
        Name of the account that removed it.
    title : str
        Name of a run.
    until : datetime
        Time at which it is deleted permanently.
    """

    kind: str
    name: str
    versions: int
    removed_at: datetime
    removed_by: str
    until: datetime
    title: str = ""


class Pruned(Struct, frozen=True, kw_only=True):
    """The result of `prune`: the deleted versions, or with `dry_run` the versions to delete.

    Attributes
    ----------
    versions : tuple of int
        Their numbers, newest first.
    bytes : int
        Bytes that were freed, or would be.
    dry_run : bool
        Whether nothing was deleted.
    keep : str
        The retention rule that was applied.
    """

    versions: tuple[int, ...]
    bytes: int
    dry_run: bool = False
    keep: str = ""


class Collected(Struct, frozen=True, kw_only=True):
    """The result of `gc`.

    Attributes
    ----------
    chunks : int
        Number of deleted chunks.
    bytes : int
        Bytes of all deleted files.
    waiting : int
        Objects in the trash. Their bytes stay as long as they can be restored.
    until : datetime or None
        Time at which the last of them is deleted permanently.
    decided : int
        Declined and withdrawn contributions whose files are still stored.
    decided_until : datetime or None
        Time at which the files of the last of them are deleted.
    """

    chunks: int
    bytes: int
    waiting: int = 0
    until: datetime | None = None
    decided: int = 0
    decided_until: datetime | None = None


class Compacted(Struct, frozen=True, kw_only=True):
    """The result of a compaction: counts of versions and encoded chunks, and bytes of these chunks before and after."""

    versions: int
    chunks: int
    before: int
    after: int


class UsageRow(Struct, frozen=True, kw_only=True):
    """The size in bytes of a project, model or version: of its files, and stored on disk.

    Attributes
    ----------
    name : str
        Name of the project, model or version.
    versions : int
        Number of its versions.
    logical : int
        Bytes of its files.
    stored : int
        Bytes of its chunks on disk. A chunk that several versions share counts for the oldest of them.
    """

    name: str
    versions: int
    logical: int
    stored: int


class Usage(Struct, frozen=True, kw_only=True):
    """Disk usage of the server, in bytes.

    Attributes
    ----------
    name : str
        The requested project or model; empty for the whole server.
    rows : tuple of UsageRow
        The projects of the server, models of the project, or versions of the model.
    logical, stored : int
        Sums over the rows.
    disk : dict of str to int
        Bytes of all files of the server or project by kind: `chunks`, `manifests`, `notes`, `series`, `records`,
        `staging`, `damaged`.
    total : int
        The sum of `disk`.
    """

    name: str
    rows: tuple[UsageRow, ...]
    logical: int
    stored: int
    disk: dict[str, int]
    total: int

    def __post_init__(self) -> None:
        freeze_fields(self, ("disk",), copied, "a measurement")


class Problem(Struct, frozen=True, kw_only=True):
    """A problem that `fsck` found.

    Attributes
    ----------
    kind : str
        `records`, `events`, `alias`, `version` (states a wrong size), `manifest`, `chunk`, `series`, `note` or `push`.
    what : str
        Description of the damaged object.
    hint : str
        A way to repair it; empty if there is no such way.
    """

    kind: str
    what: str
    hint: str = ""


class Checked(Struct, frozen=True, kw_only=True):
    """The result of `fsck`: numbers of verified objects, and the problems.

    Attributes
    ----------
    versions, chunks, bytes : int
        Numbers of verified versions and chunks; total decoded size in bytes.
    removed : int
        The number of these versions that are in the trash.
    repaired : bool
        Whether damaged frames were set aside.
    problems : tuple of Problem
        The problems, empty if everything was verified.
    """

    versions: int
    chunks: int
    bytes: int
    removed: int = 0
    repaired: bool = False
    problems: tuple[Problem, ...] = ()


class BackupSpace(Struct, frozen=True, kw_only=True):
    """A space in a backup: `server` or the id of a project, its name, and its numbers of records and events."""

    space: str
    name: str
    records: int
    events: int


class Backup(Struct, frozen=True, kw_only=True):
    """An open backup: a snapshot of all spaces at `created_at`. It expires five minutes after the last request for it.

    Attributes
    ----------
    server : str
        Version of LMVP on the server.
    """

    id: str
    created_at: datetime
    server: str
    spaces: tuple[BackupSpace, ...]


# -- requests; unknown fields are an error


class Collect(Request, frozen=True, kw_only=True):
    """Body of `POST gc`. With `removed`, gc also deletes permanently everything in the trash."""

    removed: bool = False


class Check(Request, frozen=True, kw_only=True):
    """Body of `POST fsck`. With `repair`, damaged frames are set aside."""

    repair: bool = False
    heads: tuple[Head, ...] = ()
    """Heads of audit logs that were stored outside the server; fsck verifies that the logs still contain them."""


class WantedPieces(Request, frozen=True, kw_only=True):
    """Body of `POST backups/{backup}/{kind}/{space}`.

    Attributes
    ----------
    want : tuple of str
        Ids of chunks or digests of manifests.
    plain : bool
        Send chunks decoded, as raw frames, instead of in their stored encoding.
    """

    want: tuple[str, ...]
    plain: bool = False
