"""What made a run: git, command, packages, accelerators and, where it is wanted, the code; secrets blotted out."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmvp.environment import environment, user
from lmvp.redaction import redact, redact_command, redact_text

_PATIENCE = 5.0
_CODE_LIMIT = 200_000
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
    commit = _ask_git("rev-parse", "HEAD")
    if not commit:
        return {}
    remote = _ask_git("config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "branch": _ask_git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(_ask_git("status", "--porcelain", "--untracked-files=no")),
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


def _code(cells: list[str] | None) -> dict[str, Any] | None:
    if cells is not None:
        kept: list[str] = []
        for cell in reversed(cells):
            if sum(map(len, kept)) + len(cell) > _CODE_LIMIT:
                break
            kept.insert(0, redact_text(cell))
        return {"cells": kept}
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return None
    with suppress(OSError, UnicodeDecodeError):
        text = Path(script).read_text("utf-8")
        if len(text) <= _CODE_LIMIT:
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
