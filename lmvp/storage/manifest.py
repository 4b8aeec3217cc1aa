"""The manifest: all that a version's content is, as canonical JSON. Its BLAKE3 is the version's digest.

Message, metrics, params and tags are not in it; parents are, so history is a chain that can be proved.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from lmvp.errors import InvalidManifest
from lmvp.storage import digest

MANIFEST_LIMIT = 16 << 20
"""Bytes of a manifest at most."""

FORMAT_VERSION = 1

INTEGERS = range(-(1 << 63), 1 << 63)
"""Integers that may occur in `meta`."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a file: `["<id>", size]`."""

    id: str
    size: int


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a version, as the chunks that make it up."""

    path: str
    size: int
    digest: str
    chunks: tuple[Chunk, ...] = ()


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor: bytes `offset` to `offset + size` of the file at `path`. `dtype` as safetensors writes it: `F32`."""

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
        Which of `lmvp.formats` made it: `torch.module`, `numpy`, `files`, …
    meta : dict
        What that format needs besides to build the object again. JSON without floats; never holds code that runs.
    tensors : tuple of Tensor
        In model order.
    parents : tuple of str
        Digests of the versions it grew from.
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
        """Return the file at `path`, or None."""
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
    """Read a manifest; its types are checked here, its sense in `lmvp.storage.check`.

    Raises
    ------
    InvalidManifest
        If it is too long, not JSON, or lacks or adds a field.
    """
    if len(data) > MANIFEST_LIMIT:
        raise InvalidManifest(f"a manifest of {len(data):,} bytes; the limit is {MANIFEST_LIMIT:,}")
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidManifest(f"this is not a manifest: {error}") from None


def decode_new(data: bytes | memoryview) -> Manifest:
    """Read a manifest that comes from outside, as strictly as docs/format.md describes it.

    `decode` stays lenient about `meta`, since versions that older servers took must remain readable.

    Raises
    ------
    InvalidManifest
        If `decode` refuses it, an object has a key twice, or there is a float or an integer beyond 64 bits.
    """
    manifest = decode(data)
    if encode(manifest) != bytes(data):  # canonical JSON, which our client sends, cannot have a key twice
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
    """Return a phrase for a float or an integer beyond 64 bits; None where there is neither."""
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
    """Return the digest of a version: BLAKE3 of the canonical JSON."""
    return digest.of_bytes(encode(manifest))


def content_of(manifest: Manifest) -> str:
    """Return the digest without parents, which is equal for equal models wherever they stand in history."""
    return digest_of(msgspec.structs.replace(manifest, parents=()))
