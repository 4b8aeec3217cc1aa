import string
from datetime import datetime, timezone
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmvp.core.references import (
    Reference,
    Revision,
    check_alias,
    check_name,
    suggest,
)
from lmvp.errors import InvalidName, InvalidReference

HEX, ALPHANUMERIC = "0123456789abcdef", string.ascii_letters + string.digits
names = st.builds(str.__add__, st.sampled_from(ALPHANUMERIC), st.text(ALPHANUMERIC + "._-", max_size=95))
hosts = st.from_regex(r"[a-z][a-z0-9]{0,9}(\.[a-z]{2,5})?(:[1-9][0-9]{0,3})?", fullmatch=True)
moments = st.datetimes(
    datetime(1970, 1, 1),
    datetime(2200, 1, 1),
    timezones=st.just(timezone.utc),
)

utc = partial(datetime, tzinfo=timezone.utc)


@st.composite
def revisions(draw):
    kind = draw(st.sampled_from(["latest", "number", "digest", "alias"]))
    back = draw(st.integers(0, 999))
    if kind == "latest":
        return Revision("latest", "latest", back)
    if kind == "number":
        return Revision("number", str(draw(st.integers(0, 10**9))), back)
    if kind == "digest":
        return Revision("digest", draw(st.text(HEX, min_size=5, max_size=63).map("a".__add__)), back)
    alias = draw(names.filter(_is_alias))
    return Revision("alias", alias, back, draw(st.none() | st.integers(0, 999) | moments))


def _is_alias(name):
    try:
        return bool(check_alias(name))
    except InvalidName:
        return False


@given(revisions())
def test_a_revision_survives_being_written(revision):
    assert Revision.parse(str(revision)) == revision


@given(st.none() | names, names, revisions(), st.none() | hosts)
def test_a_reference_survives_being_written(project, model, revision, server):
    reference = Reference(project or ("p" if server else None), model, str(revision), server)
    assert Reference.parse(str(reference)) == reference


@given(st.text() | st.text("abcv123/@~{}-:. TZ+lmp", max_size=60) | st.binary() | st.integers() | st.none())
@example("a@" + "9" * 5000)
@example("a@" + "~9" * 5000)
@example("a@b@0001-01-01T00:00:00+23:59")
@example("a@b@9999-99-99")
@example("\ud800")
@example("lmvp://[::1]:99999/a/b")
@example("a@b\n")
def test_hostile_texts_raise_our_errors_or_none(text):
    for read in (Reference.parse, Revision.parse, check_name, check_alias):
        try:
            read(text)
        except (InvalidName, InvalidReference) as error:
            assert error.hint  # noqa: PT017 - most texts raise, some do not
            str(error).encode()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is empty"),
        ("../x", "'/' at position 3"),
        ("a b", "a space at position 2"),
        ("a\n", r"'\n' at position 2"),
        ("x" * 97, "97 characters; the limit is 96"),
        ("x" * 200, "200 characters; the limit is 96"),
        (".hidden", "begins with '.'"),
        ("-rf", "begins with '-'"),
        ("d\u0456gits", "U+0456, CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I; it only looks like a plain letter"),
        ("\uff4dodel", "U+FF4D, FULLWIDTH LATIN SMALL LETTER M; it only looks like a plain letter"),
        ("m\u00f6del", "U+00F6, LATIN SMALL LETTER O WITH DIAERESIS)"),
        ("\u6a21", "U+6A21, CJK UNIFIED IDEOGRAPH-6A21)"),
        ("a\u202eb", r"'\u202e' (U+202E"),
        ("\u0663", "U+0663"),
        (3, "is a text, not int"),
        (None, "is a text, not NoneType"),
    ],
)
def test_a_bad_name_is_told_what_is_wrong_with_it(name, words):
    with pytest.raises(InvalidName) as caught:
        check_name(name, "model name")
    assert words in caught.value.message
    assert caught.value.message.startswith("the model name")
    assert "1 to 96" in caught.value.hint


@pytest.mark.parametrize("name", ["a", "0", "a.b", "x" * 96, "Res_Net-18", "CON", "a..b"])
def test_a_good_name_is_returned(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "alias",
    ["latest", "Latest", "v3", "V3", "3", "0", "1" * 90, "v" + "1" * 90, "abcdef", "DEADBEEF", "a" * 70, "c12", "C1"],
)
def test_an_alias_may_not_look_like_another_revision(alias):
    with pytest.raises(InvalidName, match="reserved"):
        check_alias(alias)


