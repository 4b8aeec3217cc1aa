"""A guard for maintenance of all projects: damage in one project does not stop the maintenance of the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lmvp.errors import IntegrityError

_logger = logging.getLogger("lmvp_server")


@contextmanager
def passed_over(space: str) -> Iterator[None]:
    """Skip the rest of the block if data of a project is damaged, and log the error. `fsck` reports the damage."""
    try:
        yield
    except IntegrityError:  # any other error, such as a full disk, affects more than this project and is raised
        _logger.exception("project %s is left alone", space)
