"""The form in which results are displayed, from the environment variable `LMVP_DISPLAY`."""

from __future__ import annotations

import os

from lmvp.errors import InvalidArgument

MODES = ("widget", "view", "static", "text")


def mode() -> str:
    """Return the form of results: `widget`, `view`, `static` or `text`.

    Raises
    ------
    InvalidArgument
        If `LMVP_DISPLAY` has another value.
    """
    chosen = os.environ.get("LMVP_DISPLAY", "").strip().lower() or "widget"
    if chosen not in MODES:
        raise InvalidArgument(f"LMVP_DISPLAY is {chosen!r}", hint=f"set it to one of {', '.join(MODES)}")
    return chosen
