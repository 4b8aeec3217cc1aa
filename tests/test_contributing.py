"""CONTRIBUTING.md names files, functions and commands that exist; the forms for contributors are valid."""

import json
import re
from pathlib import Path

import pytest

import lmvp

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
MADE = re.compile(r"\.venv\b|NAME|\bPATH\b")
"""Parts of paths that a reader replaces, and the environment that `make` creates."""


def test_contributing_names_files_that_exist():
    named = {
        word
        for code in re.findall(r"`([^`\n]+)`", PAGE)
        for word in code.split()
        if re.fullmatch(r"[\w.-]+/[\w./-]*|[\w-]+\.(?:md|py|cfg|json|txt)", word)
    }
    named |= set(re.findall(r"\]\(([^):#]+)\)", PAGE))
    assert len(named) > 50
    beside = {path.name for path in ROOT.rglob("tests/**/*.py")}  # `test_b.py` after `tests/a/test_a.py`
    found = [name for name in named if not (ROOT / name).exists() and name not in beside]
    assert [name for name in found if not MADE.search(name)] == []


def test_contributing_names_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^(?:`| {0})?make (\w+)|`make (\w+)`", PAGE, re.MULTILINE))
    names = {name for pair in targets for name in pair if name}
    assert {"lint", "test", "fix", "soak"} <= names
    assert {name for name in names if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("lmvp/formats/__init__.py", ["_MODULES"]),
        ("lmvp/core/containers/__init__.py", ["_parse"]),
        ("lmvp_server/services/__init__.py", ["open"]),
        ("lmvp_server/stores/testing.py", ["RecordStoreContract", "ChunkStoreContract"]),
        ("lmvp_server/stores/base/records.py", ["RecordStore"]),
        ("lmvp_server/stores/base/chunks.py", ["ChunkStore"]),
        ("lmvp_server/stores/base/series.py", ["SeriesStore"]),
        ("lmvp/cli/parser.py", ["VERBS", "GROUPS"]),
        ("lmvp_jupyter/display.py", ["VIEWS"]),
        ("lmvp_server/routes.py", ["MODULES", "PAGES"]),
        ("lmvp_server/api/route.py", ["Route"]),
    ],
)
def test_contributing_names_code_that_exists(path, names):
    text = (ROOT / path).read_text("utf-8")
    for name in names:
        assert f"{name}`" in PAGE
        assert re.search(rf"^\s*(?:def |class )?{name}\b", text, re.MULTILINE), name


def test_issue_forms_have_the_keys_that_github_needs():
    yaml = pytest.importorskip("yaml")
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(path.read_text("utf-8"))
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0
        for field in form["body"]:
            assert field["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
            assert "value" in field["attributes"] or "label" in field["attributes"]
            assert field["type"] not in {"dropdown", "checkboxes"} or field["attributes"]["options"]


def test_commit_hooks_run_the_checks_of_lint():
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"], "hooks that need no other host"
    entries = {hook["id"]: hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1]
    for hook in ("codespell", "prose"):
        assert f"$(BIN)/{entries[hook]}\n" in lint
    assert entries["ruff"].startswith("ruff check")
    assert entries["ruff-format"].startswith("ruff format")


def test_baseline_of_phrases_is_sorted():
    text = (ROOT / "tools" / "prose_baseline.json").read_text("utf-8")
    names = list(json.loads(text))
    assert names == sorted(names)


def test_changelog_describes_the_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert releases[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(lmvp.__version__)} \(\d{{4}}-\d\d-\d\d\)", releases[1])
    for release in text.split("\n## ")[1:]:
        groups = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert groups == [name for name in ("Added", "Changed", "Fixed") if name in groups]
    assert max(map(len, text.splitlines())) <= 120
