from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from support import sample_history as sample

from lmvp.views.history import History
from lmvp.views.metric_plot import plot_data, plot_html, plot_svg

VOID = {"img", "wbr"}


class Outline(HTMLParser):
    """Collects tags and alternatives, and wants each tag closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.alts = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(dict(attrs)["alt"])
        elif tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pictures(html):
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    return [ElementTree.fromstring(base64.b64decode(data)) for data in found]


def test_a_history_is_a_table_with_pictures():
    html = sample.history()._repr_html_()
    outline = Outline(html)
    assert outline.tags.count("tr") == 14
    assert len(pictures(html)) == 13
    assert outline.alts[0] == "2 of 53 layers changed, 51 identical"
    assert "13 versions of birdsong/tagger, newest first." in html
    assert "0.1 % to 20 %" in html
    assert "2026-11-20 13:41" in html
    assert not {"style", "script", "svg", "link"} & set(outline.tags)


def test_without_amounts_the_legend_promises_none():
    html = sample.history(amounts=False)._repr_html_()
    assert "solid: changed" in html
    assert "20 %" not in html


def test_others_cannot_write_html():
    evil = '<script>alert(1)</script><img src=x onerror="x">'
    row = sample.version(
        1, evil, author=evil, aliases=(evil,), metrics={evil: 1.0}, params={evil: evil}, tags={evil: evil}
    )
    for html in (
        History([row], title=evil)._repr_html_(),
        row._repr_html_(),
        plot_html(plot_data(History([row], title=evil))),
    ):
        outline = Outline(html)
        assert "script" not in outline.tags
        assert 'onerror="' not in html
        assert "&lt;script&gt;" in html
    ElementTree.fromstring(plot_svg(plot_data(History([row], title=evil))))


def test_a_project_shows_models_and_no_strips():
    rows = [sample.version(2), sample.version(1, model="denoiser")]
    html = History(rows, title="birdsong", layers=lambda _: sample.layers())._repr_html_()
    assert "Model" in html
    assert "<img" not in html


def test_the_newest_fifty_then_how_many_more():
    html = sample.long_history(10_000)._repr_html_()
    assert html.count("</tr>") == 51
    assert "… 9,950 older." in html


def test_the_plot_is_a_picture_with_its_numbers():
    data = plot_data(sample.history())
    picture = ElementTree.fromstring(plot_svg(data))
    assert len(picture.findall("{*}circle")) == 13
    assert "highest 0.874 at v12" in picture.attrib["aria-label"]
    html = plot_html(data)
    assert Outline(html).tags.count("tr") == 14


def test_plots_of_odd_values():
    history = History(
        [sample.version(n, metrics={"m": v}) for n, v in ((3, float("nan")), (2, float("inf")), (1, 2.0))], title="m"
    )
    data = plot_data(history)
    assert data["wires"] == []
    assert "2 not finite" in data["summary"]
    assert "nan" not in plot_svg(data)
    assert "inf" not in plot_svg(data)
    assert "No version of m has a metric" in plot_html(plot_data(History([sample.version(1)], title="m")))


def test_lines_reach_over_versions_without_the_metric_but_not_over_nan():
    def wires(*values):
        rows = [
            sample.version(n, metrics={} if v is None else {"m": v}, parents=(n - 1,) if n > 1 else ())
            for n, v in enumerate(values, 1)
        ]
        return plot_data(History(rows[::-1], title="m"), "m")["wires"]

    assert wires(1.0, 2.0) == [[0, 1, 1]]
    assert wires(1.0, None, 2.0) == [[0, 1, 1]]
    assert wires(1.0, float("nan"), 2.0) == []
