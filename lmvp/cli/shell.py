"""The `lmvp` command: parses its arguments, runs a verb, and prints the result or the error.

Imports are in functions where possible, so that `lmvp --version` and tab completion start fast.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmvp import hints
from lmvp.errors import LmvpError


class ShellHost:
    """The host of verbs in a shell: `push` reads paths, and `pull` writes files."""

    pulls_files = True
    is_saved = False

    def __init__(self) -> None:
        self.messages: list[str] = []

    def find(self, name: str) -> Path:
        """Return the path with `~` expanded."""
        return Path(name).expanduser()

    def value(self, text: str, *, bare: bool = False) -> None:
        """Return None: a shell has no Python variables, so the text itself is the value."""

    def keep(self, name: str, value: Any) -> None:  # pragma: no cover - no verb of the shell has a variable
        """Do nothing: a shell has no Python variables."""

    @property
    def pipes(self) -> bool:
        """Whether standard input is not a terminal."""
        return not sys.stdin.isatty()

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; return False if standard input is not a terminal."""
        if not sys.stdin.isatty():
            return False
        from lmvp.core.sanitize import printable

        # On standard error, so that a redirected standard output has only the result.
        print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def tell(self, message: str) -> None:
        """Collect a message; it is printed after the result."""
        self.messages.append(message)

    def ask_token(self, url: str) -> str:
        """Prompt for a token without echo, or read one line from a pipe."""
        if not sys.stdin.isatty():
            return sys.stdin.readline()
        from getpass import getpass

        return getpass(f"token for {url}: ")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments without the name of the program; `sys.argv` by default.

    Returns
    -------
    int
        0; 130 after Ctrl-C; otherwise the exit code of the error, see `lmvp.errors`.

    Examples
    --------
    >>> main(["--version"])  # doctest: +ELLIPSIS
    lmvp ...
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # argparse prints names without `printable`. With LC_ALL=C, a name that is not ASCII would raise an error.
            stream.reconfigure(errors="backslashreplace")
    if argv is None and "_ARGCOMPLETE" in os.environ:
        from lmvp.cli.completion import answer_shell

        answer_shell()
    with hints.using(hints.SHELL):
        return _guarded(words)


def _guarded(words: list[str]) -> int:
    """Run a command; print an error as one message without a traceback."""
    try:
        return _run(words)
    except LmvpError as error:
        from lmvp.core.sanitize import printable

        print(printable(f"lmvp: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lmvp: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `lmvp history | head` closes the pipe early, which is not an error
        return 0


def _run(words: list[str]) -> int:
    """Run the verb that the words name and print its result."""
    if words[:1] == ["--version"]:
        import lmvp

        print(f"lmvp {lmvp.__version__}")
        return 0
    from lmvp.cli.parser import (
        OWN,
        SHELL,
        make_parser,
        read,
    )
    from lmvp.core.sanitize import printable

    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if words and words[0] in OWN:
        return _hand_on(words[0], words[1:])
    parser = make_parser(SHELL, "lmvp", argparse.ArgumentParser)
    options = read(parser, words, SHELL)
    if options.verb is None:
        parser.print_help()
        return 0
    if options.verb in OWN:  # `lmvp -- server`: argparse accepts the verb, but not as the first word
        return _hand_on(options.verb, [])
    if options.quiet:
        options.no_progress = True
    host, json = ShellHost(), getattr(options, "json", False)
    result = options.act(options, host)
    _show(result, json=json, quiet=options.quiet)
    for message in () if json or options.quiet else host.messages:
        print(printable(message))
    if trouble := getattr(result, "trouble", None):  # `status` of a server that does not answer
        raise trouble
    return 0


def _hand_on(verb: str, words: list[str]) -> int:
    """Run a verb that parses its own options, and return its exit code."""
    if verb == "completion":
        from lmvp.cli.completion import main as completion

        return completion(words)
    if verb == "server":
        from lmvp_server.__main__ import main as serve

        with hints.using(hints.PYTHON):  # the console shows code for Python, not for the shell
            return serve(words)
    from lmvp_server.restore import main as restore

    return restore(words)


def _show(value: Any, *, json: bool, quiet: bool) -> None:
    """Print the result of a verb, as text or as JSON."""
    from lmvp.cli.tables import Line
    from lmvp.cli.verbs import shown_path
    from lmvp.core.number_format import size
    from lmvp.core.sanitize import one_line, printable
    from lmvp.core.schemas import Version

    if json:
        from lmvp.cli.tables import to_json

        print(printable(to_json(value)))
        return
    if quiet and isinstance(value, Line) and not value.essential:
        return
    if isinstance(value, list):
        value = "\n".join(one_line(shown_path(path)) for path in value)
    if isinstance(value, Version) and quiet:
        value = value.reference
    if isinstance(value, Version):
        value = f"{value.reference}  {value.digest[:12]}  {size(value.size)} model, {size(value.sent)} sent"
    if value is not None:
        print(printable(str(value)))
