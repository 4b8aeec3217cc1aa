"""Numbers at the limits of float64 and beyond: each page and each picture shows them, and none fails."""

import itertools
import json
import math
import re
from datetime import datetime, timezone

import numpy as np
import pytest
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp.core import number_format
from lmvp.core.schemas import Amount, Layer
from lmvp.core.schemas.runs import RunRecord
from lmvp.core.tensor_values import counts
from lmvp.views import curves as drawing
from lmvp.views import layer_strip
from lmvp.views.curve_queries import compare_runs, curves_of
from lmvp.views.curves import Curves, Line, curves_data
from lmvp.views.diff import diff_data
from lmvp.views.history import history_data
from lmvp.views.metric_plot import plot_data, plot_svg
from lmvp.views.run_comparison import Comparison
from lmvp.views.runs import Run
from lmvp.views.version import showing_data
from lmvp_server.web import run_charts, run_tables, svg_marks
from lmvp_server.web.axes import Axis
from lmvp_server.web.run_tables import Column

DIGITS = 4300
"""Digits of the longest integer that JSON of the server may have."""
NUMBERS = [
    "0", "-0.0", "1", "0.001", "5e-324", "-5e-324", "2.2250738585072014e-308", "1e-300", "-1e-300",
    "1.7e308", "-1.7e308", "1.7976931348623157e308", "-1.7976931348623157e308",
    "9007199254740993", "9223372036854775807", "-9223372036854775808", "18446744073709551616",
    "1" + "0" * 308, "1" + "0" * 309, "-1" + "0" * 309, "1" + "0" * (DIGITS - 1), "-9" + "9" * 400,
]  # fmt: skip
WORDS = ['"NaN"', '"Infinity"', '"-Infinity"', '"nan"', '"1e999"', '"inf"', f'"{"9" * 5000}"', '""', "true", "null"]
VALUES = NUMBERS + WORDS
STEPS = [0, 2**63 - 1]
LAST = len(VALUES)
RUNS = [f"{number:032x}" for number in range(LAST)]
FLOATS = sorted({float(text) for text in NUMBERS} | {math.nan, 1e-11, 3.0, 1e300}, key=repr)
FINITE = [value for value in FLOATS if math.isfinite(value)]
SCALES = (1.0, 1.7e308, 5e-324, math.nan, math.inf)
"""Of the weights of the versions."""
COLUMNS = ("metrics.x", "metrics.y", "params.x", "params.pair", "summary.x", "tags.x")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("numbers") / "data") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        assert served("POST", "/projects/p/models", json={"name": "m"}).ok
        assert sum([start(served, number) for number in range(LAST)]) >= LAST - 2
        assert sum([push(served, number) for number in range(LAST)]) >= len(NUMBERS) - 5
        served.client = Client(served.url, TOKEN)
        for scale in SCALES:
            weights = {"a.w": np.full(8, scale), "b.w": np.linspace(-1, 1, 8) * scale}
            served.client.update("p/weights", weights, create=True, progress=False)
        yield served


def text_of(**values):
    """Return JSON of values that are JSON already: no Python number has the form that is sent."""
    return "{" + ",".join(f'"{key}":{value}' for key, value in values.items()) + "}"


def texts(values):
    return {key: json.dumps(value) for key, value in values.items()}


def send(served, method, path, text):
    answer = served(method, path, data=text)
    assert answer.status_code < 500, f"{method} {path} of {text[:60]}: {answer.text}"
    return answer.ok


def start(served, number):
    """Store a run that has one of the values everywhere; return whether the server took it as a param."""
    run, value = RUNS[number], VALUES[number]
    given = {"run": run, "name": f"r{number}"}
    pairs = text_of(same="1", x=value, pair=str(number % 7))
    kept = send(served, "POST", "/projects/p/runs", text_of(**texts(given), params=pairs, environment=pairs))
    if not kept:
        assert send(served, "POST", "/projects/p/runs", text_of(**texts(given)))
    send(served, "PATCH", f"/projects/p/runs/{run}", text_of(summary=text_of(x=value, same="1")))
    send(served, "PATCH", f"/projects/p/runs/{run}", text_of(tags=text_of(x=json.dumps(value.strip('"')))))
    for step in STEPS:
        other = VALUES[(number + step) % LAST]
        for values in (text_of(x=value), text_of(y=other), text_of(epoch=other)):
            send(served, "POST", f"/projects/p/runs/{run}/metrics", text_of(values=values, step=str(step)))
    return kept


