"""Points that are damaged on the server, in a backup or on the way never take the place of a sound copy."""

import shutil
from datetime import datetime, timezone

import pytest
from support.in_process import Served

import lmvp
from lmvp import errors
from lmvp.archive import backup_series
from lmvp.archive.backup import _Run
from lmvp.archive.backup_folder import BackupFolder
from lmvp.cli import main
from lmvp.core.schemas.runs import NewPoints, NewRun, RunEnd
from lmvp_server.restore import restore
from lmvp_server.services import Services
from lmvp_server.services.access import Caller

ADA = Caller("ada", is_operator=True, scope="admin")
RUN = "a" * 32


class Place:
    """A server with a run of points, and a backup folder."""

    def __init__(self, served, folder):
        self.services, self.folder, self.backup = served.services, folder, folder / "copy"
        self.client = lmvp.Client(served.url, served.settings.token)
        self.services.catalog.create_project(ADA, "digits")
        self.space = self.services.catalog.find_project(ADA, "digits")
        self.services.runs.begin(ADA, self.space, NewRun(run=RUN, name="night"))

    def log(self, *steps):
        for step in steps:
            self.services.metrics.add(ADA, "digits", RUN, NewPoints(values={"loss": step / 2}, step=step))

    def end(self):
        self.services.runs.end(ADA, "digits", RUN, RunEnd(status="finished", ended_at=datetime.now(timezone.utc)))

    def file(self, name):
        """Return a file of the run, which is sealed first."""
        self.services.series.settle(self.space.id, RUN)
        (path,) = (self.folder / "data" / "series" / self.space.id / RUN).glob(name)
        return path

    def back_up(self):
        self.client.back_up(self.backup)

    def refused(self, match):
        with pytest.raises(errors.IntegrityError, match=match):
            self.back_up()

    def copies(self):
        return {path.parent.name + path.name for path in (self.backup / "series").glob("*/*/*")}


@pytest.fixture
def place(home, tmp_path):
    with Served(tmp_path / "data") as served:
        yield Place(served, tmp_path)


def flip(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 3 if at is None else at] ^= 1
    path.write_bytes(data)


def restored(backup, folder, **options):
    """Restore; return the steps of the run, what it states of missing points, and the problems of the restore."""
    done = restore(backup, folder, keep_going=True, **options)
    services = Services.open(folder)
    try:
        (space,) = [space for space in services.records.spaces() if space != "server"]
        steps = [step for part in services.series.read(space, RUN, "loss") for step in part.steps.tolist()]
        return steps, services.runs.run(ADA, "digits", RUN)["incomplete"], done.problems
    finally:
        services.close()


@pytest.mark.parametrize("name", ["series", "*.segment"])
def test_sound_copy_outlives_a_flipped_byte_on_the_server(place, tmp_path, name):
    place.log(*range(5))
    place.end()
    place.back_up()
    kept = place.copies()
    flip(place.file(name))
    for _ in range(2):
        place.refused(
            r"the points of 1 run are damaged on the server \(aaaaaaaa of digits\).*all else is in the backup"
        )
        assert place.copies() == kept
    assert restored(place.backup, tmp_path / "again") == (list(range(5)), "", [])


def test_every_flipped_byte_of_a_series_is_refused(place):
    """By the server before it sends the first byte, and by the check of the client."""
    place.log(*range(5))
    place.end()
    place.back_up()
    (copy,) = (place.backup / "series").glob("*/*/*")
    sound = copy.read_bytes()
    assert backup_series.check_file(copy) == (5, ())
    for at in range(0, len(sound), 7):
        flip(copy, at)
        with pytest.raises(errors.IntegrityError):
            backup_series.check_file(copy)
        copy.write_bytes(sound)
    for name in ("series", "*.segment"):
        path = place.file(name)
        sound = path.read_bytes()
        for at in range(0, len(sound), 11):
            flip(path, at)
            with pytest.raises(errors.IntegrityError):
                list(place.services.series.dump(place.space.id, RUN))
            path.write_bytes(sound)
        path.unlink()
        with pytest.raises(errors.IntegrityError, match="missing"):
            list(place.services.series.dump(place.space.id, RUN))
        path.write_bytes(sound)
    assert list(place.services.series.dump(place.space.id, RUN))


