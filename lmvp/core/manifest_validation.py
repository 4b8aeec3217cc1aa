"""Validation of manifests, which are untrusted input. See docs/format.md, "Manifest"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

from lmvp.core import digest
from lmvp.core.chunk_frames import CHUNK_LIMIT
from lmvp.core.manifest import (
    FORMAT_VERSION,
    File,
    Manifest,
    Tensor,
)
from lmvp.core.safetensors import tensor_size
from lmvp.errors import InvalidManifest

PATH_LIMIT = 1024
NESTING_LIMIT = 200
"""Maximum nesting of `meta` and of other free JSON."""

REPEATED, REPEATS = 16 << 30, 64
"""A new version has at most `REPEATED` bytes plus `REPEATS` times the bytes of its distinct chunks. A layer of zeros
is one chunk, however large it is, so some repetition is normal."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and unpaired surrogates: the categories Cc and Cs."""
_NO_PARTS = frozenset({"", ".", ".."})
_FORMAT = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_DIMENSIONS = 64
# Larger than any real tensor. It bounds the size of the integers in the products of lengths.
_SIZE_LIMIT = 1 << 60
_SHARED, _HASHED = 64, 1 << 22
"""Limit of the chunks that the digests of all tensors cover: `_HASHED` plus `_SHARED` times the chunks of the version.
It bounds the work of a reader."""


def check_manifest(manifest: Manifest) -> None:
    """Validate a manifest against the rules of docs/format.md, "Manifest".

    Raises
    ------
    InvalidManifest
        If the manifest breaks a rule; the message names the file or tensor.
    """
    if manifest.lmvp != FORMAT_VERSION:
        raise InvalidManifest(
            f"a manifest of format {manifest.lmvp}; this side reads {FORMAT_VERSION}", hint="update lmvp"
        )
    _demand(_FORMAT.fullmatch(manifest.format), f"bad format name {manifest.format!r}")
    _demand(all(_DIGEST.fullmatch(parent) for parent in manifest.parents), "a parent is not a digest")
    _demand(not too_deep(manifest.meta), f"its meta is nested more than {NESTING_LIMIT} levels deep")
    _check_paths([file.path for file in manifest.files])
    sizes: dict[str, int] = {}
    for file in manifest.files:
        _check_file(file, sizes)
    _check_tensors(manifest)


def check_repetition(manifest: Manifest) -> None:
    """Check the size of a new version against the bytes of its distinct chunks.

    A manifest of 16 MB can name one chunk 200,000 times, and every reader of the version would read 800 GB. Versions
    from older servers are not checked and remain readable.

    Raises
    ------
    InvalidManifest
        If it is larger than `REPEATED` plus `REPEATS` times its distinct chunks.
    """
    distinct = sum({chunk.id: chunk.size for file in manifest.files for chunk in file.chunks}.values())
    limit = REPEATED + REPEATS * distinct
    if manifest.size > limit:
        raise InvalidManifest(
            f"the files have {manifest.size:,} bytes, but their distinct chunks only {distinct:,}; "
            f"the limit for these is {limit:,}: {REPEATED >> 30} GiB and {REPEATS} times the distinct chunks",
            hint="push only the files that differ, or several versions",
        )


