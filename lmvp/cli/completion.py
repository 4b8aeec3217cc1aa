"""Tab completion of the `lmvp` command in bash, zsh and fish, and the names that the shell and notebooks complete.

argcomplete completes verbs and options from the parser. This module adds the projects, models, aliases, contributions
and runs of the current server.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lmvp import config, local
from lmvp.cli.parser import (
    SHELL,
    Argument,
    Verb,
    make_parser,
    verbs_of,
)
from lmvp.client.models import Client
from lmvp.core import server_file
from lmvp.errors import InvalidArgument, LmvpError, MissingDependency

SHELLS = ("bash", "zsh", "fish")

# Verb and argument, by the kind of name that the argument takes.
_VERSIONS = {("pull", "version"), ("alias", "version"), ("diff", "before"), ("diff", "after"), ("rm", "name")}
_VERSIONS |= {("show", "version"), ("amend", "version"), ("rollback", "alias"), ("contribute", "version")}
_VERSIONS |= {("open", "name"), ("ui", "name")}
_CONTRIBUTIONS = {(verb, "contribution") for verb in ("accept", "decline", "withdraw", "comment")}
_MODELS = {
    ("push", "model"), ("prune", "model"), ("history", "name"), ("du", "name"),
    ("export", "model"), ("import", "model"), ("require", "model"), ("fork", "model"),
}  # fmt: skip
_PROJECTS = {("ls", "project"), ("project", "name"), ("runs", "project"), ("contributions", "project")}
_PROJECTS |= {("members", "project"), ("webhooks", "project"), ("audit", "project")}
_RUNS = {("annotate", "run"), ("compare", "runs"), ("metrics", "names")}
_PROPOSED = re.compile(r"@c[0-9]+$")
_RUN = "run:"
"""The prefix that marks a run in the list of names. A colon is not allowed in names of projects and models."""
_NEWEST = 50
"""Maximum number of runs per project that are completed."""


def known_names() -> list[str]:
    """Return the names of projects, models, aliases, proposed contributions and recent runs.

    The list is empty if no server is configured and the local server is not running.
    """
    # A client would start the local server, and pressing Tab must not start a process.
    if config.server_url() is None and local.find(server_file.data_home()) is None:
        return []
    client, names = Client(), []
    for project in client.projects()[:20]:  # at most 20 projects and 200 models each: a shell waits for the answer
        names.append(f"{project.name}/")
        for model in client.models(project.name)[:200]:
            name = f"{project.name}/{model.name}"
            names += [name, f"{name}@latest", *(f"{name}@{alias.name}" for alias in client.aliases(name))]
        names += [contribution.reference for contribution in client.contributions(project.name, status="proposed")]
        names += [f"{_RUN}{project.name}/{run.name}" for run in client.runs(project.name, limit=_NEWEST)]
    return names


def names_for(verb: str, argument: str | None, names: Callable[[], list[str]]) -> list[str]:
    """Return the names that an argument of a verb accepts.

    Parameters
    ----------
    verb : str
        The verb, for example `pull`.
    argument : str or None
        The first flag of the argument, as in the parser.
    names : callable
        Returns all names, like `known_names`. It is called only if the argument takes a name, since it sends requests.

    Returns
    -------
    list of str
        The matching names; empty if the argument does not take a name.

    Examples
    --------
    >>> names_for("pull", "version", lambda: ["digits/", "digits/mlp", "digits/mlp@best", "run:digits/quiet-wren-44"])
    ['digits/', 'digits/mlp', 'digits/mlp@best']
    >>> names_for("ls", "project", lambda: ["digits/", "digits/mlp"])
    ['digits']
    """
    if (verb, argument) in _RUNS:
        return [name.removeprefix(_RUN) for name in names() if name.startswith(_RUN)]
    if (verb, argument) in _VERSIONS:
        return _without_runs(names)
    if (verb, argument) in _CONTRIBUTIONS:
        return [name for name in _without_runs(names) if _PROPOSED.search(name)]
    if (verb, argument) in _MODELS:
        return [name for name in _without_runs(names) if "@" not in name]
    if (verb, argument) in _PROJECTS:
        return [name.rstrip("/") for name in _without_runs(names) if name.endswith("/")]
    return []


def _without_runs(names: Callable[[], list[str]]) -> list[str]:
    return [name for name in names() if not name.startswith(_RUN)]


def main(words: Sequence[str]) -> int:
    """Print the completion script of a shell and return the exit code.

    Raises
    ------
    InvalidArgument
        If the shell is not supported.
    MissingDependency
        If argcomplete is not installed.
    """
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        return 0
    json = "--json" in words
    words = [word for word in words if word not in ("--json", "-q", "--quiet")]  # it prints no messages in any case
    shell = words[0] if words else ""
    if shell not in SHELLS or len(words) > 1:
        raise InvalidArgument(f"no completion for {' '.join(words)[:80]!r}", hint=f"use one of: {', '.join(SHELLS)}")
    try:
        import argcomplete
    except ImportError:
        raise MissingDependency("completion needs argcomplete", hint="pip install argcomplete") from None
    script = argcomplete.shell_integration.shellcode(["lmvp"], shell=shell)
    if json:
        from lmvp.cli.tables import to_json

        script = to_json({"shell": shell, "script": script})
    print(script)
    return 0


_HELP = """usage: lmvp completion [--json] [-q] {bash,zsh,fish}

Print the script that lets a shell complete the verbs, options and names of lmvp.

  bash  eval "$(lmvp completion bash)"               in ~/.bashrc
  zsh   eval "$(lmvp completion zsh)"                in ~/.zshrc, after compinit
  fish  lmvp completion fish | source                in ~/.config/fish/config.fish

options:
  --json       print the shell and the script as JSON
  -q, --quiet  print no messages, only data; the script has none"""


def answer_shell() -> None:
    """Print completions and exit the process if a shell requests them; otherwise return."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        sys.exit(1)
    parser = make_parser(SHELL, "lmvp", argparse.ArgumentParser)
    for verb in verbs_of(SHELL):
        for argument in verb.arguments:
            _complete(_action(parser, verb, argument), verb, argument)
    argcomplete.autocomplete(parser)


def _action(parser: argparse.ArgumentParser, verb: Verb, argument: Argument) -> Any:
    """Return the argparse action of an argument of a verb; None if the argument is for notebooks only."""
    # argparse has no public access to the actions of a subparser.
    sub: Any = next(action for action in parser._actions if isinstance(action.choices, dict))  # noqa: SLF001
    wanted = argument.flags[-1].lstrip("-").replace("-", "_")
    return next((one for one in sub.choices[verb.name]._actions if one.dest == wanted), None)  # noqa: SLF001


def _complete(action: Any, verb: Verb, argument: Argument) -> None:
    expected = argument.flags[0]
    tables = _VERSIONS | _CONTRIBUTIONS | _MODELS | _PROJECTS | _RUNS
    if action is not None and (verb.name, expected) in tables:
        action.completer = partial(_candidates, verb.name, expected)


def _candidates(verb: str, argument: str, **_: Any) -> list[str]:
    try:
        return names_for(verb, argument, known_names)
    except LmvpError:  # an error message would garble the command line that the user is typing
        return []
