"""Export of a model with its history as plain files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmvp.archive import export_format
from lmvp.archive.export_format import (
    ModelFile,
    Named,
    Stand,
    VersionFile,
)
from lmvp.archive.readers import open_inlet
from lmvp.archive.writers import FolderOutlet, Outlet, TarOutlet
from lmvp.core import manifest as manifests
from lmvp.core.manifest import File
from lmvp.core.schemas import Alias, Model, Version
from lmvp.errors import Conflict, DamagedFile, InvalidArgument, UserError
from lmvp.transfer.download import VersionReader
from lmvp.transfer.progress import Advance, Progress, showing

_OTHER_KINDS = (
    ".tar.gz",
    ".tar.xz",
    ".tar.bz2",
    ".tar.zst",
    ".tgz",
    ".txz",
    ".gz",
    ".xz",
    ".bz2",
    ".zst",
    ".zip",
    ".7z",
)
_REPLACE = "choose another path, or replace it: `--force`"
_GROUP, _GROUP_FILES = 16 << 20, 10_000
"""Maximum bytes and number of small files that are downloaded together, in memory."""

Opener = Callable[[Version], VersionReader]


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes
    ----------
        The folder or the `.tar` file.
    versions, kept : int
        Counts of the versions in the export, and of those that were already complete.
    bytes : int
        Bytes written to files of versions.
    """

    path: Path
    versions: int
    kept: int
    bytes: int


def model_file(model: Model, aliases: Sequence[Alias], versions: Sequence[Version]) -> ModelFile:
    """Return the content of `model.json`, with the aliases that point at a version of the export."""
    numbers = {version.number for version in versions}
    return ModelFile(
        kind=export_format.KIND,
        format=export_format.FORMAT,
        project=model.project,
        name=model.name,
        created_at=model.created_at,
        description=model.description,
        keep=model.keep,
        last=max(model.last, model.latest),  # an early server sends no `last`
        aliases=tuple(
            Stand(name=alias.name, number=alias.number, moved_at=alias.moved_at, moved_by=alias.moved_by)
            for alias in aliases
            if alias.number in numbers
        ),
        versions=tuple(Named(number=alias.number, digest=alias.digest) for alias in versions),
    )


def export(
    path: Path,
    model: ModelFile,
    versions: Sequence[Version],
    opener: Opener,
    progress: Progress,
    *,
    force: bool = False,
) -> Exported:
    """Write versions, oldest first, to a folder, or to a `.tar` file if the path has this suffix.

    Parameters
    ----------
    force : bool
        Replace a file or an export of another model. A folder with other content is never deleted.

    Raises
    ------
    Conflict
        If the folder or the file has other content or contains another model.
    InvalidArgument
        If the path has the suffix of another archive format.
    StorageFull, StorageReadOnly
        If the disk is full or does not allow writing. An export to a folder can be continued.
    """
    _check_suffix(path)
    with showing(progress, sum(version.size for version in versions), "export") as advance:
        if path.suffix.lower() == ".tar":
            if not force:
                _check_replaced(path, model)
            with TarOutlet.open(path) as tar:
                return _Export(tar, opener, advance).run(path, model, versions)
        if force:
            _delete_other(path, model)
        folder = FolderOutlet.open(path, export_format.MODEL)
        _check_same(folder, path, model)
        return _Export(folder, opener, advance).run(path, model, versions)


def _check_suffix(path: Path) -> None:
    """Refuse the suffix of another archive format, which would otherwise become the name of a folder."""
    kinds = [kind for kind in _OTHER_KINDS if path.name.lower().endswith(kind)]
    if kinds and not path.is_dir():
        stem = path.with_name(path.name[: -len(kinds[0])])
        raise InvalidArgument(
            f"{path} is a name of another kind of archive", hint=f"an export is a .tar, or a folder: {stem}.tar, {stem}"
        )


def _delete_other(path: Path, model: ModelFile) -> None:
    """Delete a file or the export of another model. Keep an export of this model and a folder with other content."""
    if path.is_file() or path.is_symlink():
        path.unlink()
    elif (path / export_format.MODEL).is_file():
        data = (path / export_format.MODEL).read_bytes()[: export_format.JSON_LIMIT]
        try:
            _check_model(data, path, model)
        except Conflict:
            export_format.read_model(
                data, str(path / export_format.MODEL)
            )  # raises if the file is damaged: perhaps no export
            shutil.rmtree(path)


