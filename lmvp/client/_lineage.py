"""The origin of objects: the version that an object was pulled from or last pushed to, for the parent of the next push.

Objects are not modified. A table maps the identity of an object to its origin as long as the object exists. A dict does
not support weak references, so its first array or tensor is used instead.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """The version that an object was pulled from or last pushed to: URL of the server, `project/model`, digest."""

    server: str
    model: str
    digest: str


_known: dict[int, tuple[weakref.ref[Any], Origin]] = {}


def remember(obj: Any, origin: Origin) -> None:
    """Record the origin of an object."""
    anchor = _anchor(obj)
    if anchor is None:
        return
    key = id(anchor)
    try:
        _known[key] = weakref.ref(anchor, lambda _: _known.pop(key, None)), origin
    except TypeError:
        return  # the type does not support weak references; the next push uses the latest version as its parent


def recall(obj: Any, server: str, model: str) -> str | None:
    """Return the digest of the version of this model that is the origin of an object; None if it is unknown."""
    anchor = _anchor(obj)
    reference, origin = _known.get(id(anchor), (None, None))
    # The id of a deleted object can be reused by another one, so the reference must be to this object.
    if reference is None or origin is None or reference() is not anchor:
        return None
    return origin.digest if (origin.server, origin.model) == (server, model) else None


def hand_on(obj: Any, other: Any) -> None:
    """Copy the origin of an object to another object, for example to its copy."""
    anchor = _anchor(obj)
    reference, origin = _known.get(id(anchor), (None, None))
    if reference is not None and origin is not None and reference() is anchor and other is not obj:
        remember(other, origin)


def _anchor(obj: Any) -> Any:
    """Return the object to identify `obj` by: for a mapping, its first value that is not a mapping."""
    while isinstance(obj, Mapping):
        obj = next(iter(obj.values()), None)
    return None if obj is None or isinstance(obj, (str, int, float, bool)) else obj
