"""`%lmvp`: the verbs of `lmvp.commands` in a cell, on the variables of the notebook."""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.utils._process_common import arg_split

from lmvp.commands.parser import NOTEBOOK, make_parser, read
from lmvp.commands.tables import Status
from lmvp.errors import InvalidArgument, NotFound
from lmvp.references import suggest

_HELP = """Publish, fetch and look at models.

%lmvp                                        where am I: server, user, project
%lmvp push digits/mlp model -m "first try" --metric val_acc=0.97 --alias best
model = %lmvp pull digits/mlp@best           or: %lmvp pull digits/mlp@best model  |  --into net  |  --to folder/
%lmvp history digits/mlp                     versions, layers changed, metrics
%lmvp diff digits/mlp@v1 digits/mlp@v2
%lmvp alias digits/mlp@v2 production
%lmvp VERB --help                            the options of a verb
"""


class _Parser(argparse.ArgumentParser):
    """A parser that tells a user instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what IPython shows as one line."""
        raise UsageError(f"{self.prog}: {message}\n  hint: {self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002
        """Stop parsing after a help text."""
        raise _HelpShown


class _HelpShown(Exception):
    """A help text was asked for, and printed."""


class NotebookHost:
    """A notebook: names are variables first."""

    pulls_files = False

    def __init__(self, names: dict[str, Any], shell: Any) -> None:
        self._names, self._shell = names, shell

    def find(self, name: str) -> Any:
        """Return a variable (`net` or `net.body`), or a path that exists.

        Raises
        ------
        NotFound
            With the nearest name as the hint.
        """
        first, *rest = name.split(".")
        if first in self._names:
            value = self._names[first]
            for part in rest:
                if not hasattr(value, part):
                    raise NotFound(f"{first!r} has no attribute {part!r}")
                value = getattr(value, part)
            return value
        path = Path(name).expanduser()
        if path.exists():
            return path
        near = suggest(name, [known for known in self._names if not known.startswith("_")])
        raise NotFound(f"no variable and no file {name!r}", hint=f"did you mean {near!r}?" if near else None)

    def keep(self, name: str, value: Any) -> None:
        """Assign a variable of the notebook."""
        if not name.isidentifier():
            raise InvalidArgument(f"{name!r} is no name of a variable", hint="to pull files: --to FOLDER")
        self._shell.user_ns[name] = value

    def ask_token(self, url: str) -> str:
        """Ask in a field below the cell, which is not saved."""
        from getpass import getpass

        return getpass(f"token for {url}: ")


@magics_class
class LmvpMagics(Magics):
    """The magics of LMVP."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def lmvp(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Do what a line says; `%lmvp?` shows the verbs."""
        if cell is not None:
            raise UsageError(
                "%%lmvp: no verb takes a whole cell\n  hint: one % for a line: %lmvp push digits/mlp model"
            )
        words = arg_split(line, posix=True)
        if not words:
            return Status.now()
        if words[0] == "help":
            words = [*words[1:], "--help"]
        options = _parse(words)
        shell: Any = self.shell
        host = NotebookHost({**shell.user_ns, **(local_ns or {})}, shell)
        return options.act(options, host) if options else None


LmvpMagics.lmvp.__doc__ = _HELP


def _parse(words: list[str]) -> argparse.Namespace | None:
    """Return the options; None where a help text was printed instead."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            options = read(make_parser(NOTEBOOK, "%lmvp", _Parser), words, NOTEBOOK)
    except _HelpShown:
        print(printed.getvalue(), end="")
        return None
    except InvalidArgument as error:
        raise UsageError(str(error)) from None
    return options


def install(ip: Any) -> None:
    """Register the magics."""
    ip.register_magics(LmvpMagics)


def uninstall(ip: Any) -> None:
    """Remove the magics."""
    for kind in ("line", "cell"):
        ip.magics_manager.magics[kind].pop("lmvp", None)
    ip.magics_manager.registry.pop("LmvpMagics", None)
