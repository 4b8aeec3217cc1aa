"""Client methods that export a model, import it, and back up a server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from lmvp.client._base import BaseClient, model_path
from lmvp.core import validation
from lmvp.core.references import Reference
from lmvp.core.schemas import (
    Alias,
    Model,
    ModelChange,
    MoveAlias,
    Version,
)
from lmvp.errors import InvalidReference, NotFound
from lmvp.transfer.progress import Progress

if TYPE_CHECKING:
    from lmvp.archive.backup import BackedUp
    from lmvp.archive.export import Exported
    from lmvp.archive.export_format import ModelFile
    from lmvp.archive.import_ import Imported

T = TypeVar("T")


class Archives(BaseClient):
    """The methods of `lmvp.Client` for exports, imports and backups."""

    def export_model(
        self,
        name: str,
        to: str | Path,
        *,
        versions: str | Iterable[str | int] | None = None,
        force: bool = False,
        progress: Progress = None,
    ) -> Exported:
        """Write a model with its history as plain files that can be read without LMVP.

        If the folder has an earlier export of the model, only missing and damaged files are written.

        Parameters
        ----------
        name : str
            `[project/]model`.
        to : path
            A new folder, or the folder of an earlier export of this model. With the suffix `.tar`, one file is written.
        versions : str or iterable of str or int, optional
            `"3,5-9,production"`, or a list of revisions. Default: all versions.
        force : bool, default False
            Replace a file or an export of another model. A folder with any other content is never deleted.
        progress : bool or callable, optional
            `False` for no bar; a callable receives the bytes done and the total bytes. Default: a bar for long
            transfers on a terminal or in a notebook.

        Returns
        -------
        Exported
            Path, number of versions, and bytes written.

        Raises
        ------
        NotFound
            If the model or a version does not exist.
        Conflict
            If the folder or file has other content, or an export of another model.
        InvalidArgument
            If the name has the suffix of another archive format, such as `.zip`.
        StorageFull, StorageReadOnly
            If the disk is full or does not allow writing.

        Examples
        --------
        >>> lmvp.export_model("digits/mlp", "mlp-export")  # doctest: +SKIP
        """
        from lmvp.archive import export as exporting
        from lmvp.archive.export_format import select_versions
        from lmvp.transfer.download import VersionReader

        # `lmvp.transfer` and `lmvp.archive` are imported late, so that `import lmvp` stays fast.
        target = validation.path(to, "to")
        place, base = self._whole_model(name)
        model = self._connection.get(base, Model)
        found = {version.number: version for version in self._list(f"{base}/versions", Version)}
        reference = f"{place.project}/{place.model}"
        wanted = select_versions(
            versions, list(found), lambda one: validation.accepted(self.version(f"{reference}@{one}")).number
        )
        # A version that was published after the list was read is not in `found`.
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
        """Create a model from an export, with its version numbers, dates, authors, parents, digests and aliases.

        The caller must be an owner of the project. An interrupted import can be repeated: versions that exist are
        skipped.

        Parameters
        ----------
        source : path
            The folder or the `.tar` file.
        name : str, optional
            `[project/]model` to create. Default: the names in the export.
        progress : bool or callable, optional
            `False` for no bar; a callable receives the bytes done and the total bytes.
        yes : bool, default False
            Confirm that protected aliases of an existing model move to the versions that the export states.

        Returns
        -------
        Imported
            Name of the model, number of versions, and bytes sent.

        Raises
        ------
        NotFound
            If there is no export at `source`.
        DamagedFile
            If a file does not match its digest, or a path leads out of the export. Versions imported before it stay.
        Conflict
            If the model has other versions under these numbers.
        ServerMismatch
            If a newer LMVP wrote the export in another format.
        ProtectedAlias
            If a protected alias would move and `yes` is False. Nothing is imported then.

        Examples
        --------
        >>> lmvp.import_model("mlp-export", "archive/mlp")  # doctest: +SKIP
        """
        from lmvp.archive import import_ as importing
        from lmvp.archive.readers import open_inlet

        inlet = open_inlet(validation.path(source, "source"))
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
        """Copy a consistent snapshot of the running server to a folder on this machine.

        The caller must be an admin or the operator of the server. A repeated backup to the same folder transfers only
        new data, and continues an interrupted one. `lmvp restore` creates a data folder from it.

        Parameters
        ----------
        to : path
            A new folder, or the folder of an earlier backup.
        quick : bool, default False
            Check only that stored chunks exist and have the right length. Otherwise every chunk is decoded and
            compared with its id.
        progress : bool or callable, optional
            `False` for no bar; a callable receives the bytes done and the total bytes.

        Returns
        -------
        BackedUp
            Contents of the backup, and the counts of copied chunks.

        Raises
        ------
        AccessDenied
            If the caller is neither an admin nor the operator.
        Conflict
            If the folder has other content, or another backup to it is running.
        IntegrityError
            If data is damaged on the server. The backup contains everything else.
        ServerMismatch
            If a newer LMVP wrote the folder in another format.
        StorageFull, StorageReadOnly
            If the disk is full or does not allow writing. The backup can be continued later.

        Examples
        --------
        >>> lmvp.Client().back_up("/mnt/backup/lmvp")  # doctest: +SKIP
        """
        from lmvp.archive.backup import back_up

        return back_up(self._connection, validation.path(to, "to"), quick=quick, progress=progress)

    # -- steps

    backup = back_up

    def _whole_model(self, name: str) -> tuple[Reference, str]:
        """Return the reference of a model and its path in the API; refuse a reference with a revision."""
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(f"{name!r} names a version, not a model", hint=f"say {name.partition('@')[0]!r}")
        return place, model_path(place)

    def _there(self, base: str) -> dict[int, str]:
        """Return the digests of the existing versions by number; nothing for a model that does not exist."""
        try:
            return {version.number: version.digest for version in self._list(f"{base}/versions", Version)}
        except NotFound:
            return {}

    def _check_aliases(self, place: Reference, base: str, said: ModelFile) -> None:
        """Raise `ProtectedAlias` if the import would move a protected alias."""
        named = {alias.name.lower(): alias.number for alias in said.aliases}
        for now in self._list(f"{base}/aliases", Alias):
            if (number := named.get(now.name.lower())) is not None:
                name = f"{place.project}/{place.model}"
                hint = f"`lmvp import FOLDER {name} --yes` moves it"
                now.check_move(number, f"moved to v{number} by this import", hint)

    def _dress(self, place: Reference, base: str, said: ModelFile) -> None:
        """Set aliases, description and retention rule of an imported model.

        The rule is set last, because it deletes versions, except those with an alias.
        """
        from lmvp.core.schemas import NewModel, NewProject

        # The first push creates project and model; an export without versions causes no push.
        if not said.versions:
            self._make(f"/projects/{quote(place.project or '')}", "/projects", NewProject(name=place.project or ""))
            self._make(base, base.rpartition("/")[0], NewModel(name=place.model))
        # Names of aliases are compared without case, as the server does.
        there = {alias.name.lower(): alias.number for alias in self._list(f"{base}/aliases", Alias)}
        for alias in said.aliases:
            if there.get(alias.name.lower()) != alias.number:
                path = f"{base}/aliases/{quote(alias.name, safe='')}"
                self._connection.send_json("PUT", path, MoveAlias(revision=str(alias.number)), Alias)
        model = self._connection.get(base, Model)
        # An existing description or rule of the model takes precedence over that of the export.
        change = ModelChange(description=model.description or said.description, keep=model.keep or said.keep)
        if (change.description, change.keep) != (model.description, model.keep):
            self._connection.send_json("PATCH", base, change, Model)

    def _make(self, path: str, parent: str, body: object) -> None:
        """Create a project or a model unless it exists."""
        try:
            self._connection.send("GET", path)
        except NotFound:
            self._connection.send_json("POST", parent, body, dict)
