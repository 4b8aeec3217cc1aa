"""Run examples/quickstart.ipynb without a browser, on a server of its own, and show what its cells say."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def main() -> int:
    """Return 0 if every cell ran."""
    for name in ("LMVP_URL", "LMVP_TOKEN", "LMVP_PROJECT"):
        os.environ.pop(name, None)  # the demo is on this machine, whatever else is set up
    os.environ["LMVP_HOME"] = os.environ.get("LMVP_DEMO_HOME") or str(ROOT / ".demo")
    os.environ["LMVP_DISPLAY"] = "text"
    start = time.monotonic()
    print(f"running {NOTEBOOK.relative_to(ROOT)} …", flush=True)
    failed = _run()
    _stop()
    if failed:
        print(f"\nthis cell failed: {failed}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - start:.0f} s. Next: `make lab` opens this notebook in JupyterLab,")
    print("with the history as a live table; then push a model of yours: %lmvp push NAME VARIABLE")
    return 0


def _run() -> str:
    """Execute the notebook cell by cell; return what went wrong, or nothing."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.extra_arguments = ["--IPKernelApp.log_level=40"]  # its warnings are not about the demo
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            try:
                _step(client, cell, index)
            except CellExecutionError as error:
                return str(error)
    return ""


def _step(client: Any, cell: Any, index: int) -> None:
    if cell.cell_type == "markdown":
        title = cell.source.partition("\n")[0].lstrip("# ")
        print(f"\n── {title}" if cell.source.startswith("#") else f"   {title}", flush=True)
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
