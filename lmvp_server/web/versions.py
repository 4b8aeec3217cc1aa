"""Versions for pages: details of one, and the comparison of two, as in `lmvp.show` and `lmvp.diff`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from lmvp.core.schemas import Layers, Model, Version
from lmvp.errors import LmvpError
from lmvp.views.diff import Diff
from lmvp.views.version import Showing
from lmvp_server.process import cancellation
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.tensor_changes import AT_ONCE

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
    first, second = (record(services.versions.version(caller, project, *one)) for one in (before, after))
    (_, old), (_, new) = (services.versions.content(caller, project, *one) for one in (before, after))
    changes = services.measuring.changes(caller, project, *after, f"{first.model}@{first.name}")
    limit = tensors_limit(caller)
    cancellation.check()
    old, new = (msgspec.structs.replace(one, tensors=one.tensors[:limit]) for one in (old, new))
    return Diff.between(first, second, old, new, changes)


def shown_part(showing: Showing, limit: int = TENSORS) -> Showing:
    """Limit the tensors of a version to the number that a page shows."""
    if len(showing.tensors) <= limit:
        return showing
    strips = {number: codes[:limit] for number, codes in showing.layers.strips.items()}
    layers = Layers(axis=showing.layers.axis[:limit], strips=strips)
    return replace(showing, tensors=showing.tensors[:limit], layers=layers)


def record(found: Any) -> Version:
    """Convert a document of the services to a version."""
    return msgspec.convert(found, Version)


def layers(services: Services, caller: Caller, version: Version) -> Layers:
    """Return the layer strip of a version. If it cannot be computed, return an empty one, so that the page is shown."""
    try:
        return services.layers.one(caller, version.project, version.model, version.name) or Layers()
    except LmvpError:
        return Layers()


def showing(services: Services, caller: Caller, version: Version, strip: Layers) -> Showing:
    """Return the details of a version: its tensors and how much they changed since its first parent."""
    about = msgspec.convert(services.catalog.model(caller, version.project, version.model), Model)
    _, manifest = services.versions.content(caller, version.project, version.model, version.name)
    parent = parent_of(services, caller, version)
    amounts = {}
    # Comparing larger versions takes too long for a page.
    if parent is not None and max(parent.size, version.size) <= AT_ONCE:
        against = f"{parent.model}@{parent.name}"
        changes = services.measuring.changes(caller, version.project, version.model, version.name, against)
        amounts = dict(changes.tensors)
    return Showing(version, about, manifest.tensors, manifest.files, parent, strip, amounts)


def parent_of(services: Services, caller: Caller, version: Version) -> Version | None:
    """Return the first parent of a version, or None if it was removed or belongs to another model."""
    if not version.parents:
        return None
    try:
        digest = version.parents[0].digest
        return record(services.versions.version(caller, version.project, version.model, digest))
    except LmvpError:  # removed, or a version of another model
        return None
