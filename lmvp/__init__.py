"""LMVP: versions of neural networks, published and fetched with one line.

>>> import lmvp
>>> version = lmvp.update("digits/mlp", model, message="first try")  # doctest: +SKIP
>>> model = lmvp.download("digits/mlp@v1")  # doctest: +SKIP
>>> lmvp.showHistory("digits/mlp")  # doctest: +SKIP

Importing this loads nothing heavy: no framework, no server, no notebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmvp.client import Client
from lmvp.config import login, logout, set_project
from lmvp.errors import LmvpError
from lmvp.history import Diff, History
from lmvp.records import Alias, Version
from lmvp.transfer.progress import Progress

if TYPE_CHECKING:
    from lmvp.archive.exporting import Exported
    from lmvp.archive.importing import Imported

__version__ = "0.1.0"

__all__ = [
    "Alias",
    "Client",
    "Diff",
    "History",
    "LmvpError",
    "Version",
    "alias",
    "diff",
    "download",
    "export_model",
    "import_model",
    "login",
    "logout",
    "set_project",
    "showHistory",
    "show_history",
    "update",
]


def update(
    name: str,
    obj: Any,
    *,
    message: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    alias: str | Sequence[str] = (),
    parent: str | None = None,
    expect_parent: str | None = None,
    create: bool = False,
    progress: Progress = None,
) -> Version:
    """Publish a model, or a new version of it; see `Client.update`.

    Examples
    --------
    >>> version = lmvp.update("digits/mlp", {"w": weights}, message="first try")  # doctest: +SKIP
    """
    return Client().update(
        name,
        obj,
        message=message,
        metrics=metrics,
        params=params,
        tags=tags,
        alias=alias,
        parent=parent,
        expect_parent=expect_parent,
        create=create,
        progress=progress,
    )


def download(
    name: str,
    *,
    into: Any = None,
    to: str | Path | None = None,
    trust: Sequence[str | type] = (),
    progress: Progress = None,
) -> Any:
    """Fetch a version as the object it was, `into=` an object, or as files `to=` a folder; see `Client.download`.

    Examples
    --------
    >>> model = lmvp.download("digits/mlp@production")  # doctest: +SKIP
    """
    return Client().download(name, into=into, to=to, trust=trust, progress=progress)


def show_history(name: str | None = None, *, limit: int | None = 200, metric: str | None = None) -> History:
    """Return the versions of a model or a project, newest first; see `Client.show_history`.

    Examples
    --------
    >>> lmvp.showHistory("digits")  # doctest: +SKIP
    """
    return Client().show_history(name, limit=limit, metric=metric)


showHistory = show_history  # noqa: N816 - the name that users were promised


def diff(before: str, after: str) -> Diff:
    """Return what changed between two versions; see `Client.diff`.

    Examples
    --------
    >>> lmvp.diff("digits/mlp@v1", "digits/mlp@v2")  # doctest: +SKIP
    """
    return Client().diff(before, after)


def alias(name: str, alias: str) -> Alias:
    """Let an alias stand at a version; see `Client.alias`.

    Examples
    --------
    >>> lmvp.alias("digits/mlp@v2", "production")  # doctest: +SKIP
    """
    return Client().alias(name, alias)


def export_model(
    name: str, to: str | Path, *, versions: str | Iterable[str | int] | None = None, progress: Progress = None
) -> Exported:
    """Write a model with its history to a folder or a `.tar` of plain files; see `Client.export_model`.

    Examples
    --------
    >>> lmvp.export_model("digits/mlp", "mlp-export")  # doctest: +SKIP
    """
    return Client().export_model(name, to, versions=versions, progress=progress)


def import_model(source: str | Path, name: str | None = None, *, progress: Progress = None) -> Imported:
    """Make a model of what `export_model` wrote, with its whole history; see `Client.import_model`.

    Examples
    --------
    >>> lmvp.import_model("mlp-export", "archive/mlp")  # doctest: +SKIP
    """
    return Client().import_model(source, name, progress=progress)
