"""Files and folders: private modes, atomic and durable writes, and errors of disks. Client and server use this module.

Private files and folders have mode 0600 and 0700 regardless of the umask. LMVP opens every file in a data folder, a
backup or a client folder with this module. `open_file` does not follow
symbolic links, because a link could make LMVP read, extend or truncate a file of another user. A folder can be a link,
for example to another disk. Files that users request by name (exports, pulled files) follow the umask instead, because
users share them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

from lmvp.errors import (
    DamagedFile,
    IntegrityError,
    InvalidArgument,
    LmvpError,
    NotFound,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)

FILE, FOLDER = 0o600, 0o700
"""Modes of private files and folders."""
SHARED = 0o666
"""Mode of files that follow the umask, because users share them: exports and pulled files."""
PART = "part"
"""Name of the file that an export or a backup is writing, at the root of its folder. The next attempt overwrites it."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a full disk, a used-up quota, and the file size limit of the process or the file system."""
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of a read-only file system and of missing permissions."""
FAILED = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of a broken or removed disk, of too many open files and of missing memory. A later attempt can succeed."""
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Errors of `flock` on a file system without locks: Lustre without `-o flock`, some NFS servers."""
REFUSED = READ_ONLY | {
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP, errno.ENOTEMPTY),
    errno.EXDEV,
}
"""Errors of a path that cannot be written, for example because a file blocks a folder."""

_OTHERS = 0o077
_SAFE = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of every open: do not follow links, and do not wait for the other end of a named pipe."""
_PATIENCE = 1.0
"""Seconds that a start waits for the correction of old modes. For a large folder, it continues in the background."""


def make_folder(folder: Path, *, sync: bool = False) -> None:
    """Create a folder and its missing parents with mode 0700. Existing folders keep their modes.

    `Path.mkdir(parents=True)` would create the parents with the mode of the umask.

    Parameters
    ----------
    sync : bool, default False
        Make the names of the new folders durable.
    """
    if sync and folder.is_dir():
        return
    if not folder.parent.is_dir() and folder.parent != folder:
        make_folder(folder.parent, sync=sync)
    try:
        folder.mkdir(mode=FOLDER)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        if os.name == "posix":  # a umask such as 0777 also removes the rights of the owner
            with suppress(FileNotFoundError):
                folder.chmod(FOLDER)
    if sync:
        sync_folder(folder.parent)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file without following links; return the descriptor.

    Raises
    ------
    IntegrityError
        If the path is a link, a named pipe, a socket or a device.
    OSError
        As for `os.open`; `IsADirectoryError` for a folder.
    """
    try:
        descriptor = os.open(path, flags | _SAFE, FILE)
    except OSError as error:
        if error.errno != errno.EEXIST and _is_special(path):
            raise irregular(path) from None
        raise
    # Check the open descriptor, not the path: the path can be replaced between a check and the open.
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise irregular(path)


def _is_special(path: Path) -> bool:
    """Return whether a path exists and is neither a regular file nor a folder."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def irregular(path: Path) -> IntegrityError:
    """Return the error for a link, a named pipe, a socket or a device where a file is expected."""
    what = "a link" if path.is_symlink() else "not a regular file"
    return IntegrityError(
        f"{path} is {what}: LMVP follows no links and reads regular files only",
        hint="put the file itself there; a whole folder may be a link, for example to another disk",
    )


