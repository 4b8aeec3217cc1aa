"""The `lmvp` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmvp.errors import LmvpError


class ShellHost:
    """A shell: what is pushed is a path, what is pulled are files."""

    pulls_files = True

    def find(self, name: str) -> Path:
        """Return a path."""
        return Path(name).expanduser()

    def value(self, text: str, *, bare: bool = False) -> None:
        """Return None: a shell has no variables of Python."""

    def keep(self, name: str, value: Any) -> None:  # pragma: no cover - no verb of the shell has a variable
        """Do nothing: a shell has no variables of ours."""

    @property
    def pipes(self) -> bool:
        """Whether nobody sits at a terminal."""
        return not sys.stdin.isatty()

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; a pipe says no."""
        if not sys.stdin.isatty():
            return False
        from lmvp.render.words import printable

        print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def ask_token(self, url: str) -> str:
        """Ask on the terminal, or read a line that is piped in."""
        if not sys.stdin.isatty():
            return sys.stdin.readline()
        from getpass import getpass

        return getpass(f"token for {url}: ")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return the exit code.

    Examples
    --------
    >>> main(["--version"])  # doctest: +ELLIPSIS
    lmvp ...
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except LmvpError as error:
        from lmvp.render.words import printable

        print(printable(f"lmvp: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lmvp: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `lmvp history | head`
        return 0


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        import lmvp

        print(f"lmvp {lmvp.__version__}")
        return 0
    from lmvp.commands.parser import OWN, SHELL, make_parser, read

    if words and words[0] in OWN:
        return _hand_on(words[0], words[1:])
    parser = make_parser(SHELL, "lmvp", argparse.ArgumentParser)
    parser.epilog = "`lmvp VERB --help`: the options of a verb. `lmvp --version`: which version this is."
    options = read(parser, words, SHELL)
    if options.verb is None:
        parser.print_help()
        return 0
    if options.verb in OWN:  # behind a `--`
        return _hand_on(options.verb, [])
    _show(options.act(options, ShellHost()))
    return 0


def _hand_on(verb: str, words: list[str]) -> int:
    if verb == "server":
        from lmvp_server.__main__ import main as serve

        return serve(words)
    from lmvp_server.restoring import main as restore

    return restore(words)


def _show(value: Any) -> None:
    from lmvp.commands.verbs import shown_path
    from lmvp.records import Version
    from lmvp.render.numbers import size
    from lmvp.render.words import one_line, printable

    if isinstance(value, list):
        value = "\n".join(one_line(shown_path(path)) for path in value)
    if isinstance(value, Version):
        value = f"{value.reference}  {value.digest[:12]}  {size(value.size)} model, {size(value.sent)} sent"
    if value is not None:
        print(printable(str(value)))
