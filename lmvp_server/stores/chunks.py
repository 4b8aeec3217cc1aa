"""Chunks, manifests and open pushes as files in a folder. See docs/format.md, "The data folder".

A file is written under a temporary name, synced and renamed, so what has its name is whole. Names become sure with the
sync of their folder, which is done once for all chunks of a push, in `settle`.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmvp_server.stores.base import Buffer, ChunkStore
from lmvp_server.stores.disk import disk_errors, sync_folder, write_whole

_PROJECT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PUSH = re.compile(r"[0-9a-f]{32}")


class FolderChunks(ChunkStore):
    """Keeps chunks in `<data>/chunks`, manifests in `<data>/manifests`, pushes in `<data>/staging`.

    Parameters
    ----------
    data : Path
        The data folder. One process owns it; what it left half-written when it was killed is removed here.
    """

    def __init__(self, data: Path) -> None:
        self._chunks, self._manifests, self._staging = data / "chunks", data / "manifests", data / "staging"
        self._added: Counter[Path] = Counter()
        self._synced: Counter[Path] = Counter()
        with disk_errors(data):
            for folder in (self._chunks, self._manifests, self._staging):
                folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._staging.glob("*/tmp-*"):
                leftover.unlink()

    def missing(self, project: str, ids: Iterable[str]) -> list[str]:
        """Return those of `ids` that are not there."""
        return [chunk for chunk in ids if not self._chunk(project, chunk).exists()]

    def put(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Write one frame; return its length, or 0 if it was there."""
        path = self._chunk(project, chunk)
        if path.exists():
            return 0
        self._write(path, pieces, project)
        return sum(len(piece) for piece in pieces)

    def settle(self, project: str, ids: Iterable[str]) -> None:
        """Sync the folders of these chunks, if any name in them may be new."""
        folders = {self._chunk(project, chunk).parent for chunk in ids}
        self._sync(sorted(folders))

    def get(self, project: str, chunk: str) -> bytes:
        """Read one frame."""
        return _read(self._chunk(project, chunk), chunk)

    def size(self, project: str, chunk: str) -> int:
        """Return the length of one frame."""
        try:
            return self._chunk(project, chunk).stat().st_size
        except FileNotFoundError:
            raise KeyError(chunk) from None

    def chunks(self, project: str) -> Iterator[str]:
        """Walk over the ids of all chunks of a project."""
        for path in (self._chunks / _checked(_PROJECT, project)).glob("??/*"):
            yield path.parent.name + path.name

    def put_manifest(self, project: str, digest: str, data: bytes) -> None:
        """Write a manifest and make its name sure."""
        path = _place(self._manifests, project, digest)
        if not path.exists():
            self._write(path, [data], project)
        self._sync([path.parent])

    def manifest(self, project: str, digest: str) -> bytes:
        """Read a manifest."""
        return _read(_place(self._manifests, project, digest), digest)

    def stage(self, project: str, push: str, data: bytes) -> None:
        """Write the body of an open push."""
        self._write(self._push(project, push), [data], project, sync=False)

    def staged(self, project: str, push: str) -> tuple[bytes, float]:
        """Read the body of an open push, and when it was last touched."""
        path = self._push(project, push)
        return _read(path, push), path.stat().st_mtime

    def touch(self, project: str, push: str) -> None:
        """Set the time of an open push to now."""
        self._push(project, push).touch()

    def unstage(self, project: str, push: str) -> None:
        """Remove the body of an open push."""
        self._push(project, push).unlink(missing_ok=True)

    def pushes(self, project: str) -> list[str]:
        """List the open pushes of a project."""
        folder = self._staging / _checked(_PROJECT, project)
        return sorted(path.name for path in folder.glob("*") if _PUSH.fullmatch(path.name))

    def drop(self, project: str) -> None:
        """Remove all folders of a project."""
        for folder in (self._chunks, self._manifests, self._staging):
            shutil.rmtree(folder / _checked(_PROJECT, project), ignore_errors=True)

    def _chunk(self, project: str, chunk: str) -> Path:
        return _place(self._chunks, project, chunk)

    def _push(self, project: str, push: str) -> Path:
        return self._staging / _checked(_PROJECT, project) / _checked(_PUSH, push)

    def _write(self, path: Path, pieces: Sequence[Buffer], project: str, *, sync: bool = True) -> None:
        scratch = self._staging / _checked(_PROJECT, project)
        with disk_errors(path.parent):
            try:
                write_whole(path, pieces, scratch, sync=sync)
            except FileNotFoundError:  # the first file there
                path.parent.mkdir(parents=True, exist_ok=True)
                scratch.mkdir(parents=True, exist_ok=True)
                self._note(path.parent.parent, path.parent.parent.parent)
                write_whole(path, pieces, scratch, sync=sync)
        self._note(path.parent)

    def _note(self, *folders: Path) -> None:
        """Count a name that was added to these folders; only after it was, so that no sync can overlook it."""
        self._added.update(folders)

    def _sync(self, folders: Sequence[Path]) -> None:
        """Sync folders and the two above, except where nothing was added since this process synced them last."""
        wanted = {above for leaf in folders for above in (leaf, leaf.parent, leaf.parent.parent)}
        for folder in sorted(wanted):
            added = self._added[folder]
            if folder not in self._synced or self._synced[folder] < added:
                sync_folder(folder)
                self._synced[folder] = max(added, self._synced[folder])


def _checked(rule: re.Pattern[str], name: str) -> str:
    """Guard against names that would leave the folder; services have checked them long before."""
    if not rule.fullmatch(name):
        raise KeyError(name)
    return name


def _place(root: Path, project: str, digest: str) -> Path:
    _checked(_DIGEST, digest)
    return root / _checked(_PROJECT, project) / digest[:2] / digest[2:]


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise KeyError(key) from None
