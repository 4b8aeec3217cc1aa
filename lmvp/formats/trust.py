"""What a caller vouches for with `trust=`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.errors import InvalidArgument

_HINT = 'give full names such as "my_pkg.Net" or "my_pkg.*", or classes'
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(\.\*)?")


@dataclass(frozen=True, slots=True)
class Trust:
    """Classes by their full names.

    Attributes
    ----------
    given : dict
        Those that were handed over as classes.
    names : frozenset of str
        Those that were named in full.
    packages : tuple of str
        `"my_pkg."`, for all that is defined in there.
    """

    given: dict[str, Any]
    names: frozenset[str]
    packages: tuple[str, ...]

    @classmethod
    def of(cls, trust: Sequence[str | type]) -> Trust:
        """Read the argument of a call.

        Raises
        ------
        InvalidArgument
            If it holds something that is no name and no class.

        Examples
        --------
        >>> trust = Trust.of(["my_pkg.Net", "other.*"])
        >>> "my_pkg.Net" in trust, "my_pkg.Nets" in trust, "other.deep.Net" in trust, "others.Net" in trust
        (True, False, True, False)
        """
        for item in (items := _items(trust)):
            if not (_NAME.fullmatch(item) if isinstance(item, str) else hasattr(item, "__qualname__")):
                raise InvalidArgument(f"trust= has {item!r} in it"[:200], hint=_HINT)
        names = [item for item in items if isinstance(item, str)]
        return cls(
            {f"{item.__module__}.{item.__qualname__}": item for item in items if not isinstance(item, str)},
            frozenset(name for name in names if not name.endswith(".*")),
            tuple(name[:-1] for name in names if name.endswith(".*")),
        )

    def __contains__(self, name: str) -> bool:
        return name in self.given or name in self.names or name.startswith(self.packages)


def _items(trust: Any) -> list[Any]:
    if isinstance(trust, (str, type)):
        return [trust]
    if not isinstance(trust, Iterable):
        raise InvalidArgument(f"trust= is {type(trust).__name__} {trust!r}"[:80], hint=_HINT)
    return list(trust)
