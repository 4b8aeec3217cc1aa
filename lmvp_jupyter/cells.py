"""Cells of `%%lmvp`: a run that lasts as long as its cell, and code that is executed several times.

IPython passes a cell magic the source of the cell and waits for it. A magic that executes the source supports neither
top-level `await` nor tracebacks without its own frames (ipython/ipython#11314, #14157). Therefore `%%lmvp run` is
replaced before the cell is compiled: a call that starts the run takes the place of the first line, and IPython executes
the rest like any other cell. An event after the cell finishes the run.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from lmvp.tracking.status import how_it_ended

if TYPE_CHECKING:
    from lmvp.tracking.active_run import ActiveRun

_CALL: Final = "get_ipython().run_cell_magic('lmvp', "
"""The beginning of the code to which IPython transforms a cell that begins with `%%lmvp`."""
_BEGIN: Final = "get_ipython().magics_manager.registry['LmvpMagics'].begin_run("
"""The beginning of the code that replaces it for `%%lmvp run`."""
_FIRST_LINE: Final = re.compile(r"^[ \t]*%%lmvp[ \t]+run\b[^\n]*\n?", re.MULTILINE)
_NO_RUN: Final = frozenset({"-h", "--help"})


class CellRuns:
    """The runs of a shell that finish with the cell that started them.

    Parameters
    ----------
    shell : InteractiveShell
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._open: list[tuple[Any, ActiveRun]] = []

    def start(self) -> None:
        """Register with the shell."""
        self._shell.input_transformers_post.append(self.transform)
        self._shell.events.register("post_execute", self._after_execution)
        self._shell.events.register("post_run_cell", self._after_cell)

    def stop(self) -> None:
        """Undo `start`."""
        with suppress(ValueError):
            self._shell.input_transformers_post.remove(self.transform)
        self._shell.events.unregister("post_execute", self._after_execution)
        self._shell.events.unregister("post_run_cell", self._after_cell)

    def transform(self, lines: list[str]) -> list[str]:
        """Replace the call of the magic if IPython must execute the cell: for `run`, and for `bisect` with `await`."""
        given = _magic_call("".join(lines))
        if given is None:
            return lines
        line, cell = given
        verb, *words = line.split() or [""]
        if verb == "run" and cell.strip() and not _NO_RUN.intersection(words):
            # IPython removes empty lines at the beginning, which would shift the line numbers in tracebacks.
            blank = len(cell) - len(cell.lstrip("\n"))
            code = [f"{_BEGIN}{line.strip()[len(verb) :].strip()!r})\n", *["\n"] * blank]
            return [*code, *_transformed(self._shell, cell).splitlines(keepends=True)]
        if verb == "bisect" and Code.waits(self._shell, cell):
            return [f"await {lines[0]}", *lines[1:]]
        return lines

    def source(self) -> str:
        """Return the source of the running cell without its line `%%lmvp run`, with magics not transformed."""
        raw = getattr(getattr(self._result(), "info", None), "raw_cell", None) or ""
        first = _FIRST_LINE.search(raw)
        return raw[first.end() :] if first else raw

    def add(self, run: ActiveRun) -> None:
        """Finish a run after the running cell."""
        result = self._result()
        # `%%timeit` executes a cell several times: the run of the previous execution ends here.
        self._end(lambda other: other is result)
        self._open.append((result, run))

    def _result(self) -> Any:
        """Return the object in which IPython stores the result of the running cell."""
        return getattr(self._shell.displayhook, "exec_result", None)

    def _after_execution(self) -> None:
        # A cell can execute others, as `%run book.ipynb` does. They must not finish its run, so results are compared.
        # Unlike `post_run_cell`, this event also follows silent cells.
        last = getattr(self._shell, "last_execution_result", None)
        if last is not None:
            self._end(lambda result: result is last)

    def _after_cell(self, last: Any) -> None:
        """Finish the runs of a cell that failed. IPython can report the error in another result object."""
        raw = getattr(getattr(last, "info", None), "raw_cell", None)
        error = getattr(last, "error_in_exec", None)

        def is_over(result: Any) -> bool:
            return result is last or result is None or (error is not None and result.info.raw_cell == raw)

        self._end(is_over, error)

    def _end(self, is_over: Callable[[Any], bool], otherwise: BaseException | None = None) -> None:
        """Finish the runs whose cell is over, with the status that follows from the error of the cell."""
        for each in [each for each in self._open if is_over(each[0])]:
            self._open.remove(each)
            result, run = each
            error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None) or otherwise
            with suppress(KeyboardInterrupt):  # while waiting for the server; the data is sent later
                run.finish(*how_it_ended(error))