def _check_same(folder: FolderOutlet, path: Path, model: ModelFile) -> None:
    data = folder.read(export_format.MODEL, export_format.JSON_LIMIT)
    if data is not None:
        _check_model(data, path, model)


def _check_replaced(path: Path, model: ModelFile) -> None:
    """Refuse to replace a file that is not an export of this model. An empty file can be replaced."""
    if path.is_file() and path.stat().st_size:
        try:
            data = open_inlet(path).read(export_format.MODEL, export_format.JSON_LIMIT)
        except (UserError, OSError):
            data = b""
        _check_model(data, path, model)


def _check_model(data: bytes, path: Path, model: ModelFile) -> None:
    # A model that was created again under the same name has another date.
    try:
        found = export_format.read_model(data, str(path / export_format.MODEL))
    except DamagedFile:
        raise Conflict(f"{path} is not an export of a model", hint=_REPLACE) from None
    if (found.project, found.name, found.created_at) != (model.project, model.name, model.created_at):
        raise Conflict(f"{path} holds an export of {found.project}/{found.name}", hint=_REPLACE)


def _groups(files: Sequence[File]) -> Iterator[list[File]]:
    """Group adjacent small files, so that each group is one download."""
    group: list[File] = []
    room = _GROUP
    for file in files:
        if group and (file.size > room or len(group) >= _GROUP_FILES):
            yield group
            group, room = [], _GROUP
        group.append(file)
        room -= file.size
    if group:
        yield group


class _Export:
    """The state of a running export."""

    def __init__(self, outlet: Outlet, opener: Opener, advance: Advance) -> None:
        self._outlet, self._opener, self._advance = outlet, opener, advance
        self._kept = self._bytes = 0

    def run(self, path: Path, model: ModelFile, versions: Sequence[Version]) -> Exported:
        self._put(export_format.MODEL, export_format.encode(model))
        for version in versions:
            self._version(version)
        return Exported(path, len(versions), self._kept, self._bytes)

    def _version(self, version: Version) -> None:
        folder = export_format.folder_of(version.number)
        reader = self._opener(version)
        fields = {
            f"{folder}/{export_format.MANIFEST}": manifests.encode(reader.manifest),
            f"{folder}/{export_format.VERSION}": export_format.encode(VersionFile.of(version)),
        }
        # If `version.json` exists and no file was written, the version was already complete.
        before = self._bytes, self._outlet.read(f"{folder}/{export_format.VERSION}", export_format.JSON_LIMIT)
        # A folder gets the records last, because `version.json` marks a complete version. A tar gets them first, so
        # that a reader of the stream knows the files before they arrive.
        if not self._outlet.records_last:
            self._put_all(fields)
        for group in _groups(reader.manifest.files):
            self._files(reader, group, f"{folder}/files")
        if self._outlet.records_last:
            self._put_all(fields)
        self._kept += before[0] == self._bytes and before[1] is not None

    def _files(self, reader: VersionReader, files: Sequence[File], folder: str) -> None:
        """Export a group of files: in memory if there are several, otherwise directly to the target."""
        if len(files) == 1:
            self._file(reader, files[0], f"{folder}/{files[0].path}")
            return
        kept = {file.path: self._outlet.keeps(f"{folder}/{file.path}", file) for file in files}
        buffers = {file.path: bytearray(file.size) for file in files if not kept[file.path]}

        def deliver(path: str, offset: int, piece: memoryview) -> None:
            buffers[path][offset : offset + len(piece)] = piece

        reader.fetch_all((file for file in files if not kept[file.path]), deliver)
        for file in files:
            if not kept[file.path]:
                with self._outlet.place(f"{folder}/{file.path}", file.size) as write:
                    write(0, memoryview(buffers[file.path]))
                self._bytes += file.size
            self._advance(file.size)

    def _file(self, reader: VersionReader, file: File, path: str) -> None:
        if self._outlet.keeps(path, file):
            self._advance(file.size)
            return
        with self._outlet.place(path, file.size) as write:

            def deliver(offset: int, piece: memoryview) -> None:
                write(offset, piece)
                self._advance(len(piece))

            reader.fetch(file, deliver)
        self._bytes += file.size

    def _put_all(self, files: dict[str, bytes]) -> None:
        for path, data in files.items():
            self._put(path, data)

    def _put(self, path: str, data: bytes) -> None:
        # An unchanged file is not written again, which keeps its modification time and saves a sync.
        if self._outlet.read(path, export_format.JSON_LIMIT) != data:
            self._outlet.put(path, data)
