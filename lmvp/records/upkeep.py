"""What housekeeping answers: room, removals, proofs, backups."""

from __future__ import annotations

from datetime import datetime

from lmvp.records.values import Struct


class Removed(Struct, frozen=True, kw_only=True):
    """What was taken away: how many versions, and the bytes that came back.

    Attributes
    ----------
    until : datetime or None
        It can be brought back until then, and its bytes stay as long; None: it is gone for good.
    """

    versions: int
    bytes: int
    until: datetime | None = None


class RemovedItem(Struct, frozen=True, kw_only=True):
    """Something that was removed and can be brought back.

    Attributes
    ----------
    kind : str
        `project`, `model`, `version` or `run`.
    name : str
        As `undelete` takes it: `digits/`, `digits/mlp`, `digits/mlp@v3`, `digits/runs/` and the id of a run.
    title : str
        The name of a run.
    versions : int
        How many come back with it.
    until : datetime
        When it is deleted for good.
    """

    kind: str
    name: str
    versions: int
    removed_at: datetime
    removed_by: str
    until: datetime
    title: str = ""


class Pruned(Struct, frozen=True, kw_only=True):
    """What pruning took away, or would take away.

    Attributes
    ----------
    versions : tuple of int
        Their numbers, newest first.
    bytes : int
        Bytes that came back, or would.
    keep : str
        The rule that was applied.
    """

    versions: tuple[int, ...]
    bytes: int
    dry_run: bool = False
    keep: str = ""


class Collected(Struct, frozen=True, kw_only=True):
    """What a collection of garbage deleted: chunks that nothing needed, and bytes in all.

    Attributes
    ----------
    waiting : int
        Removed projects, models, versions and runs that can be restored, so that their bytes stay.
    until : datetime or None
        When the last of them is deleted permanently.
    decided : int
        Declined and withdrawn contributions whose files are still kept.
    decided_until : datetime or None
        When the files of the last of them are deleted.
    """

    chunks: int
    bytes: int
    waiting: int = 0
    until: datetime | None = None
    decided: int = 0
    decided_until: datetime | None = None


class Compacted(Struct, frozen=True, kw_only=True):
    """What was encoded anew: versions, chunks, and the bytes of these chunks before and after."""

    versions: int
    chunks: int
    before: int
    after: int


class UsageRow(Struct, frozen=True, kw_only=True):
    """What a project, a model or a version takes, in bytes: as it is, and as it is kept.

    Attributes
    ----------
    stored : int
        Bytes of its chunks on the disk; one that several versions share counts for the oldest of them.
    """

    name: str
    versions: int
    logical: int
    stored: int


class Usage(Struct, frozen=True, kw_only=True):
    """What takes how much room on the disk of the server, in bytes.

    Attributes
    ----------
    name : str
        The project or model that was asked for; empty for the whole server.
    rows : tuple of UsageRow
        Its parts.
    logical, stored : int
        The sums over the rows.
    disk : dict of str to int
        All files of the server or the project, by kind: `chunks`, `manifests`, `notes`, `records`, `staging`,
        `damaged`.
    total : int
        The sum of `disk`.
    """

    name: str
    rows: tuple[UsageRow, ...]
    logical: int
    stored: int
    disk: dict[str, int]
    total: int


class Problem(Struct, frozen=True, kw_only=True):
    """Something that `fsck` found: what it is, and the way out.

    Attributes
    ----------
    kind : str
        `records`, `events`, `alias`, `version` (states a wrong size), `manifest`, `chunk`, `series`, `note` or `push`.
    """

    kind: str
    what: str
    hint: str = ""


class Checked(Struct, frozen=True, kw_only=True):
    """What `fsck` proved, and what it could not.

    Attributes
    ----------
    versions, chunks, bytes : int
        What was looked at; bytes as they are when decoded.
    repaired : bool
        Whether damaged frames were set aside.
    """

    versions: int
    chunks: int
    bytes: int
    repaired: bool = False
    problems: tuple[Problem, ...] = ()


class BackupSpace(Struct, frozen=True, kw_only=True):
    """A space in a backup: `server`, or a project by its id and name; how many records and events it had."""

    space: str
    name: str
    records: int
    events: int


class Backup(Struct, frozen=True, kw_only=True):
    """A backup under way: all spaces as they were at `created_at`. It ends five minutes after its last sign of life.

    Attributes
    ----------
    server : str
        The version of LMVP that the server runs.
    """

    id: str
    created_at: datetime
    server: str
    spaces: tuple[BackupSpace, ...]
