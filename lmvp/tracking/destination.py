"""The destination of a run's journals: server and project, stored in `target.json` beside them.

A later process needs it to deliver the journals. It never contains a token.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

from lmvp import config
from lmvp.connection import Address, Connection, own_connection
from lmvp.core import files, server_file

NAME = "target.json"


class Target(msgspec.Struct, frozen=True):
    """A project on a server; without a URL, the server of this machine.

    Attributes
    ----------
    name : str
        The name of the run, shown in lists of unsent runs.
    """

    project: str
    url: str | None = None
    name: str = ""

    def connection(self, token: str | None = None) -> Connection:
        """Return a new connection to the server, with the stored token of its URL if none is passed."""
        if self.url is None:
            return own_connection(None)
        return own_connection(Address(self.url, token or config.token_for(self.url)))

    def write(self, folder: Path) -> None:
        """Write the destination into a folder, if it is not there yet; an error of the disk is ignored."""
        with suppress(OSError):
            if Target.read(folder) != self:
                files.make_folder(folder)
                files.secure(journals().parent, [journals().name])
                content = {**msgspec.structs.asdict(self), "check": _check(self)}
                # Without a sync, because `start_run` must not wait for the disk; a torn file fails its check.
                files.atomic_write(folder / NAME, msgspec.json.encode(content), sync=False)

    @classmethod
    def read(cls, folder: Path) -> Target | None:
        """Return the destination that a folder contains; None if it is missing or damaged."""
        try:
            data = files.read_bytes(folder / NAME)
            target = msgspec.json.decode(data, type=cls)
            check = msgspec.json.decode(data, type=_Check).check
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return target if check in ("", _check(target)) else None  # older versions wrote no check


class _Check(msgspec.Struct):
    check: str = ""


def _check(target: Target) -> str:
    """Return the CRC-32 of a destination: a flipped bit must not send a run to another project."""
    return f"{crc32(msgspec.json.encode(target)):08x}"


def journals() -> Path:
    """Return the folder of all journals of the current user."""
    return server_file.data_home() / "journals"


def files_in(folder: Path, suffix: str = ".journal") -> list[Path]:
    """Return the files of a run with this suffix; an empty list if the folder does not exist.

    Another process can delete the folder at the same time; `Path.glob` would raise then. Symbolic links are ignored,
    because no writer creates them.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - avoids a Path object for each name
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [folder / name for name in sorted(names) if name.endswith(suffix) and not name.startswith(".")]
    return [path for path in paths if not path.is_symlink()]
