"""Translation of the commands in messages to shell commands, magics or Python calls.

Messages contain commands as shell commands in backticks: `` `lmvp login URL` ``, `` `--yes` ``. Servers send this form
too. `translated` converts it to the form of the environment in which the message is read. A word in capitals is a
placeholder for a value that the reader fills in. `FILE` is the placeholder for the object of a push.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SHELL, MAGIC, PYTHON = "shell", "magic", "python"

# A command begins with `lmvp` and a verb, an option with `--`. Other text in backticks is not translated.
_COMMAND = re.compile(r"`(lmvp [a-z][^`\n]*|--[a-z][^`\n]*)`")
PLACEHOLDERS = frozenset(
    [
        "ALIAS",
        "CLASS",
        "FILE",
        "FOLDER",
        "HOST",
        "ID",
        "ISSUER",
        "MODEL",
        "NAME",
        "NETWORK",
        "PROJECT",
        "RUN",
        "SCOPE",
        "TOKEN",
        "URL",
        "USER",
    ]
)
"""Placeholders for values that the reader fills in."""
_SHELL_ONLY = ("server", "restore", "completion")
"""Verbs that run a program. They exist only in the shell, so their commands are not translated."""
_NO_MAGIC = frozenset(
    [("tokens", "create"), ("members", "invite"), ("webhooks", "add"), ("users", "add"), ("users", "passwd")]
)
"""Forms of verbs that print or read a secret; a notebook, which saves its output, refuses them."""
"""Verbs that the magic does not have. In a notebook, their commands become Python calls."""
_PAIRS = {"metric": "metrics", "param": "params", "tag": "tags"}
"""Options of the form `--metric KEY=VALUE`, and the keyword arguments (dicts) for them."""
_LISTS = {"trust": "trust", "key": "keys", "event": "events"}
"""Options that can be repeated, and the keyword arguments (lists) for them."""
_OTHER_NAMES = {"-m": "message", "--x": "axis", "--all": "every"}
"""Options whose keyword argument has another name."""
_OBJECTS = ("into",)
"""Options whose value is a Python variable."""
_NUMBERS = ("limit", "days", "smooth")
"""Options whose value is a number."""
_FLAGS = (
    *("create", "propose", "yes", "now", "force", "repair", "removed", "dry_run", "clear", "quick", "every", "admin"),
    *("log", "forget_code"),
)

"""Options without a value."""

_fixed: str | None = None  # set by `using`; None: `caller` and `reader` detect the form


@contextmanager
def using(form: str) -> Iterator[None]:
    """Set the form of commands for this process while the block runs.

    The `lmvp` command uses `SHELL`. The pages of a server use `PYTHON`.
    """
    global _fixed
    before, _fixed = _fixed, form
    try:
        yield
    finally:
        _fixed = before


def caller() -> str:
    """Return the form of commands in an error: `SHELL` in the `lmvp` command, otherwise `PYTHON`.

    The magics set `LmvpError.caller` instead, because Python code in the same notebook can raise errors too.
    """
    return _fixed or PYTHON


def reader(script: str = PYTHON) -> str:
    """Return the form of commands in a displayed text.

    Parameters
    ----------
    script : str, default PYTHON
        The form in a script that is not interactive. A message about work that remains after the exit of the script is
        read in a shell.
    """
    if _fixed:
        return _fixed
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None:
        return MAGIC if "lmvp" in shell.magics_manager.magics.get("line", {}) else PYTHON
    return PYTHON if hasattr(sys, "ps1") or in_marimo() else script


def in_marimo() -> bool:
    """Return whether the caller is a marimo cell in an editor or an app."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and bool(marimo.running_in_notebook())


