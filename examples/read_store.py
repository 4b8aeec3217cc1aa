"""Reads the versions in a data folder of LMVP: an example for readers in other languages.

    python read_store.py DATA_FOLDER                               lists all versions
    python read_store.py DATA_FOLDER project/model@vN OUT_FOLDER   writes its files; also @alias, @latest

It implements docs/format.md without any code of LMVP. It needs numpy, blake3 and zstandard. Stop the server of the
folder first.
"""

import json
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3

Array = np.ndarray[Any, Any]
CHUNK, MANIFEST, LIST = 4 << 20, 16 << 20, "lmvp 2026-11 digest of a list of chunks"
BAD = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|(^|/)\.{0,2}(/|$)")  # control characters, backslash; empty, . or .. parts
# For each kind: bytes of a number; for a float, also shift and mask of its group.
KINDS = (
    (1, 0, 0),
    (2, 0, 0),
    (4, 0, 0),
    (8, 0, 0),
    (1, 3, 0x0F),
    (1, 2, 0x1F),
    (2, 10, 0x1F),
    (2, 7, 0xFF),
    (4, 23, 0xFF),
    (8, 55, 0xFF),
)


def need(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def take(payload: BytesIO, count: int) -> bytes:
    need(len(data := payload.read(count)) == count, "a payload ends early")
    return data


def stored(folder: Path, digest: str, limit: int) -> bytes:
    path = folder / digest[:2] / digest[2:]
    need(re.fullmatch("[0-9a-f]{64}", digest) and path.stat().st_size <= limit, f"bad name or length: {path}")
    return path.read_bytes()


def commits(journal: Path) -> Iterator[Any]:
    with journal.open("rb") as file:
        while head := file.read(8):
            payload = file.read(int.from_bytes(head[:4], "little"))
            if head != struct.pack("<II", len(payload), zlib.crc32(head[:4] + payload)):
                return  # short or torn: it was never acknowledged
            yield json.loads(payload)


def tables(space: Path) -> dict[str, Any]:
    """Return the data of all rows of a space, by table and id."""
    state, generation, last = {}, 0, 0
    if Path(f"{space}.json.drop").exists():
        return {}
    if Path(f"{space}.json").exists():
        raw = Path(f"{space}.json").read_bytes()
        need(raw[25:89] == blake3(raw[89:]).hexdigest().encode(), f"{space}.json is damaged")
        state = json.loads(raw)
        head = state.pop("_lmvp")["1"]
        generation, last = head["generation"], head["commits"]
    while (journal := Path(f"{space}.json.j{generation}")).exists():
        for commit in (commit for commit in commits(journal) if commit["n"] > last):
            need(commit["n"] == (last := last + 1), f"{journal} lacks commit {last}")
            for table, place, *row in commit["ops"]:  # a place is a number here, and a text in a snapshot
                state.setdefault(table, {})[str(place)] = row[0] if row else None
        generation += 1
    return {table: {row["id"]: row["data"] for row in rows.values() if row} for table, rows in state.items()}


def versions(data: Path) -> Iterator[Any]:
    """Yield the records of all versions, each with its `names` and the id of its `project`."""
    found = json.loads((data / "format.json").read_bytes())["format"]
    need(found == 1, f"{data} has the unknown format {found}")
    for key, project in tables(data / "records/server").get("projects", {}).items():
        space = tables(data / "records/projects" / key)
        for name, version in space.get("versions", {}).items():
            model, aliases = space.get("models", {}).get(version["model"]), space.get("aliases", {}).values()
            if model is None:  # a contribution, or its model was removed
                continue
            ends = [f"v{version['number']}"] + ["latest"] * (version["number"] == model["latest"])
            ends += [alias["name"] for alias in aliases if f"{alias['model']}-{alias['number']}" == name]
            names = [f"{project['name']}/{model['name']}@{end}" for end in ends]
            yield version | {"names": names, "project": key}


def zstd(frame: bytes, size: int) -> bytes:
    need(zstandard.frame_content_size(frame) == size, "a zstd frame states another size, or none")
    return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)


