"""Services and hostile text: filters, rules, searches and strips do a bounded amount of work."""

from contextlib import suppress
from datetime import datetime, timezone

import pytest
from support.steps import steps
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from lmvp.core import manifest as manifests
from lmvp.core.manifest import (
    Chunk,
    File,
    Manifest,
    Tensor,
)
from lmvp.core.schemas import (
    Layer,
    Layers,
    Model,
    Version,
)
from lmvp.errors import InvalidArgument
from lmvp.views.model_card import first_words
from lmvp.views.version import Showing
from lmvp_server.http.compression import LIMIT, Gzip
from lmvp_server.services import filters, layers, search
from lmvp_server.services.contributions import check_rule
from lmvp_server.services.layers import LayerState, LayerStrips, _axis
from lmvp_server.services.tensors import affordable
from lmvp_server.web.versions import TENSORS, shown_part


def test_filter_has_a_bounded_number_of_terms():
    most = "<".join(["1"] * filters.TERMS_LIMIT)
    assert filters.parse(most)({}) is False
    with pytest.raises(InvalidArgument, match="the filter has 501 terms; the limit is 500"):
        filters.parse(f"{most}<1")


def test_filter_evaluates_a_bounded_number_of_terms(monkeypatch):
    monkeypatch.setattr(filters, "WORK_LIMIT", 1000)
    match = filters.parse("points > 1 and points < 3")
    assert [match({"points": number}) for number in (1, 2, 3)] == [False, True, False]
    with pytest.raises(InvalidArgument, match="the filter evaluates more than 1,000 terms"):
        list(map(match, [{"points": 2}] * 1000))


def test_filter_counts_long_texts(monkeypatch):
    monkeypatch.setattr(filters, "WORK_LIMIT", 100_000)
    match = filters.parse('"b" in params.text')
    assert match({"params": {"text": "a" * 10**6 + "b"}}) is True
    with pytest.raises(InvalidArgument, match="more than 100,000 terms; 100 characters of texts count as one"):
        list(map(match, [{"params": {"text": "a" * 10**6}}] * 10))


