"""Widgets of the results of `lmvp.diff`, `lmvp.show` and `lmvp.open`."""

from __future__ import annotations

from typing import Any

from lmvp.client.console import ConsolePage
from lmvp.errors import LmvpError
from lmvp.views.diff import Diff, diff_data
from lmvp.views.version import Showing, showing_data
from lmvp_jupyter.bundle import module, styles
from lmvp_jupyter.live import LiveWidget, tell_spread


class DiffView(LiveWidget):
    """The differences between two versions: layer chart, layers as a tree, metrics, params, packages and code.

    Parameters
    ----------
    diff : Diff
        The result of `lmvp.diff`.
    """

    _esm = module("diff.js")
    _css = styles()

    def __init__(self, diff: Diff, **traits: Any) -> None:
        self.diff = diff
        super().__init__(data=diff_data(diff), **traits)
        self.on_msg(self._heard)

    def static(self) -> dict[str, str]:
        """Return the diff as text and HTML."""
        return {"text/plain": repr(self.diff), "text/html": self.diff._repr_html_()}

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        tell_spread(self, self.diff.spread, message)


class ModelView(LiveWidget):
    """The details of one version: layer strip, tensors with histograms on demand, metrics, params and origin.

    Parameters
    ----------
    showing : Showing
        The result of `lmvp.show`.
    """

    _esm = module("model.js")
    _css = styles()

    def __init__(self, showing: Showing, **traits: Any) -> None:
        self.showing = showing
        super().__init__(data=showing_data(showing), **traits)
        self.on_msg(self._heard)

    def static(self) -> dict[str, str]:
        """Return the version as text and HTML."""
        return {"text/plain": repr(self.showing), "text/html": self.showing._repr_html_()}

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        tell_spread(self, self.showing.spread, message)


class ConsoleButton(LiveWidget):
    """A button that opens a page of the console and logs the user in.

    The link contains a secret. It is created when the button is clicked and sent to the browser as a message, so that
    it is not saved with the notebook.

    Parameters
    ----------
    page : ConsolePage
        The result of `lmvp.open`.
    """

    _esm = module("open_console.js")
    _css = styles()

    def __init__(self, page: ConsolePage, **traits: Any) -> None:
        self.page = page
        super().__init__(data={"url": page.url, "path": page.path, "instance": page.instance()}, **traits)
        self.on_msg(self._heard)

    def static(self) -> dict[str, str]:
        """Return the address of the page, without a secret."""
        return {"text/plain": repr(self.page), "text/html": self.page._repr_html_()}

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        if not isinstance(message, dict) or message.get("kind") != "link":
            return
        try:
            self.send({"kind": "link", "url": self.page.signed_in_url()})
        except LmvpError as error:
            self.send({"kind": "error", "message": str(error)})
