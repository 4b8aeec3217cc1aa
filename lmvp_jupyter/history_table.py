"""`HistoryTable`: a table of versions with search, sorting, pages, actions on selected rows and automatic updates.

The kernel fetches other pages, filtered and sorted lists and diffs from the server when the view asks for them. The
widget has at most 200 rows, so a history of 10,000 versions takes the same time and memory as one of 200.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import traitlets

from lmvp import hints
from lmvp.core.schemas import Version
from lmvp.errors import InvalidArgument, LmvpError, ProtectedAlias
from lmvp.views.diff import diff_data
from lmvp.views.history import SHOWN, History, history_data
from lmvp.views.snippets import pull_code
from lmvp_jupyter.bundle import module, styles
from lmvp_jupyter.following import Followed, follow
from lmvp_jupyter.live import LiveWidget, tell_spread


class HistoryTable(LiveWidget):
    """A table of versions with their graph, layer strips and metrics, whose rows can be selected.

    Parameters
    ----------
    history : History
    columns : sequence of str, optional
        Keys of metrics to show, and of params as `params.lr`. The metric of the history by default.

    Attributes
    ----------
    selected : list
        Version numbers of the selected rows, newest first; `"model@v3"` if the history has several models.
    """

    _esm = module("history.js")
    _css = styles()
    selected: Any = traitlets.List().tag(sync=True)

    def __init__(self, history: History, columns: Sequence[str] | None = None, **traits: Any) -> None:
        self.history = history
        self._columns = None if columns is None else list(columns)
        self._asked: dict[str, Any] = {}
        self._diff: Any = None
        self._followed: Followed | None = None
        super().__init__(data=self._data(), **traits)
        self.on_msg(self._heard)

    @traitlets.validate("selected")
    def _known(self, proposal: Any) -> list[Any]:
        """Remove keys that are not rows of the table, and sort the others like the rows."""
        chosen = set(proposal["value"])
        return [row["key"] for row in self.data["rows"] if row["key"] in chosen]

    @property
    def chosen(self) -> list[Version]:
        """The versions of the selected rows, newest first."""
        keys: Iterable[Any] = (row["key"] for row in self.data["rows"])
        picked = set(self.selected)
        return [version for version, key in zip(self.history, keys, strict=False) if key in picked]

    def static(self) -> dict[str, str]:
        """Return the table as text and HTML."""
        return {"text/plain": repr(self.history), "text/html": self.history._repr_html_()}

    def refresh(self) -> None:
        """Fetch the current page, filter and order from the server again."""
        asked = {"first": 0, "where": "", "order": "", **self._asked}
        self.history = self.history.page(asked["first"], SHOWN, where=asked["where"], order=asked["order"])
        self.data = self._data()

    def keep_up(self) -> None:
        """Start to update the table automatically, as soon as a view asks for it."""
        if self._followed is None and self.history.can_page:
            self._followed = follow(self)

    def _data(self) -> dict[str, Any]:
        plain = not self._asked.get("where") and not self._asked.get("order")
        return {**history_data(self.history, self._columns, plain=plain), "asked": self._asked}

    # -- requests of the view

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        """Handle a request of the view and send it the result: `done`, `failed`, or `confirm` for protected aliases."""
        kind = message.get("kind") if isinstance(message, dict) else None
        act: Callable[[dict[str, Any]], str] | None = {
            "hello": self._hello,
            "query": self._query,
            "columns": self._choose_columns,
            "pull": self._pull,
            "alias": self._alias,
            "diff": self._show_diff,
            "histograms": self._histograms,
        }.get(str(kind))
        if act is None:
            return
        if self._followed:
            self._followed.touch()
        try:
            words = act(message)
        except ProtectedAlias as error:
            asked = {name: message.get(name) for name in ("key", "name")}
            self.send({"kind": "confirm", "of": kind, "words": error.message, "asked": asked})
        except LmvpError as error:  # the view shows the error and its hint
            said = [hints.translated(text) if text else text for text in (error.message, error.hint)]
            self.send({"kind": "failed", "of": kind, "words": said[0], "hint": said[1]})
        else:
            self.send({"kind": "done", "of": kind, "words": words})

    def _hello(self, _: dict[str, Any]) -> str:
        self.keep_up()
        return ""

    def _query(self, message: dict[str, Any]) -> str:
        before = self._asked
        first = message.get("first")
        words = {key: str(message.get(key) or "") for key in ("where", "order", "text")}
        self._asked = {"first": first if isinstance(first, int) and first > 0 else 0, **words}
        try:
            self.refresh()
        except LmvpError:
            self._asked = before
            raise
        return ""

    def _choose_columns(self, message: dict[str, Any]) -> str:
        keys = message.get("keys")
        self._columns = [str(key) for key in keys][:COLUMNS] if isinstance(keys, list) else None
        self.data = self._data()
        return ""

    def _pull(self, message: dict[str, Any]) -> str:
        reference, name = self._reference(message.get("key")), str(message.get("name") or "")
        if not name.isidentifier():
            raise InvalidArgument(
                f"{name[:40]!r} is not a valid name of a variable", hint="letters, digits and _, as `model`"
            )
        shell = _shell()
        if shell is None:
            raise InvalidArgument("a variable can be set only in a notebook", hint=pull_code(self._version(reference)))
        shell.user_ns[name] = self.history.client.download(reference)
        return f"{name} is {reference}"

    def _alias(self, message: dict[str, Any]) -> str:
        reference = self._reference(message.get("key"))
        yes = message.get("yes") is True
        alias = self.history.client.alias(reference, str(message.get("name") or ""), yes=yes)
        self.refresh()
        return f"{alias.name} points at {reference}"

    def _show_diff(self, message: dict[str, Any]) -> str:
        before, after = (self._reference(message.get(side)) for side in ("before", "after"))
        self._diff = self.history.client.diff(before, after, progress=False)
        self.send({"kind": "diff", "data": diff_data(self._diff)})
        return ""

    def _histograms(self, message: dict[str, Any]) -> str:
        if self._diff is not None:
            tell_spread(self, self._diff.spread, message)
        return ""

    def _version(self, reference: str) -> Version:
        return next(version for version in self.history if version.reference == reference)

    def _reference(self, key: Any) -> str:
        """Return the reference of a row of the table.

        A view can send any text, so only versions in the table are accepted.
        """
        for row in self.data["rows"]:
            if row["key"] == key:
                return str(row["reference"])
        raise InvalidArgument("the table no longer shows this version", hint="select it again")


COLUMNS = 12
"""Maximum number of columns that a view can choose."""


def _shell() -> Any:
    """Return the IPython shell; None outside of IPython, for example in marimo."""
    import sys

    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