@pytest.mark.parametrize("alias", ["production", "best", "v3.1", "abcde", "c12x", "c", "v", "latest-2", "3b.x"])
def test_other_aliases_are_free(alias):
    assert check_alias(alias) == alias
    assert Revision.parse(alias) == Revision("alias", alias)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Revision("latest", "latest")),
        ("LATEST~2", Revision("latest", "latest", 2)),
        ("3", Revision("number", "3")),
        ("v003", Revision("number", "3")),
        ("123456", Revision("number", "123456")),
        ("ABCdef", Revision("digest", "abcdef")),
        ("0a" * 32, Revision("digest", "0a" * 32)),
        ("abcde", Revision("alias", "abcde")),
        ("v3~", Revision("number", "3", 1)),
        ("v3~~2", Revision("number", "3", 3)),
        ("best@{0}", Revision("alias", "best", 0, 0)),
        ("best@{2}~1", Revision("alias", "best", 1, 2)),
        ("best@2026-01-31", Revision("alias", "best", 0, utc(2026, 1, 31, 23, 59, 59, 999999))),
        ("best@2026-01-31T10:00", Revision("alias", "best", 0, utc(2026, 1, 31, 10))),
        ("best@2026-01-31T10:00:00+02:00~3", Revision("alias", "best", 3, utc(2026, 1, 31, 8))),
        ("best@2026-01-31 10:00:30.5Z", None),
        ("best@2026-01-31 10:00:30.500Z", Revision("alias", "best", 0, utc(2026, 1, 31, 10, 0, 30, 500000))),
        ("best@2026-02-30", None),
        ("best@{-1}", None),
        ("best@", None),
        ("best@{1", None),
        ("latest@{1}", None),
        ("v3@{1}", None),
        ("best~1@{1}", None),
        ("~1", None),
        ("~", None),
        ("0" * 65, None),
        ("f" * 65, None),
        ("", None),
        ("a/b", None),
        ("b\u0435st", None),
    ],
)  # fmt: skip
def test_what_a_revision_is(text, expected):
    if expected:
        assert Revision.parse(text) == expected
    else:
        with pytest.raises(InvalidReference):
            Revision.parse(text)


def test_the_number_of_a_revision():
    assert Revision.parse("v012").number == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlp", Reference(None, "mlp")),
        ("digits/mlp", Reference("digits", "mlp")),
        ("digits/mlp@latest", Reference("digits", "mlp")),
        ("mlp@v3~1", Reference(None, "mlp", "v3~1")),
        ("mlp@best@{2}", Reference(None, "mlp", "best@{2}")),
        ("lmvp://Host.Example.org:8443/p/m", Reference("p", "m", "latest", "host.example.org:8443")),
        ("lmvp://[::1]:80/p/m@best", Reference("p", "m", "best", "[::1]:80")),
        ("LMVP://h/p/m", Reference("p", "m", "latest", "h")),
    ],
)
def test_what_a_reference_is(text, expected):
    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "a/", "/a", "a/b/c", "../x", "a/../b", "a@", "@v3", "a b", "a@b/c", "a/b@v3/x", "https://h/p/m", "lmvp://",
        "lmvp://h", "lmvp://h/m", "lmvp://h/p/", "lmvp://h/p/m/x", "lmvp:///p/m", "lmvp://h:0/p/m", "lmvp://h:65536/p/m",
        "lmvp://h:x/p/m", "lmvp://-h/p/m", "lmvp://h\u00f6/p/m", "lmvp://h/m@a/b", " mlp", "mlp ", "x" * 200,
    ],
)  # fmt: skip
def test_what_is_no_reference(text):
    with pytest.raises((InvalidReference, InvalidName)) as caught:
        Reference.parse(text)
    assert caught.value.hint


def test_a_password_in_a_url_is_refused_and_not_shown():
    with pytest.raises(InvalidReference) as caught:
        Reference.parse("lmvp://ada:geheim@host/p/m")
    assert "geheim" not in str(caught.value)


def test_the_current_project_fills_the_gap_only():
    assert Reference.parse("mlp", project="digits").project == "digits"
    assert Reference.parse("other/mlp", project="digits").project == "other"


def test_suggestions():
    assert suggest("mpl", ["mlp", "transformer"]) == "mlp"
    assert suggest("Production", ["production"]) == "production"
    assert suggest("zebra", ["mlp", "cnn"]) is None
    assert suggest("x", []) is None


def test_a_way_back_from_a_mere_model_is_shown_how_to_write():
    with pytest.raises(InvalidReference, match="'d/m~2' has '~' behind a model") as caught:
        Reference.parse("d/m~2")
    assert "'d/m@latest~2'" in str(caught.value.hint)
