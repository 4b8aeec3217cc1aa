"""What is damaged in one project must not keep the server from looking after the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lmvp.errors import IntegrityError

_logger = logging.getLogger("lmvp_server")


@contextmanager
def passed_over(space: str) -> Iterator[None]:
    """Leave a project alone in which something turns out to be damaged; the log says so, and `fsck` what."""
    try:
        yield
    except IntegrityError:
        _logger.exception("project %s is left alone", space)