@pytest.mark.parametrize(
    ("term", "most"),
    [
        ('"aab" in params.text', 60),
        ('not "aab" not in params.text', 60),
        (f'"{"a" * 40}b{"a" * 30}" in params.text', 60),
        ("params.text == params.other", 300),
        ("not params.text < params.other", 300),
    ],
    ids=["in", "not in", "long", "equal", "less"],
)
def test_filter_counts_characters_that_it_compares(term, most):
    """A filter of 2,000 characters over 300 runs with params of 110 kB takes seconds, not half a minute."""
    item = {"params": {"text": "a" * 110_000, "other": "a" * 109_999 + "b"}}
    match = filters.parse(" or ".join([term] * (2000 // (len(term) + len(" or ")))))
    with pytest.raises(InvalidArgument, match="characters of texts count as one"):
        any(map(match, [item] * most))


@pytest.mark.parametrize("text", ["params.a == params.b", "params.c in params.a", "params.d == params.e"])
@pytest.mark.parametrize("repeats", [1, 40])
def test_filter_counts_elements_of_lists(monkeypatch, text, repeats):
    """A list costs its elements, at all depths: 1,000 here, so 20 comparisons of two lists cost more than 20,000."""
    nested = [[number] * 10 for number in range(100)]
    params = {"a": nested, "b": [*nested], "c": 7, "d": {"x": nested}, "e": {"x": [*nested]}}
    monkeypatch.setattr(filters, "WORK_LIMIT", 20_000)
    match = filters.parse(" and ".join([text] * repeats) if "==" in text else " or ".join([text] * repeats))
    if repeats == 1:
        assert match({"params": params}) is ("==" in text)
    else:
        with pytest.raises(InvalidArgument, match="the filter evaluates more than 20,000 terms"):
            match({"params": params})


def test_filter_of_long_lists_does_bounded_work(monkeypatch):
    """The most work of a comparison is linear in the limit, whatever the lists hold."""
    monkeypatch.setattr(filters, "WORK_LIMIT", 10_000)

    def look(size):
        def refused():
            with pytest.raises(InvalidArgument, match="more than 10,000 terms"):
                filters.parse("params.a == params.b")({"params": {"a": [[0]] * size, "b": [[0]] * size}})

        return steps(refused)

    look(15_000)  # the first call imports and compiles
    assert look(300_000) < 2 * look(15_000)


def test_filter_of_deeply_nested_lists_does_not_hold():
    deep = other = 0
    for _ in range(100_000):
        deep, other = [deep], [other]
    assert filters.parse("params.a == params.b")({"params": {"a": deep, "b": other}}) is False
    while isinstance(deep, list):  # or its end is too deep for the collector
        deep, other = deep[0], other[0]


def test_order_reads_a_bounded_part_of_texts():
    key = filters.order("params.text")
    first, second = ({"params": {"text": "a" * 1000 + letter * 10**6}} for letter in "bc")
    assert key(first) == key(second) < key({"params": {"text": "b"}})


def compile_filter(text):
    with suppress(InvalidArgument):
        assert filters.parse(text)({}) in {True, False}


@pytest.mark.parametrize(
    "text",
    ["(" * 1900, "not " * 490, "-" * 1900 + "1", "{" * 1900, "f(" * 900, "a[" * 900, "lambda:" * 280, "9" * 1990],
)
def test_filter_of_deep_text_is_refused_or_read(text):
    """A failure of CPython's own parser is a mistake of the caller."""
    refused = steps(compile_filter, text)
    assert refused < 100_000


@pytest.mark.parametrize("text", ["<" * 10**6, "a < " * 10**5, " " * 10**6 + "x", "a" * 601])
def test_rule_of_acceptance_is_short(text):
    with pytest.raises(InvalidArgument, match=rf"the rule has {len(text):,} characters; the limit is 600"):
        check_rule(text)
    assert check_rule("val/acc >= @production") == "val/acc >= @production"


class Records:
    """A catalog and a store with one project of `count` versions."""

    def __init__(self, count):
        self.count = count

    def projects(self, *_):
        return {"items": [{"name": "p", "description": ""}]}

    def find_project(self, *_):
        return type("Record", (), {"id": "p", "data": {"name": "p"}})

    def find(self, _space, kind, **_):
        record = type("Record", (), {"id": "m", "data": {"name": "m", "description": "x" * 10**6}})
        return [record] * (self.count if kind == "models" else 0)


def test_search_reads_each_text_for_a_bounded_number_of_words():
    def look(words):
        return steps(search.Search(Records(50), Records(50)).find, None, words)

    assert look("x " * 100) == look("x")
    assert look(" ".join(map(chr, range(97, 97 + 26)))) < 20 * look("a")


def test_search_finds_all_words_in_a_bounded_part_of_a_text():
    found, more = search.Search(Records(1), Records(1)).find(None, "M xxx XX")
    assert [(one["name"], len(one["words"])) for one in found] == [("m", 160)]
    assert not more


def test_strip_of_versions_with_other_layers_takes_linear_time():
    def states(size):
        return [{f"{version}.{i}": LayerState(1, 2, 3) for i in range(size)} for version in range(3)]

    few, many = (steps(_axis, states(size)) for size in (500, 2000))
    assert many < 6 * few


def test_strip_puts_a_removed_layer_behind_its_neighbour():
    layer = LayerState(1, 2, 3)
    newest, old, oldest = dict.fromkeys("acd", layer), dict.fromkeys("abcd", layer), dict.fromkeys("xcyd", layer)
    assert [one.path for one in _axis([newest, old, oldest])] == list("xabcyd")
    assert [one.path for one in _axis([{}, {"": layer, "a": layer}])] == ["", "a"]


def test_first_words_parse_a_bounded_part():
    few, many = (steps(first_words, "![" * size) for size in (1000, 100_000))
    assert many <= few
    assert first_words("[" * 100_000) == "[" * 120 + "…"
    assert first_words("a" * 5 + " [b](c)") == "aaaaa b"


def manifest(tensors, *sizes, repeated=False):
    """Return a manifest of files of these sizes; each file has one chunk of its own, or all name the same chunk."""
    files = tuple(
        File(path=f"{number}", size=size, digest="", chunks=(Chunk("" if repeated else f"{number}", size),))
        for number, size in enumerate(sizes)
    )
    found = tuple(
        Tensor(name=f"{number}", dtype="U8", shape=(size,), path=path, offset=offset, size=size, digest="")
        for number, (path, offset, size) in enumerate(tensors)
    )
    return Manifest(format="files", files=files, tensors=found)


def compared(found):
    return affordable([(one, one) for one in found.tensors], found, found)


def test_comparison_of_honest_tensors_covers_all():
    one_file = manifest([("0", 1000 * n, 1000) for n in range(50_000)], 50_000_000)
    assert compared(one_file) == 50_000
    many_files = manifest([(f"{n}", 0, 10_000) for n in range(5000)], *[10_000] * 5000)
    assert compared(many_files) == 5000
    large = manifest([("0", n << 30, 1 << 30) for n in range(50)], 50 << 30)
    assert compared(large) == 50


def test_comparison_of_tensors_that_share_bytes_is_bounded():
    shared = manifest([("0", 0, 100 << 20)] * 100_000, 100 << 20)
    assert compared(shared) == 4
    spread = manifest([("0", (n % 25) << 22, 1) for n in range(100_000)], 100 << 20)
    assert 100 <= compared(spread) <= 200


def test_comparison_of_a_repeated_chunk_is_bounded():
    """800 GB that are one chunk count as 1 GiB and 64 times the chunk, on both sides, four times."""
    pieces = [(f"{n}", 0, 4 << 20) for n in range(200_000)]
    repeated = manifest(pieces, *[4 << 20] * 200_000, repeated=True)
    room = 4 * 2 * ((1 << 30) + 64 * (4 << 20)) + (64 << 20)
    assert compared(repeated) == room // (4 * (4 << 20))  # a pair costs both tensors, and a chunk of each side


def test_strips_of_versions_with_many_layers_are_of_the_newest():
    class Strips(LayerStrips):
        def __init__(self):
            super().__init__(None, None, None)
            self.read = 0

        def _state(self, _place, digest):
            self.read += 1
            return dict.fromkeys((f"{digest}.{i}" for i in range(200_000)), LayerState(1, 2, 3))

    strips = Strips()
    versions = [type("Record", (), {"data": {"number": n, "digest": f"{n}", "parents": []}}) for n in range(1, 50)]
    kept, states, parents = strips._newest(None, versions)
    assert [one.data["number"] for one in kept] == [49, 48, 47]
    assert (sorted(states), sorted(parents), strips.read) == ([47, 48, 49], [47, 48, 49], 4)


def test_page_shows_a_bounded_part_of_many_tensors():
    found = manifest([("0", 0, 1)] * (2 * TENSORS), 1)
    axis = tuple(Layer(path=one.name, group=one.name, size=1) for one in found.tensors)
    drawn = Layers(axis=axis, strips={"1": "+" * len(axis)})
    at = datetime(2026, 11, 30, tzinfo=timezone.utc)
    version = Version(project="p", model="m", number=1, digest="", content="", format="files", created_at=at)
    model = Model(id="m", project="p", name="m", created_at=at)
    shown = shown_part(Showing(version, model, found.tensors, (), layers=drawn))
    assert len(shown.tensors) == len(shown.layers.axis) == len(shown.layers.strips["1"]) == TENSORS
    assert shown_part(shown) is shown


def test_layers_in_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(layers, "_CACHED_LAYERS", 25)

    class Versions:
        def manifest_bytes(self, _space, digest):
            return manifests.encode(manifest([("0", 0, 1)] * int(digest), 1))

    strips = LayerStrips(None, Versions(), None)
    place = type("Place", (), {"space": "p"})
    for digest in ("10", "15", "10", "20", "5", "5"):
        assert len(strips._state(place, digest)) == int(digest)
    assert [digest for _, digest in strips._states] == ["20", "5"]
    assert strips._layers == 25
    strips._state(place, "100")
    assert (len(strips._states), strips._layers) == (0, 0)


@pytest.mark.parametrize("more", [0, 1])
def test_compression_leaves_long_answers_as_they_are(more):
    headers = HTTPHeaders({"Vary": "Accept-Encoding", "Content-Type": "text/html"})
    line, accepts = RequestStartLine("GET", "/", "HTTP/1.1"), HTTPHeaders({"Host": "a", "Accept-Encoding": "gzip"})
    gzip = Gzip(HTTPServerRequest(start_line=line, headers=accepts))
    _, _, body = gzip.transform_first_chunk(200, headers, b"a" * (LIMIT + more), finishing=True)
    assert ("Content-Encoding" in headers) == (len(body) < LIMIT) == (more == 0)
