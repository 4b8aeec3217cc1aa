"""Collection of the facts about a run or a version: git, command, packages, accelerators and code.

Secrets are redacted. The collection must not slow down the training. A thread works in slices of 2 ms, with pauses that
keep it within 5 % of one core. Its priority stays normal: a thread of low priority that holds the GIL would block the
training on a busy machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from lmvp.core.environment import environment, user
from lmvp.core.redaction import redact, redact_command, redact_text
from lmvp.core.sanitize import escaped

# Seconds until a call of git is stopped.
_PATIENCE = 5.0
# Seconds that a push waits for the facts.
_SOON = 1.0
# Characters of code with a run.
_CODE_LIMIT = 200_000
_VERSION_CODE_LIMIT = 20_000
"""Characters of code with a version. A model can have ten thousand versions."""
_PACKAGES_LIMIT = 1000
_NAME_LIMIT = 200
_ARGUMENTS_LIMIT, _ARGUMENT_LIMIT = 1000, 2000
"""Number of arguments of the command, and characters of each."""
_FACTS_LIMIT = 400_000
"""Size of all facts as JSON, in bytes. The server refuses a record of more than 1 MiB."""
_BLOCK, _LINE_LIMIT = 4096, 50_000
"""Characters of code that are redacted at once, and of the longest line; a longer line is data."""

SHARE: Final = 0.05
"""Share of one core that the collection uses while the training runs."""
_SLICE = 0.002
"""Seconds of work between two pauses."""
PROCESSOR_LIMIT, TIME_LIMIT = 5.0, 600.0
"""Limits in seconds of processor time and of elapsed time; facts that are missing by then are left out."""
# Seconds between two checks whether the first step is done.
_LOOK = 0.2

Pause = Callable[[], None]


class _Exhausted(Exception):
    """The collection has used up its time."""


class Capture(threading.Thread):
    """Collects the facts about a run after its first step.

    Parameters
    ----------
    code : bool
        Collect the code too.
    begun : callable
        Returns whether the first step is done.
    tell : callable
        Called with the facts.
    """

    def __init__(self, *, code: bool, begun: Callable[[], bool], tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(name="lmvp-capture", daemon=True)
        self._code, self._begun, self._tell = code, begun, tell
        self._hurry, self._done = threading.Event(), threading.Event()
        self._mark = self._used = self._deadline = 0.0

    def finish(self, patience: float) -> None:
        """Work without pauses from now on; return when the facts are passed on, or after `patience` seconds."""
        self._hurry.set()
        if self.is_alive():
            self._done.wait(patience)

    def run(self) -> None:
        """Wait for the first step, then collect the facts and pass them on."""
        while not self._begun() and not self._hurry.wait(_LOOK):
            pass
        self._mark, self._deadline = time.thread_time(), time.monotonic() + TIME_LIMIT
        try:
            self._tell(facts(executed_cells(), capture=self._code, pause=self._pause))
        except Exception:
            import logging

            logging.getLogger("lmvp").debug("the facts about a run", exc_info=True)
        finally:
            self._done.set()

    def _pause(self) -> None:
        """Wait until the work since the last pause is within the share."""
        used = time.thread_time() - self._mark
        if used < _SLICE:
            return
        self._used += used
        if self._used > PROCESSOR_LIMIT or time.monotonic() > self._deadline:
            raise _Exhausted
        self._hurry.wait(used / SHARE - used)
        self._mark = time.thread_time()


def facts(cells: list[str] | None = None, *, capture: bool, pause: Pause = lambda: None) -> dict[str, Any]:
    """Return the facts about the run of this process, as plain JSON.

    Parameters
    ----------
    cells : list of str, optional
        The cells that the notebook has executed.
    capture : bool
        Include the code: the cells, or the script.
    pause : callable
        Called between small pieces of work.
    """
    environment_: dict[str, Any] = {**redact(environment()), **first_facts()}
    parts: dict[str, Callable[[], Any]] = {
        "git": lambda: _git(pause),
        "accelerators": _accelerators,
        "code": lambda: _code(cells, pause=pause) if capture else None,
        "installed": lambda: _installed(pause),
    }
    with suppress(_Exhausted):
        for name, collect in parts.items():
            pause()
            if value := _had(collect):
                environment_[name] = value
    return _bounded(escaped(environment_))


def _had(collect: Callable[[], Any]) -> Any:
    """Return a fact; None if it cannot be collected."""
    try:
        return collect()
    except _Exhausted:
        raise
    except Exception:  # noqa: BLE001 - leave out a fact that cannot be collected
        return None


def first_facts() -> dict[str, Any]:
    """Return the facts that cost no time: they are stored with the first frame of a run."""
    return escaped({"user": user(), "command": _command()})  # type: ignore[no-any-return]


def of_version(*, capture: bool) -> dict[str, Any]:
    """Return the facts about a version, as plain JSON: fewer than about a run, because versions are numerous.

    Parameters
    ----------
    capture : bool
        Include the code: the newest cells of the notebook, or the script.
    """
    found: dict[str, Any] = redact(environment())
    with suppress(Exception):  # leave out a fact that cannot be collected
        if git := _git():
            found["git"] = git
    if capture and (code := _code(executed_cells(), _VERSION_CODE_LIMIT)):
        found["code"] = code
    return _bounded(escaped(found))


def gathering(*, capture: bool) -> Callable[[], dict[str, Any]]:
    """Start `of_version` in a thread; return a function that waits for it for at most a second, as git can be slow.

    The function reads the packages when it is called. Call it after the object was packed: formats import packages.
    """
    gathered: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: gathered.append(of_version(capture=capture)), daemon=True)
    thread.start()

    def result() -> dict[str, Any]:
        thread.join(_SOON)
        now = escaped(redact(environment()))
        return {**gathered[0], "packages": now["packages"]} if gathered else now

    return result


def _bounded(facts: dict[str, Any]) -> dict[str, Any]:
    """Drop the longest facts until the rest is within the limit."""
    while len(msgspec.json.encode(facts)) > _FACTS_LIMIT:
        del facts[max(facts, key=lambda name: len(msgspec.json.encode(facts[name])))]
    return facts


def _command() -> dict[str, Any]:
    arguments = [argument[:_ARGUMENT_LIMIT] for argument in map(str, sys.argv[:_ARGUMENTS_LIMIT])]
    command: dict[str, Any] = {"arguments": redact_command(arguments)}
    with suppress(OSError):
        command["folder"] = redact_text(str(Path.cwd()))
    return command


def _installed(pause: Pause) -> dict[str, str]:
    """Return the versions of all installed packages."""
    from importlib.metadata import distributions

    versions = {}
    for distribution in distributions():
        pause()
        with suppress(Exception):
            versions[str(distribution.metadata["Name"])[:_NAME_LIMIT]] = str(distribution.version)[:_NAME_LIMIT]
        if len(versions) == _PACKAGES_LIMIT:
            break
    return dict(sorted(versions.items()))


def _git(pause: Pause = lambda: None) -> dict[str, Any]:
    lines = _ask_git("status", "--porcelain=v2", "--branch", "--untracked-files=no").splitlines()
    fields = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit = fields.get("branch.oid", "")
    if not commit or commit == "(initial)":
        return {}
    pause()
    branch, remote = fields.get("branch.head", ""), _ask_git("config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "branch": redact_text("HEAD" if branch == "(detached)" else branch),
        "dirty": any(not line.startswith("#") for line in lines),
        **({"remote": redact_text(remote)} if remote else {}),
    }


def _ask_git(*arguments: str) -> str:
    """Return the output of git. It runs in one thread and with the lowest priority."""
    command = ["git", "--no-optional-locks", "-c", "core.preloadIndex=false", "-c", "index.threads=1", *arguments]
    with (
        suppress(OSError, subprocess.SubprocessError, ValueError),
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        ) as process,
    ):
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 19)
        try:
            answer, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return ""
        return answer.strip() if process.returncode == 0 else ""
    return ""


def _accelerators() -> list[str]:
    """Return the names of the accelerators that torch uses.

    This neither imports torch nor initializes CUDA: a process that has initialized CUDA cannot fork workers that use
    it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    if torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ["mps"] if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available() else []


