"""Activity: every action of an event has a sentence of its own."""

import ast
import re
from pathlib import Path

import pytest

import lmvp_server
from lmvp_server.web import activity

KINDS = (
    "alias backup contribution device event group invitation member model project run server session token user version"
)
ACTION = re.compile(rf"({'|'.join(KINDS.split())}|webhook)\.[a-z]+")
COMPOSED = {"project.create", "model.create", "contribution.decline", "contribution.withdraw"}
"""Actions that the code composes: `f"{table[:-1]}.create"`, `f"contribution.{verb}"`."""
NO_ACTIONS = {f"{kind}.{ending}" for kind in KINDS.split() for ending in ("html", "json")} | {"run.finish", "run.log"}
"""Names of files and functions."""


def actions():
    """Return all actions that the services write, as their sources name them."""
    found = set(COMPOSED)
    for path in sorted((Path(lmvp_server.__file__).parent).rglob("*.py")):
        if path.name == "feed.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ACTION.fullmatch(node.value):
                found.add(node.value)
    return sorted(found - NO_ACTIONS)


RUN = "digits/runs/" + "a" * 32
WHAT = {"run": RUN, "version": "digits/cnn@v4", "model": "digits/cnn", "alias": "digits/cnn@best"}


@pytest.mark.parametrize("action", actions())
def test_action_has_a_sentence_of_its_own(action):
    assert action in activity.SENTENCES
    what = WHAT.get(action.partition(".")[0], "digits")
    told = {"at": "2026-11-20T13:41:00Z", "who": "ada", "action": action, "what": what, "before": None, "after": None}
    words = re.sub(r"<[^>]+>", "", activity.entry(told, "../").words)
    assert words.startswith("ada ")
    assert action not in words
    assert action.replace(".", " ") not in words


def test_sentences_differ_and_name_their_object():
    assert all(sentence.count("{}") == 1 for sentence in activity.SENTENCES.values())
    by_kind = {}
    for action, sentence in activity.SENTENCES.items():
        by_kind.setdefault(action.partition(".")[0], []).append(sentence)
    assert all(len(set(sentences)) == len(sentences) for sentences in by_kind.values())


def test_no_sentence_is_left_of_an_action_that_is_gone():
    assert set(activity.SENTENCES) == set(actions())


@pytest.mark.parametrize(
    ("action", "what", "words"),
    [
        ("version.import", "digits/cnn@v4", 'root imported <a href="../p/digits/cnn@v4">cnn v4</a>'),
        ("server.gc", "all projects", "root deleted unreferenced data of all projects"),
        ("backup.begin", "0a1b2c3d", "root started the backup 0a1b2c3d"),
        ("session.fail", "grace", "root failed to sign in: grace"),
        ("webhook.enable", "digits to hooks.example.org", "root enabled a webhook: digits to hooks.example.org"),
        ("run.rewind", RUN, f'root rewound run <a href="../p/digits/-/runs/{"a" * 32}">aaaaaaaa</a>'),
    ],
)  # fmt: skip
def test_sentence_of_an_action(action, what, words):
    told = {"at": "2026-11-20T13:41:00Z", "who": "root", "action": action, "what": what}
    assert activity.entry(told, "../").words == words


def test_removed_run_is_named_in_the_activity():
    told = {"at": "2026-11-20T13:41:00Z", "who": "ada", "action": "run.remove", "what": "digits/runs/" + "a" * 32,
            "before": {"name": "quiet-wren-44"}, "after": None}  # fmt: skip
    assert activity.entry(told, "../", {"a" * 32: ""}).words == "ada removed run quiet-wren-44"
