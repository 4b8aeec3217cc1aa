"""What made a run: git, command, packages, accelerators and, where it is wanted, the code; secrets blotted out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmvp.environment import environment, user
from lmvp.redaction import redact, redact_command, redact_text

_PATIENCE = 5.0
_SOON = 1.0
_CODE_LIMIT = 200_000
_VERSION_CODE_LIMIT = 20_000
"""Characters of code with a version, of which there may be ten thousand."""
_PACKAGES_LIMIT = 1000


def facts(cells: list[str] | None = None, *, capture: bool) -> dict[str, Any]:
    """Return what made the run of this process, as plain JSON. Takes some tenths of a second: not for the loop.

    Parameters
    ----------
    cells : list of str, optional
        The cells that the notebook has executed.
    capture : bool
        Keep the code too: the cells, or the script.
    """
    found: dict[str, Any] = {**environment(), "user": user(), "installed": _installed(), "command": _command()}
    for name, look in (("git", _git), ("accelerators", _accelerators)):
        with suppress(Exception):  # a fact that cannot be had is left out
            if value := look():
                found[name] = value
    if capture and (code := _code(cells)):
        found["code"] = code
    return redact(found)  # type: ignore[no-any-return]


def of_version(*, capture: bool) -> dict[str, Any]:
    """Return what made a version, as plain JSON: less than of a run, since versions are many.

    Parameters
    ----------
    capture : bool
        Keep the code too: the newest cells of the notebook, or the script.
    """
    found: dict[str, Any] = environment()
    with suppress(Exception):  # a fact that cannot be had is left out
        if git := _git():
            found["git"] = git
    if capture and (code := _code(executed_cells(), _VERSION_CODE_LIMIT)):
        found["code"] = code
    return redact(found)  # type: ignore[no-any-return]


def gathering(*, capture: bool) -> Callable[[], dict[str, Any]]:
    """Begin `of_version` beside what else is to be done; return what waits for it, though not long: git may be slow."""
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(of_version(capture=capture)), daemon=True)
    thread.start()

    def result() -> dict[str, Any]:
        thread.join(_SOON)
        return found[0] if found else environment()

    return result


def _command() -> dict[str, Any]:
    command: dict[str, Any] = {"arguments": redact_command(sys.argv)}
    with suppress(OSError):
        command["folder"] = str(Path.cwd())
    return command


def _installed() -> dict[str, str]:
    """Return the versions of all installed packages."""
    from importlib.metadata import distributions

    found = {}
    for distribution in distributions():
        with suppress(Exception):
            found[distribution.metadata["Name"]] = distribution.version
    return dict(sorted(found.items())[:_PACKAGES_LIMIT])


def _git() -> dict[str, Any]:
    lines = _ask_git("status", "--porcelain=v2", "--branch", "--untracked-files=no").splitlines()
    told = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit = told.get("branch.oid", "")
    if not commit or commit == "(initial)":
        return {}
    branch, remote = told.get("branch.head", ""), _ask_git("config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "branch": "HEAD" if branch == "(detached)" else branch,
        "dirty": any(not line.startswith("#") for line in lines),
        **({"remote": redact_text(remote)} if remote else {}),
    }


def _ask_git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else ""
    return ""


def _accelerators() -> list[str]:
    """Return the names of the devices that torch has, if it is loaded: it is not loaded for this."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ["mps"] if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available() else []


def _code(cells: list[str] | None, limit: int = _CODE_LIMIT) -> dict[str, Any] | None:
    if cells is not None:
        kept: list[str] = []
        for cell in reversed(cells):
            if sum(map(len, kept)) + len(cell) > limit:
                break
            kept.insert(0, redact_text(cell))
        return {"cells": kept}
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return None
    with suppress(OSError, UnicodeDecodeError):
        text = Path(script).read_text("utf-8")
        if len(text) <= limit:
            return {"script": Path(script).name, "source": redact_text(text)}
    return None


def executed_cells() -> list[str] | None:
    """Return the cells that IPython has executed in this process; None outside of it."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return None
    return [str(cell) for cell in shell.user_ns.get("In", []) if str(cell).strip()]


def this_cell() -> str | None:
    """Return what tells the cell that runs now from others: the same when it is run again; None outside notebooks."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    parent = getattr(shell, "parent_header", None) or shell.get_parent()
    cell = (parent or {}).get("metadata", {}).get("cellId")
    if cell:
        return f"id:{cell}"
    cells = shell.user_ns.get("In", [])
    return f"source:{cells[-1]}" if cells else None
