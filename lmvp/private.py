"""Files and folders that only their owner may use: mode 0600 and 0700, whatever the umask.

Every file that LMVP reads or writes in a data folder, a backup, or a folder of a client is opened here. `open_file`
follows no link in the place of a file, since a link could lead LMVP to read, append to or shorten a file of somebody
else. A folder may be a link, for example to another disk. Files that users ask for by name (exports, pulled files)
follow the umask instead, as users expect of files that they share.
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


FILE, FOLDER = 0o600, 0o700
"""The modes of all that is private."""

_OTHERS = 0o077
_SAFE = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of every file: no link is followed, and opening a named pipe does not wait for its other end."""
_PATIENCE = 1.0
"""Seconds that a start waits for old modes to be corrected; a large folder is finished in the background."""


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, that only their owner may enter; existing ones keep their modes.

    `Path.mkdir(parents=True)` would give the folders above the mode of the umask.
    """
    if not folder.parent.is_dir() and folder.parent != folder:
        make_folder(folder.parent)
    try:
        folder.mkdir(mode=FOLDER)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        if os.name == "posix":  # a umask such as 0777 takes from the owner as well
            with suppress(FileNotFoundError):
                folder.chmod(FOLDER)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, and no link; return the descriptor.

    Raises
    ------
    IntegrityError
        If the name is that of a link, a named pipe, a socket or a device.
    OSError
        As `os.open`; IsADirectoryError for a folder.
    """
    try:
        descriptor = os.open(path, flags | _SAFE, FILE)
    except OSError as error:
        if error.errno != errno.EEXIST and _is_special(path):
            raise irregular(path) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise irregular(path)


def _is_special(path: Path) -> bool:
    """Tell whether a name is that of something that is neither a file nor a folder."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def irregular(path: Path) -> IntegrityError:
    """Return the error for a link, a named pipe, a socket or a device in the place of a file."""
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
        with suppress(OSError):  # a file system without modes, or somebody else's file
            os.fchmod(descriptor, FILE)
    return descriptor


def append(path: Path) -> IO[bytes]:
    """Open a log for appending, with mode 0600 also where it existed with another one."""
    return os.fdopen(create(path, os.O_WRONLY | os.O_APPEND), "ab")


def write(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace a file atomically by one of mode 0600; no other mode exists at any moment."""
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
    """Return the bytes of a file, or None if there is none; others lose their rights on the file.

    Parameters
    ----------
    follow : bool
        Follow links: for the settings of a user, who may keep them elsewhere.
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
    """Take the rights of all others on a file or folder away; False where that is not ours to do.

    A link is not followed, neither here nor in `secure`: it may lead to what is meant to be shared.
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
    """Restrict an existing folder, and what older versions of LMVP left open below it.

    The folder itself comes first, so that nobody else can enter. The rest is walked only if one of the first two levels
    is open to others, and from the bottom up: so a walk that was interrupted is repeated, and one that was finished is
    not. Whatever takes longer than a second goes on in the background.

    Parameters
    ----------
    names : iterable of str
        The files and folders directly below `root` that are LMVP's. Others are not touched: somebody may have chosen
        their home folder.

    Returns
    -------
    bool
        False if the folder could not be restricted, which is so if it belongs to somebody else.
    """
    if os.name != "posix":
        return True
    resolved = root.resolve()  # the folder itself may well be a link
    alone = restrict(resolved)
    ours = [resolved / name for name in names]
    if any(map(_is_open, ours)):
        walk = Thread(target=_restrict_all, args=(ours,), name="lmvp-modes", daemon=True)
        walk.start()
        walk.join(_PATIENCE)
    return alone


def _is_open(path: Path) -> bool:
    """Tell whether others have rights on a file or folder, or on something directly in it."""
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
                for _, folders, files, descriptor in os.fwalk(path, topdown=False, follow_symlinks=False):
                    for name in (*files, *folders):
                        with suppress(OSError):
                            _restrict(name, descriptor)
            _restrict(path, None)


def _restrict(path: str | Path, folder: int | None) -> None:
    """Restrict a file or folder, which is neither a link nor somebody else's, through its descriptor."""
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
    """Turn what the system says about a folder of ours into an error that a user can act on.

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
    reason = (error.strerror or str(error)).lower()
    return StorageReadOnly(f"cannot {verb} {folder}: {reason}", hint=hint)


def _in_the_way(folder: Path) -> Path:
    """Return the file that stands where a folder should, be it the folder itself or one above it."""
    above = (path for path in (folder, *folder.parents) if path.is_file())
    return next(above, folder)
