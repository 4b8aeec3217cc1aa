"""Hints name commands in the terms of the caller: shell commands, magics or Python calls.

The table of hints is read from the sources, so that a new hint is checked without being listed here.
"""

import argparse
import ast
import inspect
import re
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import lmvp
from lmvp import hints
from lmvp.cli.parser import (
    NOTEBOOK,
    OWN,
    SHELL,
    make_parser,
    read,
)
from lmvp.cli.shell import main
from lmvp.errors import InvalidReference, LmvpError, NotFound

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("__main__", "restore", "sockets", "data_folder", "app", "openid_client", "completion", "settings")
"""Modules of `lmvp server`, `lmvp restore` and `lmvp completion`, whose messages are read in a shell only."""
NOT_MESSAGES = {
    "lmvp_jupyter/magics.py",  # the help of `%lmvp`, and hints of `%%lmvp`
    "lmvp/cli/parser.py",  # the help of options; `prog` is `lmvp` or `%lmvp`
    "lmvp_jupyter/cells.py",  # the first line of a cell, as it is typed
    "lmvp/client/console.py",  # the commands of other programs
    "lmvp/views/snippets.py",  # code in each of the forms
}
PYTHON_ONLY = re.compile(
    r"lmvp\.[a-z_]\w*\(|\bClient\(|\bstart_run\("
    r"|(?<![\w`.(])(?:into|to|trust|yes|create|propose|force|metrics|params|tags|metric|limit|smooth|versions)="
)
SHELL_ONLY = re.compile(r"(?<![\w/-])lmvp (?=[a-z])|(?<![\w-])--[a-z]")
NO_COMMAND = re.compile(r"lmvp (?:here|on this side|on the server|model|records|backup|reads|server:)")
IN_BACKTICKS = re.compile(r"`[^`\n]*`")
FIELD = "X1"