def push(served, number):
    """Publish a version that has one of the values as a metric and as a param; return whether the server took both."""
    manifest = {"files": [], "format": "files", "lmvp": 1, "meta": {"n": number}, "parents": [], "tensors": []}
    x, taken = text_of(x=VALUES[number]), []
    for at, told in enumerate(({"metrics": x, "params": x}, {"metrics": x}, {"params": x})):
        name = f"{3 * number + at:032x}"
        manifest["meta"]["n"] = 3 * number + at
        begun = text_of(**texts({"push": name, "manifest": manifest}), **told)
        taken.append(
            send(served, "POST", "/projects/p/models/m/pushes", begun)
            and send(served, "POST", f"/projects/p/models/m/pushes/{name}/commit", "")
        )
    return all(taken)


def pages():
    every = "&".join(f"run={run}" for run in RUNS)
    yield from ("/", "/p/p", "/p/p/-/runs", "/p/p/-/activity", "/p/p/-/settings", "/p/p/m", "/p/p/m?metric=x")
    yield from (f"/search?q={10**300}", "/admin/storage", "/p/p/weights", f"/p/p/-/curves?{every}")
    for column in COLUMNS:
        for asked in ("column={}", "group={}", "order={}", "order=-{}", "column={}&group=params.pair", "where={}>1.5"):
            yield f"/p/p/-/runs?{asked.format(column)}"
    for run, other in itertools.pairwise(RUNS):
        yield f"/p/p/-/runs/{run}"
        yield f"/p/p/-/compare?run={run}&run={other}"
        yield f"/p/p/-/curves?run={run}&from=-1.7e308&to=1.7e308"
    for across, up in itertools.product(COLUMNS, COLUMNS[:-2]):
        yield f"/p/p/-/compare?{every}&x={across}&y={up}"


def is_drawing_sound(page):
    """Whether no coordinate of a picture is NaN or infinite."""
    drawn = re.findall(r' (?:d|cx|cy|x|y|viewBox|style|width)="([^"]*)"', page)
    return not any(re.search(r"\b(?:nan|inf)\b", one) for one in drawn)


def see(served, path, caplog):
    caplog.clear()
    answer = served("GET", "~" + path)
    assert answer.status_code == 200, f"{path}: {answer.status_code}"
    assert "Traceback" not in caplog.text, path
    assert is_drawing_sound(answer.text), path


def test_page_of_runs_shows_every_number(served, caplog):
    for path in pages():
        see(served, path, caplog)


def test_page_of_versions_shows_every_number(served, caplog):
    for model in ("m", "weights"):
        numbered = range(1, 1 + served("GET", f"/projects/p/models/{model}/versions").json()["total"])
        assert len(numbered) >= len(SCALES)
        for number in numbered:
            see(served, f"/p/p/{model}@v{number}", caplog)
            see(served, f"/p/p/{model}/-/diff?from=v{max(1, number - 1)}&to=v{number}", caplog)
    for number in range(1, len(SCALES) + 1):
        see(served, f"/p/p/weights@v{number}/-/histograms?tensor=a.w&tensor=b.w&against=v1", caplog)


def test_picture_of_compared_runs_has_a_place_for_each_number(served):
    """In pairs, since the range of an axis depends on both ends."""
    columns = [Column.read(name) for name in COLUMNS]
    found = [served.client.run("p", run).record for run in RUNS]
    for pair in itertools.combinations(found, 2):
        drawn = [run_charts.scatter(pair, across, up) for across, up in itertools.product(columns, columns)]
        assert all(map(is_drawing_sound, [*drawn, run_charts.parallel(pair, columns)]))
        assert repr(Comparison.of(pair))
        assert Comparison.of(pair)._repr_html_()
        assert run_tables.groups(pair, columns, columns[0])


def test_axis_has_ticks_and_places_between_its_ends():
    for ends in itertools.product(FINITE, FINITE):
        axis = Axis.over(ends)
        assert all(0 <= axis.place(value) <= 1 for value in ends)
        assert all(math.isfinite(tick) and words for tick, words in axis.ticks())


