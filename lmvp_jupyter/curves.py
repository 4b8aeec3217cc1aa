"""`CurvesPlot`: the curves of runs as a widget, from the server or, while a run logs, from its journal.

The kernel receives no messages from the browser while a cell runs, so a live plot only sends: a thread reads the
journal of the run, downsamples the points, and sends the changed lines at most ten times per second.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lmvp.errors import LmvpError
from lmvp.views import curves as drawing
from lmvp.views.curve_queries import KEYS, SYSTEM, SYSTEM_POINTS, lines_of, with_epochs, with_system
from lmvp.views.curves import EPOCH, Curves, Line, ModelCurves
from lmvp.views.runs import Run
from lmvp_jupyter.bundle import module, styles
from lmvp_jupyter.live import LiveWidget

if TYPE_CHECKING:
    from lmvp.tracking.active_run import ActiveRun
    from lmvp.tracking.feed import Feed

_ROOM = 800
"""Maximum number of points of a live line. A zoom fetches twice as many."""
_SOONEST, _SHARE = 0.1, 0.1
"""Minimum time between two updates in seconds, and maximum share of the time that updates of a live plot take."""
_AGAIN = 2.0
"""Seconds between two requests for runs that other processes log to."""
_SYSTEM_EVERY = 5
"""Every fifth request fetches system metrics, too, which change only every 15 seconds."""


class CurvesPlot(LiveWidget):
    """The metrics of one or several runs, with smoothing, a logarithmic axis, zoom and the values at the cursor.

    Parameters
    ----------
    curves : Curves
    live : bool
        Whether a run of this process logs, so that more points will be sent. False by default.
    """

    _esm = module("curves.js", chart=True)
    _css = styles(chart=True)

    def __init__(self, curves: Curves, *, live: bool = False, **traits: Any) -> None:
        self.curves = curves
        super().__init__(data=drawing.curves_data(curves, live=live), **traits)
        self.on_msg(self._heard)

    def static(self) -> dict[str, str]:
        """Return the curves as text and HTML."""
        return {"text/plain": repr(self.curves), "text/html": drawing.curves_html(self.curves)}

    def to_pandas(self) -> Any:
        """Return the points of the plot as a DataFrame; see `Curves.to_pandas`."""
        return self.curves.to_pandas()

    def show(self, curves: Curves, *, live: bool = False) -> None:
        """Replace all curves."""
        self.curves = curves
        self.data = drawing.curves_data(curves, live=live)

    def tell(self, curves: Curves, changed: Sequence[Line], kind: str = "news", **more: Any) -> int:
        """Send changed lines to the view, and leave the others as they are.

        Parameters
        ----------
        curves : Curves
            All curves, including the unchanged ones.
        changed : sequence of Line
            The lines to send.
        kind : str
            The kind of the message: `news` (the default) or `finer`.
        **more
            Further fields of the message.

        Returns
        -------
        int
            The size of the points in bytes.
        """
        self.curves = curves
        groups = {id(line): name for name, lines in curves.groups().items() for line in lines}
        told = [_told(curves, line, groups[id(line)]) for line in changed]
        buffers = [_columns(curves, line) for line in changed]
        head = {**drawing.head(curves), "joined": drawing.joined(curves)}
        self.send({"kind": kind, "head": head, "lines": told, **more}, buffers=buffers)
        return sum(len(buffer) for buffer in buffers)

    def tell_system(self, system: Curves, changed: Sequence[Line]) -> None:
        """Send changed lines of system metrics."""
        shown = self.curves  # `tell` replaces it by the curves that it sends
        self.tell(system, changed, section="system")
        self.curves = shown

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        """Handle a message of the view: `zoom` asks for finer lines, `hello` of a late view for all lines."""
        if isinstance(message, dict) and message.get("kind") == "zoom":
            section = "system" if message.get("section") == "system" else ""
            drawn = self.curves.system if section else self.curves
            if drawn is not None:
                self._refine(drawn, message.get("from"), message.get("to"), section)
        elif isinstance(message, dict) and message.get("kind") == "hello" and self.data.get("live"):
            self.tell(self.curves, self.curves.lines)
            if (system := self.curves.system) is not None:
                self.tell_system(system, system.lines)

    def _refine(self, drawn: Curves, first: Any, last: Any, section: str) -> None:
        """Fetch a range of steps with more points and send it; None resets the zoom."""
        lines = drawn.lines
        keys = list(dict.fromkeys(line.key for line in lines))
        runs = drawn.runs
        joined = {EPOCH}.difference(keys) if drawing.joined(drawn) == EPOCH else ()
        if not lines or self.data.get("live"):
            return
        try:
            asked = {"first": first, "last": last} if first is not None else {}
            found = _connected(drawn)[0].curves(_connected(drawn), [*keys, *joined], points=2 * _ROOM, **asked)
        except LmvpError:  # the plot keeps its lines
            return
        finer = lines_of(found.curves, runs, keys)
        finer = [line for line in finer if any(line.key == each.key and line.run == each.run for each in lines)]
        shown = Curves(runs, finer, drawn.hidden, axis=drawn.axis)
        before = self.curves
        self.tell(shown, finer, "finer", range=None if first is None else [first, last], section=section)
        self.curves = before


def _connected(curves: Curves) -> list[Run]:
    """Return the runs of curves, which in a notebook can be read again from their server."""
    return [run for run in curves.runs if isinstance(run, Run)]


def _told(curves: Curves, line: Line, group: str) -> dict[str, Any]:
    """Return the description of a line without its points, which are sent as binary data."""
    told = drawing.line_data(curves, Line(line.run, line.key, (), (), (), line.count))
    return {**told, "label": curves.label(line), "group": group}


def _columns(curves: Curves, line: Line) -> bytes:
    """Return the points of a line as four arrays of little-endian float64, one after the other.

    The arrays are steps, seconds since the start of the run, values, and the values of the X axis metric or NaN.
    """
    import numpy as np

    began = curves.runs[line.run].record.created_at.timestamp()
    axis = line.axis if len(line.axis) else np.full(len(line.steps), np.nan)
    columns = [np.asarray(column, "<f8") for column in (line.steps, line.times, line.values, axis)]
    columns[1] = columns[1] - began
    return np.concatenate(columns).tobytes()


class Follower:
    """Updates a plot from the server while its runs, of other processes, are running and the plot is open."""

    def __init__(self, plot: CurvesPlot) -> None:
        self._plot, self._looks = plot, 0
        self._thread = threading.Thread(target=self._follow, name="lmvp-follow", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while self._plot.is_open and any(run.status in ("running", "stale") for run in _connected(self._plot.curves)):
            time.sleep(_AGAIN)
            try:
                self._look()
            except LmvpError:  # the server can be restarting: try again
                continue

    def _look(self) -> None:
        """Fetch the runs and their curves, and send them to the view."""
        shown, self._looks = self._plot.curves, self._looks + 1
        runs = _connected(shown)
        for run in runs:
            run.refresh()
        fresh = with_system(runs[0].client, shown.runs, shown.asked, axis=shown.axis)
        if not self._plot.is_open:  # closed during the requests
            return
        self._plot.tell(fresh, fresh.lines)
        if self._looks % _SYSTEM_EVERY == 0 and (system := fresh.system) is not None:
            self._plot.tell_system(system, system.lines)


class LiveRun:
    """Updates the plot of a run of this process from its journal, until the run finishes.

    Parameters
    ----------
    run : ActiveRun
    redraw : callable
        Replaces the output of the plot by its final form.
    repeat : float
        Time in seconds after which all lines are sent again, because a view that opens late cannot ask for them while
        the cell runs. Infinite by default: never, for front ends that open the view before the first line is sent.
    """

    def __init__(self, run: ActiveRun, redraw: Callable[[CurvesPlot], None], repeat: float = math.inf) -> None:
        from lmvp.tracking.feed import Feed

        self.plot = CurvesPlot(Curves([run], []), live=True)
        self._run, self._redraw = run, redraw
        self._repeat, self._whole_at = repeat, time.monotonic()
        self._feed = Feed(run.folder)
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="lmvp-plot", daemon=True)
        run.on_end(self.finish)
        self._thread.start()

    def _follow(self) -> None:
        pause = _SOONEST
        while not self._end.wait(pause):
            began = time.monotonic()
            try:
                self._look()
            except Exception:  # noqa: BLE001 - an error of the plot must not stop a training
                pause = 1.0
                continue
            # A slow update leads to a longer pause, so that updates take at most a tenth of the time.
            pause = max(_SOONEST, (time.monotonic() - began) / _SHARE)

    def _look(self) -> None:
        """Read the journal and send the lines that changed since the last time."""
        with self._lock:
            changed = self._feed.look()
            is_whole = time.monotonic() - self._whole_at >= self._repeat
            if not (changed or is_whole) or self._end.is_set():
                return
            curves = curves_of_feed(self._run, self._feed)
            if is_whole:
                self._whole_at = time.monotonic()
            if lines := [line for line in curves.lines if is_whole or line.key in changed]:
                self.plot.tell(curves, lines)
            else:
                self.plot.curves = curves
            system = curves.system
            if system is not None and (is_whole or any(line.key in changed for line in system.lines)):
                self.plot.tell_system(system, [line for line in system.lines if is_whole or line.key in changed])

    def finish(self) -> None:
        """Draw all points and replace the output by its final form."""
        self._end.set()
        with self._lock:  # wait for an update that the thread has started
            self._feed.look()
            self.plot.show(curves_of_feed(self._run, self._feed))
            self._redraw(self.plot)


def curves_of_feed(run: Run, feed: Feed) -> Curves:
    """Return the curves in a feed, downsampled, for at most `KEYS` metrics and system metrics each."""
    from lmvp.core.downsample import reduced

    def line(key: str, room: int = _ROOM) -> Line:
        columns, count = feed.curve(key)
        thin = reduced(columns, room)
        return Line(0, key, thin.steps.tolist(), thin.values.tolist(), thin.times.tolist(), count)

    known = feed.known()
    keys = [key for key in known if not key.startswith(SYSTEM) and key != EPOCH]
    lines = [line(key) for key in keys[:KEYS]]
    if EPOCH in known:
        epochs = line(EPOCH)
        lines = [with_epochs(each, epochs) for each in lines]
    machine = [line(key, SYSTEM_POINTS) for key in known if key.startswith(SYSTEM)][:KEYS]
    system = Curves([run], machine, axis="time") if machine else None
    return Curves([run], lines, max(0, len(keys) - KEYS), machine=lambda: system)


def plot_of(what: Any) -> CurvesPlot | None:
    """Return a plot of curves, a run or several runs; None for other objects."""
    from lmvp.tracking.active_run import ActiveRun
    from lmvp.views.runs import Runs

    if isinstance(what, Curves):
        return followed(CurvesPlot(what.of_runs() if isinstance(what, ModelCurves) else what))
    runs = [what] if isinstance(what, Run) else list(what) if isinstance(what, (Runs, list, tuple)) else []
    if not runs or not all(isinstance(run, Run) for run in runs):
        return None
    if isinstance(runs[0], ActiveRun) and not runs[0].ended and len(runs) == 1:
        from lmvp.tracking.feed import Feed

        feed = Feed(runs[0].folder)
        feed.look()
        return CurvesPlot(curves_of_feed(runs[0], feed))
    return followed(CurvesPlot(with_system(runs[0].client, runs)))


def followed(plot: CurvesPlot) -> CurvesPlot:
    """Start to update a plot if one of its runs is running, and return the plot."""
    if any(run.status == "running" for run in _connected(plot.curves)):
        Follower(plot)
    return plot
