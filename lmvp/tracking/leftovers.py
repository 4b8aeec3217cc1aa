"""Journals that were left behind: of runs that were killed, or whose server was gone. `lmvp sync` ships them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from lmvp.errors import LmvpError, NotFound
from lmvp.tracking.frames import END, POINTS, POINTS_HEAD, START, framed, read_journal, whole_frames, whole_size
from lmvp.tracking.owner import Owner
from lmvp.tracking.records import NewRun, RunEnd
from lmvp.tracking.shipping import Shipment, file_reader, writer_path
from lmvp.tracking.target import NAME, Target, journals

_SECONDS = 30.0
_DIGITS = 6


@dataclass(slots=True)
class Delivery:
    """What became of the journals of a run.

    Attributes
    ----------
    state : str
        `delivered`, `running` (its process ships it by itself), `removed` (on the server), or `waiting`.
    bytes : int
        That were sent, or, if nothing was, wait.
    why : str
        Why it waits.
    """

    run: str
    name: str = ""
    project: str = ""
    url: str = ""
    state: str = "waiting"
    bytes: int = 0
    why: str = ""
    hint: str | None = field(default=None, repr=False)


def deliver(*, dry_run: bool = False, tell: Callable[[Delivery], None] = lambda _: None) -> list[Delivery]:
    """Ship what processes left behind that are no longer there.

    Parameters
    ----------
    dry_run : bool
        Only tell what is there.
    tell : callable
        Gets each delivery as it is done.
    """
    found = []
    for folder in _folders():
        delivery = _deliver(folder, dry_run=dry_run)
        if delivery is not None:
            found.append(delivery)
            tell(delivery)
    return found


def discard(run: str) -> int:
    """Delete the journals of a run that is not delivered; return the bytes that they had.

    Raises
    ------
    NotFound
        If nothing is left of such a run here.
    """
    by_id = len(run) >= _DIGITS
    matching = [each for each in _folders() if (by_id and each.name.startswith(run)) or _name(each) == run]
    if len(matching) != 1:
        raise NotFound(f"{len(matching) or 'no'} runs {run[:60]!r} wait here", hint="`lmvp sync --dry-run` lists them")
    size = sum(path.stat().st_size for path in matching[0].glob("*.journal"))
    shutil.rmtree(matching[0])
    return size


def waiting() -> int:
    """Return of how many runs journals were left behind, by processes that are no longer there."""
    found = 0
    for folder in _folders():
        held = _taken(folder)
        for owner in held or ():
            owner.let_go()
        found += held is not None and any(folder.glob("*.journal"))
    return found


def forget(folder: Path) -> None:
    """Delete the folder of a run of which all is delivered; not while a child still logs to it."""
    for journal in folder.glob("*.journal"):
        owner = Owner(journal.with_suffix(".lock"))
        if not owner.take():
            return
        owner.let_go()
    shutil.rmtree(folder, ignore_errors=True)


def _folders() -> Iterator[Path]:
    folder = journals()
    if folder.is_dir():
        yield from sorted(each for each in folder.iterdir() if each.is_dir())


def _name(folder: Path) -> str:
    target = Target.read(folder)
    return target.name if target else ""


def _deliver(folder: Path, *, dry_run: bool) -> Delivery | None:
    target = Target.read(folder)
    delivery = Delivery(folder.name)
    if target is None:
        damaged = (folder / NAME).exists()
        delivery.why = f"{folder / NAME} is damaged" if damaged else "nobody wrote down where it goes"
        delivery.hint = f"lmvp sync --discard {folder.name[:8]}"
        if any(folder.glob("*.journal")):
            return delivery
        shutil.rmtree(folder, ignore_errors=True)
        return None
    delivery.name, delivery.project, delivery.url = target.name, target.project, target.url or "this machine"
    held = _taken(folder)
    if held is None:
        delivery.state = "running"
        return delivery
    try:
        delivery.bytes = sum(whole_size(path.read_bytes()) for path in folder.glob("*.journal"))
        if not dry_run:
            _ship(folder, target, delivery)
    finally:
        for owner in held:
            owner.let_go()
    if delivery.state in ("delivered", "removed"):
        shutil.rmtree(folder, ignore_errors=True)
    return delivery


def _taken(folder: Path) -> list[Owner] | None:
    """Take the locks of all journals of a run; None if one is held by a process that lives."""
    held: list[Owner] = []
    for name in ["sync", *(path.stem for path in folder.glob("*.journal"))]:
        owner = Owner(folder / f"{name}.lock")
        if not owner.take():
            for each in held:
                each.let_go()
            return None
        held.append(owner)
    return held


def _ship(folder: Path, target: Target, delivery: Delivery) -> None:
    try:
        connection = target.connection()
        for path in _main_first(folder):
            _finish(path)
            shipment = Shipment(writer_path(target.project, folder.name, path.stem), file_reader(path))
            while shipment.ship(connection, _SECONDS):
                pass
        damaged = _damage(folder)
        if damaged:  # what is behind the damage is not sent; nothing is deleted
            delivery.why = f"{'; '.join(damaged)}: the frames before it are delivered, the file is kept"
            delivery.hint = f"`lmvp sync --discard {folder.name[:8]}` deletes it"
            return
        delivery.state = "delivered"
    except NotFound as error:
        removed = "removed" in error.message  # and not a project that is not there yet
        delivery.state, delivery.why = "removed" if removed else "waiting", error.message
    except LmvpError as error:
        delivery.why, delivery.hint = error.message, error.hint


def _main_first(folder: Path) -> list[Path]:
    """Return the journals of a run, that of the process that began it first: it makes the run."""
    return sorted(folder.glob("*.journal"), key=lambda path: (_start(path).joins, path.name))


def _start(path: Path) -> NewRun:
    with suppress(OSError, msgspec.DecodeError):
        for kind, body, _ in whole_frames(path.read_bytes()):
            if kind == START:
                return msgspec.json.decode(body, type=NewRun)
            break
    return NewRun(run="", joins=True)


def _damage(folder: Path) -> list[str]:
    """Name the journals of a run that are damaged."""
    found = {path: read_journal(path.read_bytes()).gaps for path in sorted(folder.glob("*.journal"))}
    return [f"{path} is {gaps[0]}" for path, gaps in found.items() if gaps]


def _finish(path: Path) -> None:
    """Cut the torn end of a journal; where its process ended without a word, add that it was killed.

    A damaged journal stays as it is.
    """
    data = path.read_bytes()
    if read_journal(data).gaps:
        return
    size, ended = whole_size(data), any(kind == END for kind, _, _ in whole_frames(data))
    word = b""
    if not ended and not _start(path).joins:
        at = datetime.fromtimestamp(_last_time(data) or path.stat().st_mtime, timezone.utc)
        end = RunEnd(status="killed", ended_at=at, error="the process ended without a word")
        word = framed(bytes([END]) + msgspec.json.encode(end))
    if word or size != len(data):
        with path.open("r+b") as file:
            file.truncate(size)
            file.seek(size)
            file.write(word)


def _last_time(data: bytes) -> float:
    """Return the time of the last points that were logged one by one; 0 if there are none."""
    last = max(
        ((end, body) for kind, body, end in whole_frames(data) if kind == POINTS),
        default=None,
        key=lambda each: each[0],
    )
    return float(POINTS_HEAD.unpack(b"\0" + last[1][: POINTS_HEAD.size - 1])[1]) if last else 0.0
