"""Which version an object came from, so that the next push of it knows its parent.

Objects are not marked: a table remembers them as long as they live, by identity. A plain dict cannot be remembered
weakly, so its first array or tensor stands for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where an object came from or was pushed to last."""

    server: str
    model: str
    digest: str


_known: dict[int, tuple[weakref.ref[Any], Origin]] = {}


def remember(obj: Any, origin: Origin) -> None:
    """Note that an object is this version now."""
    anchor = _anchor(obj)
    if anchor is None:
        return
    key = id(anchor)
    try:
        _known[key] = weakref.ref(anchor, lambda _: _known.pop(key, None)), origin
    except TypeError:
        return  # an object that cannot be referred to weakly has no origin


def recall(obj: Any, server: str, model: str) -> str | None:
    """Return the digest of the version of this model that the object came from, if it is known."""
    anchor = _anchor(obj)
    reference, origin = _known.get(id(anchor), (None, None))
    if reference is None or origin is None or reference() is not anchor:
        return None
    return origin.digest if (origin.server, origin.model) == (server, model) else None


def hand_on(obj: Any, other: Any) -> None:
    """Let another object, a copy, have the origin of one."""
    anchor = _anchor(obj)
    reference, origin = _known.get(id(anchor), (None, None))
    if reference is not None and origin is not None and reference() is anchor and other is not obj:
        remember(other, origin)


def _anchor(obj: Any) -> Any:
    while isinstance(obj, Mapping):
        obj = next(iter(obj.values()), None)
    return None if obj is None or isinstance(obj, (str, int, float, bool)) else obj
