"""Where the journals of a run go: written down beside them, so that whoever ships them later knows. Never a token."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

from lmvp import config, private
from lmvp.base_client import own_connection
from lmvp.connection import Address, Connection

NAME = "target.json"


class Target(msgspec.Struct, frozen=True):
    """A project on a server; no URL means the server of this machine.

    Attributes
    ----------
    name : str
        What the run is called, for people who look at what is left.
    """

    project: str
    url: str | None = None
    name: str = ""

    def connection(self, token: str | None = None) -> Connection:
        """Return a connection of its own to the server, with the token that is kept for it if none is given."""
        if self.url is None:
            return own_connection(None)
        return own_connection(Address(self.url, token or config.token_for(self.url)))

    def write(self, folder: Path) -> None:
        """Write it down, if the disk lets us and it is not there yet."""
        with suppress(OSError):
            if Target.read(folder) != self:
                private.make_folder(folder)
                private.secure(journals().parent, [journals().name])
                content = {**msgspec.structs.asdict(self), "check": _check(self)}
                private.write(folder / NAME, msgspec.json.encode(content), sync=False)

    @classmethod
    def read(cls, folder: Path) -> Target | None:
        """Return what was written down; None if it cannot be read, or is damaged."""
        try:
            data = private.read_bytes(folder / NAME)
            target = msgspec.json.decode(data, type=cls)
            check = msgspec.json.decode(data, type=_Check).check
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return target if check in ("", _check(target)) else None  # older versions wrote no check


class _Check(msgspec.Struct):
    check: str = ""


def _check(target: Target) -> str:
    """Return the CRC-32 of a target: one flipped bit must not send a run to another project."""
    return f"{crc32(msgspec.json.encode(target)):08x}"


def journals() -> Path:
    """Return the folder of all journals of this machine's user."""
    return config.data_home() / "journals"


def files_in(folder: Path, suffix: str = ".journal") -> list[Path]:
    """Return the files of a run with this suffix; none where another process deletes the folder at the same time.

    `Path.glob` raises then. A link in the place of a file is no file of a run.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - no Path per name
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [folder / name for name in sorted(names) if name.endswith(suffix) and not name.startswith(".")]
    return [path for path in found if not path.is_symlink()]
