"""Cells of `%%lmvp`: a run that spans a cell, and code that is executed several times.

IPython gives a cell magic its cell as a text and waits for it, so a magic that executes the cell itself has neither
top-level `await` nor a traceback without its own frames (ipython/ipython#11314, #14157). Therefore `%%lmvp run` is
replaced before the cell is compiled: a call that begins the run takes the place of the first line, and IPython executes
the rest as it executes any cell. An event after the cell ends the run.
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

from lmvp.tracking.outcome import how_it_ended

if TYPE_CHECKING:
    from lmvp.tracking.active import ActiveRun

_CALL: Final = "get_ipython().run_cell_magic('lmvp', "
"""The first letters of the code that IPython makes of a cell that begins with `%%lmvp`."""
_BEGIN: Final = "get_ipython().magics_manager.registry['LmvpMagics'].begin_run("
_FIRST_LINE: Final = re.compile(r"^[ \t]*%%lmvp[ \t]+run\b[^\n]*\n?", re.MULTILINE)
_NO_RUN: Final = frozenset({"-h", "--help"})


class CellRuns:
    """The runs of a shell that last as long as the cell that began them.

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
        """Replace the call of the magic where the cell must be executed by IPython itself."""
        given = _magic_call("".join(lines))
        if given is None:
            return lines
        line, cell = given
        verb, *words = line.split() or [""]
        if verb == "run" and cell.strip() and not _NO_RUN.intersection(words):
            blank = len(cell) - len(cell.lstrip("\n"))  # IPython drops empty lines; the numbers of lines must stay
            code = [f"{_BEGIN}{line.strip()[len(verb) :].strip()!r})\n", *["\n"] * blank]
            return [*code, *_transformed(self._shell, cell).splitlines(keepends=True)]
        if verb == "bisect" and Code.waits(self._shell, cell):
            return [f"await {lines[0]}", *lines[1:]]
        return lines

    def source(self) -> str:
        """Return the source of the cell that is executed now, with magics unexpanded, after its line `%%lmvp run`."""
        raw = getattr(getattr(self._result(), "info", None), "raw_cell", None) or ""
        first = _FIRST_LINE.search(raw)
        return raw[first.end() :] if first else raw

    def add(self, run: ActiveRun) -> None:
        """End a run after the cell that is executed now."""
        result = self._result()
        self._end(lambda other: other is result)  # `%%timeit` executes a cell several times
        self._open.append((result, run))

    def _result(self) -> Any:
        """Return the object that IPython fills with the outcome of the cell that is executed now."""
        return getattr(self._shell.displayhook, "exec_result", None)

    def _after_execution(self) -> None:
        # A cell may execute others, as `%run book.ipynb` does; those must not end its run. This event also follows
        # silent cells.
        last = getattr(self._shell, "last_execution_result", None)
        if last is not None:
            self._end(lambda result: result is last)

    def _after_cell(self, last: Any) -> None:
        """End the runs of a cell that IPython could not execute to its end: it has another result then."""
        raw = getattr(getattr(last, "info", None), "raw_cell", None)
        error = getattr(last, "error_in_exec", None)

        def is_over(result: Any) -> bool:
            return result is last or result is None or (error is not None and result.info.raw_cell == raw)

        self._end(is_over, error)

    def _end(self, is_over: Callable[[Any], bool], otherwise: BaseException | None = None) -> None:
        for each in [each for each in self._open if is_over(each[0])]:
            self._open.remove(each)
            result, run = each
            error = getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None) or otherwise
            with suppress(KeyboardInterrupt):  # of the wait for the server: the rest is delivered later
                run.finish(*how_it_ended(error))


def _transformed(shell: Any, cell: str) -> str:
    """Return a cell as Python code; `run` is a variable in it, although IPython has a magic of that name."""
    unknown = "run" not in shell.user_ns
    if unknown:
        shell.user_ns["run"] = None
    try:
        return str(shell.transform_cell(cell))
    finally:
        if unknown:
            del shell.user_ns["run"]


def _magic_call(code: str) -> tuple[str, str] | None:
    """Return the line and the cell of a call of `%%lmvp`; None of other code."""
    if not code.startswith(_CALL):
        return None
    try:
        call = ast.parse(code.strip(), mode="eval").body
        given = [ast.literal_eval(each) for each in call.args] if isinstance(call, ast.Call) else []
    except (SyntaxError, ValueError):
        return None
    return (given[1], given[2]) if len(given) == 3 else None


def name_first_line(line: str) -> None:
    """Show `%%lmvp run …` in tracebacks of the cell that calls the caller, instead of the call that replaces it."""
    name = sys._getframe(2).f_code.co_filename  # noqa: SLF001 - the documented way to a frame
    entry = linecache.cache.get(name)
    if entry is not None and len(entry) == 4 and entry[2] and entry[2][0].startswith(_BEGIN):
        entry[2][0] = f"# %%lmvp run {line}".rstrip() + "\n"  # a comment: stack_data parses the source


class Code:
    """A cell of a magic, compiled as IPython compiles cells, with top-level `await`.

    Parameters
    ----------
    shell : InteractiveShell
    cell : str
        Its source, with magics unexpanded, without the line of `%%lmvp`.
    """

    def __init__(self, shell: Any, cell: str) -> None:
        source = "\n" + _transformed(shell, cell)  # the magic is the first line
        result = getattr(shell.displayhook, "exec_result", None)
        number = getattr(result, "execution_count", None) or shell.execution_count
        self._names = shell.user_ns
        self._quiet = source.rstrip().endswith(";")
        self.name = shell.compile.cache(source, number)
        tree = shell.transform_ast(shell.compile.ast_parse(source, filename=self.name))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if shell.autoawait else 0):
            self._body = shell.compile(tree, self.name, "exec")
            self._last = None if last is None else shell.compile(ast.Expression(last.value), self.name, "eval")
        self.is_async = any(code is not None and _is_async(code) for code in (self._body, self._last))

    @staticmethod
    def waits(shell: Any, cell: str) -> bool:
        """Return whether a cell has a top-level `await`; False if it cannot be compiled."""
        try:
            source = _transformed(shell, cell)
            return bool(shell.autoawait) and _is_async(
                compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            )
        except (SyntaxError, ValueError, MemoryError):
            return False

    def value(self) -> Any:
        """Execute the cell; return its last expression."""
        exec(self._body, self._names)  # noqa: S102 - it is the user's cell
        value = eval(self._last, self._names) if self._last is not None else None  # noqa: S307
        return None if self._quiet else value

    async def awaited(self) -> Any:
        """Execute a cell with a top-level `await`; return its last expression."""
        value: Any = None
        for code in (self._body, self._last):
            value = None if code is None else eval(code, self._names)  # noqa: S307 - it is the user's cell
            if code is not None and _is_async(code):
                value = await value
        return None if self._quiet or self._last is None else value

    @contextmanager
    def frames(self, shell: Any) -> Iterator[None]:
        """Leave the frames of IPython and of the magic out of the traceback of an exception that the cell raises."""
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
    """Let `%%lmvp run` span a cell of this shell."""
    if id(ip) not in _shells:
        _shells[id(ip)] = CellRuns(ip)
        _shells[id(ip)].start()


def uninstall(ip: Any) -> None:
    """Undo `install`."""
    runs = _shells.pop(id(ip), None)
    if runs is not None:
        runs.stop()


def runs_of(ip: Any) -> CellRuns:
    """Return the runs of a shell that has the extension."""
    install(ip)
    return _shells[id(ip)]