def open_read(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a regular file for reading; see `open_file`."""
    return os.fdopen(open_file(path), "rb", buffering)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file; see `open_file`."""
    with open_read(path) as file:
        return file.read()


def create(path: Path, flags: int = os.O_WRONLY | os.O_EXCL) -> int:
    """Open a file for writing, created with mode 0600 if it does not exist; return the descriptor."""
    descriptor = open_file(path, flags | os.O_CREAT)
    if hasattr(os, "fchmod"):
        with suppress(OSError):  # the file system has no modes, or the file belongs to another user
            os.fchmod(descriptor, FILE)
    return descriptor


def append(path: Path) -> IO[bytes]:
    """Open a log for appending. An existing log with another mode gets mode 0600."""
    return os.fdopen(create(path, os.O_WRONLY | os.O_APPEND), "ab")


@contextmanager
def atomic_file(
    path: Path,
    *,
    temporary: Path | None = None,
    mode: int = FILE,
    sync: bool = True,
    rename: Callable[[Path, Path], object] | None = None,
) -> Iterator[int]:
    """Yield the descriptor of a new file that replaces `path` at the end. After an exception, delete the new file.

    Readers see the old or the new content, never a part. The new file is created with its mode, so other users cannot
    open a private file at any time.

    Parameters
    ----------
    temporary : Path, optional
        The name of the new file until the end, on the same file system; a leftover of this name is deleted. Default: a
        random name in the folder, because two processes that write the same file must not share the temporary file.
    mode : {FILE, SHARED}, default FILE
        The mode of the file, and of missing folders.
    sync : bool, default True
        Flush the content to disk before the file is replaced, so that a power failure cannot leave an empty file.
    rename : callable, default `move`
        Gets the temporary file and `path`. It renames the file or deletes it.
    """
    draft = temporary or path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with new_file(draft, mode, sync=sync) as descriptor:
            yield descriptor
        if rename:
            rename(draft, path)
        else:
            move(draft, path, mode)
    except BaseException:  # also KeyboardInterrupt: leave no temporary file
        with suppress(OSError):
            draft.unlink()
        raise


def atomic_write(
    path: Path,
    *pieces: Any,
    temporary: Path | None = None,
    mode: int = FILE,
    sync: bool = True,
    rename: Callable[[Path, Path], object] | None = None,
) -> None:
    """Write a file atomically; see `atomic_file`. `pieces` are objects with the buffer protocol."""
    with atomic_file(path, temporary=temporary, mode=mode, sync=sync, rename=rename) as descriptor:
        for piece in pieces:
            write_all(descriptor, piece)


@contextmanager
def new_file(path: Path, mode: int = FILE, *, sync: bool = True) -> Iterator[int]:
    """Yield the descriptor of a new file and sync it at the end; delete a leftover of the same name first."""
    with suppress(FileNotFoundError):
        path.unlink()
    # O_EXCL: do not write through a link that another process created under this name.
    flags = os.O_RDWR | os.O_EXCL
    descriptor = create(path, flags) if mode == FILE else os.open(path, flags | os.O_CREAT | _SAFE, mode)
    try:
        yield descriptor
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path, mode: int = FILE) -> None:
    """Rename a file into place. Create the folder if necessary, a private one for a private file."""
    if mode == FILE:
        make_folder(target.parent)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def write_all(descriptor: int, data: Any) -> None:
    """Write all bytes to a descriptor. `os.write` can write fewer bytes than given, so it is called repeatedly."""
    view = memoryview(data).cast("B")  # slices count bytes then, whatever the item size of the buffer is
    while view:
        view = view[os.write(descriptor, view) :]


def write_at(descriptor: int, offset: int, view: memoryview) -> None:
    """Write all bytes at an offset. Several threads can write to the same descriptor."""
    while view:  # `pwrite` can write fewer bytes than requested
        count = os.pwrite(descriptor, view, offset)
        offset, view = offset + count, view[count:]


def sync_data(descriptor: int) -> None:
    """Sync the content of a file to the disk, without its timestamps where the system allows it, which is faster."""
    if hasattr(os, "fdatasync"):  # macOS and Windows lack it
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Sync the content of a file to the disk. This includes data that another process wrote."""
    descriptor = open_file(path)
    try:
        sync_data(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk. Without this, a new or renamed file can be lost after a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, *, follow: bool = False) -> bytes | None:
    """Return the bytes of a file, or None if it does not exist. The rights of other users on the file are removed.

    Parameters
    ----------
    follow : bool, default False
        Follow links. This is for the settings of a user, which can be links to another folder.
    """
    try:
        with path.open("rb") if follow else open_read(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                with suppress(OSError):
                    os.fchmod(file.fileno(), mode & 0o700)
            return file.read()
    except FileNotFoundError:
        return None


def open_copy(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a regular file of a backup or an export.

    Raises
    ------
    DamagedFile
        If it is not a regular file, for example a link or a folder.
    """
    try:
        return open_read(path, buffering)
    except (IntegrityError, IsADirectoryError):
        raise DamagedFile(f"{path} is not a regular file") from None