def too_deep(value: dict[str, Any]) -> bool:
    """Return whether JSON data is nested deeper than `NESTING_LIMIT`.

    The limits of JSON parsers depend on the depth of the caller's stack. Without a limit in the format, one side could
    accept data that the other side cannot parse.

    Examples
    --------
    >>> too_deep({"a": [1, {"b": 2}]})
    False
    """
    # Level by level, because recursion would hit the limit that this function guards against.
    level: list[Any] = [value]
    for _ in range(NESTING_LIMIT):
        level = [one for each in level for one in _inside(each) if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def path_problem(path: str, limit: int = PATH_LIMIT) -> str | None:
    """Return the problem of a path in a version, or None. `limit` is the maximum length in bytes.

    Examples
    --------
    >>> path_problem("a/../b")
    "has a part '..'"
    >>> path_problem("weights.safetensors")
    """
    encoded = path.encode("utf-8", "surrogatepass")
    if len(encoded) > limit:
        return f"has {len(encoded):,} bytes; the limit is {limit:,}"
    if _UNPRINTABLE.search(path):
        return "has a control character or half a surrogate pair"
    if "\\" in path or (len(path) > 1 and path[1] == ":"):
        return "has a backslash or a drive"
    parts = path.split("/")
    if _NO_PARTS.isdisjoint(parts):
        return None
    return f"has a part {next(part for part in parts if part in _NO_PARTS)!r}"


def _demand(condition: object, message: str) -> None:
    if not condition:
        raise InvalidManifest(message)


def _check_paths(paths: Iterable[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        problem = path_problem(path)
        if problem is not None:
            raise InvalidManifest(f"the path {path[:80]!r} {problem}")
        if path in seen:
            raise InvalidManifest(f"the path {path!r} stands twice")
        seen.add(path)
    # "\0" sorts before all characters of paths, so the first path in a folder follows a file with the folder's name.
    # A walk from each path to its parents would take quadratic time in its length.
    for before, after in pairwise(sorted(path.replace("/", "\0") for path in seen)):
        if after.startswith(f"{before}\0"):
            above, path = before.replace("\0", "/"), after.replace("\0", "/")
            raise InvalidManifest(f"{above!r} is a file and the folder of {path!r}")


def _check_file(file: File, sizes: dict[str, int]) -> None:
    # Messages contain the path, so each is built only for an error: a file can have 200,000 chunks.
    for chunk in file.chunks:
        if not _DIGEST.fullmatch(chunk.id):
            raise InvalidManifest(f"{file.path!r} has a chunk whose id is no digest: {chunk.id[:80]!r}")
        if not 0 < chunk.size <= CHUNK_LIMIT:
            raise InvalidManifest(f"{file.path!r} has a chunk of {chunk.size} bytes")
        known = sizes.setdefault(chunk.id, chunk.size)
        if known != chunk.size:
            raise InvalidManifest(f"the chunk {chunk.id[:12]} has {known} bytes and {chunk.size} bytes")
    total = sum(chunk.size for chunk in file.chunks)
    _demand(total == file.size, f"{file.path!r} has {file.size} bytes, its chunks have {total}")
    _demand(digest.of_chunks([chunk.id for chunk in file.chunks]) == file.digest, f"{file.path!r} has a wrong digest")


def _check_tensors(manifest: Manifest) -> None:
    # A list, because all files count down the same number.
    left = [_HASHED + _SHARED * sum(len(file.chunks) for file in manifest.files)]
    files = {file.path: _Digests(file, left) for file in manifest.files}
    seen: set[tuple[str, str]] = set()
    for tensor in manifest.tensors:
        label = f"the tensor {tensor.name[:80]!r}"
        _demand(tensor.path in files, f"{label} lies in {tensor.path!r}, which is not there")
        _demand((tensor.path, tensor.name) not in seen, f"{label} stands twice")
        seen.add((tensor.path, tensor.name))
        _demand(_DIGEST.fullmatch(tensor.digest), f"the digest of {label} is none")
        _check_extent(tensor, label)
        _check_place(tensor, files[tensor.path], label)


def _check_extent(tensor: Tensor, label: str) -> None:
    _demand(len(tensor.shape) <= _DIMENSIONS, f"{label} has {len(tensor.shape)} dimensions")
    _demand(all(0 <= n < _SIZE_LIMIT for n in tensor.shape), f"{label} has an impossible shape {tensor.shape}")
    size = tensor_size(tensor.dtype, tensor.shape)
    _demand(size is not None, f"{label} has an unknown dtype {tensor.dtype[:20]!r}")
    _demand(size == tensor.size, f"{label} of {tensor.size} bytes is {size} bytes by dtype and shape")


class _Digests:
    """Digests of byte ranges of a file that consist of whole chunks.

    Tensors can share bytes, so each range is hashed only once, and the work is bounded: `left` is the number of chunks
    that can still be hashed, in all files of the version.
    """

    def __init__(self, file: File, left: list[int]) -> None:
        self.path, self.size = file.path, file.size
        self._ids = [chunk.id for chunk in file.chunks]
        self._starts = {
            offset: index for index, offset in enumerate(accumulate((c.size for c in file.chunks), initial=0))
        }
        self._known: dict[tuple[int, int], str] = {}
        self._left = left

    def of(self, start: int, end: int) -> str | None:
        """Return the digest of the bytes from `start` to `end`; None unless both are boundaries of chunks."""
        if start not in self._starts or end not in self._starts:
            return None
        stretch = self._starts[start], self._starts[end]
        if stretch not in self._known:
            self._left[0] -= stretch[1] - stretch[0]
            _demand(self._left[0] >= 0, f"too many tensors share the bytes of {self.path!r}")
            self._known[stretch] = digest.of_chunks(self._ids[slice(*stretch)])
        return self._known[stretch]


def _check_place(tensor: Tensor, file: _Digests, label: str) -> None:
    end = tensor.offset + tensor.size
    _demand(0 <= tensor.offset <= end <= file.size, f"{label} reaches beyond the end of {tensor.path!r}")
    expected = file.of(tensor.offset, end) if tensor.size else None
    if expected is not None:  # otherwise the server computes the digest from the bytes when the push is committed
        _demand(tensor.digest == expected, f"{label} has a wrong digest")
