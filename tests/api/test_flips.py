"""One flipped bit in any file of a data folder: `fsck` names the file, nothing damaged counts as sound, nothing is cut.

The folder holds every kind of file that a server keeps. The sample takes as many bits from each kind; `make soak` takes
5,000. Logs are covered byte for byte in `tests/stores`, journals of runs in `tests/tracking`, exports and backups in
`tests/archive`.
"""

import math
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from support.soak import size
from support.workshop import ADA, Shop, bytes_of, step, weights

from lmvp.core import chunk_frames, server_file
from lmvp.core.run_frames import key_frame, note, points_frame
from lmvp.core.schemas.runs import NewPoints, NewRun
from lmvp.core.server_file import ServerFile
from lmvp.errors import LmvpError
from lmvp_server.data_folder import DataFolder
from lmvp_server.services import Services, chunk_reader
from lmvp_server.services.metrics import CurveQuery

pytestmark = pytest.mark.soak

LIVE, SEALED, BROKEN = "a" * 32, "b" * 32, "c" * 32
TABLES = ("projects", "names", "models", "versions", "aliases", "runs", "users", "members", "tokens", "webhooks")
BASE_ID = range(48, 80)
"""Where a delta names its base."""
VERIFIES_ALL = hasattr(chunk_reader, "read_manifest")
"""Whether manifests are verified when they are served, and notes and open pushes by fsck."""


