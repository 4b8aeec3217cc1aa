"""Execute examples/quickstart.ipynb without a browser, on a separate server, and print the outputs of its cells."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def main() -> int:
    """Run the demo; return 0 if every cell succeeded."""
    for name in ("LMVP_URL", "LMVP_TOKEN", "LMVP_PROJECT"):
        os.environ.pop(name, None)  # the demo uses a local server, even if another one is configured
    home = Path(os.environ.get("LMVP_DEMO_HOME") or ROOT / ".demo")
    os.environ["LMVP_HOME"] = str(home)
    os.environ["LMVP_DISPLAY"] = "text"
    start = time.monotonic()
    print(f"running {NOTEBOOK.relative_to(ROOT)} …", flush=True)
    failed = _run()
    _stop()
    if failed:
        print(f"\nthis cell failed: {failed}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - start:.0f} s. Next steps:\n{_next_steps(home)}")
    return 0


def _next_steps(home: Path) -> str:
    """Return commands that the user can run next in the folder of the checkout."""
    program = Path(sys.executable).parent / "lmvp"
    steps = [
        (f"LMVP_HOME={_shown(home)} {_shown(program)} open digits/mlp", "these versions in the web console"),
        ("make lab", "this notebook in JupyterLab, with live curves and tables"),
        (
            f"source {_shown(program.parent / 'activate')}",
            "the command `lmvp` in this shell; README.md goes on from here",
        ),
    ]
    width = max(len(command) for command, _ in steps)
    return "\n".join(f"  {command:<{width}}  # {what}" for command, what in steps)


def _shown(path: Path) -> str:
    """Return a path quoted for a shell, relative to the checkout if it is inside."""
    inside = path.is_relative_to(ROOT)
    return shlex.quote(str(path.relative_to(ROOT) if inside else path))


def _run() -> str:
    """Execute the notebook cell by cell; return the error of a cell, or an empty text."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.extra_arguments = ["--IPKernelApp.log_level=40"]  # the kernel's warnings do not concern the demo
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            try:
                _step(client, cell, index)
            except CellExecutionError as error:
                return str(error)
    return ""


def _step(client: Any, cell: Any, index: int) -> None:
    if cell.cell_type == "markdown":
        first, *lines = cell.source.splitlines()
        print(f"\n── {first.lstrip('# ')}" if first.startswith("#") else f"   {first}", flush=True)
        for line in filter(None, lines):
            print(f"   {line}", flush=True)
        return
    client.execute_cell(cell, index)
    for output in cell.outputs:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        for line in text.rstrip().splitlines():
            print(f"   {line}", flush=True)


def _stop() -> None:
    from lmvp import local

    local.stop()


if __name__ == "__main__":
    sys.exit(main())