def read_copy(path: Path, limit: int) -> bytes:
    """Read a whole regular file of a backup or an export.

    Raises
    ------
    NotFound
        If it does not exist.
    DamagedFile
        If it is longer than the limit or not a regular file.
    """
    try:
        with open_copy(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise DamagedFile(f"{path} has {size:,} bytes; the limit is {limit:,}")
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        if isinstance(error, LmvpError):
            raise
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error


def restrict(path: Path) -> bool:
    """Remove the rights of other users on a file or folder; return False if this is not permitted.

    Neither this function nor `secure` follows links, because the target of a link can be shared on purpose.
    """
    if os.name != "posix":
        return True
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not stat.S_IMODE(mode) & _OTHERS:
            return True
        _restrict(path, None)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return not stat.S_IMODE(path.lstat().st_mode) & _OTHERS


def secure(root: Path, names: Iterable[str]) -> bool:
    """Remove the rights of other users on a folder, and on files below it that older releases of LMVP left readable.

    The folder itself comes first, so that other users cannot enter it. The files below are walked only if other users
    have rights on one of the first two levels. The walk is bottom-up: the first levels come last, so an interrupted
    walk is repeated at the next start, and a complete one is not. A walk of more than a second continues in the
    background.

    Parameters
    ----------
    root : Path
        The folder.
    names : iterable of str
        The names of the files and folders of LMVP directly below `root`. Others are not changed, because `root` can be
        the home folder of the user.

    Returns
    -------
    bool
        False if the rights could not be removed, for example because the folder belongs to another user.
    """
    if os.name != "posix":
        return True
    resolved = root.resolve()  # the folder itself can be a link
    restricted = restrict(resolved)
    paths = [resolved / name for name in names]
    if any(map(_is_open, paths)):
        walk = Thread(target=_restrict_all, args=(paths,), name="lmvp-modes", daemon=True)
        walk.start()
        walk.join(_PATIENCE)
    return restricted


def _is_open(path: Path) -> bool:
    """Return whether other users have rights on a file or folder, or on an entry directly in it."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return False
        if mode & _OTHERS or not stat.S_ISDIR(mode):
            return bool(mode & _OTHERS)
        with os.scandir(path) as entries:
            return any(
                not entry.is_symlink() and entry.stat(follow_symlinks=False).st_mode & _OTHERS for entry in entries
            )
    except OSError:
        return False


def _restrict_all(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            if path.is_symlink():
                continue
            if path.is_dir():
                # `fwalk` works with descriptors, so a folder that is replaced by a link during the walk is not entered.
                for _, folders, files, descriptor in os.fwalk(path, topdown=False, follow_symlinks=False):
                    for name in (*files, *folders):
                        with suppress(OSError):
                            _restrict(name, descriptor)
            _restrict(path, None)


def _restrict(path: str | Path, folder: int | None) -> None:
    """Remove the rights of other users on a regular file or folder of this user. Links are not followed.

    The mode is changed by the descriptor, because the path can be replaced by a link after the check.
    """
    mode = os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode
    if not mode & _OTHERS or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        opened = os.fstat(descriptor)
        if opened.st_uid == os.geteuid():
            os.fchmod(descriptor, stat.S_IMODE(opened.st_mode) & ~_OTHERS)
    finally:
        os.close(descriptor)


def storage_error(error: OSError, folder: object) -> LmvpError | None:
    """Convert an `OSError` of a disk to an LMVP error with status, message and hint; return None for other errors.

    Examples
    --------
    >>> storage_error(OSError(errno.ENOSPC, "No space left on device"), "/data")
    StorageFull('no room left on the disk of /data')
    """
    reason = (error.strerror or str(error)).lower()
    if error.errno in FULL:
        hint = "free some space and try again; nothing that was acknowledged is lost"
        return StorageFull(f"no room left on the disk of {folder}", hint=hint)
    if error.errno in READ_ONLY:
        hint = (
            "check its disk and remount it for writing; the server goes on then"
            if error.errno == errno.EROFS
            else "give the server's user the right to write there"
        )
        return StorageReadOnly(f"cannot write to {folder}: {reason}", hint=hint)
    if error.errno in FAILED:
        hint = "nothing of this request was acknowledged; look at the disk and at the server's log, then try again"
        return StorageFailed(f"the storage of {folder} failed: {reason}", hint=hint)
    return None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Convert an error of a server's disk (full, read-only, broken) to an LMVP error with the folder and a hint."""
    try:
        yield
    except LmvpError:  # some LMVP errors are OSErrors too, and need no conversion
        raise
    except OSError as error:
        converted = storage_error(error, folder)
        if converted is None:
            raise
        raise converted from error


@contextmanager
def write_errors(folder: Path, *, full: str, refused: str, errnos: Container[int] | None = None) -> Iterator[None]:
    """Convert an OSError of a folder that the user chose to `StorageFull` or `StorageReadOnly`.

    Parameters
    ----------
    full, refused : str
        The hint for a full disk, and for other errors.
    errnos : container of int, optional
        The other errors that are converted. Default: all.
    """
    try:
        yield
    except LmvpError:  # some of them are an OSError by name
        raise
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(f"no room left on the disk of {folder}", hint=full) from error
        if errnos is None or error.errno in errnos:
            reason = error.strerror or str(error)
            raise StorageReadOnly(f"cannot write to {folder}: {reason}", hint=refused) from error
        raise


def archive_errors(folder: Path) -> AbstractContextManager[None]:
    """Convert an error of the disk of an export or a backup; see `write_errors`."""
    full = "free some space and do the same again: it goes on"
    return write_errors(folder, full=full, refused="choose another place", errnos=REFUSED)


def explain(error: OSError, folder: Path, hint: str, verb: str = "write in") -> LmvpError:
    """Convert an `OSError` of a folder of LMVP to an LMVP error with a hint.

    Examples
    --------
    >>> print(explain(OSError(errno.ENOSPC, "No space left on device"), Path("/data"), "set LMVP_HOME"))
    no room on the disk of /data
      hint: set LMVP_HOME
    """
    if error.errno in FULL:
        return StorageFull(f"no room on the disk of {folder}", hint=hint)
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return InvalidArgument(f"{_in_the_way(folder)} is not a folder", hint=hint)
    if error.errno in NO_LOCKS:
        return StorageReadOnly(f"the file system of {folder} has no locks", hint=hint)
    reason = (error.strerror or str(error)).lower()
    return StorageReadOnly(f"cannot {verb} {folder}: {reason}", hint=hint)


def _in_the_way(folder: Path) -> Path:
    """Return the file that blocks the creation of a folder: the folder itself, or one of its parents."""
    above = (path for path in (folder, *folder.parents) if path.is_file())
    return next(above, folder)
