"""The classes and packages that a caller trusts with `trust=`."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.errors import InvalidArgument, MissingDependency, Untrusted

_HINT = 'give full names such as "my_pkg.Net" or "my_pkg.*", or classes'
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(\.\*)?")


@dataclass(frozen=True, slots=True)
class Trust:
    """Trusted classes by their full names.

    Attributes
    ----------
    given : dict
        Classes that were passed as objects, by full name.
    names : frozenset of str
        Full names.
    packages : tuple of str
        Prefixes such as `"my_pkg."`, from `"my_pkg.*"`. They trust all names below the package.
    """

    given: dict[str, Any]
    names: frozenset[str]
    packages: tuple[str, ...]

    @classmethod
    def of(cls, trust: Sequence[str | type]) -> Trust:
        """Parse the `trust` argument.

        Raises
        ------
        InvalidArgument
            If an item is neither a name nor a class.

        Examples
        --------
        >>> trust = Trust.of(["my_pkg.Net", "other.*"])
        >>> "my_pkg.Net" in trust, "my_pkg.Nets" in trust, "other.deep.Net" in trust, "others.Net" in trust
        (True, False, True, False)
        """
        for item in (items := _items(trust)):
            if not (_NAME.fullmatch(item) if isinstance(item, str) else hasattr(item, "__qualname__")):
                raise InvalidArgument(f"`--trust` has {item!r} in it"[:200], hint=_HINT)
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
        raise InvalidArgument(f"`--trust` is {type(trust).__name__} {trust!r}"[:80], hint=_HINT)
    return list(trust)


def option(names: Iterable[str]) -> str:
    """Return the command-line options that trust these names, for hints."""
    return f"`{' '.join(f'--trust {shlex.quote(name)}' for name in names)}`"


def find(name: str, exact: bool, what: str = "this module") -> Any:
    """Import the object with a trusted name.

    If only `my_pkg.*` covers the name (`exact` is false), the object must also be defined under this name. Otherwise
    `my_pkg.x` could be a re-exported function such as `os.system`.
    """
    parts = name.split(".")
    try:
        found, depth = _import_longest(parts)
        for part in parts[depth:]:
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise MissingDependency(
            f"{what} needs {name}, which is not to be found here: {error}",
            hint="define or install it, or build the object, and fill it: `--into MODEL`; "
            "in Python, `trust=[…]` takes the class itself",
        ) from error
    origin = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    if not exact and origin != name:
        raise Untrusted(f"{name} is really {origin}", hint=f"if you trust that, give {option([name])}")
    return found


def _import_longest(parts: Sequence[str]) -> tuple[Any, int]:
    """Import the longest prefix of a name that is a module; return it and the number of its parts."""
    for depth in range(len(parts) - 1, 0, -1):
        try:
            return importlib.import_module(".".join(parts[:depth])), depth
        except ModuleNotFoundError as error:
            # An error about another module means that the module exists, but one of its imports is missing.
            if error.name is None or not ".".join(parts[:depth]).startswith(error.name):
                raise
    raise ModuleNotFoundError(f"no module named {parts[0]!r}")