def test_text_and_picture_of_each_view_are_drawn(served):
    client = served.client
    runs = client.runs("p")
    views = [runs, client.show_history("p/m"), client.show_history("p")]
    views.append(compare_runs(client, [f"p/{run}" for run in RUNS]))
    ways = ({}, {"log": True}, {"axis": "y"}, {"smooth": 5})
    views += [curves_of(client, [f"p/{run}"], **how) for run in RUNS for how in ways]
    views += [client.show(f"p/weights@v{number}") for number in range(1, len(SCALES) + 1)]
    views += [client.diff(f"p/weights@v{number}", f"p/weights@v{number + 1}") for number in range(1, len(SCALES))]
    views += [*client.show_history("p/m")]
    for view in views:
        assert repr(view)
        assert is_drawing_sound(view._repr_html_() if hasattr(view, "_repr_html_") else "")
    history = client.show_history("p/m")
    assert is_drawing_sound(history.to_svg())
    for number in range(1, len(SCALES)):
        shown, diff = (
            client.show(f"p/weights@v{number}"),
            client.diff(f"p/weights@v{number}", f"p/weights@v{number + 1}"),
        )
        assert is_drawing_sound(shown.to_svg() + diff.to_svg())
        assert showing_data(shown)
        assert diff_data(diff)
    assert is_drawing_sound(plot_svg(plot_data(history, "x")))
    assert is_drawing_sound("".join(svg_marks.metric_track(history_data(history))))


def test_curve_of_two_numbers_is_drawn():
    at = datetime(2026, 11, 30, tzinfo=timezone.utc)
    record = RunRecord(id="a" * 32, project="p", name="r", status="finished", created_at=at)
    for values, axis in itertools.product(itertools.product(FLOATS, FLOATS), ([0.0, 1.0], [-1.7e308, 1.7e308])):
        line = Line(0, "x", [0, 2**63 - 1], list(values), axis, 2, axis)
        for how in ({}, {"log": True}, {"axis": "time"}, {"axis": "y"}, {"smooth": 3}):
            curves = Curves([Run(None, record)], [line], **how)
            assert len(drawing.sparkline(values, 9)) == 2
            assert repr(curves)
            assert is_drawing_sound(drawing.chart_svg(curves, [line]))
            curves_data(curves)


def test_number_is_written_for_each_pair():
    for before, after in itertools.product([*FLOATS, 10**309, -(10**4299), 10**5000], repeat=2):
        assert all(number_format.column([before, after]))
        assert all(number_format.pair(number_format.real(before), number_format.real(after))[:2])
        assert number_format.percent(abs(number_format.real(before))) is not None
        assert number_format.size(before)
        assert is_drawing_sound(svg_marks.spark([number_format.real(before), number_format.real(after)], ""))
        low, high = number_format.bounds([number_format.real(before), number_format.real(after)])
        assert number_format.ends(*number_format.ticks(low, high))
        low, high = number_format.log_bounds([number_format.real(before), number_format.real(after)])
        assert number_format.log_ticks(low, high)
    for low, high in itertools.product(FINITE, repeat=2):
        for ticks in (number_format.ticks(low, high), number_format.time_ticks(low, high)) if low < high else ():
            for written in (
                number_format.step_labels,
                number_format.time_labels,
                number_format.byte_labels,
                number_format.ends,
            ):
                assert all(written(ticks) if written is not number_format.ends else written(*ticks))


def test_integer_beyond_float64_is_written_with_its_power():
    assert number_format.column([10**309, 1.0]) == ["1.00e+309", "1"]
    assert number_format.pair(-1.7e308, 1.7e308) == ("−1.7e+308", "1.7e+308", "+3.40e+308")


def test_change_beyond_float64_has_a_shade_and_no_angle():
    amount = Amount(count=2, changed=2, squares="Infinity", base_squares="Infinity", largest=1e308, after_squares=1.0)
    assert (amount.relative, amount.cosine) == (math.inf, None)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, np.nextafter(1.0, 2.0)], [1, 0, 0, 1]),
        ([1e300, 1e300], [0, 0, 2, 0]),
        ([-1.7e308, 0.0, 1.7e308], [1, 0, 1, 1]),
        ([0.0, 5e-324], [1, 0, 0, 1]),
        ([1e17, 1e17 + 16, math.nan], [1, 0, 0, 1]),
    ],
)
def test_histogram_counts_numbers_that_lie_too_near_or_too_far_for_edges(values, found):
    data = np.array(values).tobytes()
    assert counts(data, "F64", np.nanmin(values), np.nanmax(values), 4) == found


def test_layer_of_any_size_has_a_width():
    axis = [Layer(path=f"b.{at}", group="b", size=size) for at, size in enumerate((-1, 0, 5, 10**400))]
    assert is_drawing_sound(layer_strip.svg(axis, "0123"))