def in_notebook() -> bool:
    """Return whether this process is a notebook kernel. Its browser can be on another machine."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None or in_marimo()


def translated(text: str, form: str | None = None) -> str:
    """Return a text with its commands converted to a form.

    Parameters
    ----------
    text : str
        The text. A command is recognised by its backticks and the word `lmvp` or a leading `--`.
    form : str, optional
        `SHELL`, `MAGIC` or `PYTHON`. Default: the form of `reader`.

    Examples
    --------
    >>> translated("`lmvp login URL` gets a token", PYTHON)
    '`lmvp.login(url)` gets a token'
    >>> translated("`lmvp rm digits/mlp --yes` removes it", MAGIC)
    '`%lmvp rm digits/mlp --yes` removes it'
    >>> translated("give `--trust net.CNN`", PYTHON)
    "give `trust=['net.CNN']`"
    """
    chosen = form or reader()
    if chosen == SHELL or "`" not in text:
        return text
    turn = _magic if chosen == MAGIC else _python
    return _COMMAND.sub(lambda match: _turned(match[1], turn), text)


def code(command: str) -> str:
    """Convert a command in backticks to a line of code in the form of the reader, without backticks.

    Examples
    --------
    >>> code("`lmvp push digits/mlp FILE -m 'first try'`")
    "lmvp.push('digits/mlp', model, message='first try')"
    """
    return translated(command).strip("`")


def _turned(command: str, turn: Callable[[list[str]], str | None]) -> str:
    try:
        words = shlex.split(command)
    except ValueError:  # a user-defined name in the command contains a quote
        return f"`{command}`"
    other = turn(words)
    return f"`{command if other is None else other}`"


def _magic(words: list[str]) -> str | None:
    """Return the magic for a command; an option has the same form in a magic. None for verbs of the shell only."""
    if words[0] != "lmvp":
        return " ".join(words)
    if words[1] in _SHELL_ONLY:
        return None
    if any((words[1], word) in _NO_MAGIC for word in words[2:4]):
        return _python(words)
    # `shlex.quote` puts the ellipsis of an abbreviated command in quotes.
    return "%" + " ".join("model" if word == "FILE" else shlex.quote(word) for word in words).replace("'…'", "…")


def _python(words: list[str]) -> str | None:
    """Return the Python call for a command, or the keyword argument for an option; None without an equivalent."""
    if words[0] != "lmvp":
        return ", ".join(f"{key}={value}" for key, value in _options(words))
    verb, rest = words[1], words[2:]
    if verb in _SHELL_ONLY:
        return None
    cut = next((place for place, word in enumerate(rest) if word.startswith("-")), len(rest))
    given, options = [_value(word) for word in rest[:cut]], dict(_options(rest[cut:]))
    name, given, options = _call(verb, given, options)
    return f"{name}({', '.join([*given, *(f'{key}={value}' for key, value in options.items())])})"


def _call(verb: str, given: list[str], options: dict[str, str]) -> tuple[str, list[str], dict[str, str]]:
    """Return the function for a verb with its arguments.

    The branches handle the verbs whose subcommands or options correspond to functions with other names or arguments.
    """
    sub = given[0].strip("'") if verb in ("tokens", "identities", "users", "groups", "audit") and given else ""
    if verb in ("members", "webhooks") and len(given) > 1:
        sub = given.pop(1).strip("'")
    elif sub:
        del given[0]
    if verb == "alias" and given and (found := _ALIAS.get(next(iter(options), ""))):
        name, joined = found
        confirmed = {"yes": "True"} if "yes" in options else {}
        return name, [_at(*given)] if joined else given, confirmed
    if verb == "prune" and options.pop("save", None) is not None:
        return "lmvp.Client().set_retention", [*given, options.pop("keep")], {}
    if verb == "groups" and sub == "add":
        given = [given[0], f"[{', '.join(given[1:])}]"]
    elif verb == "users" and sub in ("enable", "disable"):
        options = {"disabled": str(sub == "disable")}
    elif verb == "users" and sub == "passwd":
        options = {"password": "new_password"}
    elif verb == "users" and options.pop("service", ""):
        options = {}  # a service account is an account without a password
    elif verb == "contributions":
        options.pop("every", "")  # the function always lists all; the verb lists only open ones without `--all`
    elif verb == "undelete" and not given:
        sub = "list"
    elif verb == "annotate" and given:
        project, _, run = given[0].strip("'").rpartition("/")
        given = [repr(run) if project else given[0], *([repr(project)] if project else [])]
    elif verb == "members" and sub == "add":
        given.append(options.pop("role", "role"))
    if method := _METHODS.get((verb, sub)):
        return f"lmvp.Client().{method}", given, options
    return f"lmvp.{_FUNCTIONS.get(verb, verb)}", given, options


def _at(model: str, alias: str = "") -> str:
    return repr("@".join(part.strip("'") for part in (model, alias) if part))


_FUNCTIONS = {"import": "import_"}
_ALIAS = {
    "remove": ("lmvp.remove_alias", False),
    "protect": ("lmvp.Client().protect", True),
    "history": ("lmvp.Client().alias_history", True),
}
_METHODS = {
    ("tokens", "create"): "create_token",
    ("tokens", "revoke"): "revoke_token",
    ("identities", "disconnect"): "disconnect_identity",
    ("users", "add"): "add_user",
    ("users", "enable"): "change_user",
    ("users", "disable"): "change_user",
    ("users", "passwd"): "change_user",
    ("groups", "add"): "set_group",
    ("groups", "remove"): "remove_group",
    ("members", "add"): "set_member",
    ("members", "remove"): "remove_member",
    ("members", "invite"): "invite",
    ("members", "invitations"): "invitations",
    ("webhooks", "add"): "add_webhook",
    ("webhooks", "remove"): "remove_webhook",
    ("webhooks", "test"): "test_webhook",
    ("webhooks", "enable"): "enable_webhook",
    ("audit", "head"): "audit_heads",
    ("undelete", "list"): "removed",
}
"""Methods of `Client` for verbs with subcommands, for which `lmvp` has no function."""


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the keyword arguments for options, as name and source code of the value."""
    pairs: dict[str, dict[str, str]] = {}
    lists: dict[str, list[str]] = {}
    left = iter(words)
    for word in left:
        flag, is_joined, text = word.partition("=")
        name = _OTHER_NAMES.get(flag) or flag.lstrip("-").replace("-", "_")
        if name == "with_token":
            yield "token", "token"
        elif name in _FLAGS or name in ("remove", "protect", "unprotect", "history", "service"):
            yield name, "True"
        else:
            yield from _option(name, text if is_joined else next(left, ""), pairs, lists)
    yield from ((name, str(value)) for name, value in pairs.items())
    yield from ((name, f"[{', '.join(value)}]") for name, value in lists.items())


def _option(name: str, text: str, pairs: dict[str, dict[str, str]], lists: dict[str, list[str]]) -> Iterator[Any]:
    """Yield the argument for an option with a value; collect options that can be repeated in `pairs` and `lists`."""
    if not text:
        yield _PAIRS.get(name, name), ""
    elif name in _PAIRS:
        key, _, value = text.partition("=")
        pairs.setdefault(_PAIRS[name], {})[key] = value
    elif name in _LISTS:
        lists.setdefault(_LISTS[name], []).append(_value(text))
    elif name in _OBJECTS:
        yield name, text.lower()
    else:
        yield name, text if name in _NUMBERS else _value(text)


def _value(word: str) -> Any:
    if word == "…":
        return "…"
    if word == "FILE":
        return "model"
    return word.lower() if word in PLACEHOLDERS else repr(word)
