"""Pages of runs: the table, one run with its curves, and a comparison."""

from __future__ import annotations

import math
import shlex
from datetime import datetime, timezone
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from lmvp.core.environment import commit_of, packages_of
from lmvp.core.sanitize import clean
from lmvp.core.schemas.runs import RunEnd, RunRecord, RunUpdate
from lmvp.errors import InvalidArgument, LmvpError
from lmvp.views import runs as write
from lmvp.views.curves import Curves as Drawn
from lmvp.views.curves import curves_data, curves_html
from lmvp.views.run_comparison import Comparison
from lmvp_server.api.base import as_json
from lmvp_server.web import curves, run_charts, run_tables
from lmvp_server.web.base_page import SessionHandler
from lmvp_server.web.pages.base import (
    ConsolePage,
    Fields,
    PageContext,
    mark,
    see_that_it_is_unchanged,
)
from lmvp_server.web.pages.projects import ProjectTabPage
from lmvp_server.web.pages.versions import code_cells
from lmvp_server.web.run_tables import Column
from lmvp_server.web.widget_embed import island, later

ROWS = 100
SECTION = "system"
"""The section of charts with the system metrics of the machine."""
TOGETHER = 50
"""Maximum number of runs in a comparison."""


class RunsPage(ProjectTabPage):
    """`/p/{project}/-/runs?where=…&order=…&column=…&group=…&from=100`."""

    tab = "Runs"

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return one page of the runs that match the filter."""
        common = self.common(project)
        name = common["project"]["name"]
        where, order = self.get_query_argument("where", ""), self.get_query_argument("order", "")
        wrong: LmvpError | None = None
        try:
            found = self.services.runs.sorted(self.caller, name, where, order)
        except InvalidArgument as error:
            found, wrong = [], error
            self.set_status(error.http_status)
        every = curves.records(found)
        known = run_tables.choices(every)
        # Keys can contain spaces at the ends, so the argument is not stripped.
        chosen = [Column.read(one) for one in self.get_query_arguments("column", strip=False)]
        columns = chosen[:20] or run_tables.usual(every, known)
        by = self.get_query_argument("group", "")
        first = self._first()
        shown = every[first : first + ROWS]
        asked: dict[str, Any] = {"where": where, "order": order, "group": by, "column": [one.name for one in chosen]}
        return "runs.html", {
            **common,
            "groups": run_tables.groups(shown, columns, Column.read(by) if by else None),
            "columns": columns,
            "known": known,
            "total": len(every),
            "first": first,
            "shown": len(shown),
            "asked": asked,
            "with_": lambda **more: run_tables.address(**{**asked, **more}),
            "write": write,
            "filter_wrong": wrong,
        }

    def _first(self) -> int:
        given = self.get_query_argument("from", "0")
        return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0


class RunPage(ConsolePage):
    """`/p/{project}/-/runs/{run}`."""

    actions: ClassVar[frozenset[str]] = frozenset({"amend", "end", "remove"})

    def context(self, project: str, run: str) -> PageContext:  # type: ignore[override]
        """Return a run with its curves."""
        (one,) = curves.records([self.services.runs.run(self.caller, project, run)])
        drawn = curves.curves_of(self.services, self.caller, [one])
        return "run.html", {
            "run": one,
            "may": self.rights(one.project),
            "mine": self.services.runs.is_mine(self.caller, one.project, one.id),
            "charts": chart(self, drawn),
            "system": system_charts(self, [one]),
            "write": write,
            "environment": _environment(one),
            "cells": code_cells(one.environment),
            "notes": "\n".join(clean(line) for line in one.notes.splitlines()),
            "was": mark(_told(one)),
        }

    def amend(self, fields: Fields, project: str, run: str) -> str:
        """Rename a run and set its tags and notes. Tags that are missing in the field are removed."""
        lines = [line.partition(":") for line in fields.get("tags", "").splitlines() if line.strip()]
        tags: dict[str, str | None] = {key.strip(): value.strip() for key, _, value in lines}
        (known,) = curves.records([self.services.runs.run(self.caller, project, run)])
        see_that_it_is_unchanged(fields, _told(known))
        gone = dict.fromkeys(key for key in known.tags if key not in tags)
        notes = fields.get("notes", "").replace("\r\n", "\n").strip()
        given = RunUpdate(name=fields.get("name", "").strip(), notes=notes, tags={**tags, **gone})
        self.services.runs.amend(self.caller, project, run, given)
        return f"p/{project}/-/runs/{run}"

    def end(self, _fields: Fields, project: str, run: str) -> str:
        """Mark a run as killed if its process no longer reports."""
        self.services.runs.end(self.caller, project, run, RunEnd(status="killed", ended_at=datetime.now(timezone.utc)))
        return f"p/{project}/-/runs/{quote(run, safe='')}"

    def remove(self, _fields: Fields, project: str, run: str) -> str:
        """Remove a run and its points. They can be restored from the trash."""
        self.services.runs.remove(self.caller, project, run)
        return f"p/{project}/-/removed"


class ComparePage(ConsolePage):
    """`/p/{project}/-/compare?run=…&run=…&x=…&y=…`."""

    def context(self, project: str) -> PageContext:  # type: ignore[override]
        """Return a comparison of runs: curves, differences, and charts of params and metrics."""
        about = self.services.catalog.project(self.caller, project)
        named = list(dict.fromkeys(self.get_query_arguments("run")))
        if not 2 <= len(named) <= TOGETHER:
            raise InvalidArgument(
                f"{len(named)} runs are chosen", hint=f"choose 2 to {TOGETHER} in the table, then Compare"
            )
        name = about["name"]
        found = curves.records(self.services.runs.run(self.caller, name, run) for run in named)
        drawn = curves.curves_of(self.services, self.caller, found)
        known = run_tables.choices(found)
        numeric = [one for one in known if sum(one.number(run) is not None for run in found) > 1]
        x_axis, y_axis = self._axes(numeric)
        # At most three metrics, so that the chart stays readable.
        axes = [*[c for c in known if c.kind == "params"], *[c for c in known if c.kind == "metrics"][:3]]
        return "compare.html", {
            "project": about,
            "runs": found,
            "charts": chart(self, drawn),
            "system": system_charts(self, found),
            "comparison": Comparison.of(found),
            "numeric": numeric,
            "x_axis": x_axis,
            "y_axis": y_axis,
            "scatter": run_charts.scatter(found, x_axis, y_axis) if x_axis and y_axis else "",
            "parallel": run_charts.parallel(found, axes),
            "write": write,
        }

    def _axes(self, numeric: list[Column]) -> tuple[Column | None, Column | None]:
        """Return the axes of the scatter plot: as requested, otherwise a param as X and a metric as Y."""
        metrics = [one for one in numeric if one.kind == "metrics"]
        params = [one for one in numeric if one.kind == "params"]
        x, y = self.get_query_argument("x", ""), self.get_query_argument("y", "")
        x_axis = Column.read(x) if x else next(iter(params or metrics[1:]), None)
        return x_axis, Column.read(y) if y else next(iter(metrics), None)


class PageCurvesHandler(SessionHandler):
    """`/p/{project}/-/curves?run=…&from=…&to=…&section=system`: the curves of a widget, or a range of them."""

    in_public = frozenset({"GET", "HEAD"})

    async def get(self, project: str) -> None:
        """Send curves in the JSON format of the curves widget."""
        data = await self.run_long(as_json(self._curves), project)
        await self.send_compressed(lambda: data, "application/json")

    def _curves(self, project: str) -> dict[str, Any]:
        named = list(dict.fromkeys(self.get_query_arguments("run")))
        if not 1 <= len(named) <= TOGETHER:
            raise InvalidArgument(f"{len(named)} runs: name 1 to {TOGETHER}")
        found = curves.records(self.services.runs.run(self.caller, project, run) for run in named)
        first, last = self._number("from"), self._number("to")
        system = self.get_query_argument("section", "") == SECTION
        axis = "time" if system else "step"  # system metrics are sampled by time; their steps have no meaning
        drawn = curves.curves_of(self.services, self.caller, found, first=first, last=last, system=system, axis=axis)
        return curves_data(drawn, live=_goes_on(found))

    def _number(self, name: str) -> float | None:
        text = self.get_query_argument(name, None)
        try:
            value = None if text is None else float(text)
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise InvalidArgument(f"{name}={str(text)[:40]!r} is not a number")
        return value


def chart(page: ConsolePage, drawn: Drawn) -> str:
    """Return curves as a widget, which is live if a run is active."""
    project = drawn.runs[0].project
    there = f"{page.root}p/{project}/-/"
    query = urlencode([("run", run.id) for run in drawn.runs])
    live = _goes_on([run.record for run in drawn.runs])
    urls = {"curves": f"{there}curves?{query}", "live": f"{there}live?{query}" if live else ""}
    return island(page.root, "curves", curves_data(drawn, live=live), curves_html(drawn), **urls)


def system_charts(page: ConsolePage, runs: list[RunRecord]) -> str:
    """Return a widget with the system metrics of runs; empty if none are recorded."""
    if not curves.has_system(page.services, page.caller, runs):
        return ""
    there = f"{page.root}p/{runs[0].project}/-/"
    query = urlencode([("run", run.id) for run in runs])
    live = f"{there}live?{query}" if _goes_on(runs) else ""
    still = "<p>These charts need JavaScript.</p>"
    return later("curves", still, curves=f"{there}curves?{query}&section={SECTION}", live=live)


def _goes_on(runs: list[RunRecord]) -> bool:
    return any(run.status in ("running", "stale") for run in runs)


def _environment(run: RunRecord) -> list[tuple[str, str]]:
    """Return the environment of a run, most requested facts first: user, host, versions, command, commit, packages."""
    known = run.environment
    found = [(key, str(known[key])) for key in ("user", "host", "python", "platform") if known.get(key)]
    command = known.get("command") or {}
    if isinstance(command, dict) and isinstance(command.get("arguments"), list):
        found.append(("command", shlex.join(map(str, command["arguments"]))))
    if commit := commit_of(known):
        found.append(("commit", commit))
    return found + [(str(name), str(version)) for name, version in list(packages_of(known).items())[:30]]


def _told(run: RunRecord) -> str:
    """Return the editable fields as one text, to detect concurrent changes."""
    return repr((run.name, run.tags, run.notes))
