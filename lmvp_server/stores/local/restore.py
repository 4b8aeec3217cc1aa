"""Writer for the files of a space from a snapshot in memory. `recovery` explains the files."""

from __future__ import annotations

from itertools import islice

import msgspec

from lmvp.core.files import disk_errors, make_folder, new_file, sync_folder
from lmvp_server.stores.base import Moment
from lmvp_server.stores.local.event_log import EventFile, Head, head_of
from lmvp_server.stores.local.recovery import Files
from lmvp_server.stores.local.snapshot import Image, Meta, write_snapshot

_GENERATION = 1
_BATCH = 1000  # events written at a time


def lay_down(files: Files, moment: Moment) -> None:
    """Replace the files of a space with those of a snapshot. An empty snapshot writes no files."""
    folder = files.snapshot.parent
    with disk_errors(folder):
        make_folder(folder, sync=True)
        files.remove()
        if not moment.next_seq and not moment.count:
            return
        head, size = _write_events(files, moment)
        # The order matters: recovery reports a snapshot without its journal as damaged.
        _touch(files)
        meta = Meta(
            generation=_GENERATION,
            commits=1,  # any number: the next commit continues from it
            events=head,
            events_size=size,
            next_seq=dict(moment.next_seq),
        )
        write_snapshot(files.snapshot, Image(meta, {name: list(rows) for name, rows in moment.tables.items()}))
        sync_folder(folder)


def _write_events(files: Files, moment: Moment) -> tuple[Head, int]:
    """Write the events unchanged. Their chain is not verified here; `RecordStore.verify` does that."""
    log, head = EventFile(files.events), Head()
    try:
        events = moment.events()
        while page := [msgspec.json.encode(event) + b"\n" for event in islice(events, _BATCH)]:
            log.extend(page)
            log.flush()
            head = head_of(page[-1])
        log.sync()
    finally:
        log.close()
    return head, log.size


def _touch(files: Files) -> None:
    with new_file(files.journal(_GENERATION)):
        pass
