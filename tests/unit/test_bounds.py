"""Views of hostile records: the work grows with the size of the input, and never with its square.

`steps` measures it, so that the speed of the machine does not matter.
"""

import sys
import unicodedata
from datetime import datetime, timezone
from itertools import count

import pytest
from support.steps import steps

from lmvp.connection import Address, Connection, error_of
from lmvp.core import sanitize
from lmvp.core.manifest import Tensor
from lmvp.core.references import suggest
from lmvp.core.schemas import (
    Layer,
    Layers,
    Model,
    Parent,
    Version,
)
from lmvp.core.schemas.models import version_html, version_text
from lmvp.errors import ServerError
from lmvp.views import code_diff as compare
from lmvp.views import layer_strip
from lmvp.views.code_diff import unified_diff
from lmvp.views.diff import CODE_ROWS, Diff, code_lines
from lmvp.views.history import History
from lmvp.views.metric_plot import plot_data
from lmvp.views.version import Showing, showing_data
from lmvp.views.version_graph import lanes

AT = datetime(2026, 11, 30, tzinfo=timezone.utc)


def version(number=1, **fields):
    return Version(
        project="digits", model="mlp", number=number, digest=f"{number:064x}", author="ada", created_at=AT, size=1,
        content="", sent=1, format="safetensors", **{"message": "", **fields},
    )  # fmt: skip


def axis(layers):
    return [Layer(path=f"blocks.{i // 2}.{i}", group=f"blocks.{i // 2}", size=4) for i in range(layers)]


def uneven(layers):
    """One block of half of the layers, and blocks of one layer each."""
    half = layers // 2
    return [Layer(path=f"b.{i}", group="b" if i < half else f"b.{i}", size=4) for i in range(layers)]


def code(lines):
    return version(environment={"code": {"source": lines}})


def diff(old, new):
    empty = type("Manifest", (), {"files": (), "tensors": ()})()
    return Diff.between(code(old), code(new), empty, empty)


# -- diffs of code


