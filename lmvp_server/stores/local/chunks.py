"""Chunk store in a folder: chunks, manifests, notes and open pushes as files. See docs/format.md, "The data folder".

A file is written under a temporary name, synced and renamed, so a file with its final name is complete. The name
becomes durable when its folder is synced; `settle` does this once for all chunks of a push. Records are deleted before
the files that they reference, so a crash leaves only unreferenced files, which the next gc deletes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Condition, Lock

from blake3 import blake3

from lmvp.core import files
from lmvp.core.files import atomic_write, disk_errors, sync_folder
from lmvp.errors import IntegrityError
from lmvp_server.stores.base import Buffer, ChunkStore


class SharedLock:
    """A lock with shared and exclusive mode. A thread that waits for exclusive mode blocks new sharers.

    Examples
    --------
    >>> lock = SharedLock()
    >>> with lock.shared(), lock.shared():
    ...     pass
    >>> with lock.alone():
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._sharing = 0
        self._waiting = 0
        self._taken = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock shared.

        Do not nest it in the same thread: a waiting exclusive holder would cause a deadlock.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._taken and not self._waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock exclusively."""
        with self._changed:
            # Blocks new sharers, so that a constant stream of them cannot starve this thread.
            self._waiting += 1
            self._changed.wait_for(lambda: not self._taken and not self._sharing)
            self._waiting -= 1
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


_PROJECT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PUSH = re.compile(r"[0-9a-f]{32}")


class FolderChunks(ChunkStore):
    """A `ChunkStore` in a data folder. `chunks`, `manifests`, `notes`, `staging` and `damaged` have a folder each.

    Parameters
    ----------
    data : Path
        The data folder. One process owns it. The constructor removes temporary files that a killed process left.
    """

    def __init__(self, data: Path) -> None:
        self._chunks, self._manifests, self._staging = data / "chunks", data / "manifests", data / "staging"
        self._notes, self._damaged = data / "notes", data / "damaged"
        # Names added to each folder, and their number when this process synced the folder last: see `_sync`.
        self._added: Counter[Path] = Counter()
        self._synced: Counter[Path] = Counter()
        self._locks: dict[str, SharedLock] = {}
        self._lock, self._naming = Lock(), Lock()
        with disk_errors(data):
            for folder in (self._chunks, self._manifests, self._staging):
                files.make_folder(folder)
            for leftover in self._staging.glob("*/tmp-*"):
                leftover.unlink()

    def missing(self, project: str, ids: Iterable[str]) -> list[str]:
        """Return those of `ids` that do not exist."""
        return [chunk for chunk in ids if not self._chunk(project, chunk).exists()]

    def put(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Write one frame. Return its length, or 0 if the chunk existed."""
        path = self._chunk(project, chunk)
        if path.exists():
            return 0
        added: list[bool] = []  # one entry for each rename; `_write` renames a second time only if the first one failed
        self._write(path, pieces, project, rename=lambda *names: added.append(self._name_if_new(*names)))
        return sum(len(piece) for piece in pieces) if added[-1] else 0

    def _name_if_new(self, temporary: Path, target: Path) -> bool:
        """Rename a file unless another push was first, so that only one push counts the chunk as added."""
        with self._naming:
            if target.exists():
                temporary.unlink()
                return False
            temporary.replace(target)
        return True

    def settle(self, project: str, ids: Iterable[str]) -> None:
        """Sync the folders of these chunks, if names were added to them since the last sync."""
        folders = {self._chunk(project, chunk).parent for chunk in ids}
        self._sync(sorted(folders))

    def get(self, project: str, chunk: str) -> bytes:
        """Read one frame."""
        return _read(self._chunk(project, chunk), chunk)

    def size(self, project: str, chunk: str) -> int:
        """Return the length of one frame."""
        try:
            return self._chunk(project, chunk).lstat().st_size
        except FileNotFoundError:
            raise KeyError(chunk) from None

    def start(self, project: str, chunk: str, size: int) -> bytes:
        """Read the first bytes of one frame."""
        try:
            with files.open_read(self._chunk(project, chunk), buffering=0) as file:
                return file.read(size)
        except FileNotFoundError:
            raise KeyError(chunk) from None

    def chunks(self, project: str) -> Iterator[str]:
        """Iterate over the ids of all chunks of a project."""
        return _names(self._chunks / _checked(_PROJECT, project))

    def replace(self, project: str, chunk: str, pieces: Sequence[Buffer]) -> int:
        """Replace one frame."""
        path = self._chunk(project, chunk)
        if not path.exists():
            raise KeyError(chunk)
        self._write(path, pieces, project)
        self._sync([path.parent])
        return sum(len(piece) for piece in pieces)

    def remove(self, project: str, ids: Iterable[str]) -> int:
        """Unlink chunks."""
        return sum(_unlink(self._chunk(project, chunk)) for chunk in ids)

    def adopt(self, project: str, source: str, chunk: str) -> None:
        """Hard-link another project's frame; copy it if the file system refuses the link."""
        theirs, ours = self._chunk(source, chunk), self._chunk(project, chunk)
        with disk_errors(ours.parent):
            files.make_folder(ours.parent)
            try:
                _link(theirs, ours)
            except FileExistsError:
                return
            except FileNotFoundError:
                raise KeyError(chunk) from None
            except OSError:  # another disk, too many links, or a file system without hard links
                self.put(project, chunk, [self.get(source, chunk)])
                return
        self._count_names(ours.parent, ours.parent.parent, ours.parent.parent.parent)

    def sharers(self, project: str, chunk: str, others: Iterable[str]) -> list[str]:
        """Compare inodes: a shared frame is one file with several hard links."""
        try:
            ours = self._chunk(project, chunk).lstat()
        except FileNotFoundError:
            return []
        found: list[str] = []
        for other in others if ours.st_nlink > 1 else ():
            with suppress(FileNotFoundError):
                if other != project and os.path.samestat(ours, self._chunk(other, chunk).lstat()):
                    found.append(other)
            # All links are found. This stops early when a server has many projects.
            if len(found) == ours.st_nlink - 1:
                break
        return found

    def share(self, project: str, source: str, chunk: str) -> None:
        """Replace the frame with a hard link to another project's frame; copy it if a link is not possible."""
        theirs, ours = self._chunk(source, chunk), self._chunk(project, chunk)
        if not ours.exists():
            raise KeyError(chunk)
        scratch = self._staging / _checked(_PROJECT, project)
        temporary = scratch / f"tmp-{secrets.token_hex(12)}"
        with disk_errors(ours.parent):
            files.make_folder(scratch)
            try:
                _link(theirs, temporary)
                temporary.replace(ours)
            except FileNotFoundError:
                raise KeyError(chunk) from None
            except OSError:  # too many links, or a file system without hard links
                self.replace(project, chunk, [self.get(source, chunk)])
                return
            finally:
                temporary.unlink(missing_ok=True)  # rename() does nothing if both names are links to the same file
        self._count_names(ours.parent)
        self._sync([ours.parent])

    def set_aside(self, project: str, chunk: str) -> None:
        """Move a frame to `<data>/damaged`, under an unused name."""
        path, folder = self._chunk(project, chunk), self._damaged / _checked(_PROJECT, project)
        with disk_errors(folder):
            files.make_folder(folder)
            path.replace(folder / f"{chunk}-{len(list(folder.glob(chunk + '*')))}")
        self._count_names(path.parent, folder)
        self._sync([path.parent])

    def shared_lock(self, project: str) -> AbstractContextManager[None]:
        """Hold the lock of the project, shared with others."""
        return self._lock_of(project).shared()

    def exclusive_lock(self, project: str) -> AbstractContextManager[None]:
        """Hold the lock of the project exclusively."""
        return self._lock_of(project).alone()

    def manifests(self, project: str) -> Iterator[str]:
        """Iterate over the digests of all manifests of a project."""
        return _names(self._manifests / _checked(_PROJECT, project))

    def remove_manifests(self, project: str, digests: Iterable[str]) -> int:
        """Delete manifests with their notes."""
        places = [_place(root, project, digest) for digest in digests for root in (self._notes, self._manifests)]
        return sum(map(_unlink, places))

    def put_note(self, project: str, digest: str, data: bytes) -> None:
        """Write a note."""
        self._write(_place(self._notes, project, digest), _sealed(data), project)

    def notes(self, project: str) -> Iterator[str]:
        """Iterate over the digests of manifests that have a note."""
        return _names(self._notes / _checked(_PROJECT, project))

    def note(self, project: str, digest: str) -> bytes:
        """Read a note."""
        return _opened(_read_sealed(_place(self._notes, project, digest), digest), digest)

    def usage(self, project: str, others: Iterable[str] = ()) -> Mapping[str, int]:
        """Add up the sizes of all files of a project, without chunks that are shared with one of `others`."""
        kinds = {
            "chunks": self._chunks,
            "manifests": self._manifests,
            "notes": self._notes,
            "staging": self._staging,
            "damaged": self._damaged,
        }
        found = {kind: _bytes_below(root / _checked(_PROJECT, project)) for kind, root in kinds.items()}
        others = [other for other in others if other != project]
        for chunk in self.chunks(project) if others else ():
            if self.sharers(project, chunk, others):
                # gc can delete the chunk between the two calls.
                with suppress(KeyError):
                    found["chunks"] -= self.size(project, chunk)
        return found

    def projects(self) -> list[str]:
        """Return the names of all project folders."""
        roots = (self._chunks, self._manifests, self._notes, self._staging)
        return sorted({path.name for root in roots if root.exists() for path in root.iterdir()})

    def put_manifest(self, project: str, digest: str, data: bytes) -> None:
        """Write a manifest and make its name durable."""
        path = _place(self._manifests, project, digest)
        if not path.exists():
            self._write(path, [data], project)
        self._sync([path.parent])

    def manifest(self, project: str, digest: str) -> bytes:
        """Read a manifest."""
        return _read(_place(self._manifests, project, digest), digest)

    def stage(self, project: str, push: str, data: bytes) -> None:
        """Write the body of an open push, without a sync: the client can repeat the push after a power failure."""
        self._write(self._push(project, push), _sealed(data), project, sync=False)

    def staged(self, project: str, push: str) -> tuple[bytes, float]:
        """Read the body of an open push and the time of its last request."""
        path = self._push(project, push)
        try:
            return _opened(_read_sealed(path, push), push), path.lstat().st_mtime
        except FileNotFoundError:  # committed between the two calls
            raise KeyError(push) from None
        except KeyError:
            path.unlink(missing_ok=True)  # a damaged body cannot be continued
            raise

    def touch(self, project: str, push: str, *, at: float | None = None) -> None:
        """Set the time of the last request of an open push."""
        with suppress(FileNotFoundError):
            os.utime(self._push(project, push), None if at is None else (at, at), follow_symlinks=False)

    def unstage(self, project: str, push: str) -> None:
        """Remove the body of an open push."""
        self._push(project, push).unlink(missing_ok=True)

    def pushes(self, project: str) -> list[str]:
        """Return the ids of the open pushes of a project."""
        folder = self._staging / _checked(_PROJECT, project)
        return sorted(path.name for path in folder.glob("*") if _PUSH.fullmatch(path.name))

    def drop(self, project: str) -> None:
        """Delete all folders of a project."""
        for folder in (self._chunks, self._manifests, self._staging, self._notes, self._damaged):
            shutil.rmtree(folder / _checked(_PROJECT, project), ignore_errors=True)

    def _chunk(self, project: str, chunk: str) -> Path:
        return _place(self._chunks, project, chunk)

    def _push(self, project: str, push: str) -> Path:
        return self._staging / _checked(_PROJECT, project) / _checked(_PUSH, push)

    def _lock_of(self, project: str) -> SharedLock:
        with self._lock:
            return self._locks.setdefault(_checked(_PROJECT, project), SharedLock())

    def _write(
        self,
        path: Path,
        pieces: Sequence[Buffer],
        project: str,
        *,
        sync: bool = True,
        rename: Callable[[Path, Path], object] = Path.replace,
    ) -> None:
        scratch = self._staging / _checked(_PROJECT, project)
        temporary = scratch / f"tmp-{secrets.token_hex(12)}"
        with disk_errors(path.parent):
            try:
                atomic_write(path, *pieces, temporary=temporary, sync=sync, rename=rename)
            except FileNotFoundError:  # the first file in this folder; checking for folders each time would be slower
                files.make_folder(path.parent)
                files.make_folder(scratch)
                self._count_names(path.parent.parent, path.parent.parent.parent)
                atomic_write(path, *pieces, temporary=temporary, sync=sync, rename=rename)
        self._count_names(path.parent)

    def _count_names(self, *folders: Path) -> None:
        """Count a name that was added to these folders.

        Call it after the rename, so that a sync cannot miss the name.
        """
        self._added.update(folders)

    def _sync(self, folders: Sequence[Path]) -> None:
        """Sync folders and the two above them, except those without new names since this process synced them last."""
        wanted = {above for leaf in folders for above in (leaf, leaf.parent, leaf.parent.parent)}
        for folder in sorted(wanted):
            # Read the count before the sync: names that are added during the sync count as not synced.
            added = self._added[folder]
            if folder not in self._synced or self._synced[folder] < added:
                sync_folder(folder)
                self._synced[folder] = max(added, self._synced[folder])