def _transformed(shell: Any, cell: str) -> str:
    """Transform a cell to Python code. `run` is a variable in it, although IPython has a magic `%run`."""
    # With automagic, IPython would transform `run …` to the magic unless a variable of that name exists.
    unknown = "run" not in shell.user_ns
    if unknown:
        shell.user_ns["run"] = None
    try:
        return str(shell.transform_cell(cell))
    finally:
        if unknown:
            del shell.user_ns["run"]


def _magic_call(code: str) -> tuple[str, str] | None:
    """Return the line and the cell of a call of `%%lmvp`; None for other code."""
    if not code.startswith(_CALL):
        return None
    try:
        call = ast.parse(code.strip(), mode="eval").body
        given = [ast.literal_eval(each) for each in call.args] if isinstance(call, ast.Call) else []
    except (SyntaxError, ValueError):
        return None
    return (given[1], given[2]) if len(given) == 3 else None


def name_first_line(line: str) -> None:
    """Show `%%lmvp run …` in the tracebacks of the running cell, in place of the call that replaces it."""
    name = sys._getframe(2).f_code.co_filename  # noqa: SLF001 - the documented way to a frame
    entry = linecache.cache.get(name)
    if entry is not None and len(entry) == 4 and entry[2] and entry[2][0].startswith(_BEGIN):
        entry[2][0] = f"# %%lmvp run {line}".rstrip() + "\n"  # a comment, because stack_data parses the source


class Code:
    """A compiled cell of a magic. Like IPython, it supports top-level `await` and returns the last expression.

    Parameters
    ----------
    shell : InteractiveShell
    cell : str
        The source without the line of `%%lmvp`, with magics not transformed.
    """

    def __init__(self, shell: Any, cell: str) -> None:
        source = "\n" + _transformed(shell, cell)  # an empty line replaces the magic, for correct line numbers
        result = getattr(shell.displayhook, "exec_result", None)
        number = getattr(result, "execution_count", None) or shell.execution_count
        self._names = shell.user_ns
        self._quiet = source.rstrip().endswith(";")  # IPython does not display a value before a semicolon
        self.name = shell.compile.cache(source, number)  # tracebacks show the source
        tree = shell.transform_ast(shell.compile.ast_parse(source, filename=self.name))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if shell.autoawait else 0):
            self._body = shell.compile(tree, self.name, "exec")
            self._last = None if last is None else shell.compile(ast.Expression(last.value), self.name, "eval")
        self.is_async = any(code is not None and _is_async(code) for code in (self._body, self._last))

    @staticmethod
    def waits(shell: Any, cell: str) -> bool:
        """Return whether a cell has a top-level `await`; False if it does not compile."""
        try:
            source = _transformed(shell, cell)
            return bool(shell.autoawait) and _is_async(
                compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            )
        except (SyntaxError, ValueError, MemoryError):
            return False

    def value(self) -> Any:
        """Execute the cell and return the value of its last expression."""
        exec(self._body, self._names)  # noqa: S102 - it is the user's cell
        value = eval(self._last, self._names) if self._last is not None else None  # noqa: S307
        return None if self._quiet else value

    async def awaited(self) -> Any:
        """Execute a cell with top-level `await` and return the value of its last expression."""
        value: Any = None
        for code in (self._body, self._last):
            value = None if code is None else eval(code, self._names)  # noqa: S307 - it is the user's cell
            if code is not None and _is_async(code):
                value = await value
        return None if self._quiet or self._last is None else value

    @contextmanager
    def frames(self, shell: Any) -> Iterator[None]:
        """Remove the frames of IPython and of the magic from the traceback of an exception of the cell."""
        try:
            yield
        except BaseException as error:
            own = error.__traceback__
            while own is not None and own.tb_frame.f_code.co_filename != self.name:
                own = own.tb_next
            if own is not None and not hasattr(error, "_render_traceback_"):
                render = partial(shell.InteractiveTB.structured_traceback, type(error), error, own, tb_offset=0)
                with suppress(AttributeError, TypeError):  # a class with slots
                    error._render_traceback_ = render  # type: ignore[attr-defined]
            raise


def _is_async(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_COROUTINE)


_shells: dict[int, CellRuns] = {}


def install(ip: Any) -> None:
    """Register the transformation of `%%lmvp run` with a shell."""
    if id(ip) not in _shells:
        _shells[id(ip)] = CellRuns(ip)
        _shells[id(ip)].start()


def uninstall(ip: Any) -> None:
    """Undo `install`."""
    runs = _shells.pop(id(ip), None)
    if runs is not None:
        runs.stop()


def runs_of(ip: Any) -> CellRuns:
    """Return the runs of a shell, and register it if necessary."""
    install(ip)
    return _shells[id(ip)]