def stream(payload: BytesIO, m: int, narrow: int = 0) -> Array:
    """Decode the next stream to m bytes; `narrow` is the nesting depth of narrow streams."""
    how = take(payload, 1)[0]
    need(how < 2 or (how < 4 and m > 0), f"stream byte {how} for {m} bytes")
    if how < 2:
        return np.frombuffer(take(payload, m) if how else bytes(m), np.uint8)
    if how == 2:
        length = int.from_bytes(take(payload, 4), "little")
        return np.frombuffer(zstd(take(payload, length), m), np.uint8)
    need(narrow < 3, "a fourth narrow stream")
    packed = stream(payload, (m + 3) // 4, narrow + 1)
    symbols = (packed[:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3).ravel()
    rest = stream(payload, int((symbols == 3).sum()), narrow + 1)
    need(not symbols[m:].any() and (rest <= 252).all(), "symbols after the last, or a rest beyond 255")
    symbols[symbols == 3] += rest
    return symbols[:m]


def planes(payload: BytesIO, width: int, group: Array) -> Array:
    """Return one number for each entry of `group`, ordered by group."""
    ends = [0]
    for end in np.cumsum(np.bincount(group, minlength=1)).tolist():
        if end - ends[-1] >= 8192 or end == len(group):
            ends.append(end)
    found = np.empty((width, len(group)), np.uint8)
    for plane in found:
        for start, end in pairwise(ends):
            plane[start:end] = stream(payload, end - start)
    return np.ascontiguousarray(found[::-1].T).view(f"<u{width}").ravel()


def o(x: Array) -> Array:
    top = x.itemsize * 8 - 1
    return np.where(x >> top, x ^ (1 << top) - 1, x)


def numbers(payload: BytesIO, size: int, base: bytes | None) -> bytes:
    """Return the bytes of a chunk, starting at its kind: a delta, or solo if there is no base."""
    kind = take(payload, 1)[0]
    need(kind < len(KINDS), f"unknown kind {kind}")
    width, shift, mask = KINDS[kind]
    b = np.frombuffer(base or bytes(size), f"<u{width}", size // width)
    group = (b >> shift & mask).astype(np.uint8)  # all 0 for integers and for solo: one segment, in order
    z = np.empty_like(b)
    z[np.argsort(group, kind="stable")] = planes(payload, width, group)
    if base is None:
        x = z >> 1 | z << width * 8 - 1 if mask else z
    else:
        d = z >> 1 ^ -(z & 1)  # ^ with -1 is ~
        x = o(d + o(b)) if mask else d + b
    return bytes(x.tobytes()) + take(payload, size % width)


def chunk(chunks: Path, name: str, size: int, below: int = 17) -> bytes:
    """Return a verified chunk. If it is a delta, its depth must be less than `below`, the depth of its dependent."""
    frame = stored(chunks, name, 48 + CHUNK)
    magic, version, codec, decoded, length, zero, told = struct.unpack_from("<2sBBIII32s", frame)
    need(magic == b"LF" and version == 1 and codec <= 3, f"{name}: unknown version {version} or codec {codec}")
    need((decoded, length, zero, told.hex()) == (size, len(frame) - 48, 0, name), f"{name}: a wrong header")
    need(length == size if codec == 0 else length < size, f"{name}: a payload of a wrong length")
    payload, base = BytesIO(frame[48:]), None
    if codec == 3:
        base_id, depth = take(payload, 32).hex(), take(payload, 1)[0]
        need(0 < depth < below, f"{name}: a delta of depth {depth}, where less than {below} is due")
        base = chunk(chunks, base_id, size, depth)
    data = numbers(payload, size, base) if codec > 1 else payload.read()
    data = zstd(data, size) if codec == 1 else data
    need(not payload.read() and blake3(data).hexdigest() == name, f"{name}: bytes left over, or wrong ones")
    return data


def check(path: str, size: int, digest: str, chunks: list[tuple[str, int]]) -> None:
    need(len(path.encode()) <= 1024 and not BAD.search(path), f"bad path {path!r}")
    need(all(0 < n <= CHUNK for _, n in chunks) and sum(n for _, n in chunks) == size, f"bad sizes in {path}")
    ids = b"".join(bytes.fromhex(name) for name, _ in chunks)
    found = ids if len(chunks) == 1 else blake3(ids, derive_key_context=LIST).digest()
    need(found.hex() == digest, f"wrong digest of {path}")


def write(data: Path, project: str, digest: str, out: Path) -> None:
    raw = stored(data / "manifests" / project, digest, MANIFEST)
    need(blake3(raw).hexdigest() == digest, f"manifest {digest} is damaged")
    manifest = json.loads(raw)
    need(manifest["lmvp"] == 1, f"manifest {digest} has the unknown version {manifest['lmvp']}")
    for file in manifest["files"]:
        check(**file)
    out.mkdir(parents=True)  # a new folder, so that two files at one path, or one inside another, fail too
    for file in manifest["files"]:
        path = out / file["path"]
        need(path.is_relative_to(out), f"bad path {path}")  # C:/x passes the pattern, but is not inside on Windows
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            target.writelines(chunk(data / "chunks" / project, name, n) for name, n in file["chunks"])


def main(data: str, wanted: str = "", out: str = "") -> None:
    for version in versions(Path(data)):
        if not wanted:
            print(*version["names"], repr(version["message"]), f"{version['size']:,} bytes", sep="  ")
        elif wanted in version["names"]:
            write(Path(data), version["project"], version["digest"], Path(out))
            break
    else:
        need(not wanted, f"there is no {wanted}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (2, 4) else sys.exit(__doc__)