def _code(cells: list[str] | None, limit: int = _CODE_LIMIT, pause: Pause = lambda: None) -> dict[str, Any] | None:
    if cells is not None:
        kept: list[str] = []
        size = 0
        for cell in reversed(cells):
            size += len(cell)
            if size > limit:
                break
            kept.append(_redacted(cell, pause))
        return {"cells": kept[::-1]}
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None or _is_command(Path(script)):
        return None
    with suppress(OSError):
        if Path(script).stat().st_size > 4 * limit:
            return None
        text = Path(script).read_text("utf-8", "surrogateescape")
        if len(text) <= limit:
            return {"script": Path(script).name, "source": _redacted(text, pause)}
    return None


def _is_command(script: Path) -> bool:
    """Return whether a script is the `lmvp` command, which says nothing about the origin of a model."""
    return script.stem == "lmvp" or script == Path(__file__).parents[1] / "__main__.py"


def _redacted(text: str, pause: Pause) -> str:
    """Redact code block by block, with pauses."""
    redacted = []
    for block in blocks(text):
        redacted.append(redact_text(block))
        pause()
    return "".join(redacted)


def blocks(text: str, size: int = _BLOCK) -> Iterator[str]:
    r"""Split code at line ends, but never within a secret; leave out lines that are longer than `_LINE_LIMIT`.

    A secret can span lines in two ways: as a private key, or if the white space around `=` or `:` contains a newline.

    Examples
    --------
    >>> list(blocks("a = 1\npassword =\n  'x'\nb = 2\n", size=5))
    ['a = 1\n', "password =\n  'x'\n", 'b = 2\n']
    """
    block: list[str] = []
    length, in_key = 0, False
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        kept = line if len(line) <= _LINE_LIMIT else _left_out(line)
        block.append(kept)
        length += len(kept)
        if "PRIVATE KEY-----" in line:
            in_key = line.rfind("-----BEGIN ") > line.rfind("-----END ")
        if length >= size and not in_key and _may_cut(line, lines, number + 1):
            yield "".join(block)
            block, length = [], 0
    if block:
        yield "".join(block)


