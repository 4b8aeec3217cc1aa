"""Versions for pages: details of one, and the comparison of two, as in `lmvp.show` and `lmvp.diff`."""

from __future__ import annotations

from dataclasses import replace

from lmvp.core.schemas import Layers
from lmvp.views.diff import Diff, diff_of
from lmvp.views.version import Showing
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.web.source import ServiceSource, record

TENSORS = 10_000
"""Tensors of a version that a page shows: each costs 50 µs and 300 bytes, and a manifest can have 100,000."""
PUBLIC_TENSORS = 1000
"""The same limit for callers without an account, who can send any number of requests."""


def tensors_limit(caller: Caller) -> int:
    """Return the number of tensors of a version that a page shows to this caller."""
    return TENSORS if caller.known else PUBLIC_TENSORS


def diff(services: Services, caller: Caller, project: str, before: tuple[str, str], after: tuple[str, str]) -> Diff:
    """Compare two versions of a project. Only the first tensors of each are compared; see `tensors_limit`.

    Parameters
    ----------
    before, after : tuple of str
        Model and revision.
    """
    source = ServiceSource(services, caller)
    first, second = (record(services.versions.version(caller, project, *one)) for one in (before, after))
    return diff_of(source, first, second, source.changes(first, second), tensors_limit(caller))


def shown_part(showing: Showing, limit: int = TENSORS) -> Showing:
    """Limit the tensors of a version to the number that a page shows."""
    if len(showing.tensors) <= limit:
        return showing
    strips = {number: codes[:limit] for number, codes in showing.layers.strips.items()}
    layers = Layers(axis=showing.layers.axis[:limit], strips=strips)
    return replace(showing, tensors=showing.tensors[:limit], layers=layers)
