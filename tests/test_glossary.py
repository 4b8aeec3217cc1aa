"""docs/glossary.md defines each term once, in alphabetical order, with names that exist in the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "glossary.md").read_text("utf-8")
ENTRIES = dict(re.findall(r"^- \*\*(.+?)\*\*: ((?:.|\n  )+)", PAGE, re.MULTILINE))
TERMS = {
    "alias", "attempt", "chunk", "contribution", "delta base", "digest", "event", "file", "fsck", "gc", "layer strip",
    "manifest", "member", "metric", "model", "parent", "project", "prune", "reference", "restore", "role", "run",
    "scope", "token", "trash", "trusted class", "version",
}  # fmt: skip
"""Terms that other pages use without a definition."""


def resolve(name):
    """Return the object of a dotted name: a module, or an attribute or field in it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:count]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts[:count]).startswith(error.name):
                raise
            continue
        for part in parts[count:]:
            if part in getattr(found, "__annotations__", {}) and not hasattr(found, part):
                return found  # a field without a default
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_glossary_defines_the_terms():
    assert TERMS - set(ENTRIES) == set()
    assert len(ENTRIES) == len(re.findall(r"^- ", PAGE, re.MULTILINE))


def test_glossary_is_alphabetical():
    for section in PAGE.split("\n## ")[1:]:
        terms = re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)
        assert terms == sorted(terms), section.partition("\n")[0]


@pytest.mark.parametrize("term", ENTRIES)
def test_glossary_entry_has_a_definition_and_code_names(term):
    definition, _, code = " ".join(ENTRIES[term].split()).rpartition(" Code: ")
    sentences = re.findall(r"[.!?](?= [A-Z`]|$)", re.sub(r"`[^`]+`", "`x`", definition))
    assert 1 <= len(sentences) <= 2, definition
    names = re.findall(r"`(lmvp[\w.]*)`", code)
    assert names
    for name in names:
        resolve(name)