@pytest.mark.parametrize("sent", ["nothing", "damaged"])
def test_client_refuses_damaged_points_that_a_server_sends(place, tmp_path, monkeypatch, sent):
    """A server of an earlier release sends nothing, or damaged bytes in a sound frame, and no error."""
    place.log(*range(5))
    place.end()
    place.back_up()
    kept = place.copies()
    (copy,) = (place.backup / "series").glob("*/*/*")
    flip(place.file("*.segment"))
    damaged = stream_of(place.file("*.segment").parent)
    assert damaged != copy.read_bytes()
    monkeypatch.setattr(_Run, "_series_pieces", lambda *_: iter([damaged] if sent == "damaged" else []))
    place.refused("the points of 1 run are damaged on the server")
    assert place.copies() == kept
    assert restored(place.backup, tmp_path / "again") == (list(range(5)), "", [])


def stream_of(folder):
    """Return the files of a series as 9d7a6ec sent them, unchecked."""
    from lmvp.core.framing import framed

    names = ["series", *sorted(path.name for path in folder.glob("*.segment"))]
    records = [record for name in names for record in (b"name" + name.encode(), b"data" + (folder / name).read_bytes())]
    return b"".join(map(framed, [*records, b"end"]))


def test_run_that_was_never_backed_up_soundly_is_named_and_restored_as_incomplete(place, tmp_path):
    place.log(*range(5))
    place.end()
    flip(place.file("*.segment"))
    place.refused("aaaaaaaa of digits")
    assert place.copies() == set()
    with pytest.raises(errors.IntegrityError, match=rf"the run {RUN} of digits: 0 of its 5 points are in the backup"):
        restore(place.backup, tmp_path / "refused")
    steps, incomplete, problems = restored(place.backup, tmp_path / "again")
    assert steps == []
    assert "points are missing" in incomplete
    assert problems == [f"the run {RUN} of digits: 0 of its 5 points are in the backup"]


def test_newer_points_beside_a_damaged_log_keep_the_earlier_sound_copy(place, tmp_path, capsys):
    """The damaged log is in the copy; the run goes on, so the newer copy counts once it has more points."""
    place.log(*range(5))
    place.back_up()
    (sound,) = place.copies()
    place.file("*.segment").parent.joinpath("7.wal.damaged").write_bytes(b"?" * 40)
    with place.services.series._lock:
        place.services.series._open.clear()
    place.refused("aaaaaaaa of digits")
    assert copies_in_index(place)[0].series == {RUN: sound}
    place.log(5, 6)
    place.refused("aaaaaaaa of digits")
    (space,) = copies_in_index(place)
    assert (space.earlier_series, space.lacking) == ({RUN: sound}, (RUN,))
    assert place.copies() == {sound, space.series[RUN]}
    steps, incomplete, problems = restored(place.backup, tmp_path / "again")
    assert (steps, problems) == (list(range(7)), [])
    assert "7.wal.damaged" in incomplete
    assert main(["restore", str(place.backup), "--data", str(tmp_path / "verb"), "--no-progress"]) == 0
    assert f"the run {RUN} of digits: its points were damaged on the server" in capsys.readouterr().err


def copies_in_index(place):
    return [space for space in BackupFolder(place.backup).index().spaces if space.series]


def test_points_that_the_server_lost_stay_in_the_backup(place, tmp_path):
    """The folder of the run is gone, as after a repair of the file system."""
    place.log(*range(5))
    place.end()
    place.back_up()
    kept = place.copies()
    folder = place.file("series").parent
    with place.services.series._lock:
        place.services.series._open.clear()
    shutil.rmtree(folder)
    assert "0 of the 5 points that it ended with are here" in place.services.runs.run(ADA, "digits", RUN)["incomplete"]
    place.refused("aaaaaaaa of digits")
    assert place.copies() == kept
    assert restored(place.backup, tmp_path / "again")[0] == list(range(5))


def test_damaged_copy_in_the_backup_is_named_and_the_run_is_incomplete(place, tmp_path):
    place.log(*range(5))
    place.end()
    place.back_up()
    (copy,) = (place.backup / "series").glob("*/*/*")
    flip(copy)
    steps, incomplete, problems = restored(place.backup, tmp_path / "again")
    assert steps == []
    assert "points are missing" in incomplete
    assert len(problems) == 1
    assert str(copy) in problems[0]
    place.back_up()  # the server is sound, and replaces the damaged copy
    assert restored(place.backup, tmp_path / "healed") == (list(range(5)), "", [])
