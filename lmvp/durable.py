"""What it takes for bytes and names to survive a power cut; the same on both sides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def write_all(descriptor: int, data: Any) -> None:
    """Write all of some bytes, however many calls the system makes of it."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
