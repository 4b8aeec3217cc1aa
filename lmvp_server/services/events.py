"""What an event says: who did what to what, and what was there before and after."""

from __future__ import annotations

from lmvp_server.services.clock import now
from lmvp_server.stores.base import Document


def event(who: str, action: str, what: str, before: object = None, after: object = None) -> Document:
    """Return an event that happens now.

    Examples
    --------
    >>> event("ada", "user.add", "grace")["action"]
    'user.add'
    """
    return {"at": now(), "who": who, "action": action, "what": what, "before": before, "after": after}
