from __future__ import annotations

import math
import sys

import pytest
from support import sample_history as sample

from lmvp.core.sanitize import width
from lmvp.core.schemas import Layers
from lmvp.core.schemas.models import version_text
from lmvp.errors import InvalidArgument, MissingDependency, NotFound, ServerUnavailable
from lmvp.views.history import SHOWN, History, history_text


def test_it_is_a_sequence_newest_first():
    history = sample.history()
    assert len(history) == 13
    assert history[0].number == 13
    assert history[-1].number == 1
    assert [v.number for v in history[1:3]] == [12, 11]
    assert isinstance(history[1:3], History)
    assert history[12] in history


def test_a_slice_knows_what_lies_behind_it():
    history = History(sample.versions(), title="birdsong/tagger", total=40)
    assert history.older == 27
    assert history[:5].older == 35
    assert history[3:6].older == 34
    assert history[3:6][1:2].older == 35
    assert history[::2].older == 0
    assert "… 34 older" in repr(history[3:6])


@pytest.mark.parametrize("which", ["v3", 3, "3"])
def test_a_version_by_its_number(which):
    assert sample.history().version(which).message == "Two more blocks on top"


def test_a_version_by_its_alias_or_not_at_all():
    history = sample.history()
    assert history["production"].number == 12
    with pytest.raises(NotFound, match="'v99'"):
        history["v99"]


def test_a_number_of_several_models_is_ambiguous():
    rows = [sample.version(1), sample.version(1, model="denoiser")]
    history = History(rows, title="birdsong")
    assert history.models == ("tagger", "denoiser")
    with pytest.raises(InvalidArgument, match="denoiser@v1"):
        history["v1"]
    assert "denoiser" in repr(history)


def test_layers_are_fetched_once_when_looked_at():
    asked = []

    def fetch(versions):
        asked.append(len(versions))
        return sample.layers()

    history = History(sample.long_history(1000), title="birdsong/tagger", layers=fetch)
    assert not asked
    assert history.layers is history.layers
    assert asked == [SHOWN]


def test_layers_that_cannot_be_had_are_left_out():
    def fetch(_):
        raise ServerUnavailable("no server")

    history = History(sample.versions(), title="birdsong/tagger", layers=fetch)
    assert history.layers == Layers()
    assert "<img" not in history._repr_html_()


def test_the_metric_is_the_one_that_most_versions_share():
    rows = [
        sample.version(3, metrics={"new": 1.0, "acc": 0.9}),
        *(sample.version(n, metrics={"acc": 0.1}) for n in (2, 1)),
    ]
    assert History(rows, title="m").metric == "acc"
    assert History(rows, title="m", metric="new").metric == "new"
    assert History([], title="m").metric is None


@pytest.mark.parametrize("room", [40, 60, 80, 120, 200])
def test_the_text_fits_its_width(room):
    lines = history_text(sample.history(), room).splitlines()
    assert max(map(width, lines)) <= max(room, 50)
    assert len(lines) == 2 + 1 + 13


def test_numbers_of_a_column_line_up():
    lines = history_text(sample.history(), 140).splitlines()[2:]
    ends = {line.index("0.412") + 5 for line in lines if "0.412" in line} | {lines[0].index("val/f1") + 6}
    assert len(ends) == 1


def test_text_from_others_cannot_leave_its_line():
    hostile = sample.version(1, "one\ntwo\x1b[31m\u202e red", author="ada\r")
    text = history_text(History([hostile], title="m"), 120)
    assert len(text.splitlines()) == 4
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\x1b" not in version_text(hostile)


def test_odd_values_are_shown_as_they_are():
    rows = [sample.version(n, metrics={"m": value}) for n, value in ((3, math.nan), (2, -math.inf), (1, 0.5))]
    text = repr(History(rows, title="m"))
    assert all(word in text for word in ("NaN", "−Inf", "0.500"))


def test_long_histories_are_cut():
    text = repr(sample.long_history(10_000))
    assert len(text.splitlines()) < 40
    assert "… 9,970 older" in text


def test_an_empty_history_says_how_to_fill_it():
    assert "lmvp.push('birdsong/tagger', model" in repr(History([], title="birdsong/tagger"))
    assert "lmvp.push" in History([], title="birdsong")._repr_html_()
    assert "None of the 13 versions" in repr(sample.history()[13:])


def test_a_version_alone_shows_its_facts_and_in_a_list_its_name():
    pretty = pytest.importorskip("IPython.lib.pretty").pretty
    version = sample.history()[1]
    assert "production, best" in pretty(version)
    assert pretty([version]) == f"[{version!r}]"
    assert version.digest in version._repr_html_()


def test_a_frame_needs_pandas():
    if "pandas" not in sys.modules:
        try:
            import pandas  # noqa: F401
        except ImportError:
            with pytest.raises(MissingDependency, match="pandas"):
                sample.history().to_frame()
            return
    frame = sample.history().to_frame()
    assert list(frame["number"]) == list(range(13, 0, -1))
    assert frame["metrics.val/f1"].max() == 0.874


LONG = "validation/of_the_recordings_that_nobody_labelled/with_all_augmentations/top_1_accuracy"


def test_a_long_metric_key_leaves_room_for_the_rest():
    rows = [
        sample.version(n, "Lower the learning rate", author="ada", metrics={LONG: n / 7, "loss": 1.0}) for n in (2, 1)
    ]
    text = history_text(History(rows, title="birdsong/tagger"), room=100)
    head, *lines = text.splitlines()[2:]
    assert max(map(len, (head, *lines))) <= 100
    assert "validati…_1_accuracy" in head
    assert "Lower the learning rate" in lines[0]
    assert head.split()[-2:] == ["(UTC)", "Size"]


def test_long_names_and_aliases_are_clipped_in_text():
    rows = [sample.version(n, "Train", model="m" * 90, aliases=("a" * 90,), author="u" * 90) for n in (2, 1)]
    text = history_text(History(rows, title="birdsong"), room=140)
    assert max(map(len, text.splitlines())) <= 140


def test_a_project_names_its_models_be_there_only_one():
    rows = [sample.version(2, "Second"), sample.version(1, "First")]
    of_project, of_model = History(rows, title="birdsong"), History(rows, title="birdsong/tagger")
    assert "tagger" in repr(of_project).splitlines()[3]
    assert "Model" in of_project._repr_html_()
    assert of_project.to_dict()["several"]
    assert "tagger" not in repr(of_model).splitlines()[3]
    assert "Model" not in of_model._repr_html_()
    assert not of_model.to_dict()["several"]
