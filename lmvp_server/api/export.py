"""Export of the metric points of a project as a stream, optionally filtered by run or key."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from tornado.iostream import StreamClosedError

from lmvp.core.metric_values import TIME_LIMIT
from lmvp.errors import MissingDependency
from lmvp_server.api.base import Handler
from lmvp_server.api.columns import COLUMNS, block
from lmvp_server.api.query import KEYS, Text
from lmvp_server.api.route import Cost, Route
from lmvp_server.services import access

Pages = Iterable[tuple[dict[str, Any], str, Iterator[Any]]]
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

FORMAT: Text[str] = Text(
    name="format", description="The form of the answer.", default="csv", choices=("csv", "parquet", "columns")
)
SOME_RUNS: Text[tuple[str, ...]] = Text(
    name="run", description="The id or the name of a run; once for each run. Without it: all runs.", many=True
)


class ExportHandler(
    Handler,
    path="/projects/{project}/metrics/export",
    routes=(
        Route(
            "GET",
            "Stream all points as CSV, Parquet or columns.",
            bytes,
            cost=Cost.PUBLIC,
            right=access.READ,
            public=True,
            query=(SOME_RUNS, KEYS, FORMAT),
            note="422 if points of a run are missing because a file is damaged.",
        ),
    ),
):
    """All points of a project or of some runs."""

    async def get(self, project: str) -> None:
        """Stream all points as CSV, Parquet or columns."""
        kind = self.query(FORMAT)
        content_type, write = _FORMATS[kind]
        runs, keys = self.query(SOME_RUNS), self.query(KEYS)
        space = await self.project_id(project)
        pages = await self.run_public(self.services.metrics.every_point, self.caller, project, runs, keys)
        pieces = await self.run_public(write, pages)
        self.set_header("Content-Type", content_type)
        self.set_header("Content-Disposition", f'attachment; filename="metrics.{kind}"')
        try:
            await self._stream(project, space, pieces)
        except StreamClosedError:  # the client disconnected
            pass
        except Exception as error:
            if not self._headers_written:
                raise
            self.log_exception(type(error), error, error.__traceback__)
            self.break_off()

    async def _stream(self, project: str, space: str, pieces: Iterator[bytes]) -> None:
        """Send pieces while the caller can read the project. The next piece is created after the last one is sent."""
        while (piece := await self.run_public(next, pieces, None)) is not None:
            await self.recheck(access.READ, project, space=space)
            await self.wait_for_room(len(piece))
            self.write(piece)
            await self.flush()
        # A cancellation of this coroutine must not cancel Tornado's future.
        await asyncio.shield(self.finish())


def _csv(pages: Pages) -> Iterator[bytes]:
    """Yield CSV as in RFC 4180, in UTF-8. Texts that a spreadsheet could execute as a formula are escaped."""
    yield b"run,name,key,step,value,time\r\n"
    for run, key, parts in pages:
        text = io.StringIO()
        csv.writer(text).writerow([run["id"], inert(run["name"]), inert(key)])
        head = text.getvalue().rstrip("\r\n")
        for part in parts:
            rows = zip(part.steps.tolist(), part.values.tolist(), part.times.tolist(), strict=True)
            yield "".join(f"{head},{step},{value!r},{_moment(time)}\r\n" for step, value, time in rows).encode()


def inert(text: str) -> str:
    """Escape a text that a spreadsheet could execute as a formula, with an apostrophe. `saving.js` has the same rule.

    Spreadsheets skip blanks and invisible characters at the beginning, and read full-width and small forms of `=`, `+`,
    `-` and `@` as the plain ones. Numbers do not change.

    Examples
    --------
    >>> inert("=1+1"), inert(" \uff1d1"), inert("-1.5"), inert("lr=0.1")
    ("'=1+1", "' \uff1d1", '-1.5', 'lr=0.1')
    """
    if _NUMBER.fullmatch(text):
        return text
    shown = next((at for at, letter in enumerate(text) if unicodedata.category(letter)[0] not in "ZC"), len(text))
    first = unicodedata.normalize("NFKC", text[shown : shown + 1])[:1]
    return f"'{text}" if first in set("=+-@") or set("\t\r\n") & set(text[:shown]) else text


def _moment(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # outside the range of `datetime`
        return repr(time)


def _columns(pages: Pages) -> Iterator[bytes]:
    for run, key, parts in pages:
        for part in parts:
            yield block({"run": run["id"], "name": run["name"], "key": key}, part)


def _parquet(pages: Pages) -> Iterator[bytes]:
    """Yield a Parquet file with one row group for each page."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingDependency(
            "Parquet needs pyarrow on the server", hint="the operator of the server runs: pip install pyarrow"
        ) from None
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    moment = pyarrow.timestamp("us", tz="UTC")
    fields = [("run", text), ("name", text), ("key", text)]
    fields += [("step", pyarrow.int64()), ("value", pyarrow.float64()), ("time", moment)]
    return _row_groups(pages, pyarrow, parquet, pyarrow.schema(fields))


def _row_groups(pages: Pages, pyarrow: Any, parquet: Any, schema: Any) -> Iterator[bytes]:
    sink = _Outlet()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for run, key, parts in pages:
            for part in parts:
                writer.write_table(_table(run, key, part, pyarrow, schema))
                yield sink.take()
    yield sink.take()


class _Outlet(io.RawIOBase):
    """A write-only buffer for pyarrow; `take` returns and removes the bytes that were written since the last call."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._size += len(self._pieces[-1])
        return len(self._pieces[-1])

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _table(run: dict[str, Any], key: str, part: Any, pyarrow: Any, schema: Any) -> Any:
    def always(value: str) -> Any:
        index = pyarrow.array([0] * len(part), pyarrow.int32())
        return pyarrow.DictionaryArray.from_arrays(index, pyarrow.array([value]))

    # A Parquet timestamp holds ±292,277 years in int64 microseconds. Other times become null.
    fits = abs(part.times) <= TIME_LIMIT
    times = (part.times.clip(-TIME_LIMIT, TIME_LIMIT) * 1e6).round().astype("int64")
    columns = [always(run["id"]), always(run["name"]), always(key), part.steps, part.values]
    moments = pyarrow.array(times, schema.field("time").type, mask=~fits)
    return pyarrow.Table.from_arrays([*map(pyarrow.array, columns), moments], schema=schema)


_FORMATS: dict[str, tuple[str, Callable[[Pages], Iterator[bytes]]]] = {
    "csv": ("text/csv; charset=utf-8", _csv),
    "parquet": ("application/vnd.apache.parquet", _parquet),
    "columns": (COLUMNS, _columns),
}
