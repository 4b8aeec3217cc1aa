"""The forms as SVG: text and strips in one picture that any viewer opens."""

from __future__ import annotations

from xml.etree import ElementTree

from support import sample_history as sample
from test_diff_data import found

from lmvp.views.history import History
from lmvp.views.version import Showing

TEXT = "{http://www.w3.org/2000/svg}text"
EVIL = "<script>alert(1)</script>\u202e" + "x" * 300


def words(svg):
    """The texts of a picture that can be parsed, and nothing in it is a script."""
    root = ElementTree.fromstring(svg)
    assert not [node for node in root.iter() if node.tag.endswith(("script", "image"))]
    wide = float(root.get("width"))
    assert all(float(node.get("x")) < wide for node in root.iter(TEXT))
    return [node.text for node in root.iter(TEXT)]


def test_a_history_is_a_line_a_version():
    svg = sample.history().to_svg()
    told = words(svg)
    assert told[0] == "13 versions of birdsong/tagger, newest first"
    assert "v13" in told
    assert "Layers changed" in told
    assert svg.count("<svg") == 1 + 13


def test_an_empty_history_says_so():
    told = words(History([], title="birdsong/tagger").to_svg())
    assert told[0].startswith("No versions of birdsong/tagger yet.")
    assert "lmvp.push" in told[1]


def test_a_diff_has_its_sentence_and_its_bars():
    diff, _ = found()
    svg = diff.to_svg()
    assert diff.title in words(svg)[0]
    assert svg.count("fill-opacity") > 2


def test_a_version_has_its_metrics():
    versions = sample.versions()
    showing = Showing(versions[0], None, (), (), None, sample.layers(), {}, (), 0, None)
    told = words(showing.to_svg())
    assert told[0].startswith(versions[0].reference)
    assert set(versions[0].metrics) <= set(told)


def test_others_cannot_write_svg():
    row = sample.version(1, EVIL, author=EVIL, aliases=(EVIL,), metrics={EVIL: 1.0})
    told = words(History([row], title=EVIL).to_svg())
    assert not any("\u202e" in each for each in told)
    assert words(Showing(row, None, (), (), None, sample.layers(), {}, (), 0, None).to_svg())
