"""Events of the audit log: author, action, object, and its state before and after."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lmvp.errors import LmvpError
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.clock import now
from lmvp_server.stores.base import Document, RecordStore

_logger = logging.getLogger("lmvp_server")


def event(who: str, action: str, what: str, before: object = None, after: object = None) -> Document:
    """Return an event with the current time.

    Examples
    --------
    >>> event("ada", "user.add", "grace")["action"]
    'user.add'
    """
    return {"at": now(), "who": who, "action": action, "what": what, "before": before, "after": after}


@contextmanager
def recorded(records: RecordStore, who: str, action: str, what: str) -> Iterator[Document]:
    """Record an action on the server with its result, or with its failure.

    The body of the `with` statement puts the result into the yielded document.
    """
    result: Document = {}
    try:
        yield result
    except Exception as error:
        failure = {"failed": error.message if isinstance(error, LmvpError) else type(error).__name__}
        try:
            records.commit(SERVER, [], [event(who, action, what, None, failure)])
        except (LmvpError, OSError) as failed:  # often the same cause as that of the failure, such as a full disk
            _logger.warning("the failure of %s could not be recorded as an event: %s", action, failed)
        raise
    records.commit(SERVER, [], [event(who, action, what, None, result)])
