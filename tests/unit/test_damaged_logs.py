"""A flipped bit in a log that servers append to: fsck names the log, and no byte of it is cut or written over.

Only events that the journal of records still holds are written again, as they were.
"""

import random
import shutil
from pathlib import Path

import pytest
from support.workshop import ADA, Shop, weights

from lmvp.core.schemas.runs import NewPoints, NewRun
from lmvp.errors import LmvpError
from lmvp_server.services import Services

RUN = "a" * 32
POINTS = 40
LOGS = {
    "points": f"series/*/{RUN}/0.wal",
    "records": "records/projects/*.json.j*",
    "events": "records/projects/*.events.jsonl",
}
FLIPS = 12
"""Bits that are flipped in each log, besides the first and the last one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder whose newest logs hold a run with points, a version and events."""
    folder = tmp_path_factory.mktemp("logs") / "data"
    shop = Shop(folder)
    shop.push(weights(0, 1, rows=2))
    shop.services.runs.start(ADA, "p", NewRun(run=RUN, name="quiet-wren"))
    add_points(shop.services, range(POINTS))
    shop.services.records.rewrite_files(shop.space)  # what the journal still holds can be written again
    shop.services.catalog.create_model(ADA, "p", "empty")
    shop.services.close()
    return folder


def add_points(services, steps):
    for step in steps:
        services.metrics.add(ADA, "p", RUN, NewPoints(values={"loss": step / 4}, step=step))


def the_log(folder, pattern):
    return max((path for path in folder.glob(pattern) if path.stat().st_size), key=lambda path: path.stat().st_size)


def flipped(data, at, bit):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def problems_of(folder):
    """Return what fsck says; where it cannot begin, the reason."""
    try:
        services = Services.open(folder)
    except LmvpError as error:
        return [error.message]
    try:
        return [problem.what for problem in services.fsck.check(ADA, False)["problems"]]
    except LmvpError as error:
        return [error.message]
    finally:
        services.close()


def bits(size):
    chosen = random.Random(3)
    return [(0, 0), (size - 2, 1), *((chosen.randrange(size - 1), chosen.randrange(8)) for _ in range(FLIPS))]


@pytest.mark.parametrize("pattern", LOGS.values(), ids=LOGS)
def test_fsck_names_a_log_with_a_flipped_bit_and_leaves_it_as_it_is(folder, tmp_path, pattern):
    size = the_log(folder, pattern).stat().st_size
    for number, (at, bit) in enumerate(bits(size)):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        log = the_log(copy, pattern)
        sound = log.read_bytes()
        damaged = flipped(sound, at, bit)
        log.write_bytes(damaged)
        found = problems_of(copy)
        if pattern == LOGS["events"] and log.read_bytes() == sound:
            continue
        name = str(Path(RUN) / log.name) if log.suffix == ".wal" else log.name
        assert any(name in problem for problem in found), f"bit {bit} of byte {at} of {size}: fsck says {found}"
        assert log.read_bytes() == damaged, f"bit {bit} of byte {at} of {size}: the log was changed"


def test_points_after_a_flip_overwrite_no_point_behind_it(folder, tmp_path):
    """With the bit flipped back, all points are there: those before the flip, behind it, and the new ones."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    log = the_log(copy, LOGS["points"])
    sound = log.read_bytes()
    at = len(sound) // 4
    log.write_bytes(flipped(sound, at, 5))
    services = Services.open(copy)
    add_points(services, [100, 101])
    services.close()
    assert log.read_bytes() == flipped(sound, at, 5), "the damaged log was cut or written over"
    log.write_bytes(sound)
    services = Services.open(copy)
    try:
        pages = services.metrics.every_point(ADA, "p", [RUN], [])
        steps = {step for _, _, columns in pages for page in columns for step in page.steps.tolist()}
    finally:
        services.close()
    assert steps == {*range(POINTS), 100, 101}
