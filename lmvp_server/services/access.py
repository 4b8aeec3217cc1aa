"""Who calls, and what they may. Every use case asks here first."""

from __future__ import annotations

from dataclasses import dataclass

from lmvp.errors import AccessDenied

READ, WRITE, MAINTAIN, OWN = "read", "write", "maintain", "own"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes
    ----------
    name : str
        Written as the author of what they do.
    owner : bool
        Holds the server's own token: may do all, and may say for whom (`on_behalf`).
    """

    name: str
    owner: bool = False

    def on_behalf(self, author: str) -> str:
        """Return the name to write down, given the name that the caller claims."""
        return author if self.owner and author else self.name


def require(caller: Caller, right: str, project: str) -> None:
    """Let the caller pass, or raise.

    Raises
    ------
    AccessDenied
        If the caller lacks the right in that project.
    """
    if not caller.owner:
        raise AccessDenied(f"{caller.name} has no right to {right} in {project!r}", hint="ask an owner of the project")
