"""Import of an exported model into a server, version by version, each completely or not at all.

The client verifies the digests of manifests and chunks, and the server verifies them again. Versions that the model
already has are skipped, so an interrupted import can be repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from lmvp.archive import export_format
from lmvp.archive.export_format import ModelFile, Named, VersionFile
from lmvp.archive.readers import Inlet, places
from lmvp.connection import Connection
from lmvp.core.manifest import Manifest
from lmvp.core.schemas import ImportedMetadata, NewPush
from lmvp.errors import Conflict, DamagedFile, NotFound
from lmvp.transfer.manifest_builder import Description
from lmvp.transfer.progress import Progress, showing
from lmvp.transfer.upload import push_described


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import.

    Attributes
    ----------
    name : str
        `project/model` on the server.
    versions, kept : int
        Counts of the versions in the export, and of those that the model already had.
    bytes : int
        Bytes of encoded chunks that were sent.
    """

    name: str
    versions: int
    kept: int
    bytes: int


def read_model(inlet: Inlet) -> ModelFile:
    """Read and parse `model.json`."""
    try:
        data = inlet.read(export_format.MODEL, export_format.JSON_LIMIT)
    except NotFound:
        where = inlet.shown(export_format.MODEL)
        raise NotFound(
            f"there is no exported model: {where} is missing", hint="`lmvp export MODEL FOLDER` makes one"
        ) from None
    return export_format.read_model(data, inlet.shown(export_format.MODEL))


def import_versions(
    connection: Connection, path: str, inlet: Inlet, model: ModelFile, there: Mapping[int, str], progress: Progress
) -> tuple[int, int]:
    """Push the missing versions; return the number of versions that existed and the bytes that were sent.

    Parameters
    ----------
    path : str
        Path of the model in the API.
    there : mapping of int to str
        Digests of the existing versions, by number.

    Raises
    ------
    Conflict
        If a number belongs to another version on the server.
    DamagedFile
        If the export is incomplete or damaged. Versions imported before it stay.
    """
    _check_numbers(model, there)
    lacking = [named for named in model.versions if named.number not in there]
    read = [
        _read(inlet, named)[0] for named in lacking
    ]  # read all of them first, so that damage in their JSON is reported before the first push
    sent = 0
    with showing(progress, sum(version.size for version in read), "import") as advance:
        for named in lacking:
            record, manifest = _read(inlet, named)
            # The last version carries the highest number of the exported model, so that it is not used again.
            body = _push(record, last=model.last if named is lacking[-1] else 0)
            described = _describe(inlet, named, manifest)
            sent += push_described(connection, path, described, body, advance=advance).sent
    return len(model.versions) - len(lacking), sent


def _check_numbers(model: ModelFile, there: Mapping[int, str]) -> None:
    for named in model.versions:
        if there.get(named.number, named.digest) != named.digest:
            raise Conflict(
                f"v{named.number} is another one there: {there[named.number][:12]}, not {named.digest[:12]}",
                hint="import into a model of another name",
            )


def _read(inlet: Inlet, named: Named) -> tuple[VersionFile, Manifest]:
    """Read the record and the manifest of a version. Its files are read when they are sent."""
    folder = export_format.folder_of(named.number)
    files = []
    for name in (export_format.VERSION, export_format.MANIFEST):
        try:
            files.append(inlet.read(f"{folder}/{name}", export_format.LIMITS[name]))
        except NotFound:
            where = inlet.shown(f"{folder}/{name}")
            raise DamagedFile(f"v{named.number} is not whole: {where} is missing", hint="export again") from None
    record = export_format.read_version(files[0], named, inlet.shown(f"{folder}/{export_format.VERSION}"))
    return record, export_format.read_manifest(files[1], record, inlet.shown(f"{folder}/{export_format.MANIFEST}"))


def _describe(inlet: Inlet, named: Named, manifest: Manifest) -> Description:
    folder = export_format.folder_of(named.number)
    stored = {
        chunk: place for file in manifest.files for chunk, place in places(inlet, folder, file).items()
    }  # cut as the manifest states: another release of LMVP can cut files differently
    return Description(msgspec.structs.replace(manifest, parents=()), dict(stored))


def _push(record: VersionFile, last: int) -> NewPush:
    return NewPush(
        # A random id is enough here: a repeated import skips complete versions instead of continuing a push.
        push=secrets.token_hex(16),
        manifest=msgspec.Raw(b"{}"),
        message=record.message,
        metrics=record.metrics,
        params=record.params,
        tags=record.tags,
        environment=record.environment,
        create=True,
        recorded=ImportedMetadata(
            number=record.number,
            digest=record.digest,
            created_at=record.created_at,
            author=record.author,
            parents=record.parents,
            last=last,
        ),
    )
