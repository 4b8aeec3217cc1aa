"""docs/notebook.md describes every verb and every view, and its pictures exist."""

import re
from pathlib import Path

import pytest

from lmvp.cli.parser import NOTEBOOK, verbs_of
from lmvp_jupyter import widgets

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "notebook.md").read_text("utf-8")
HEADINGS = set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
TEAM = {"members", "groups", "users", "tokens", "identities", "devices", "webhooks", "audit"}
MAINTENANCE = {"du", "rm", "undelete", "prune", "gc", "compact", "fsck", "cache", "export", "import", "backup"}


@pytest.mark.parametrize("verb", [verb.name for verb in verbs_of(NOTEBOOK)])
def test_every_verb_has_its_place(verb):
    assert verb in HEADINGS or (verb in TEAM | MAINTENANCE and f"`{verb}`" in PAGE)


def test_nothing_is_told_that_is_not_there():
    known = {verb.name for verb in verbs_of(NOTEBOOK)} | set(widgets.__all__)
    assert HEADINGS - known == {"%%lmvp run", "%%lmvp bisect", "Team", "Maintenance"}


@pytest.mark.parametrize("view", ["HistoryTable", "DiffView", "ModelView", "MetricsPlot"])
def test_every_view_is_shown(view):
    section = PAGE.partition(f"### {view}\n")[2].partition("\n### ")[0]
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", section)
    assert pictures
    for picture in pictures:
        assert (ROOT / "docs" / picture).read_bytes().startswith(b"\x89PNG")


def test_options_that_are_told_of_are_there():
    flags = {flag for verb in verbs_of(NOTEBOOK) for each in verb.arguments for flag in each.flags}
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert told - flags == {"--help", "--good", "--bad", "--sys-prefix"}
