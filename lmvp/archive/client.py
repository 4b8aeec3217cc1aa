"""Models that leave a server and come back: the part of a client that exports, imports and backs up."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from lmvp import arguments
from lmvp.base_client import BaseClient, accepted, model_path
from lmvp.errors import InvalidReference, NotFound
from lmvp.records import Alias, Model, ModelChange, MoveAlias, Version
from lmvp.references import Reference
from lmvp.transfer.progress import Progress

if TYPE_CHECKING:
    from lmvp.archive.backup import BackedUp
    from lmvp.archive.exporting import Exported
    from lmvp.archive.importing import Imported
    from lmvp.archive.layout import ModelFile

T = TypeVar("T")


class Archives(BaseClient):
    """The part of a client that exports, imports and backs up; `lmvp.Client` has it all."""

    def export_model(
        self,
        name: str,
        to: str | Path,
        *,
        versions: str | Iterable[str | int] | None = None,
        force: bool = False,
        progress: Progress = None,
    ) -> Exported:
        """Write a model with its history as plain files, which can be read without LMVP.

        Done again on the same folder it goes on: versions that are there and right are kept.

        Parameters
        ----------
        name : str
            `[project/]model`.
        to : path
            A new folder, or one of an export of this model; a name that ends in `.tar` makes one file.
        versions : str or iterable, optional
            `"3,5-9,production"`, or a list of revisions; all of them without it.
        force : bool
            Replace a file, or an export of another model. A folder that holds anything else is never deleted.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes done and bytes in all.

        Returns
        -------
        Exported
            Where it is, how many versions it has, and how many bytes were written.

        Raises
        ------
        NotFound
            If there is no such model or version.
        Conflict
            If the folder holds something else.
        StorageFull, StorageReadOnly
            If it cannot be written.

        Examples
        --------
        >>> lmvp.export_model("digits/mlp", "mlp-export")  # doctest: +SKIP
        """
        from lmvp.archive import exporting, selection
        from lmvp.transfer.pull import VersionReader

        target = arguments.path(to, "to")
        place, base = self._whole_model(name)
        model = self._connection.get(base, Model)
        found = {version.number: version for version in self._list(f"{base}/versions", Version)}
        reference = f"{place.project}/{place.model}"
        wanted = selection.chosen(
            versions, list(found), lambda one: accepted(self.version(f"{reference}@{one}")).number
        )
        chosen = [found.get(number) or self.version(f"{reference}@{number}") for number in wanted]
        said = exporting.model_file(model, self._list(f"{base}/aliases", Alias), chosen)

        def opener(version: Version) -> VersionReader:
            at = f"{base}/versions/{version.number}"
            return VersionReader(self._connection, at, self._manifest(version), progress=False)

        return exporting.export(target, said, chosen, opener, progress, force=force)

    export = export_model

    def import_model(
        self, source: str | Path, name: str | None = None, *, progress: Progress = None, yes: bool = False
    ) -> Imported:
        """Make a model of what `export_model` wrote: with its numbers, dates, authors, parents, digests and aliases.

        It takes an owner of the project. Done again it goes on: versions that are there are passed over.

        Parameters
        ----------
        source : path
            The folder or the `.tar`.
        name : str, optional
            `[project/]model` to make of it; the names that it had, by default.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes done and bytes in all.
        yes : bool
            Confirm that protected aliases of a model that exists already move to the versions that the export names.

        Returns
        -------
        Imported
            What it is called, and how many versions it has.

        Raises
        ------
        NotFound
            If there is no export.
        DamagedFile
            If something in it is not what its digest says, or tries to lead out of it. What came before is in.
        Conflict
            If the model has other versions under these numbers.
        ProtectedAlias
            If a protected alias would move, without `yes`. Nothing is imported then.

        Examples
        --------
        >>> lmvp.import_model("mlp-export", "archive/mlp")  # doctest: +SKIP
        """
        from lmvp.archive import importing
        from lmvp.archive.inlets import open_inlet

        inlet = open_inlet(arguments.path(source, "source"))
        model = importing.read_model(inlet)
        place, base = self._whole_model(name or f"{model.project}/{model.name}")
        there = self._there(base)
        if there and not yes:
            self._check_aliases(place, base, model)
        kept, sent = importing.import_versions(self._connection, base, inlet, model, there, progress)
        self._dress(place, base, model)
        return importing.Imported(f"{place.project}/{place.model}", len(model.versions), kept, sent)

    import_ = import_model

    def back_up(self, to: str | Path, *, quick: bool = False, progress: Progress = None) -> BackedUp:
        """Copy the whole server, as it is at this moment, to a folder of this machine; it goes on serving meanwhile.

        It takes an owner of the server. Done again on the same folder, only what is new travels; a backup that broke
        off goes on. `lmvp restore` makes a data folder of it.

        Parameters
        ----------
        to : path
            A new folder, or one of an earlier backup.
        quick : bool
            Look only whether kept chunks are there and whole; without it each is decoded and held against its id.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes done and bytes in all.

        Returns
        -------
        BackedUp
            What is in the backup, and what had to be copied.

        Raises
        ------
        AccessDenied
            If the server is not the caller's.
        Conflict
            If the folder holds something else, or another backup to it is under way.
        IntegrityError
            If chunks are damaged on the server; all else is in the backup.
        StorageFull, StorageReadOnly
            If it cannot be written; it can be gone on with.

        Examples
        --------
        >>> lmvp.Client().back_up("/mnt/backup/lmvp")  # doctest: +SKIP
        """
        from lmvp.archive.backup import back_up

        return back_up(self._connection, arguments.path(to, "to"), quick=quick, progress=progress)

    # -- steps

    backup = back_up

    def _whole_model(self, name: str) -> tuple[Reference, str]:
        """Return what a name without a revision means, and its path in the API."""
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(f"{name!r} names a version, not a model", hint=f"say {name.partition('@')[0]!r}")
        return place, model_path(place)

    def _there(self, base: str) -> dict[int, str]:
        try:
            return {version.number: version.digest for version in self._list(f"{base}/versions", Version)}
        except NotFound:
            return {}

    def _check_aliases(self, place: Reference, base: str, said: ModelFile) -> None:
        """Refuse an import that would move a protected alias."""
        named = {alias.name.lower(): alias.number for alias in said.aliases}
        for now in self._list(f"{base}/aliases", Alias):
            if (number := named.get(now.name.lower())) is not None:
                name = f"{place.project}/{place.model}"
                hint = f"`lmvp import FOLDER {name} --yes` moves it"
                now.check_move(number, f"moved to v{number} by this import", hint)

    def _dress(self, place: Reference, base: str, said: ModelFile) -> None:
        """Give a model its aliases, its description and its rule: last, since the rule takes versions away."""
        from lmvp.records import NewModel, NewProject

        if not said.versions:
            self._make(f"/projects/{quote(place.project or '')}", "/projects", NewProject(name=place.project or ""))
            self._make(base, base.rpartition("/")[0], NewModel(name=place.model))
        there = {alias.name.lower(): alias.number for alias in self._list(f"{base}/aliases", Alias)}
        for alias in said.aliases:
            if there.get(alias.name.lower()) != alias.number:
                path = f"{base}/aliases/{quote(alias.name, safe='')}"
                self._connection.send_json("PUT", path, MoveAlias(revision=str(alias.number)), Alias)
        model = self._connection.get(base, Model)
        change = ModelChange(description=model.description or said.description, keep=model.keep or said.keep)
        if (change.description, change.keep) != (model.description, model.keep):
            self._connection.send_json("PATCH", base, change, Model)

    def _make(self, path: str, parent: str, body: object) -> None:
        try:
            self._connection.send("GET", path)
        except NotFound:
            self._connection.send_json("POST", parent, body, dict)
