"""The language of filters and acceptance rules: keys as they were logged, columns in messages, aliases."""

import pytest

from lmvp.errors import InvalidArgument
from lmvp_server.services import filters
from lmvp_server.services.contributions import check_rule

RUN = {
    "name": "quiet-wren-44",
    "status": "finished",
    "points": 3,
    "metrics": {
        "val/top1": 0.9,
        "val/acc@5": 0.99,
        "top-1": 0.5,
        "class": 1.0,
        "5-shot": 0.25,
        "größe/µ": 2.0,
        "acc": 0.7,
    },
    "params": {"optimizer.name": "adam", "lr": 0.001, "a/b/c": "x"},
    "tags": {"data/split": "night"},
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "metrics.val/top1 > 0.8", "val/top1 > 0.8", "0.8 < val/top1 <= 0.9", "metrics.val/top1>0.8", "val/top1>0.8",
        "metrics.val/acc@5 >= 0.99", "val/acc@5>=0.99", "metrics.top-1 == 0.5", "metrics.class == 1",
        "metrics.5-shot < 0.3", "metrics.größe/µ == 2 and points == 3", "größe/µ == 2", 'metrics["val/top1"] > 0.8',
        "params.optimizer.name == 'adam'", 'params.a/b/c == "x"', "tags.data/split in ('night', 'day')",
        "(metrics.val/top1 > 0.8)", "not val/top1 < 0.8", "metrics.val/top1 > metrics.acc", "params.none is None",
        "val/top1 > 0.8 and\n  points == 3", "'val/top1 > 5' != name", "metrics . acc > 0.5", "params.lr",
    ],
)  # fmt: skip
def test_filter_takes_keys_as_they_were_logged(text):
    assert filters.parse(text)(RUN) is True


@pytest.mark.parametrize("text", ["-metrics.val/top1", "-val/top1", '-metrics["val/top1"]'])
def test_order_takes_keys_as_they_were_logged(text):
    found = [{"metrics": {"val/top1": value}} for value in (0.5, 0.9, 0.7)]
    assert [run["metrics"]["val/top1"] for run in sorted(found, key=filters.order(text))] == [0.9, 0.7, 0.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metrics.val/top1 > 0.8 and 1 + points", "'1 + points', at column 28, is no filter"),
        ("größe/µ > 1 and f(x)", "'f(x)', at column 17, is no filter"),
        ("metrics.val/top1 >", "breaks off at column 19"),
        ("val/top1 >= @production", "@production is compared in a filter"),
        ("acc > 0.5", "'acc' is no field of a run"),
        ("metrics[0] > 1", "'metrics[0]', at column 1, is no filter"),
    ],
)
def test_filter_that_is_refused_shows_the_place_as_it_was_written(text, words):
    with pytest.raises(InvalidArgument) as refused:
        filters.parse(text)
    assert words in str(refused.value)


def test_bare_name_in_a_filter_names_the_forms_that_are_meant():
    with pytest.raises(InvalidArgument) as refused:
        filters.parse("lr < 0.1")
    assert refused.value.hint.startswith("metrics.lr or params.lr?")


VERSION = {"metrics": {"val/top1": 0.9, "loss": 0.1, "top-1": 0.5}, "params": {"lr": 0.01}, "message": "try", "size": 9}
PRODUCTION = {"metrics": {"val/top1": 0.8, "loss": 0.2, "top-1": 0.6}, "params": {"lr": 0.02}, "size": 10}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("val/top1 >= @production", True), ("metrics.val/top1 >= @production", True), ("@production < val/top1", True),
        ("loss<=@production", True), ("top-1 >= @production", False), ("params.lr < @production", True),
        ("size <= @production and loss < 0.2", True), ("val/top1 > 0.95 or message == 'try'", True),
        ("0.85 < val/top1 <= 0.9", True), ("nothing >= @production", False), ("val/top1 >= @nowhere", True),
        ("val/top1 > 0.95 and val/top1 >= @nowhere", False), ("not params.lr > @production", True),
    ],
)  # fmt: skip
def test_rule_compares_with_versions(text, holds):
    assert check_rule(text) == text
    assert filters.parse_rule(text).holds(VERSION, {"production": PRODUCTION}.get) is holds


@pytest.mark.parametrize("text", ["metrics.val/top1 > 0.8", "params.lr < 0.1 and val/top1 > 0.5", "'t' in message"])
def test_filter_and_rule_are_one_language(text):
    assert filters.parse(text, filters.VERSION)(VERSION) is True
    assert filters.parse_rule(text).holds(VERSION, lambda _: None) is True


def test_rule_tells_the_values_that_it_compares():
    rule = filters.parse_rule("val/top1 >= @production and f1 > 0.5 and loss < @nowhere")
    assert rule.told(VERSION, {"production": PRODUCTION}.get) == (
        "val/top1 is 0.9, @production has 0.8, f1 is missing, loss is 0.1, @nowhere has none"
    )


@pytest.mark.parametrize("text", ["acc", "acc >= production", "@a < @b", "1 < @a", "acc in @a", "acc + 1 > 2", ">= 3"])
def test_rule_that_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidArgument, match="cannot be read"):
        check_rule(text)