def _checked(rule: re.Pattern[str], name: str) -> str:
    """Check a name, so that no path can leave the folder. Services check names too; this is the last defence."""
    if not rule.fullmatch(name):
        raise KeyError(name)
    return name


def _place(root: Path, project: str, digest: str) -> Path:
    _checked(_DIGEST, digest)
    return root / _checked(_PROJECT, project) / digest[:2] / digest[2:]


def _sealed(data: bytes) -> list[bytes]:
    """Prepend the digest of the data. Notes and open pushes need it because their names are not their digests."""
    return [blake3(data).hexdigest().encode(), b"\n", data]


def _opened(data: bytes, key: str) -> bytes:
    """Undo `_sealed`. Damaged data counts as missing, because the caller can compute or receive it again."""
    seal, _, content = data.partition(b"\n")
    if blake3(content).hexdigest().encode() != seal:
        raise KeyError(key)
    return content


def _names(folder: Path) -> Iterator[str]:
    """Iterate over the digests that the files of a folder are named by."""
    for path in folder.glob("??/*"):
        yield path.parent.name + path.name


def _unlink(path: Path) -> int:
    """Delete a file and return the bytes freed: 0 if it has other hard links or does not exist."""
    try:
        # A file with other hard links keeps its bytes on disk.
        about = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return about.st_size if about.st_nlink == 1 else 0


def _bytes_below(folder: Path) -> int:
    found = 0
    for place, _, names in os.walk(folder):  # not Path.rglob: creating a Path for each of many files is slow
        for name in names:
            with suppress(FileNotFoundError):  # gc can delete files at the same time
                found += os.stat(f"{place}/{name}", follow_symlinks=False).st_size  # noqa: PTH116
    return found


def _read(path: Path, key: str) -> bytes:
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        raise KeyError(key) from None


def _read_sealed(path: Path, key: str) -> bytes:
    """Read a note or an open push. A symbolic link counts as missing, like a damaged file."""
    try:
        return _read(path, key)
    except IntegrityError:
        raise KeyError(key) from None


def _link(source: Path, target: Path) -> None:
    """Create a hard link.

    Raises
    ------
    IntegrityError
        If the source is a symbolic link: the new link would lead out of the data folder too.
    """
    if source.is_symlink():
        raise files.irregular(source)
    os.link(source, target, follow_symlinks=False)
