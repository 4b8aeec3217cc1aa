"""Looking into versions without fetching them: what one holds, what made it, what differs between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from lmvp.base_client import model_path
from lmvp.errors import NotAuthenticated, NotFound
from lmvp.housekeeping import Housekeeping
from lmvp.records import Against, Amount, Changes, Child, Histograms, Layers, Model, Version
from lmvp.references import Reference
from lmvp.transfer.progress import LONG, Progress, following
from lmvp.views.diff import Diff

if TYPE_CHECKING:
    from lmvp.showing import Showing
    from lmvp.storage.manifest import Manifest


class Looking(Housekeeping):
    """The part of a client that looks into versions; `lmvp.Client` has it all."""

    def diff(self, before: str, after: str, *, progress: Progress = None) -> Diff:
        """Return what changed between two versions: files, tensors, metrics, params, packages, code.

        The server starts from the digests, reads only the layers that changed, block by block, and keeps what it found.

        Parameters
        ----------
        before, after : str
            References; `after` may be a bare `@revision` of the same model, or a model of the same project.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes compared and bytes in all.
        """
        from lmvp.transfer import progress as progress_

        progress_.check(progress)
        first = self.version(before)
        second = self.version(_beside(first, after))
        old, new = self._manifest(first), self._manifest(second)
        changes = self._changes(first, second, progress)

        def spread(tensors: Sequence[str]) -> Histograms:
            return self.histograms(second.reference, tensors, against=f"{first.model}@{first.name}")

        return Diff.between(first, second, old, new, changes, spread if changes else None)

    def show(self, name: str) -> Showing:
        """Return all there is to say about a version: tensors, metrics, params, what made it, what grew from it.

        Parameters
        ----------
        name : str
            `[project/]model[@revision]`.

        Raises
        ------
        NotFound
            If there is no such version.
        """
        from lmvp.showing import show

        return show(self, name)

    def model(self, name: str) -> Model:
        """Return the record of a model."""
        return self._connection.get(model_path(self._reference(name)), Model)

    def manifest(self, version: Version) -> Manifest:
        """Return the content of a version: its files and tensors, without their bytes."""
        return self._manifest(version)

    def children(self, version: Version, limit: int = 20) -> tuple[list[Child], int]:
        """Return the newest versions of the project that grew from one, and how many there are in all."""
        return self._some(f"{_version_path(version)}/children", Child, limit)

    def parent(self, version: Version) -> Version | None:
        """Return the version that one grew from; None where there is none any more."""
        if not version.parents:
            return None
        try:
            return self.version(f"{version.project}/{version.model}@{version.parents[0].digest}")
        except NotFound:  # it was removed, or is one of another model
            return None

    def layers(self, version: Version) -> Layers:
        """Return the layer strip of a version."""
        return self._layers(model_path(Reference(version.project, version.model)), [version])

    def amounts(self, version: Version) -> Mapping[str, Amount]:
        """Return how much each tensor changed since the first parent, as far as that is known or quickly measured."""
        parent = self.parent(version)
        changes = self._changes(parent, version, False) if parent and version.size < LONG else None
        return changes.tensors if changes else {}

    def histograms(self, name: str, tensors: Sequence[str], *, bins: int = 28, against: str = "") -> Histograms:
        """Return how the numbers of some tensors of a version are spread; the server reads them, not this process.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        tensors : sequence of str
            Their names, at most 64.
        bins : int
            How many bins, at most 512.
        against : str, optional
            `[model]@revision` of the same project: its tensors are told too, on the same bins.

        Raises
        ------
        NotFound
            If neither version has such a tensor.
        """
        place = self._reference(name)
        path = f"{model_path(place)}/versions/{quote(place.revision, safe='')}/histograms"
        query = {"tensor": list(tensors), "bins": bins, **({"against": against} if against else {})}
        return self._connection.get(path, Histograms, **query)

    # -- steps

    def _changes(self, before: Version, after: Version, progress: Progress = None) -> Changes | None:
        """Return how much the tensors changed; two projects have nothing to compare by."""
        if before.project != after.project or before.content == after.content:
            return None
        path = f"{model_path(Reference(after.project, after.model))}/versions/{after.name}/changes"
        against = f"{before.model}@{before.name}"
        if max(before.size, after.size) < LONG and not callable(progress):
            return self._connection.get(path, Changes, against=against)
        try:
            with following(progress, max(before.size, after.size), "diff") as told:
                return self._do(path, Against(against=against), Changes, told)
        except NotAuthenticated:  # of a public project; the server compares large versions only for accounts
            return self._connection.get(path, Changes, against=against)

    def _layers(self, base: str, versions: Sequence[Version]) -> Layers:
        numbers = ",".join(str(version.number) for version in versions if not version.status)
        return self._connection.get(f"{base}/layers", Layers, versions=numbers)


def _version_path(version: Version) -> str:
    return f"{model_path(Reference(version.project, version.model))}/versions/{version.name}"


def _beside(first: Version, name: str) -> str:
    """Return a second reference in full: it takes its project, and its model where it has none, from the first."""
    if not isinstance(name, str) or "/" in name.partition("@")[0]:
        return name
    return f"{first.project}/{first.model}{name}" if name.startswith("@") else f"{first.project}/{name}"
