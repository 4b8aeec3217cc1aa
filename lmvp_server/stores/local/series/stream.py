"""Stream format of a series for backups: its files as records with checksums."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lmvp.archive.backup_series import File, check_files
from lmvp.core import files as private
from lmvp.core.files import make_folder
from lmvp.core.framing import framed, whole_records
from lmvp.errors import IntegrityError

if TYPE_CHECKING:
    from lmvp_server.stores.local.series.series import Series

_END = b"end"
_NAME = re.compile(r"series|[0-9]+\.segment|[0-9]+\.wal\.damaged")
_PIECE = 1 << 20  # bytes of a file in one record


def dump(series: Series) -> Iterator[bytes]:
    """Yield the files of a series: a record with the name, then records with the content. The last record is `end`.

    Raises
    ------
    IntegrityError
        If the series is damaged. It is raised before the first record.
    """
    files = series.open_files()
    try:
        check_files({name: _as_file(file) for name, file in files})
    except BaseException:
        for _, file in files:
            file.close()
        raise
    return _pieces(files)


def _as_file(file: IO[bytes]) -> File:
    """Return a reader of a file that does not change the position of the open file."""

    def read(at: int, size: int) -> bytes:
        file.seek(at)
        try:
            return file.read(size)
        finally:
            file.seek(0)

    return File(os.fstat(file.fileno()).st_size, read)


def _pieces(files: Sequence[tuple[str, IO[bytes]]]) -> Iterator[bytes]:
    with ExitStack() as stack:
        for _, file in files:
            stack.enter_context(file)
        for name, file in files:
            yield framed(b"name" + name.encode())
            while data := file.read(_PIECE):
                yield framed(b"data" + data)
        yield framed(_END)


def load(folder: Path, pieces: Iterable[bytes]) -> None:
    """Write the files of a stream that `dump` yielded, all or none.

    Raises
    ------
    IntegrityError
        If the stream is damaged or incomplete.
    """
    make_folder(folder.parent, sync=True)
    # A temporary folder next to the target, so that the rename replaces the series in one step.
    fresh = folder.parent / f"tmp-{secrets.token_hex(8)}"
    private.make_folder(fresh)
    try:
        if not _write(fresh, pieces):
            raise IntegrityError("the stream of a series ends before its end")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write(folder: Path, pieces: Iterable[bytes]) -> bool:
    file = None
    try:
        for payload in _payloads(pieces):
            if payload == _END:
                return True
            if payload[:4] == b"name":
                if file:
                    file.close()
                file = os.fdopen(private.create(folder / _checked(payload[4:].decode())), "wb")
            elif file and payload[:4] == b"data":
                file.write(payload[4:])
            else:
                raise IntegrityError("the stream of a series holds what it must not")
    finally:
        if file:
            file.close()
    return False


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise IntegrityError(f"the stream of a series names {name[:40]!r}")
    return name


def _payloads(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # A record can span several pieces, and a piece can contain several records.
    rest = b""
    for piece in pieces:
        rest += piece
        found = list(whole_records(rest))
        yield from (bytes(payload) for payload, _ in found)
        rest = rest[found[-1][1] :] if found else rest
    if rest:
        raise IntegrityError("the stream of a series is damaged")
