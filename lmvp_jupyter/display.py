"""Shows what calls return as live widgets, once the extension is loaded; `LMVP_DISPLAY=static|widget|text` decides.

A widget leaves "model not found" in a notebook that is opened again without its kernel, even where the output holds a
static form beside it. So outputs are shown under an id of their own, and `freeze` puts the static form in their place
before the notebook is saved. An output that is the plain result of a cell has no such id, which is why results are
displayed here rather than returned to the shell.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lmvp.compare import Diff
from lmvp.errors import InvalidArgument
from lmvp.history import History

MODES = ("widget", "static", "text")


@dataclass
class _Shown:
    """A live widget in an output."""

    widget: Any
    display_id: str
    cell: str | None


class Display:
    """How one shell shows histories, diffs and widgets."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._cell: str | None = None
        self._shown: list[_Shown] = []

    def start(self) -> None:
        """Register with the shell."""
        from lmvp_jupyter.widgets import LiveWidget

        formatter = self._ip.display_formatter.ipython_display_formatter
        formatter.for_type(History, self._history)
        formatter.for_type(Diff, self._static)
        formatter.for_type(LiveWidget, self._widget)
        self._ip.events.register("pre_run_cell", self._before_cell)

    def stop(self) -> None:
        """Take everything back."""
        from lmvp_jupyter.widgets import LiveWidget

        formatter = self._ip.display_formatter.ipython_display_formatter
        for kind in (History, Diff, LiveWidget):
            formatter.pop(kind, None)
        self._ip.events.unregister("pre_run_cell", self._before_cell)

    def freeze(self) -> int:
        """Put the static form in the place of every live output; give how many there were."""
        from IPython.display import update_display

        shown, self._shown = self._shown, []
        for each in shown:
            forms = each.widget.static()
            each.widget.close()
            update_display(  # type: ignore[no-untyped-call, unused-ignore]
                forms, display_id=each.display_id, raw=True
            )
        return len(shown)

    def _before_cell(self, info: Any) -> None:
        """Close the widgets of a cell that runs again: its outputs are about to go."""
        self._cell = getattr(info, "cell_id", None)
        if self._cell is None:
            return
        for each in [each for each in self._shown if each.cell == self._cell]:
            each.widget.close()
            self._shown.remove(each)

    def _history(self, history: History) -> None:
        from lmvp_jupyter.widgets import HistoryTable

        if mode() == "widget":
            self._widget(HistoryTable(history))
        else:
            self._static(history)

    def _widget(self, widget: Any) -> None:
        if mode() == "widget":
            handle = _publish(widget._repr_mimebundle_()[0])
            self._shown.append(_Shown(widget, handle.display_id, self._cell))
        else:
            _publish(_allowed(widget.static()))

    def _static(self, result: Any) -> None:
        _publish(_allowed({"text/plain": repr(result), "text/html": result._repr_html_()}))


def _publish(forms: dict[str, Any]) -> Any:
    from IPython.display import display

    return display(  # type: ignore[no-untyped-call, unused-ignore]
        forms, raw=True, display_id=True
    )


def _allowed(forms: dict[str, str]) -> dict[str, str]:
    return {"text/plain": forms["text/plain"]} if mode() == "text" else forms


def mode() -> str:
    """Return how results are shown: `widget`, `static` or `text`.

    Raises
    ------
    InvalidArgument
        If `LMVP_DISPLAY` is none of them.
    """
    chosen = os.environ.get("LMVP_DISPLAY", "").strip().lower() or "widget"
    if chosen not in MODES:
        raise InvalidArgument(f"LMVP_DISPLAY is {chosen!r}", hint=f"set it to one of {', '.join(MODES)}")
    return chosen


_displays: dict[int, Display] = {}


def install(ip: Any) -> None:
    """Show histories as widgets in this shell from now on; in a terminal, which has no place for them, do nothing."""
    if getattr(ip, "kernel", None) is None or id(ip) in _displays:
        return
    _displays[id(ip)] = Display(ip)
    _displays[id(ip)].start()


def uninstall(ip: Any) -> None:
    """Undo `install`; what is on show stays as it is."""
    display = _displays.pop(id(ip), None)
    if display is not None:
        display.stop()


def freeze() -> int:
    """Turn all live outputs into their static form, so that a saved notebook shows them; give how many."""
    return sum(display.freeze() for display in _displays.values())
