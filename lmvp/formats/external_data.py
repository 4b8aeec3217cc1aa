"""External data of ONNX models: weights that are stored in files beside the model.

Their tensors are part of the version, and a push without these files is refused.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

from lmvp.core import containers
from lmvp.core.containers import Elsewhere, Layout, placed
from lmvp.errors import InvalidArgument
from lmvp.formats.base import Source


def layouts(folder: Path, sources: Mapping[str, Source], known: Mapping[str, Layout]) -> dict[str, Layout]:
    """Return the layouts of the files with external data of ONNX models.

    Parameters
    ----------
    folder : Path
        The folder of the files, for messages.
    sources : mapping
        The files by path.
    known : mapping
        The layouts of the files by path. A file that contains tensors keeps its layout.

    Raises
    ------
    InvalidArgument
        If a model's weights are outside of the pushed files. It could not be loaded after a pull.
    """
    found: dict[str, list[Elsewhere]] = {}
    for path, source in sources.items():
        for tensor in containers.elsewhere(path, source.read, source.size):
            found.setdefault(_target(folder, path, tensor.path, sources), []).append(tensor)
    return {
        path: Layout(placed([tensor.span for tensor in tensors], sources[path].size), known[path].breaks)
        for path, tensors in found.items()
        if path in sources and not known[path].tensors
    }


def _target(folder: Path, model: str, location: str, sources: Mapping[str, Source]) -> str:
    """Return the path, in the version, of a file that a model names relative to its folder."""
    inner = posixpath.normpath(location)
    # Checked on all systems, also for Windows paths: the version must be loadable on another machine.
    if inner.startswith(("/", "../")) or inner == ".." or "\\" in location or ":" in location:
        raise InvalidArgument(f"{model!r} keeps weights in {location!r}, outside of its folder", hint=_HINT)
    target = posixpath.join(posixpath.dirname(model), inner)
    # `Path.is_file` raises for a name that is too long; `os.path.isfile` returns False.
    if target not in sources and os.path.isfile(folder / target):  # noqa: PTH113
        raise InvalidArgument(
            f"{model!r} keeps weights in {location!r}, which would stay behind",
            hint=f"push the folder {str(folder)!r}",
        )
    return target


_HINT = "onnx.save_model(onnx.load(path), path, save_as_external_data=True) puts them beside it"