def _left_out(line: str) -> str:
    text = line.rstrip("\r\n")
    return f"# a line of {len(text):,} characters is left out\n"


def _may_cut(line: str, lines: list[str], following: int) -> bool:
    """Return whether the end of this line is not inside an assignment."""
    # An assignment can continue behind `=` or `:` at the end of a line, or at the start of the next line. After a blank
    # line, its context is unknown, so the code is not split there.
    ends, begins = line.rstrip()[-1:], ""
    for after in lines[following : following + 1]:
        begins = after.lstrip()[:1]
    return bool(ends) and ends not in ":=" and (following == len(lines) or (bool(begins) and begins not in ":="))


def executed_cells() -> list[str] | None:
    """Return the source of the cells that IPython has executed in this process; None outside IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return None
    # `In` contains transformed cells, in which a cell of `%%lmvp` or `%%time` is one string literal.
    typed = getattr(getattr(shell, "history_manager", None), "input_hist_raw", None)
    return [str(cell) for cell in typed or shell.user_ns.get("In", []) if str(cell).strip()]


def this_cell() -> str | None:
    """Return an id of the current cell, which is equal when the cell is run again; None outside notebooks."""
    shell = _kernel_shell()
    if shell is None:
        return None
    cell = _parent_message(shell).get("metadata", {}).get("cellId")
    if cell:
        return f"id:{cell}"
    cells = shell.user_ns.get("In", [])
    return f"source:{cells[-1]}" if cells else None


def this_execution() -> int:
    """Return the number of the current execution of a cell; later executions have greater numbers.

    The kernel identifies each execution by the id of the message that requested it. A task or a thread keeps the id of
    the execution that started it.
    """
    shell = _kernel_shell()
    if shell is None:
        return 0
    message = str(_parent_message(shell).get("header", {}).get("msg_id", ""))
    return _executions.setdefault(message, len(_executions) + 1)


_executions: dict[str, int] = {}


def _kernel_shell() -> Any:
    """Return the shell of the notebook; None in a script and in a terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell if hasattr(shell, "kernel") else None


def _parent_message(shell: Any) -> dict[str, Any]:
    """Return the message that requested the execution of the current cell."""
    parent: Any = {}
    with suppress(Exception):
        parent = shell.get_parent() if hasattr(shell, "get_parent") else shell.parent_header
    return parent if isinstance(parent, dict) else {}
