"""Where the journals of a run go: written down beside them, so that whoever ships them later knows. Never a token."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

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
        """Write it down, if the disk lets us."""
        with suppress(OSError):
            private.make_folder(folder)
            private.secure(journals().parent, [journals().name])
            private.write(folder / NAME, msgspec.json.encode(self), sync=False)

    @classmethod
    def read(cls, folder: Path) -> Target | None:
        """Return what was written down; None if it cannot be read."""
        try:
            return msgspec.json.decode((folder / NAME).read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError):
            return None


def journals() -> Path:
    """Return the folder of all journals of this machine's user."""
    return config.data_home() / "journals"
