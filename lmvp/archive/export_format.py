"""Files of an exported model: paths, encoding and validation. See docs/format.md, "Exported models"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from lmvp.core import digest
from lmvp.core import manifest as manifests
from lmvp.core.manifest import MANIFEST_LIMIT, Manifest
from lmvp.core.manifest_validation import check_manifest
from lmvp.core.schemas import (
    Parent,
    Scalar,
    Struct,
    Version,
    WireFloat,
    encode_float,
)
from lmvp.errors import DamagedFile, InvalidArgument, InvalidManifest, NotFound, ServerMismatch

T = TypeVar("T", bound=Struct)

KIND = "lmvp model"
FORMAT = 1
"""Version of the export format. A reader refuses other versions."""

MODEL, VERSION, MANIFEST = "model.json", "version.json", "manifest.json"
JSON_LIMIT = 16 << 20
"""Maximum bytes of `model.json` and of `version.json`."""

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Stand(Struct, frozen=True, kw_only=True):
    """An alias and the version that it points at."""

    name: str
    number: int
    moved_at: datetime | None = None
    moved_by: str = ""


class Named(Struct, frozen=True, kw_only=True):
    """The number and digest of a version in the export."""

    number: int
    digest: str


class ModelFile(Struct, frozen=True, kw_only=True):
    """Content of `model.json`: the model, its aliases, and the versions in the export, oldest first.

    Attributes
    ----------
    last : int
        The highest version number that the model ever used.
    """

    kind: str
    format: int
    project: str
    name: str
    created_at: datetime
    description: str = ""
    keep: str = ""
    last: int = 0
    aliases: tuple[Stand, ...] = ()
    versions: tuple[Named, ...] = ()


class VersionFile(Struct, frozen=True, kw_only=True):
    """Content of `version.json`: the record of a version. Its content is described by `manifest.json`."""

    number: int
    digest: str
    content: str
    created_at: datetime
    author: str = ""
    message: str = ""
    parents: tuple[Parent, ...] = ()
    metrics: dict[str, WireFloat] = msgspec.field(default_factory=dict)
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    revised: int = 0
    size: int = 0

    @classmethod
    def of(cls, version: Version) -> VersionFile:
        """Create the file content from a version."""
        kept = {name: getattr(version, name) for name in cls.__struct_fields__}
        return cls(**{**kept, "metrics": {key: encode_float(float(v)) for key, v in version.metrics.items()}})


class _Head(msgspec.Struct):
    kind: str = ""
    format: int = 0


def folder_of(number: int) -> str:
    """Return the folder of a version.

    Examples
    --------
    >>> folder_of(3)
    'versions/v3'
    """
    return f"versions/v{number}"


def encode(content: Struct) -> bytes:
    """Return readable JSON with the digest of its content in the field `check`."""
    fields = msgspec.to_builtins(content)
    return msgspec.json.format(msgspec.json.encode({**fields, "check": _check_of(fields)}), indent=2) + b"\n"


def _check_of(fields: dict[str, Any]) -> str:
    """Return the BLAKE3 of the canonical JSON of an object without its field `check`."""
    rest = {name: value for name, value in fields.items() if name != "check"}
    return digest.of_bytes(msgspec.json.encode(rest, order="sorted"))


def _verify(data: bytes, where: str) -> None:
    """Raise `DamagedFile` if the content does not match its `check`. Exports of older releases lack this field."""
    fields = _decode(data, dict[str, Any], where)
    if fields.get("check") and fields["check"] != _check_of(fields):
        raise DamagedFile(
            f"{where} is damaged: its content does not match its check",
            hint="export the model again; if you edited the file, remove the field `check`",
        )


def read_model(data: bytes, where: str) -> ModelFile:
    """Parse and validate `model.json` as untrusted input.

    Raises
    ------
    DamagedFile
        If it is malformed or damaged; the message states the reason.
    ServerMismatch
        If it has another format version.
    """
    head = _decode(data, _Head, where)
    if head.kind != KIND:
        raise DamagedFile(f"{where} is not that of an exported model", hint="`lmvp export MODEL FOLDER` makes one")
    if head.format != FORMAT:
        raise ServerMismatch(f"{where} has format {head.format}; this side reads {FORMAT}", hint="update lmvp")
    _verify(data, where)
    model: ModelFile = _decode(data, ModelFile, where)
    numbers = [version.number for version in model.versions]
    _demand(numbers == sorted(set(numbers)) and all(number > 0 for number in numbers), where, "its versions")
    _demand(all(_DIGEST.fullmatch(version.digest) for version in model.versions), where, "a digest")
    _demand(all(alias.number in numbers for alias in model.aliases), where, "an alias, which stands at no version,")
    return model


def read_version(data: bytes, named: Named, where: str) -> VersionFile:
    """Parse a `version.json`; raise `DamagedFile` if its number or digest differs from `model.json`."""
    _verify(data, where)
    version: VersionFile = _decode(data, VersionFile, where)
    _demand(version.number == named.number, where, "its number")
    _demand(version.digest == named.digest, where, "its digest")
    # Metrics that JSON cannot express are these strings; see docs/format.md, "Exported models".
    odd = [key for key, value in version.metrics.items() if isinstance(value, str) and value not in NOT_FINITE]
    _demand(not odd, where, f"the metric {odd[:1]}")
    return version


def read_manifest(data: bytes, version: VersionFile, where: str) -> Manifest:
    """Parse a `manifest.json` and verify it against the record of its version.

    Raises
    ------
    DamagedFile
        If its bytes do not match the digest, or it breaks a rule of the format.
    """
    _demand(digest.of_bytes(data) == version.digest, where, "its digest")
    try:
        manifest = manifests.decode(data)
        check_manifest(manifest)
    except InvalidManifest as error:
        raise DamagedFile(f"{where} is damaged: {error.message}", hint=error.hint) from None
    parents = tuple(parent.digest for parent in version.parents)
    _demand(manifest.parents == parents, where, "the list of parents")
    return manifest


def _decode(data: bytes, type_: type[Any], where: str) -> Any:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(f"{where} is damaged: {error}") from None


def _demand(condition: object, where: str, what: str) -> None:
    if not condition:
        raise DamagedFile(f"{where} is damaged: {what} is not what it must be", hint="export the model again")


LIMITS = {MODEL: JSON_LIMIT, VERSION: JSON_LIMIT, MANIFEST: MANIFEST_LIMIT}


_RANGE = re.compile(r"v?([0-9]{1,9})-v?([0-9]{1,9})", re.IGNORECASE)


def select_versions(
    given: str | Iterable[str | int] | None, existing: Sequence[int], find: Callable[[str], int]
) -> list[int]:
    """Return the version numbers of a selection, sorted and unique; all numbers if there is no selection.

    Parameters
    ----------
    given : str or iterable of str or int, optional
        Revisions and ranges of numbers; separated by commas in a string.
    existing : sequence of int
        The existing version numbers.
    find : callable
        Returns the version number of a revision.

    Raises
    ------
    NotFound
        If a range contains no version.
    InvalidArgument
        If the selection is empty.

    Examples
    --------
    >>> select_versions("v1,4-9,best", [1, 2, 4, 5, 8], {"v1": 1, "best": 2}.__getitem__)
    [1, 2, 4, 5, 8]
    >>> select_versions(None, [3, 1], int)
    [1, 3]
    """
    if given is None:
        return sorted(existing)
    if not isinstance(given, Iterable):
        raise InvalidArgument(
            f"`--versions` is {given!r}"[:80], hint='write "3,5-9,production", or a list of revisions'
        )
    words = given.split(",") if isinstance(given, str) else [str(revision) for revision in given]
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise InvalidArgument("`--versions` names no version", hint="write 3,5-9,production, or leave it out for all")
    return sorted({number for word in words for number in _numbers_of(word, existing, find)})


def _numbers_of(word: str, existing: Sequence[int], find: Callable[[str], int]) -> list[int]:
    match = _RANGE.fullmatch(word)
    if match is None:
        return [find(word)]
    first, last = int(match[1]), int(match[2])
    # Removed versions leave gaps, so a range selects only the numbers that exist.
    inside = [number for number in existing if first <= number <= last]
    if not inside:
        raise NotFound(f"there is no version from v{first} to v{last}")
    return inside