def hostile(lines):
    """Two texts whose lines repeat in every place."""
    return ["a", "b"] * (lines // 2), ["b", "a", "b"] * (lines // 3)


def applied(old, found):
    """Return the new text that a unified diff makes of an old one."""
    new, at = [], 0
    for line in found[2:]:
        if line.startswith("@@"):
            first = int(line.split()[1][1:].partition(",")[0])
            start = first - 1 if ",0 " not in line.split(" +")[0] + " " else first
            new += old[at:start]
            at = start
        else:
            new += [line[1:]] * (line[0] != "-")
            at += line[0] != "+"
    return new + old[at:]


def test_diff_of_honest_code_is_the_shortest():
    old = [f"line {i}" for i in range(40)]
    new = [*old[:10], "inserted", *old[10:30], "changed", *old[31:]]
    found = list(unified_diff(old, new, "v1", "v2"))
    assert [line for line in found[2:] if line[0] in "+-"] == ["+inserted", "-line 30", "+changed"]
    assert [line for line in found if line[0] == "@"] == ["@@ -9,4 +9,5 @@", "@@ -29,5 +30,5 @@"]
    assert list(unified_diff(old, old, "v1", "v2")) == []


@pytest.mark.parametrize("lines", [60, 1200, 6000])
def test_diff_of_any_code_is_correct(lines):
    old, new = hostile(lines)
    assert applied(old, list(unified_diff(old, new, "v1", "v2"))) == new


def test_diff_of_hostile_code_takes_bounded_comparisons():
    old = [f"{i % 190}" for i in range(30_000)]
    matcher = compare._Matcher(old, list(reversed(old)))
    with pytest.raises(compare._TooManySteps):
        matcher.get_opcodes()
    assert matcher.steps <= compare.STEPS_LIMIT + len(old) * 200
    found = list(unified_diff(["same", *old, "end"], ["same", *reversed(old), "end"], "v1", "v2"))
    assert sum(line.startswith("-") for line in found[2:]) == sum(line.startswith("+") for line in found[2:])
    assert "-same" not in found
    assert "-end" not in found


def test_diff_shows_a_bounded_part_of_the_code():
    shown = code_lines(diff("x", "\n".join(map(str, range(3 * CODE_ROWS)))))
    assert len(shown) == CODE_ROWS + 1
    assert shown[-1] == "… 10,002 more lines; .code holds them all"


# -- suggestions


def test_suggest_reads_and_compares_a_bounded_number_of_names():
    endless = (f"name{number}" for number in count())
    assert suggest("name77", endless) == "name77"
    assert next(endless) == "name1000"


def test_suggest_compares_no_long_names():
    assert suggest("a" * 100_000, ["a" * 99_999]) is None
    assert suggest("production", ["p" * 100_000, "prodution"]) == "prodution"
    few, many = (steps(suggest, "ab" * 60, ["ba" * 60 + f"{n}" for n in range(size)]) for size in (500, 8000))
    assert many < 6 * few


# -- strips, graphs and plots


def test_strip_of_many_layers_takes_linear_time():
    few, many = (steps(layer_strip.fold, uneven(size)) for size in (500, 2000))
    assert many < 8 * few
    assert [len(layer_strip.fold(axis(size), 300)) for size in (10, 90, 5000)] == [10, 45, 100]


def test_strip_of_a_table_is_folded_once():
    layers = axis(1000)
    first = layer_strip.fold(layers)
    assert layer_strip.fold(layers) is first
    assert layer_strip.fold(layers, 100) != first


def test_graph_of_versions_with_many_parents_takes_linear_time():
    def merges(parents):
        old = [Parent(number=n, digest=f"{n:064x}") for n in range(1, parents + 1)]
        return [version(1000 + n, parents=[*old[n:], *old[:n]]) for n in range(60, 0, -1)]

    few, many = (steps(lanes, merges(size)) for size in (100, 1600))
    assert many < 4 * few


def without_metric(count):
    """A line of versions of which only the ends have the metric, and as many that grew from its end."""
    found = [version(1, metrics={"acc": 0.5})]
    found += [version(n, parents=[Parent(number=n - 1, digest="")]) for n in range(2, count)]
    last = [Parent(number=count - 1, digest="")]
    found += [version(count + n, parents=last, metrics={"acc": 0.6}) for n in range(count)]
    return History(found[::-1], title="digits/mlp", total=len(found))


def test_plot_of_versions_without_the_metric_takes_linear_time():
    few, many = (steps(plot_data, without_metric(size), "acc") for size in (200, 800))
    assert many < 8 * few
    wires = plot_data(without_metric(200), "acc")["wires"]
    assert [0, 1, 0] in wires
    assert len(wires) == 200


def test_plot_ends_where_parents_go_in_a_circle():
    circle = [version(n, parents=[Parent(number=3 - n, digest="")]) for n in (1, 2)]
    newest = version(3, parents=[Parent(number=2, digest="")], metrics={"acc": 0.5})
    data = plot_data(History([newest, *circle[::-1]], title="digits/mlp", total=3), "acc")
    assert data["wires"] == []


def test_view_of_many_tensors_takes_linear_time():
    def shown(size):
        layers = Layers(axis=axis(size), strips={"1": "+" * size})
        tensors = tuple(
            Tensor(name=f"{layer.path}.w", dtype="F32", shape=(2, 2), path="w", offset=0, size=16, digest="0" * 64)
            for layer in layers.axis
        )
        about = Model(id="m", project="digits", name="mlp", created_at=AT, latest=1)
        return Showing(version(), about, tensors, (), layers=layers)

    few, many = (steps(showing_data, shown(size)) for size in (100, 800))
    assert many < 12 * few


# -- texts


def test_answer_of_deep_nesting_is_an_error_of_the_server():
    deep = b'{"error": ' + b"[" * 500_000
    with pytest.raises(ServerError, match="cannot be read"):
        Connection(lambda: Address("http://127.0.0.1:9")).decoded(deep, dict)
    assert isinstance(error_of(deep), ServerError)


def test_clean_text_has_no_control_characters():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    control = {char for char in every if unicodedata.category(char) in {"Cc", "Cs"}}
    assert set(sanitize._CONTROL.findall(every)) == control
    assert sanitize.clean("a\x00\ud800\x9fb") == sanitize.clean_code("a\x00\ud800\x9fb") == "a���b"


def test_clean_text_is_cut():
    assert sanitize.clean("a" * sanitize.LIMIT) == "a" * sanitize.LIMIT
    assert sanitize.clean("a" * 10**7) == "a" * sanitize.LIMIT + "…"
    assert len(sanitize.clean_code("\t" * 10**7)) <= 4 * sanitize.LIMIT + 1


@pytest.mark.parametrize("draw", [version_text, version_html])
def test_facts_of_a_version_are_cut(draw):
    record = version(
        message="m" * 10**6,
        params={f"key{n}": "x" for n in range(20_000)},
        tags={f"tag{n}": "x" for n in range(20_000)},
        metrics={f"metric{n}": 0.5 for n in range(20_000)},
        parents=[Parent(number=n, digest="") for n in range(20_000)],
    )
    text = draw(record)
    assert "and 19,900 more" in text
    assert len(text) < 40_000
