"""Methods of `Client` that read without pulling: lists of models, and details and comparisons of versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lmvp.client._base import model_path
from lmvp.client.maintenance import Housekeeping
from lmvp.core.references import Reference, Revision, check_name, suggest
from lmvp.core.schemas import (
    Against,
    Amount,
    Changes,
    Child,
    Event,
    Health,
    Histograms,
    Layers,
    Model,
    Project,
    Version,
)
from lmvp.errors import InvalidReference, NotAuthenticated, NotFound
from lmvp.transfer.progress import LONG, Progress, following
from lmvp.views.diff import Diff, diff_of

if TYPE_CHECKING:
    from lmvp.core.manifest import Manifest
    from lmvp.views.version import Showing


NAME_HINT = "`project/model` names one"


class Looking(Housekeeping):
    """Base class of `Client` with the methods that read projects, models and versions without pulling them."""

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

    def projects(self) -> list[Project]:
        """Return the projects that the caller can read.

        Returns
        -------
        list of Project
        """
        return self._list("/projects", Project)

    def models(self, project: str | None = None) -> list[Model]:
        """Return the models of a project.

        Parameters
        ----------
        project : str, optional
            The project. Default: the current project.

        Returns
        -------
        list of Model

        Raises
        ------
        NotFound
            If the project does not exist.
        """
        name = check_name(project, "project name") if project else self.project
        return self._list(f"/projects/{quote(name)}/models", Model)

    def ls(self, project: str | None = None) -> list[Project] | list[Model]:
        """Return all projects, or the models of one project.

        Parameters
        ----------
        project : str, optional
            The project whose models to list. Default: list the projects.

        Returns
        -------
        list of Project or list of Model

        Raises
        ------
        NotFound
            If the project does not exist.

        Examples
        --------
        >>> [model.name for model in client.ls("digits")]  # doctest: +SKIP
        ['mlp']
        """
        return self.projects() if project is None else self.models(project.rstrip("/"))

    def last_event(self, project: str) -> str:
        """Return the digest of the newest event of a project; empty for a project without events.

        It changes with every event, so a view can poll it to detect changes.
        """
        events, _ = self._some(f"/projects/{quote(project)}/events", Event, 1)
        return events[0].chain if events else ""

    def health(self) -> Health:
        """Return the state of the server: its version, its API and its instance id."""
        return self._connection.get("/health", Health)

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

    def _digest(self, place: Reference, revision: str) -> str:
        Revision.parse(revision)
        path = f"{model_path(place)}/versions/{quote(revision, safe='')}"
        return self._connection.get(path, Version).digest

    def _versions(self, path: str, limit: int | None, **query: Any) -> tuple[list[Version], int]:
        """Return the first versions of a list, and their total number."""
        # The total is that of the first page. A push can change the total while later pages are read.
        pages = list(self._pages(path, limit, **{key: value for key, value in query.items() if value}))
        decode = self._item_decoder(Version)
        return [decode(item) for page in pages for item in page.items], pages[0].total if pages else 0

    def _project_or_model(self, name: str) -> tuple[str, str | None]:
        """Resolve a name to a project and a model; the model is None if the name is a project."""
        if isinstance(name, str) and name.endswith("/"):
            return check_name(name[:-1], "project name"), None
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(
                f"{name!r} names a version; a history is of all of a model", hint=f"look at {name.partition('@')[0]!r}"
            )
        if "/" in name:
            return place.project or "", place.model
        is_project = self._exists(f"/projects/{quote(name)}", Project)
        is_model = self._exists(model_path(place), Model)
        if is_project and is_model:
            raise InvalidReference(
                f"{name!r} is a project and a model", hint=f"say {name + '/'!r} or {f'{place.project}/{name}'!r}"
            )
        if not is_project and not is_model:
            near = self._nearest(name, place.project or "")
            raise NotFound(
                f"no project {name!r}, and no model {name!r} in project {place.project!r}",
                hint=f"did you mean {near!r}?" if near else self._elsewhere(place) or NAME_HINT,
            )
        return (name, None) if is_project else (place.project or "", name)

    def _nearest(self, name: str, project: str) -> str | None:
        """Return the most similar name of a project, or of a model of this project."""
        known = [each.name for each in self.projects()]
        if project.casefold() in map(str.casefold, known):
            known += [each.name for each in self.models(project)]
        return suggest(name, known)

    def _elsewhere(self, place: Reference) -> str | None:
        """Return the hint of the server if a model in another project has this name."""
        try:
            self._connection.get(model_path(place), Model)
        except NotFound as error:
            return error.hint if error.hint and error.hint.startswith("did you mean") else None
        return None

    def _exists(self, path: str, type_: type[Any]) -> bool:
        try:
            self._connection.get(path, type_)
        except NotFound:
            return False
        return True


def _version_path(version: Version) -> str:
    return f"{model_path(Reference(version.project, version.model))}/versions/{version.name}"


def _beside(first: Version, name: str) -> str:
    """Complete a second reference with the project, and if it has no model the model, of the first version."""
    if not isinstance(name, str) or "/" in name.partition("@")[0]:
        return name
    return f"{first.project}/{first.model}{name}" if name.startswith("@") else f"{first.project}/{name}"