NOT_CHECKED = "" if VERIFIES_ALL else "not checked yet"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    path : str
        Pattern of the path in the data folder.
    named : str
        The text by which fsck names the file, with the groups of the pattern.
    harmless : str
        Why a flip there may go without a word; empty if it may not.
    """

    name: str
    path: str
    named: str = ""
    harmless: str = ""


KINDS = (
    Kind("format", r"format\.json", "format.json"),
    Kind("lock", r"lock|start\.lock", harmless="it is empty: its lock counts, not its content"),
    Kind("server.json", r"server\.json", harmless="each server writes it again, and proves by HMAC that it is the one"),
    Kind("token", r"token", harmless="it opens no door if it is not the one that clients have"),
    Kind("log", r"server\.log(\.1)?", harmless="text for people"),
    Kind("snapshot", r"records/(?:projects/)?(\w+\.json)", r"\1"),
    Kind("journal", r"records/(?:projects/)?(\w+\.json\.j\d+)", r"\1"),
    Kind("events", r"records/(?:projects/)?(\w+\.events\.jsonl)", r"\1"),
    Kind("chunk", r"chunks/\w+/(\w\w)/(\w{10})\w+", r"\1\2"),
    Kind("manifest", r"manifests/\w+/(\w\w)/(\w{10})\w+", r"\1\2"),
    Kind("note", r"notes/\w+/(\w\w)/(\w{10})\w+", r"\1\2", NOT_CHECKED and "it is verified when it is read"),
    Kind("push", r"staging/\w+/(\w{32})", r"\1", NOT_CHECKED and "no client was told that it is a version"),
    Kind("set aside", r"damaged/\w+/.*", harmless="a damaged frame that nothing reads"),
    Kind("WAL", r"series/\w+/(\w+/\d+\.wal)", r"\1"),
    Kind("damaged WAL", r"series/\w+/(\w+/\d+\.wal\.damaged)", r"\1"),
    Kind("begun WAL", r"series/\w+/\w+/\d+\.wal\.begun", harmless="it is empty: its existence counts, not its content"),
    Kind("segment", r"series/\w+/(\w+/\d+\.segment)", r"\1"),
    Kind("state", r"series/\w+/(\w+/series)", r"\1"),
    Kind("alive", r"series/\w+/\w+/alive", harmless="it is empty: its time counts, not its content"),
)


class Refused(str):
    """The message of an error that took the place of data."""


@dataclass
class Store:
    """A data folder, its files, and all that can be read of it."""

    folder: Path
    files: dict[str, bytes]
    space: str
    content: dict[object, object]


def kind_of(path):
    found = [(kind, match) for kind in KINDS if (match := re.fullmatch(kind.path, path))]
    assert len(found) == 1, f"{path} is a file of {len(found)} kinds: describe it in KINDS, and let fsck verify it"
    return found[0]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip(path, at, bit):
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def add_points(services, run, steps):
    for number in steps:
        services.metrics.add(ADA, "p", run, NewPoints(values={"loss": number / 4, "acc": 1.0}, step=number))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A data folder with every kind of file."""
    folder = tmp_path_factory.mktemp("flips") / "data"
    with DataFolder.open(folder, patience=0) as owned:
        token = owned.kept_token()
    shop = Shop(folder)
    trees = [weights(0, 1, rows=2)]
    for seed in (1, 2):
        trees.append(step(trees[-1], seed))
    for tree in trees:
        shop.push(tree)
    shop.services.upkeep.compact(ADA)
    assert any(
        chunk_frames.read_header(path.read_bytes()[: chunk_frames.HEADER_SIZE]).codec == chunk_frames.DELTA
        for path in chunks(folder)
    )
    shop.services.tensor_changes.changes(ADA, "p", "m", "3", "m@2")

    before = set(chunks(folder))
    shop.push(weights(9, 1, rows=1), model="other")  # its chunk is set aside, and pushed again
    flip(max(set(chunks(folder)) - before, key=lambda path: path.stat().st_size), 60, 1)
    shop.services.fsck.check(ADA, True)
    shop.push(weights(9, 1, rows=1), model="other", message="again")
    services = shop.services
    for run in (LIVE, SEALED, BROKEN):
        services.runs.start(ADA, "p", NewRun(run=run, name=run[:6]))
    long = key_frame(0, "loss") + key_frame(1, "acc") + note(1, b"{}")
    long += b"".join(points_frame(1.5, [(0, i, i / 7), (1, i, 0.5)]) for i in range(600))
    services.intake.ingest(ADA, "p", SEALED, "d" * 32, 0, note(1, msgspec.json.encode(NewRun(run=SEALED))) + long)
    services.series.settle(shop.space, SEALED)
    add_points(services, BROKEN, range(4))
    services.close()
    [wal] = folder.glob(f"series/*/{BROKEN}/0.wal")
    flip(wal, wal.stat().st_size // 2, 3)
    shop.services = Services.open(folder)
    add_points(shop.services, BROKEN, [9])
    shop.services.series.settle(shop.space, BROKEN)
    add_points(shop.services, LIVE, range(5))
    for space in ("server", shop.space):
        shop.services.records.rewrite_files(space)
    shop.services.catalog.create_model(ADA, "p", "empty")
    shop.services.catalog.create_project(ADA, "q")
    shop.push(trees[0], model="third")
    shop.begin(weights(7, 1, rows=1))
    space = shop.space
    shop.services.close()
    (folder / "server.log").write_text("started\n")
    server_file.write(
        folder, ServerFile(url="http://127.0.0.1:1", token=token, pid=1, host="h", boot="b", instance="i", version="1")
    )

    found = files_of(folder)
    assert {kind.name for kind in KINDS} == {kind_of(path)[0].name for path in found}, "a kind of file is not made"
    store = Store(folder, found, space, {})
    problems, store.content = look(store)
    assert not [value for value in store.content.values() if isinstance(value, Refused) and BROKEN[:6] not in value]
    [problem] = problems
    assert f"{BROKEN}/0.wal.damaged" in problem
    assert store.content["files", "m", 3] == {"weights.safetensors": bytes_of(trees[2])}
    assert files_of(folder) == found
    return store


def chunks(folder):
    return [path for path in (folder / "chunks").rglob("*") if path.is_file()]


def fsck(services):
    """Return the problems that fsck names; where it cannot begin, the reason."""
    try:
        return [problem.what for problem in services.fsck.check(ADA, False)["problems"]]
    except LmvpError as error:
        return [error.message]


def look(store):
    """Return the problems that fsck names, and all data that the services give."""
    shop = Shop.__new__(Shop)
    shop.folder, shop.services = store.folder, Services.open(store.folder)
    try:
        return fsck(shop.services), read(store, shop)
    finally:
        shop.services.close()


def read(store, shop):
    """Return all data that the services give, by what it is; an error takes the place of what is refused."""
    services, found = shop.services, {}

    def keep(key, work):
        try:
            found[key] = work()
        except LmvpError as error:
            found[key] = Refused(error.message)

    for space in ("server", store.space):
        for table in TABLES:
            keep(("records", space, table), lambda space=space, table=table: services.records.find(space, table))
        keep(("events", space), lambda space=space: services.records.events(space))
    for model, number in (("m", 1), ("m", 2), ("m", 3), ("other", 1), ("third", 1)):
        keep(("files", model, number), lambda model=model, number=number: shop.files(number, model))
        keep(
            ("manifest", model, number),
            lambda model=model, number=number: services.versions.manifest(ADA, "p", model, str(number))[1],
        )
    keep("changes", lambda: services.tensor_changes.changes(ADA, "p", "m", "3", "m@2"))
    for run in (LIVE, SEALED, BROKEN):
        keep(("incomplete", run), lambda run=run: services.metrics.incomplete(ADA, "p", [run]))
        keep(("curves", run), lambda run=run: curves(services, run))
        keep(("export", run), lambda run=run: exported(services, run))
    return found


def curves(services, run):
    found = services.metrics.curves(ADA, "p", CurveQuery((run,), (), points=100_000))
    return {(one.key, *point) for one in found for point in points_of(one.columns)}


def exported(services, run):
    pages = services.metrics.every_point(ADA, "p", [run], [])
    return {(key, *point) for _, key, columns in pages for page in columns for point in points_of(page)}


def points_of(columns):
    return zip(columns.steps.tolist(), columns.values.tolist(), columns.times.tolist(), strict=True)


def differences(store, found, kind):
    """Return what is refused or incomplete; fail if something damaged or partial is given as if it were sound."""
    differing = []
    for key, expected in store.content.items():
        value = found[key]
        if value == expected:
            continue
        differing.append(key)
        if isinstance(value, Refused):
            continue
        if key[0] == "events":
            assert len(value) == len(expected), key
            assert all(a == b or a["action"] == "event.damaged" for a, b in zip(value, expected, strict=True)), key
        elif key[0] == "curves":
            assert value < expected, key
            assert found["incomplete", key[1]], key
        elif kind == "manifest" and not VERIFIES_ALL:
            continue
        else:
            assert key[0] == "incomplete", key
    return differing


def sample(store, count):
    """Yield (path, offset, bit), as many of each kind as of any other; the same ones at each run."""
    dice, of_kind = random.Random(16), {}
    for path, data in store.files.items():
        of_kind.setdefault(kind_of(path)[0].name, []).extend((path, at) for at in range(len(data)))
    each = math.ceil(count / sum(bool(places) for places in of_kind.values()))
    for places in of_kind.values():
        for path, at in dice.sample(places, min(each, len(places))):
            yield path, at, dice.randrange(8)


def opens(store):
    """Return why the folder cannot be opened, or nothing."""
    try:
        DataFolder.open(store.folder, patience=0).close()
    except LmvpError as error:
        return [error.message]
    return []


def test_flipped_bit_is_named_by_fsck_and_served_by_nobody(store):
    """With the bit flipped back every file is as it was, so nothing was cut, and everything is sound again."""
    silent = []
    for path, at, bit in sample(store, size("FLIPS", 200)):
        where = f"bit {bit} of byte {at} of {path}"
        kind, match = kind_of(path)
        file = store.folder / path
        flip(file, at, bit)
        try:
            problems, found = (opens(store), store.content) if kind.name == "format" else look(store)
            different = differences(store, found, kind.name)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        now = file.read_bytes() if file.exists() else None
        healed = now == store.files[path]
        texts = [match.expand(kind.named)] if kind.named else []
        if kind.name == "chunk" and at in BASE_ID:  # the delta names another chunk: fsck names the file that needs it
            texts.append("@v2: weights.safetensors")
        named = any(text in problem for text in texts for problem in problems)
        assert named or healed or kind.harmless, f"{where}: fsck says {problems}"
        assert not (different and (kind.harmless or healed or kind.name == "note")), f"{where}: {different}"
        if now is not None and not healed:
            flip(file, at, bit)
        elif kind.name in ("push", "server.json"):
            file.write_bytes(store.files[path])
        silent += [where] if not named else []
        left = files_of(store.folder)
        changed = [one for one in {**left, **store.files} if left.get(one) != store.files.get(one)]
        assert changed == [], f"{where}: {changed} are other files than before"
    assert look(store)[1] == store.content
    assert all(kind_of(where.rpartition(" ")[2])[0].name in {"events", *harmless()} for where in silent)


def harmless():
    return {kind.name for kind in KINDS if kind.harmless}


def test_new_kind_of_file_must_be_described(store):
    with pytest.raises(AssertionError, match="describe it in KINDS"):
        kind_of("records/index.bin")


def test_points_after_a_flip_in_the_newest_log_are_durable(store, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(store.folder, folder)
    [log] = folder.glob(f"series/*/{LIVE}/0.wal")
    flip(log, log.stat().st_size // 4, 0)
    damaged = log.read_bytes()
    for number in (100, 101):
        services = Services.open(folder)
        add_points(services, LIVE, [number])
        found = {step for key, step, *_ in curves(services, LIVE) if key == "loss"}
        assert found == {0, 2, 3, 4, *range(100, number + 1)}
        assert "0.wal is damaged from byte" in services.metrics.incomplete(ADA, "p", [LIVE])
        assert "0.wal is damaged" in services.runs.run(ADA, "p", LIVE)["incomplete"]
        with pytest.raises(LmvpError, match=r"0\.wal is damaged"):
            services.metrics.every_point(ADA, "p", [LIVE], [])
        services.close()
        assert log.read_bytes() == damaged
    flip(log, log.stat().st_size // 4, 0)
    services = Services.open(folder)
    assert {step for key, step, *_ in curves(services, LIVE) if key == "loss"} == {0, 1, 2, 3, 4, 100, 101}
    assert services.metrics.incomplete(ADA, "p", [LIVE]) == ""
    services.close()
