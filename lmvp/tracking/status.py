"""Detection of a run's final status, from the exception that ended it or from the way its process ends.

A run that the code does not end is ended at process exit. The exception is not available then: the interpreter has
discarded `SystemExit`, and a pool or a thread catches the exceptions of its functions. LMVP therefore keeps a reference
to the stack frame of the function that started the run. The last instruction of the frame shows whether the function
returned or raised.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import linecache
import opcode
import re
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Final

_LAUNCHERS: Final = {
    "IPython.core.interactiveshell",
    "concurrent.futures.process",
    "concurrent.futures.thread",
    "joblib.externals.loky.process_executor",
    "multiprocessing.pool",
    "multiprocessing.process",
    "threading",
}
"""Modules that call a function of the user and catch its exceptions."""

# The code of `raise SystemExit(code)` is read from the source line, if it is a literal. docs/runs.md, "Status".
_RAISE = re.compile(r"raise SystemExit(?:\((.*)\))?")


def how_it_ended(error: BaseException | None) -> tuple[str, str]:
    """Return the status and the reason of a run that this exception ended; None means that it ended normally."""
    if error is None:
        return "finished", ""
    if isinstance(error, SystemExit):
        return how_it_exited(error.code)
    kind = type(error).__name__
    lines = [""]
    with suppress(Exception):  # `__str__` of a foreign exception can raise
        lines = str(error).strip().splitlines() or [""]
    text = f"{kind}: {lines[0]}" if lines[0] else kind
    return "killed" if isinstance(error, (KeyboardInterrupt, GeneratorExit)) or _is_cancelled(error) else "failed", text


def _is_cancelled(error: BaseException) -> bool:
    """Return whether the exception cancels an asyncio task: an interrupt of ipykernel or `asyncio.run` does so."""
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def how_it_exited(code: object) -> tuple[str, str]:
    """Return the status and the reason of a run whose process exits with this code.

    Examples
    --------
    >>> how_it_exited(None), how_it_exited(0), how_it_exited(2), how_it_exited("no data")
    (('finished', ''), ('finished', ''), ('failed', 'SystemExit: 2'), ('failed', 'SystemExit: no data'))
    """
    if code is None or (isinstance(code, int) and code == 0):
        return "finished", ""
    text = ""
    with suppress(Exception):
        text = str(code).strip().partition("\n")[0]
    return "failed", f"SystemExit: {text}" if text else "SystemExit"


class Task:
    """The outermost user function on the stack when a run starts.

    It is the script, the cell, or the function of a thread or pool. Its frame is held until the first check after its
    end, because a frame also holds the local variables.
    """

    def __init__(self, frame: FrameType | None) -> None:
        # `clear` would close a suspended generator or coroutine.
        self._frame = None if frame is None or frame.f_code.co_flags & _SUSPENDABLE else frame
        self.code = frame.f_code if frame is not None else None
        self.line = ""
        self.raised = False

    @classmethod
    def current(cls) -> Task:
        """Return the task of this thread."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented by Python in spite of its name
        newest = None
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module in _LAUNCHERS:
                break
            if not (module == "lmvp" or module.startswith("lmvp.")):
                newest = frame
            frame = frame.f_back
        return cls(newest)

    @classmethod
    def of_main_thread(cls) -> Task:
        """Return the task of the main thread, the script."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented
        while frame is not None and frame.f_back is not None:
            frame = frame.f_back
        return cls(frame)

    def look(self) -> bool:
        """Return whether an exception left the function; clear its frame if it has ended."""
        frame = self._frame
        if frame is not None:
            try:
                # `clear` raises for a running frame, and Python has no other test for it.
                frame.clear()
            except RuntimeError:  # the function is still running
                return False
            self._frame = None
            self.raised = not _returned(frame)
            self.line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0).strip() if self.raised else ""
        return self.raised

    @property
    def reason(self) -> str:
        """The error of a run whose starting function raised."""
        return f"{self.code.co_name if self.code else 'a function'} was left by an exception"


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
"""Flags of functions whose frame can be suspended. Such a frame must not be cleared."""


def _returned(frame: FrameType) -> bool:
    """Return whether the last instruction of an ended frame is a return."""
    code, last = frame.f_code.co_code, frame.f_lasti
    return 0 <= last < len(code) and opcode.opname[code[last]].startswith("RETURN")


_codes: list[Any] = []
"""Exit codes with which the main thread called `sys.exit` or `exit`."""


class Exit:
    """Observes how the process exits: the exit code and the exception.

    `sys.excepthook` is not called for `SystemExit`, and the interpreter does not keep its code, so `sys.exit` and
    `exit` are wrapped.
    """

    def __init__(self) -> None:
        self._main = Task.of_main_thread()
        _codes.clear()
        if not getattr(sys.exit, "_lmvp", False):
            sys.exit = _noting(sys.exit)
        quitter = type(getattr(builtins, "exit", None))
        if quitter.__module__ == "_sitebuiltins" and not getattr(quitter.__call__, "_lmvp", False):
            # A plain assignment to a method is an error for mypy.
            setattr(quitter, "__call__", _noting(quitter.__call__))  # noqa: B010

    def how_it_ended(self, task: Task, abandoned: bool) -> tuple[str, str]:
        """Return the status and the reason of a run that is still open when the process ends.

        Parameters
        ----------
        task : Task
            The function that started the run.
        abandoned : bool
            Whether an exception left this function, and nothing was logged afterwards.
        """
        status, reason = self._how_main_ended()
        if status == "finished" and abandoned and task.code is not self._main.code:
            return "failed", task.reason
        return status, reason

    def _how_main_ended(self) -> tuple[str, str]:
        if not self._main.look():
            return "finished", ""
        if _codes:
            return how_it_exited(_codes[-1])
        # `last_exc` is new in Python 3.12.
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is not None:
            return how_it_ended(error)
        written = _RAISE.fullmatch(self._main.line)
        if written:
            with suppress(ValueError, SyntaxError):
                return how_it_exited(ast.literal_eval(written[1]) if written[1] else None)
        return "failed", "the script was left by SystemExit, of an unknown code: `with lmvp.start_run()` would know it"


def _noting(call: Any) -> Any:
    """Wrap `sys.exit` or `exit`: record the exit code, the last argument, then call the original."""

    @functools.wraps(call)
    def exit(*given: Any, **named: Any) -> Any:  # noqa: A001 - it replaces `exit`
        if threading.current_thread() is threading.main_thread():
            codes = [*given, *named.values()]
            _codes.append(codes[-1] if codes and not callable(codes[-1]) else None)
        return call(*given, **named)

    vars(exit)["_lmvp"] = True
    return exit
