"""Whether a manifest makes sense. It may come from anybody, so nothing in it is believed before this."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from lmvp.errors import InvalidManifest
from lmvp.storage import digest
from lmvp.storage.frames import CHUNK_LIMIT
from lmvp.storage.manifest import FORMAT_VERSION, File, Manifest, Tensor
from lmvp.storage.safetensors import tensor_size

PATH_LIMIT = 1024
NESTING_LIMIT = 200
"""How deep objects and arrays may lie in each other where any JSON may stand."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORMAT = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_DIMENSIONS = 64
_SIZE_LIMIT = 1 << 60


def check_manifest(manifest: Manifest) -> None:
    """Check a manifest against docs/format.md, "Manifest".

    Raises
    ------
    InvalidManifest
        Naming the file or tensor and the rule that it breaks.
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


def too_deep(value: dict[str, Any]) -> bool:
    """Tell whether JSON data is nested deeper than `NESTING_LIMIT`.

    Parsers give up at a depth that depends on where they are called from: what one reads, another may not.

    Examples
    --------
    >>> too_deep({"a": [1, {"b": 2}]})
    False
    """
    level: list[Any] = [value]
    for _ in range(NESTING_LIMIT):
        level = [one for each in level for one in _inside(each) if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def path_problem(path: str, limit: int = PATH_LIMIT) -> str | None:
    """Say what is wrong with a path of a version, or None; `limit` is its bytes at most.

    Examples
    --------
    >>> path_problem("a/../b")
    "has a part '..'"
    >>> path_problem("weights.safetensors")
    """
    encoded = path.encode("utf-8", "surrogatepass")
    if len(encoded) > limit:
        return f"has {len(encoded):,} bytes; the limit is {limit:,}"
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in path):
        return "has a control character or half a surrogate pair"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode's form NFC"
    if "\\" in path or (len(path) > 1 and path[1] == ":"):
        return "has a backslash or a drive"
    bad = next((part for part in path.split("/") if part in {"", ".", ".."}), None)
    return None if bad is None else f"has a part {bad!r}"


def _demand(condition: object, message: str) -> None:
    if not condition:
        raise InvalidManifest(message)


def _check_paths(paths: Iterable[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        problem = path_problem(path)
        _demand(problem is None, f"the path {path[:80]!r} {problem}")
        _demand(path not in seen, f"the path {path!r} stands twice")
        seen.add(path)
    for path in seen:
        above = path.rpartition("/")[0]
        while above:
            _demand(above not in seen, f"{above!r} is a file and the folder of {path!r}")
            above = above.rpartition("/")[0]


def _check_file(file: File, sizes: dict[str, int]) -> None:
    for chunk in file.chunks:
        _demand(_DIGEST.fullmatch(chunk.id), f"{file.path!r} has a chunk whose id is no digest: {chunk.id[:80]!r}")
        _demand(0 < chunk.size <= CHUNK_LIMIT, f"{file.path!r} has a chunk of {chunk.size} bytes")
        known = sizes.setdefault(chunk.id, chunk.size)
        _demand(known == chunk.size, f"the chunk {chunk.id[:12]} has {known} bytes and {chunk.size} bytes")
    total = sum(chunk.size for chunk in file.chunks)
    _demand(total == file.size, f"{file.path!r} has {file.size} bytes, its chunks have {total}")
    _demand(digest.of_chunks([chunk.id for chunk in file.chunks]) == file.digest, f"{file.path!r} has a wrong digest")


def _check_tensors(manifest: Manifest) -> None:
    starts = {file.path: _chunk_starts(file) for file in manifest.files}
    seen: set[tuple[str, str]] = set()
    for tensor in manifest.tensors:
        label = f"the tensor {tensor.name[:80]!r}"
        _demand(tensor.path in starts, f"{label} lies in {tensor.path!r}, which is not there")
        _demand((tensor.path, tensor.name) not in seen, f"{label} stands twice")
        seen.add((tensor.path, tensor.name))
        _demand(_DIGEST.fullmatch(tensor.digest), f"the digest of {label} is none")
        _check_extent(tensor, label)
        _check_place(tensor, starts[tensor.path], label)


def _check_extent(tensor: Tensor, label: str) -> None:
    _demand(len(tensor.shape) <= _DIMENSIONS, f"{label} has {len(tensor.shape)} dimensions")
    _demand(all(0 <= n < _SIZE_LIMIT for n in tensor.shape), f"{label} has an impossible shape {tensor.shape}")
    size = tensor_size(tensor.dtype, tensor.shape)
    _demand(size is not None, f"{label} has an unknown dtype {tensor.dtype[:20]!r}")
    _demand(size == tensor.size, f"{label} of {tensor.size} bytes is {size} bytes by dtype and shape")


def _chunk_starts(file: File) -> tuple[dict[int, int], list[str], int]:
    """Return the index of the chunk that starts at an offset, the chunks' ids, and the size of the file."""
    starts, offset = {}, 0
    for index, chunk in enumerate(file.chunks):
        starts[offset] = index
        offset += chunk.size
    starts[offset] = len(file.chunks)
    return starts, [chunk.id for chunk in file.chunks], offset


def _check_place(tensor: Tensor, places: tuple[dict[int, int], list[str], int], label: str) -> None:
    starts, ids, size = places
    end = tensor.offset + tensor.size
    _demand(0 <= tensor.offset <= end <= size, f"{label} reaches beyond the end of {tensor.path!r}")
    if tensor.size and tensor.offset in starts and end in starts:  # it fills its chunks, so its digest can be told
        expected = digest.of_chunks(ids[starts[tensor.offset] : starts[end]])
        _demand(tensor.digest == expected, f"{label} has a wrong digest")
