"""Reading an exported model into a server: version after version, each whole or not at all.

Nothing is believed: the manifest must come to the digest, every chunk to its id, and the server reckons all of it
again. What is there already is passed over, so an import that broke off is taken up by doing it again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from lmvp.archive import layout
from lmvp.archive.inlets import Inlet, places
from lmvp.archive.layout import ModelFile, Named, VersionFile
from lmvp.connection import Connection
from lmvp.errors import Conflict, DamagedFile, NotFound
from lmvp.records import NewPush, Recorded
from lmvp.storage.manifest import Manifest
from lmvp.transfer.describe import Description
from lmvp.transfer.progress import Progress, showing
from lmvp.transfer.push import push_described


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes
    ----------
    name : str
        `project/model`, where it is now.
    versions, kept : int
        How many versions the export has, and how many of them were there already.
    bytes : int
        Bytes of chunks that had to travel.
    """

    name: str
    versions: int
    kept: int
    bytes: int


def read_model(inlet: Inlet) -> ModelFile:
    """Return what `model.json` says."""
    try:
        data = inlet.read(layout.MODEL, layout.JSON_LIMIT)
    except NotFound:
        where = inlet.shown(layout.MODEL)
        raise NotFound(
            f"there is no exported model: {where} is missing", hint="`lmvp export MODEL FOLDER` makes one"
        ) from None
    return layout.read_model(data, inlet.shown(layout.MODEL))


def import_versions(
    connection: Connection, path: str, inlet: Inlet, model: ModelFile, there: Mapping[int, str], progress: Progress
) -> tuple[int, int]:
    """Put in the versions that are not there; return how many were, and the bytes that had to travel.

    Parameters
    ----------
    path : str
        The path of the model in the API.
    there : mapping of int to str
        Digests by number.

    Raises
    ------
    Conflict
        If a number stands for something else there.
    DamagedFile
        If the export is not whole; the versions before are in.
    """
    _check_numbers(model, there)
    lacking = [one for one in model.versions if one.number not in there]
    read = [
        _read(inlet, one)[0] for one in lacking
    ]  # all of them first: what is damaged here is told before any goes in
    sent = 0
    with showing(progress, sum(version.size for version in read), "import") as advance:
        for one in lacking:
            said, manifest = _read(inlet, one)
            body = _push(said, last=model.last if one is lacking[-1] else 0)
            described = _describe(inlet, one, manifest)
            sent += push_described(connection, path, described, body, advance=advance).sent
    return len(model.versions) - len(lacking), sent


def _check_numbers(model: ModelFile, there: Mapping[int, str]) -> None:
    for one in model.versions:
        if there.get(one.number, one.digest) != one.digest:
            raise Conflict(
                f"v{one.number} is another one there: {there[one.number][:12]}, not {one.digest[:12]}",
                hint="import into a model of another name",
            )


def _read(inlet: Inlet, named: Named) -> tuple[VersionFile, Manifest]:
    """Return what is said of a version, and its manifest; its files are read when they are sent."""
    folder = layout.folder_of(named.number)
    files = []
    for name in (layout.VERSION, layout.MANIFEST):
        try:
            files.append(inlet.read(f"{folder}/{name}", layout.LIMITS[name]))
        except NotFound:
            where = inlet.shown(f"{folder}/{name}")
            raise DamagedFile(f"v{named.number} is not whole: {where} is missing", hint="export again") from None
    said = layout.read_version(files[0], named, inlet.shown(f"{folder}/{layout.VERSION}"))
    return said, layout.read_manifest(files[1], said, inlet.shown(f"{folder}/{layout.MANIFEST}"))


def _describe(inlet: Inlet, named: Named, manifest: Manifest) -> Description:
    folder = layout.folder_of(named.number)
    found = {
        chunk: place for file in manifest.files for chunk, place in places(inlet, folder, file).items()
    }  # the cuts are those of the manifest, whoever made them
    return Description(msgspec.structs.replace(manifest, parents=()), dict(found))


def _push(said: VersionFile, last: int) -> NewPush:
    return NewPush(
        push=secrets.token_hex(16),
        manifest=msgspec.Raw(b"{}"),
        message=said.message,
        metrics=said.metrics,
        params=said.params,
        tags=said.tags,
        environment=said.environment,
        create=True,
        recorded=Recorded(
            number=said.number,
            digest=said.digest,
            created_at=said.created_at,
            author=said.author,
            parents=said.parents,
            last=last,
        ),
    )
