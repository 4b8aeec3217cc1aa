"""Private files and folders, with mode 0600 and 0700 regardless of the umask.

LMVP opens every file in a data folder, a backup or a client folder with this module. `open_file` does not follow
symbolic links, because a link could make LMVP read, extend or truncate a file of another user. A folder can be a link,
for example to another disk. Files that users request by name (exports, pulled files) follow the umask instead, because
users share them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

from lmvp.errors import IntegrityError, InvalidArgument, LmvpError, StorageFull, StorageReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of `flock` on a file system without locks: Lustre without `-o flock`, some NFS servers."""

FILE, FOLDER = 0o600, 0o700
"""Modes of private files and folders."""

_OTHERS = 0o077
_SAFE = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of every open: do not follow links, and do not wait for the other end of a named pipe."""
_PATIENCE = 1.0
"""Seconds that a start waits for the correction of old modes. For a large folder, it continues in the background."""


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700. Existing folders keep their modes.

    `Path.mkdir(parents=True)` would create the parents with the mode of the umask.
    """
    if not folder.parent.is_dir() and folder.parent != folder:
        make_folder(folder.parent)
    try:
        folder.mkdir(mode=FOLDER)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        if os.name == "posix":  # a umask such as 0777 also removes the rights of the owner
            with suppress(FileNotFoundError):
                folder.chmod(FOLDER)


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


def write(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file atomically with mode 0600. Readers see the old or the new content, never a part.

    The new file is created with this mode, so other users cannot open it at any time.

    Parameters
    ----------
    sync : bool, default True
        Flush the content to disk before the file is replaced, so that a power failure cannot leave an empty file.
    """
    # A random name: two processes that write the same file must not share the temporary file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = create(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


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


def restrict(path: Path) -> bool:
    """Remove the rights of other users on a file or folder; return False if this is not permitted.

    Neither this function nor `secure` follows links, because the target of a link can be shared on purpose.
    """
    if os.name != "posix":
        return True
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or not stat.S_IMODE(found.st_mode) & _OTHERS:
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
    alone = restrict(resolved)
    ours = [resolved / name for name in names]
    if any(map(_is_open, ours)):
        walk = Thread(target=_restrict_all, args=(ours,), name="lmvp-modes", daemon=True)
        walk.start()
        walk.join(_PATIENCE)
    return alone


def _is_open(path: Path) -> bool:
    """Return whether other users have rights on a file or folder, or on an entry directly in it."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return False
        if found.st_mode & _OTHERS or not stat.S_ISDIR(found.st_mode):
            return bool(found.st_mode & _OTHERS)
        with os.scandir(path) as entries:
            return any(not one.is_symlink() and one.stat(follow_symlinks=False).st_mode & _OTHERS for one in entries)
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
    found = os.stat(path, dir_fd=folder, follow_symlinks=False)
    if not found.st_mode & _OTHERS or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        opened = os.fstat(descriptor)
        if opened.st_uid == os.geteuid():
            os.fchmod(descriptor, stat.S_IMODE(opened.st_mode) & ~_OTHERS)
    finally:
        os.close(descriptor)


def explain(error: OSError, folder: Path, hint: str, verb: str = "write in") -> LmvpError:
    """Convert an `OSError` of a folder of LMVP to an LMVP error with a hint.

    Examples
    --------
    >>> print(explain(OSError(errno.ENOSPC, "No space left on device"), Path("/data"), "set LMVP_HOME"))
    no room on the disk of /data
      hint: set LMVP_HOME
    """
    if error.errno in _FULL:
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
