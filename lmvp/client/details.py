"""Methods of `Client` that inspect versions without pulling them: `show`, `diff`, layers, lineage and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from lmvp.client._base import model_path
from lmvp.client.maintenance import Housekeeping
from lmvp.core.references import Reference
from lmvp.core.schemas import (
    Against,
    Amount,
    Changes,
    Child,
    Histograms,
    Layers,
    Model,
    Version,
)
from lmvp.errors import NotAuthenticated, NotFound
from lmvp.transfer.progress import LONG, Progress, following
from lmvp.views.diff import Diff, diff_of

if TYPE_CHECKING:
    from lmvp.core.manifest import Manifest
    from lmvp.views.version import Showing


class Looking(Housekeeping):
    """Base class of `Client` with the methods that inspect versions."""

    def diff(self, before: str, after: str, *, progress: Progress = None) -> Diff:
        """Compare two versions: files, tensors, metrics, params, packages and code.

        The server compares the tensors. It reads only the tensors whose digests differ, and stores the result, so a
        second comparison of the same versions is fast.

        Parameters
        ----------
        before : str
            The first version: `[project/]model[@revision]`.
        after : str
            The second version. `@revision` means a version of the same model, `model[@revision]` a model of the same
            project.
        progress : bool or callable, optional
            False shows no progress bar. A callable is called with the compared bytes and the total bytes.

        Returns
        -------
        Diff
            The differences. Notebooks draw them.

        Raises
        ------
        NotFound
            If a version does not exist.

        Examples
        --------
        >>> client.diff("digits/mlp@v1", "@v2")  # doctest: +SKIP
        """
        from lmvp.transfer import progress as progress_

        progress_.check(progress)
        first = self.version(before)
        second = self.version(_beside(first, after))
        return diff_of(self, first, second, self._changes(first, second, progress))

    def show(self, name: str) -> Showing:
        """Return the details of a version: tensors, metrics, params, environment, parents and children.

        Parameters
        ----------
        name : str
            `[project/]model[@revision]`. Without a revision, the latest version.

        Returns
        -------
        Showing
            The details. Notebooks draw them.

        Raises
        ------
        NotFound
            If the version does not exist.

        Examples
        --------
        >>> client.show("digits/mlp@v3").parameters  # doctest: +SKIP
        """
        from lmvp.views.version import show

        return show(self, self.version(name))

    def model(self, name: str) -> Model:
        """Return the record of a model.

        Parameters
        ----------
        name : str
            `[project/]model`.

        Raises
        ------
        NotFound
            If the model does not exist.
        """
        return self._connection.get(model_path(self._reference(name)), Model)

    def manifest(self, version: Version) -> Manifest:
        """Return the manifest of a version: the list of its files and tensors, without their bytes."""
        return self._manifest(version)

    def children(self, version: Version, limit: int = 20) -> tuple[list[Child], int]:
        """Return the newest children of a version in its project, and the total number of children."""
        return self._some(f"{_version_path(version)}/children", Child, limit)

    def parent(self, version: Version) -> Version | None:
        """Return the first parent of a version; None if it has no parents, or the parent was removed."""
        if not version.parents:
            return None
        try:
            return self.version(f"{version.project}/{version.model}@{version.parents[0].digest}")
        except NotFound:  # the parent was removed, or belongs to another model
            return None

    def layers(self, version: Version) -> Layers:
        """Return the layer strip of a version."""
        return self._layers(model_path(Reference(version.project, version.model)), [version])

    def amounts(self, version: Version) -> Mapping[str, Amount]:
        """Return the amount of change of each tensor since the first parent; empty if it is unknown.

        Large versions return an empty mapping, because their comparison takes too long for a view.
        """
        parent = self.parent(version)
        changes = self._changes(parent, version, False) if parent and version.size < LONG else None
        return changes.tensors if changes else {}

    def histograms(self, name: str, tensors: Sequence[str], *, bins: int = 28, against: str = "") -> Histograms:
        """Return histograms of the values of tensors. The server computes them, so no tensors are transferred.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        tensors : sequence of str
            The names of the tensors, at most 64.
        bins : int, default 28
            The number of bins, at most 512.
        against : str, default ""
            A second version of the same project, as `[model]@revision`. The histograms of its tensors use the same
            bins. Empty: no second version.

        Returns
        -------
        Histograms

        Raises
        ------
        NotFound
            If neither version has one of the tensors.
        """
        place = self._reference(name)
        path = f"{model_path(place)}/versions/{quote(place.revision, safe='')}/histograms"
        query = {"tensor": list(tensors), "bins": bins, **({"against": against} if against else {})}
        return self._connection.get(path, Histograms, **query)

    # -- helpers

    def _changes(self, before: Version, after: Version, progress: Progress = None) -> Changes | None:
        """Return the amount of change of each tensor; None for equal versions, and for versions of two projects."""
        # The server compares tensors within one project only, because each project has its own chunks.
        if before.project != after.project or before.content == after.content:
            return None
        path = f"{model_path(Reference(after.project, after.model))}/versions/{after.name}/changes"
        against = f"{before.model}@{before.name}"
        if max(before.size, after.size) < LONG and not callable(progress):
            return self._connection.get(path, Changes, against=against)
        try:
            with following(progress, max(before.size, after.size), "diff") as told:
                return self._do(path, Against(against=against), Changes, told)
        # POST needs an account. GET, for anonymous readers of public projects, computes only short comparisons.
        except NotAuthenticated:
            return self._connection.get(path, Changes, against=against)

    def _layers(self, base: str, versions: Sequence[Version]) -> Layers:
        numbers = ",".join(str(version.number) for version in versions if not version.status)
        return self._connection.get(f"{base}/layers", Layers, versions=numbers)


def _version_path(version: Version) -> str:
    return f"{model_path(Reference(version.project, version.model))}/versions/{version.name}"


def _beside(first: Version, name: str) -> str:
    """Complete a second reference with the project, and if it has no model the model, of the first version."""
    if not isinstance(name, str) or "/" in name.partition("@")[0]:
        return name
    return f"{first.project}/{first.model}{name}" if name.startswith("@") else f"{first.project}/{name}"
