"""The magics `%lmvp` and `%%lmvp`, which run the verbs of `lmvp.cli` with the variables of the notebook."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand
from IPython.utils._process_common import arg_split
from IPython.utils.text import DollarFormatter, EvalFormatter

from lmvp import hints
from lmvp.cli import tracking
from lmvp.cli.parser import NOTEBOOK, make_parser, read
from lmvp.cli.tables import Status
from lmvp.client.models import Client
from lmvp.core.references import suggest
from lmvp.core.sanitize import printable
from lmvp.core.schemas import Version
from lmvp.errors import InvalidArgument, LmvpError, NotFound
from lmvp.views import bisection
from lmvp_jupyter import cells
from lmvp_jupyter.cells import Code, name_first_line

# `{expression}` or `$name` in a word, and a word that is only one of them. `{1}` is not an expression but part of a
# revision, as in `mlp@production@{1}`.
_FIELD = re.compile(r"\{[A-Za-z_(][^{}]*\}|\$[A-Za-z_]\w*(?:\.\w+)*")
_WHOLE = re.compile(r"\{([A-Za-z_(][^{}:]*)\}|\$([A-Za-z_]\w*(?:\.\w+)*)")

_HELP = """Publish, fetch and look at models.

%lmvp                                        where am I: server, user, project
%lmvp push digits/mlp model -m "first try" --metric val_acc={acc} --alias best
model = %lmvp pull digits/mlp@best           or: %lmvp pull digits/mlp@best model  |  --into net  |  --to folder/
%lmvp history digits/mlp                     versions, layers changed, metrics
%lmvp diff digits/mlp@v1 digits/mlp@v2
%lmvp runs digits                            %lmvp metrics RUN        %lmvp compare RUN RUN
%%lmvp run digits --param lr=0.001           the cell is the run, `run` in it
%%lmvp bisect digits/mlp --good v3 --bad v19 which version was the first to fail the cell
%lmvp show digits/mlp@v3                     tensors, metrics, params, what made it
%lmvp alias digits/mlp@v2 production
%lmvp open digits/mlp                        the web console, signed in
%lmvp VERB --help                            the options of a verb
"""


class _Parser(argparse.ArgumentParser):
    """A parser that raises an error instead of exiting the process."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UsageError`, which IPython shows as one line without a traceback."""
        raise UsageError(f"{self.prog}: {message}\n  hint: {self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002
        """Stop parsing after the help text."""
        raise _HelpShown


class _HelpShown(Exception):
    """The help text was printed, so no verb runs."""


class NotebookHost:
    """The host of verbs in a notebook: a name is a variable, or otherwise a path.

    Parameters
    ----------
    names : dict
        The variables of the notebook.
    shell : InteractiveShell
    """

    pulls_files = False
    pipes = False
    is_saved = True

    def __init__(self, names: dict[str, Any], shell: Any) -> None:
        self._names, self._shell = names, shell

    def find(self, name: str) -> Any:
        """Return a variable (`net` or `net.body`), or an existing path.

        Raises
        ------
        NotFound
            If neither exists; the hint is the most similar name of a variable.
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

    def filled(self, word: str) -> str:
        """Replace `{expression}` and `$name` in a word, as IPython does; unknown names are left unchanged.

        IPython's own replacement is disabled, because it would change the revision `mlp@production@{1}`. A word
        `KEY={name}` is left unchanged for `value`, which returns the value and not its text.
        """
        if _WHOLE.fullmatch(word.partition("=")[2]):
            return word

        def fill(match: re.Match[str]) -> str:
            for formatter in (DollarFormatter(), EvalFormatter()):  # only the second one knows `{acc:.2f}`
                with suppress(Exception):  # an expression can raise any error; IPython leaves such text unchanged, too
                    return str(formatter.vformat(match[0], (), self._names))
            return match[0]

        return _FIELD.sub(fill, word)

    def value(self, text: str, *, bare: bool = False) -> tuple[Any] | None:
        """Return the value of `{expression}` or `$name`, or of a variable by its name; see `Host.value`."""
        if bare:
            first, *rest = text.split(".")
            if first not in self._names or not all(part.isidentifier() for part in rest):
                return None
            expression = text
        elif (match := _WHOLE.fullmatch(text)) is not None:
            expression = match[1] or match[2]
        else:
            return None
        try:
            return (eval(expression, dict(self._names)),)  # noqa: S307 - the user's own expression, in their notebook
        except NameError as error:
            near = suggest(error.name or "", [known for known in self._names if not known.startswith("_")])
            hint = f"did you mean {near!r}?" if near else None
            raise InvalidArgument(f"no variable {error.name!r}, in {text!r}", hint=hint) from None
        except Exception as error:  # noqa: BLE001 - an expression can raise any error
            raise InvalidArgument(f"{text!r} raises {type(error).__name__}: {error}") from None

    def keep(self, name: str, value: Any) -> None:
        """Assign a variable of the notebook."""
        if not name.isidentifier():
            raise InvalidArgument(f"{name!r} is not a valid name of a variable", hint="`--to FOLDER` pulls files")
        self._shell.user_ns[name] = value

    def push_later(
        self, name: str, obj: Any, fields: Mapping[str, Any], moves: Callable[[Version], Sequence[str]]
    ) -> Any:
        """Push a copy in the background, with a line below the cell that shows the progress."""
        from lmvp_jupyter import background
        from lmvp_jupyter.display import publish, replace

        def show(forms: dict[str, Any]) -> Any:
            handle = publish(forms)

            def redraw(forms: dict[str, Any]) -> None:
                if handle is not None:  # in a terminal, an output cannot be replaced
                    replace(forms, handle.display_id)

            return redraw

        return background.push(Client().update, name, obj, show, moves, **fields)

    def confirm(self, question: str) -> bool:  # noqa: ARG002
        """Return False: a notebook that runs from top to bottom must not wait for an answer."""
        return False

    def tell(self, message: str) -> None:
        """Print a message; it appears above the result."""
        print(printable(message))

    def ask_token(self, url: str) -> str:
        """Prompt in a field below the cell; the input is not saved with the notebook."""
        from getpass import getpass

        return getpass(f"token for {url}: ")


def _words(line: str) -> list[str]:
    """Split a line like a shell. An expression in braces is one word, including its quotes and spaces."""
    # Expressions are replaced by their number between two private-use characters while the line is split.
    fields: list[str] = []

    def hide(match: re.Match[str]) -> str:
        fields.append(match[0])
        return f"\ue000{len(fields) - 1}\ue001"

    words = arg_split(_FIELD.sub(hide, line.replace("\ue000", "").replace("\ue001", "")), posix=True)
    return [re.sub("\ue000([0-9]+)\ue001", lambda match: fields[int(match[1])], word) for word in words]


@magics_class
class LmvpMagics(Magics):
    """The magics `%lmvp` and `%%lmvp`."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def lmvp(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run a verb. `_HELP` replaces this docstring, which `%lmvp?` shows."""
        shell: Any = self.shell
        host = NotebookHost({**shell.user_ns, **(local_ns or {})}, shell)
        words = [host.filled(word) for word in _words(line)]
        if cell is not None:
            return _run_cell(shell, words, cell, host)
        if not words:
            return Status.now()
        if words[0] == "help":
            words = [*words[1:], "--help"]
        options = _parse(words)
        try:
            return options.act(options, host) if options else None
        except LmvpError as error:
            error.caller = hints.MAGIC
            raise
        except KeyboardInterrupt as error:  # a traceback of LMVP's frames does not help the user; `%debug` still has it
            if not hasattr(error, "_render_traceback_"):
                error._render_traceback_ = lambda: [f"KeyboardInterrupt: `%lmvp {words[0]}`"]  # type: ignore[attr-defined]
            raise

    def begin_run(self, line: str) -> None:
        """Start the run of the calling cell. `cells` replaces the line `%%lmvp run` by a call of this method."""
        shell: Any = self.shell
        host = NotebookHost(shell.user_ns, shell)
        name_first_line(line)
        options = _parse_run([host.filled(word) for word in _words(line)])
        if options is None:
            return
        runs = cells.runs_of(shell)
        try:
            run = tracking.begin(options, runs.source(), host)
        except LmvpError as error:
            error.caller = hints.MAGIC
            raise
        shell.user_ns["run"] = run
        runs.add(run)


LmvpMagics.lmvp.__doc__ = _HELP


def _run_cell(shell: Any, words: list[str], cell: str, host: NotebookHost) -> Any:
    """Execute a cell for `%%lmvp run` or `%%lmvp bisect` and return the value of the verb."""
    act = {"run": _run_in_run, "bisect": _bisect}.get(words[0] if words else "")
    if act is None:
        hint = "%%lmvp run digits --param lr=0.001; other verbs take one %: %lmvp push digits/mlp model"
        raise UsageError(f"%%lmvp: of all verbs, only `run` and `bisect` take a whole cell\n  hint: {hint}")
    return act(shell, words[1:], cell, host)


def _run_in_run(shell: Any, words: list[str], cell: str, host: NotebookHost) -> Any:
    """Execute a cell as a run and return its last value, if a program calls the magic.

    A cell that a user types does not come here: IPython executes it, see `cells`.
    """
    options = _parse_run(words)
    if options is None:
        return None
    code = Code(shell, cell)
    if code.is_async:
        return _run_awaited(shell, options, cell, host, code)
    with code.frames(shell), tracking.begin(options, cell, host) as run:
        shell.user_ns["run"] = run
        return code.value()


async def _run_awaited(shell: Any, options: argparse.Namespace, cell: str, host: NotebookHost, code: Code) -> Any:
    with code.frames(shell), tracking.begin(options, cell, host) as run:
        shell.user_ns["run"] = run
        return await code.awaited()


def _parse_run(words: list[str]) -> argparse.Namespace | None:
    told = "The cell is a run: `run` in it, its outcome and its metrics kept."
    return _parse_cell("run", told, tracking.add_run_options, words)


def _bisect(shell: Any, words: list[str], cell: str, _host: NotebookHost) -> Any:
    """Execute a cell on versions that a binary search selects.

    Returns
    -------
    Bisection or coroutine
        The result; for a cell with top-level `await`, a coroutine that returns it.
    """
    told = "Runs the cell on few of the versions between a good and a bad one, and names the first bad one."
    options = _parse_cell("bisect", told, add_bisect_options, words)
    if options is None:
        return None
    client, code = Client(), Code(shell, cell)
    search = bisection.trying(client, options.model, options.good, options.bad)

    def begin(version: Version) -> None:
        obj = client.download(version.reference, trust=tuple(options.trust), progress=False)
        shell.user_ns |= {options.variable: obj, "version": version}
        print(printable(f"{version.name} …"), end=" ", flush=True)

    def judge(version: Version) -> tuple[bisection.Verdict, str]:
        begin(version)
        return told_verdict(bisection.verdict_of(code.value))

    def told_verdict(verdict: tuple[bisection.Verdict, str]) -> tuple[bisection.Verdict, str]:
        print(printable(str(verdict[0])))
        return verdict

    async def judge_awaited() -> Any:
        with code.frames(shell):
            version = bisection.following(search)
            while isinstance(version, Version):
                begin(version)
                version = bisection.following(search, told_verdict(await bisection.verdict_of_awaited(code.awaited())))
            return version

    if code.is_async:
        return judge_awaited()
    with code.frames(shell):
        return bisection.answered(search, judge)


def add_bisect_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `%%lmvp bisect` to a parser."""
    parser.add_argument("model", help="[project/]model")
    parser.add_argument("variable", nargs="?", default="model", help="the variable that holds the object (%(default)s)")
    parser.add_argument("--good", required=True, metavar="REVISION", help="a version that is good")
    parser.add_argument(
        "--bad", default="latest", metavar="REVISION", help="one that grew from it and is bad (%(default)s)"
    )
    parser.add_argument("--trust", action="append", default=[], metavar="CLASS", help="a class that may be built")


def _parse_cell(
    verb: str, told: str, add_options: Callable[[argparse.ArgumentParser], None], words: list[str]
) -> argparse.Namespace | None:
    """Parse the options of a verb with a cell; return None if the help text was printed instead."""
    parser = _Parser(prog=f"%%lmvp {verb}", description=told)
    add_options(parser)
    with suppress(_HelpShown):
        return parser.parse_intermixed_args(words)
    return None


def _parse(words: list[str]) -> argparse.Namespace | None:
    """Parse the words of a line; return None if the help text was printed instead."""
    # argparse prints the help text itself. It is captured, so that it passes `printable` like all output.
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            options = read(make_parser(NOTEBOOK, "%lmvp", _Parser), words, NOTEBOOK)
    except _HelpShown:
        print(printable(printed.getvalue()), end="")
        return None
    except InvalidArgument as error:
        error.caller = hints.MAGIC
        raise UsageError(str(error)) from None
    return options


def install(ip: Any) -> None:
    """Register the magics."""
    ip.register_magics(LmvpMagics)
    cells.install(ip)


def uninstall(ip: Any) -> None:
    """Remove the magics."""
    cells.uninstall(ip)
    for kind in ("line", "cell"):
        ip.magics_manager.magics[kind].pop("lmvp", None)
    ip.magics_manager.registry.pop("LmvpMagics", None)