@cache
def texts():
    """Return (place, text) of every string in the sources that is no docstring; fields of f-strings become `X1`."""
    found = []
    for folder in ("lmvp", "lmvp_jupyter", "lmvp_server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name not in NOT_MESSAGES and path.name != "hints.py":
                found += [(f"{name}:{line}", text) for line, text in strings(ast.parse(path.read_text("utf-8")))]
    return found


def strings(tree):
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inner = {id(each) for node in joined for each in ast.walk(node) if each is not node}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in inner:
            parts = [part.value if isinstance(part, ast.Constant) else FIELD for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


def commands():
    """Return (place, command) of every command in backticks."""
    return [
        (place, command.strip("`"))
        for place, text in texts()
        for command in IN_BACKTICKS.findall(text)
        if command.startswith(("`lmvp ", "`--")) and not is_shell_program(place)
    ]


def is_shell_program(place):
    path = Path(place.partition(":")[0])
    # Handlers name the parameters of requests, not commands.
    return path.stem in PROGRAMS or not {"api", "web"}.isdisjoint(path.parts)


def test_hints_are_found_by_the_table():
    known = {command for _, command in commands()}
    assert {"lmvp login URL", "lmvp push X1 FILE", "--yes", "lmvp sync --discard X1"} <= known
    assert len(known) > 80


def test_hint_names_no_python_call_or_argument():
    wrong = [
        f"{place}: {text}"
        for place, text in texts()
        if (" " in text and "`" in text) or "hint" in text
        if PYTHON_ONLY.search(IN_BACKTICKS.sub("", text)) and not is_shell_program(place)
    ]
    wrong += [
        f"{place}: {quoted}"
        for place, text in texts()
        for quoted in IN_BACKTICKS.findall(text)
        if PYTHON_ONLY.search(quoted) and not IN_PYTHON.search(text)
    ]
    assert wrong == []


IN_PYTHON = re.compile(r"in Python|lmvp\.start_run\(")
"""A text that names Python itself; and `start_run`, which is a function and no verb."""


def test_hint_given_as_an_argument_names_no_python_word():
    wrong = []
    for folder in ("lmvp", "lmvp_jupyter", "lmvp_server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.keyword) or node.arg != "hint":
                    continue
                for line, text in strings(node.value):
                    if PYTHON_ONLY.search(text) and not IN_PYTHON.search(text) and not is_shell_program(str(path)):
                        wrong.append(f"{path}:{line}: {text}")
    assert wrong == []


def test_hint_writes_commands_and_options_in_backticks():
    wrong = []
    for place, text in texts():
        bare = NO_COMMAND.sub("", IN_BACKTICKS.sub("", text))
        is_words = " " in text and not text.startswith(("lmvp.", "<", "usage:"))
        if is_words and SHELL_ONLY.search(bare) and not is_shell_program(place):
            wrong.append(f"{place}: {text}")
    assert wrong == []


def test_no_hint_is_written_as_a_magic():
    assert [f"{place}: {text}" for place, text in texts() if "%lmvp" in text and not text.startswith("`%%lmvp")] == []


class Refusing(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)

    def exit(self, status=0, message=None):
        raise ValueError(message)


def as_typed(words):
    return [word for word in words if word != "…"]


CHOICES = {
    ("users", 1, "X1"): "enable",
    ("groups", 1, "X1"): "remove",
    ("members", 2, "X1"): "remove",
    ("webhooks", 2, "X1"): "test",
    ("login", 3, "X1"): "write",
    ("login", 3, "SCOPE"): "write",
    ("tokens", 4, "SCOPE"): "write",
}
"""Words for the fields and placeholders of which a parser takes only some."""


@pytest.mark.parametrize("command", sorted({command for _, command in commands() if command.startswith("lmvp ")}))
def test_command_of_a_hint_works_in_every_environment(command):
    words = as_typed(shlex.split(command))
    verb = words[1]
    if verb in OWN:
        for form in (hints.MAGIC, hints.PYTHON):
            assert hints.translated(f"`{command}`", form) == f"`{command}`", "a program: nothing else has it"
        return
    words = ["lmvp", *(CHOICES.get((verb, place, word), word) for place, word in enumerate(words[1:]))]
    command = shlex.join(words)
    read(make_parser(SHELL, "lmvp", Refusing), words[1:], SHELL)

    magic = hints.translated(f"`{command}`", hints.MAGIC).strip("`")
    if magic.startswith("%lmvp "):
        read(make_parser(NOTEBOOK, "%lmvp", Refusing), as_typed(shlex.split(magic))[1:], NOTEBOOK)
    else:
        assert any((verb, word) in hints._NO_MAGIC for word in words), "only verbs that print or read a secret"

    assert_binds(hints.translated(f"`{command}`", hints.PYTHON).strip("`"))


def assert_binds(code):
    """Assert that a call is Python, names a function of LMVP, and fits its signature."""
    call = ast.parse(code.replace(", …", ""), mode="eval").body
    assert isinstance(call, ast.Call), code
    name = ast.unparse(call.func)
    target = getattr(lmvp.Client, name[len("lmvp.Client().") :]) if "Client()" in name else getattr(lmvp, name[5:])
    given = [None] * len(call.args)
    bound = [None, *given] if "Client()" in name else given
    inspect.signature(target).bind(*bound, **{word.arg: None for word in call.keywords})


@pytest.mark.parametrize("option", sorted({command for _, command in commands() if command.startswith("--")}))
def test_option_of_a_hint_is_an_argument_in_python(option):
    said = hints.translated(f"`{option}`", hints.PYTHON).strip("`")
    assert re.fullmatch(r"[a-z_]+=.*", said), said
    assert not said.startswith("-")
    assert hints.translated(f"`{option}`", hints.MAGIC) == f"`{option}`"


@pytest.mark.parametrize(
    ("canonical", "magic", "python"),
    [
        ("lmvp login URL", "%lmvp login URL", "lmvp.login(url)"),
        ("lmvp push digits/mlp FILE", "%lmvp push digits/mlp model", "lmvp.push('digits/mlp', model)"),
        ("lmvp runs MNIST", "%lmvp runs MNIST", "lmvp.runs('MNIST')"),
        ("lmvp rm digits/mlp --yes", "%lmvp rm digits/mlp --yes", "lmvp.rm('digits/mlp', yes=True)"),
        ("lmvp alias d/m best --remove", "%lmvp alias d/m best --remove", "lmvp.remove_alias('d/m', 'best')"),
        ("lmvp alias d/m best --protect", "%lmvp alias d/m best --protect", "lmvp.Client().protect('d/m@best')"),
        ("lmvp undelete", "%lmvp undelete", "lmvp.Client().removed()"),
        ("lmvp sync --discard abc", "%lmvp sync --discard abc", "lmvp.sync(discard='abc')"),
        ("lmvp annotate d/r --tag by=ada", "%lmvp annotate d/r --tag by=ada",
         "lmvp.annotate('r', 'd', tags={'by': 'ada'})"),
        ("lmvp tokens revoke ID", "%lmvp tokens revoke ID", "lmvp.Client().revoke_token(id)"),
        ("--trust my.Net --trust my.Sub", "--trust my.Net --trust my.Sub", "trust=['my.Net', 'my.Sub']"),
        ("--into MODEL", "--into MODEL", "into=model"),
        ("--to folder/", "--to folder/", "to='folder/'"),
        ("--limit 0", "--limit 0", "limit=0"),
    ],
)  # fmt: skip
def test_command_is_translated_for_magics_and_python(canonical, magic, python):
    text = "write `{}`, then go on"
    assert hints.translated(text.format(canonical), hints.SHELL) == text.format(canonical)
    assert hints.translated(text.format(canonical), hints.MAGIC) == text.format(magic)
    assert hints.translated(text.format(canonical), hints.PYTHON) == text.format(python)


def test_name_with_a_quote_leaves_the_command_as_it_is():
    assert hints.translated("`lmvp runs it's`", hints.PYTHON) == "`lmvp runs it's`"


def test_error_speaks_python_in_python_and_shell_words_in_the_shell(capsys):
    url = "lmvp://ada:secret@host.example/digits/mlp"
    with pytest.raises(InvalidReference) as caught:
        lmvp.pull(url)
    assert str(caught.value).endswith("hint: `lmvp.login(url)` stores a token for it")
    assert main(["pull", url]) == 2
    assert capsys.readouterr().err.endswith("hint: `lmvp login URL` stores a token for it\n")
    assert hints.caller() == hints.PYTHON


def test_hint_of_a_server_is_translated_by_the_client(home, capsys):
    with pytest.raises(NotFound) as caught:
        lmvp.pull("digits/mlp")
    assert "lmvp " not in str(caught.value)
    lmvp.push("digits/mlp", {"w": np.zeros(2)}, progress=False)
    lmvp.rm("digits/mlp@v1")
    with pytest.raises(LmvpError) as caught:
        lmvp.pull("digits/mlp@v1")
    assert "hint: `lmvp.undelete('digits/mlp@v1')` brings it back" in str(caught.value)
    capsys.readouterr()
    assert main(["show", "digits/mlp@v1"]) == 3
    assert "hint: `lmvp undelete digits/mlp@v1` brings it back" in capsys.readouterr().err


def test_empty_history_shows_how_to_push_in_the_terms_of_the_reader():
    from lmvp.views.history import History

    history = History([], title="digits/mlp")
    assert "lmvp.push('digits/mlp', model, message='first try')" in repr(history)
    with hints.using(hints.SHELL):
        assert "lmvp push digits/mlp FILE -m 'first try'" in repr(history)
