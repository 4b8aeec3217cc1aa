"""Islands: places of a page that a widget of the notebook brings to life; without a script, its static form stays."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import msgspec


def island(view: str, data: Mapping[str, Any], still: str, **urls: str) -> str:
    r"""Return an island as HTML.

    Parameters
    ----------
    view : str
        A module of `static/widgets/`.
    data : dict
        What the view draws, as the widget of a notebook gets it.
    still : str
        HTML: what stands there until the view does.
    urls : str
        Where the view asks for more, by what it asks for.

    Examples
    --------
    >>> print(island("diff", {"title": "</script>"}, "still", histograms="../h"))
    <div class="island" data-view="diff" data-histograms="../h">
    <script type="application/json">{"title":"\u003c/script>"}</script>
    <div class="still">still</div></div>
    """
    told = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    places = "".join(f' data-{name}="{escape(url)}"' for name, url in urls.items() if url)
    script = f'<script type="application/json">{told}</script>'
    return f'<div class="island" data-view="{view}"{places}>\n{script}\n<div class="still">{still}</div></div>'
