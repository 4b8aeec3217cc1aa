"""`python -m benchmarks [name …]`: run all or some benchmarks on a separate server and print a table."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ALL = ("footprint", "transfer", "versions", "ratio", "links", "memory", "metrics", "access", "notebook", "console")


def main(names: list[str]) -> None:
    home = tempfile.mkdtemp(prefix="lmvp-bench-")
    for name in ("LMVP_URL", "LMVP_TOKEN", "LMVP_PROJECT"):
        os.environ.pop(name, None)
    os.environ["LMVP_HOME"] = home
    from benchmarks.measure import report
    from lmvp import local

    try:
        rows = [row for name in names or ALL for row in import_module(f"benchmarks.{name}").run()]
    finally:
        local.stop()
        shutil.rmtree(home, ignore_errors=True)
    report(rows, Path(__file__).parent / "results")


if __name__ == "__main__":
    main(sys.argv[1:])
