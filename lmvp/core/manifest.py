"""The manifest: the complete content of a version as canonical JSON. Its BLAKE3 is the digest of the version.

It contains the parents, so digests cover the history, but not message, metrics, params and tags. See docs/format.md,
"Manifest".
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from lmvp.core import digest
from lmvp.errors import InvalidManifest

MANIFEST_LIMIT = 16 << 20
"""Maximum bytes of a manifest."""

FORMAT_VERSION = 1

INTEGERS = range(-(1 << 63), 1 << 63)
"""Range of the integers in `meta`."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A chunk of a file: `["<id>", size]`."""

    # An array takes less space than an object: a manifest can list 200,000 chunks.
    id: str
    size: int


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a version with the list of its chunks."""

    path: str
    size: int
    digest: str
    chunks: tuple[Chunk, ...] = ()


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor: bytes `offset` to `offset + size` of the file at `path`. `dtype` is a name of safetensors: `F32`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: str
    offset: int
    size: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a version.

    Attributes
    ----------
    format : str
        The format of the object, a module of `lmvp.formats`: `torch.module`, `numpy`, `files`, …
    meta : dict
        Further data that the format needs to build the object again: JSON without floats and without executable code.
    tensors : tuple of Tensor
        The tensors in model order.
    parents : tuple of str
        Digests of the parent versions.
    """

    format: str
    files: tuple[File, ...]
    tensors: tuple[Tensor, ...] = ()
    meta: dict[str, Any] = {}
    parents: tuple[str, ...] = ()
    lmvp: int = FORMAT_VERSION

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> File | None:
        """Return the file at `path`, or None if it does not exist."""
        return next((file for file in self.files if file.path == path), None)


def encode(manifest: Manifest) -> bytes:
    """Return the canonical JSON: keys sorted, no white space, UTF-8.

    Examples
    --------
    >>> encode(Manifest("files", ()))
    b'{"files":[],"format":"files","lmvp":1,"meta":{},"parents":[],"tensors":[]}'
    """
    return msgspec.json.encode(manifest, order="sorted")


def decode(data: bytes | memoryview) -> Manifest:
    """Parse a manifest and check its types. `lmvp.core.manifest_validation` checks the values.

    Raises
    ------
    InvalidManifest
        If it is too long, is not JSON, or has a missing or unknown field.
    """
    if len(data) > MANIFEST_LIMIT:
        raise InvalidManifest(f"a manifest of {len(data):,} bytes; the limit is {MANIFEST_LIMIT:,}")
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidManifest(f"this is not a manifest: {error}") from None


def decode_new(data: bytes | memoryview) -> Manifest:
    """Parse a manifest of a new version strictly, as docs/format.md specifies it.

    `decode` is more lenient about `meta`, because versions from older servers must remain readable.

    Raises
    ------
    InvalidManifest
        If `decode` refuses it, an object has a duplicate key, or `meta` has a float or an integer beyond 64 bits.
    """
    manifest = decode(data)
    # Canonical JSON cannot have a duplicate key. LMVP's client sends it, so the slower parser below runs rarely.
    if encode(manifest) != bytes(data):
        _refuse_duplicates(data)
    problem = _unstorable(manifest.meta)
    if problem:
        raise InvalidManifest(f"the meta of a manifest holds {problem}", hint="docs/format.md, Manifest")
    return manifest


def _refuse_duplicates(data: bytes | memoryview) -> None:
    try:
        json.loads(bytes(data), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"this is not a manifest: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {key[:80]!r} occurs twice in an object")
    return found


def _unstorable(meta: dict[str, Any]) -> str | None:
    """Return a phrase for a float or an integer beyond 64 bits in `meta`; None if there is neither."""
    waiting: list[Any] = [meta]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, float):
            return f"the float {value!r}"
        elif isinstance(value, int) and not INTEGERS.start <= value < INTEGERS.stop:
            return "an integer of more than 64 bits"
    return None


def digest_of(manifest: Manifest) -> str:
    """Return the digest of a version: the BLAKE3 of the canonical JSON."""
    return digest.of_bytes(encode(manifest))


def content_of(manifest: Manifest) -> str:
    """Return the digest without parents, which is equal for versions with equal content and different histories."""
    return digest_of(msgspec.structs.replace(manifest, parents=()))
