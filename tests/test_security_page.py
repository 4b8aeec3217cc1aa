"""docs/security.md names a test for each promise, and SECURITY.md has the parts that a reporter needs."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
POLICY = (ROOT / "SECURITY.md").read_text("utf-8")
PROMISES = PAGE.partition("\n## Promises\n")[2].partition("\n## ")[0]
ROWS = [line for line in PROMISES.splitlines() if re.match(r"\| (?!promise \|)(?!-)", line.replace("|---", "| -"))]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE + POLICY)))


@cache
def functions_in(path):
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_each_promise_names_its_tests(row):
    _, promise, tests, _ = row.split("|")
    assert promise.strip().endswith("."), row
    found = tests.strip().split("<br>")
    assert found
    assert all(re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", test) for test in found), row


def test_promises_name_only_tests_that_exist():
    assert len(NAMED) > 60
    missing = [
        f"{path}::{name}" if name else path
        for path, name in NAMED
        if not (ROOT / path).is_file() or (name and name not in functions_in(path))
    ]
    assert missing == []


def test_each_part_of_the_promises_has_rows():
    parts = PROMISES.split("\n### ")[1:]
    assert len(parts) > 10
    for part in parts:
        title, _, text = part.partition("\n")
        assert text.count("::test_") >= 1, title
    assert sum(part.count("::test_") for part in parts) == sum(row.count("::test_") for row in ROWS)


def test_security_policy_has_its_parts():
    titles = re.findall(r"^##+ (.+)$", POLICY, re.MULTILINE)
    assert {"Reporting a vulnerability", "Supported versions", "Assets", "Actors", "Limits"} <= set(titles)
    for link in re.findall(r"\]\(([^)#]+)\)", POLICY):
        assert (ROOT / link).is_file(), link
    for target in re.findall(r"`make (\w+)`", POLICY):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), target


@pytest.mark.parametrize(
    "role", ["anonymous", "account without a role", "viewer", "contributor", "maintainer", "owner", "admin", "operator"]
)
def test_security_policy_has_each_actor(role):
    actors = POLICY.partition("### Actors")[2].partition("### ")[0]
    assert re.search(rf"^\| {role}\b.* \| .+ \| .+ \|$", actors, re.MULTILINE)
