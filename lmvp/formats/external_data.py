"""ONNX models whose weights lie in files beside them: those are tensors too, and none may be left behind."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

from lmvp.errors import InvalidArgument
from lmvp.formats.base import Source
from lmvp.storage import containers
from lmvp.storage.containers import Elsewhere, Layout, placed


def layouts(folder: Path, sources: Mapping[str, Source], known: Mapping[str, Layout]) -> dict[str, Layout]:
    """Return the layouts of the files that hold the weights of ONNX models.

    Parameters
    ----------
    folder : Path
        Where the files lie, for the messages.
    known : mapping
        Layouts by path; a file that has tensors of its own keeps its own.

    Raises
    ------
    InvalidArgument
        If a model's weights lie outside of the files that are pushed: it could not be loaded where it is pulled.
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
    """Return the path of a file that a model names, as the files are named that are pushed."""
    inner = posixpath.normpath(location)
    if inner.startswith(("/", "../")) or inner == ".." or "\\" in location or ":" in location:
        raise InvalidArgument(f"{model!r} keeps weights in {location!r}, outside of its folder", hint=_HINT)
    target = posixpath.join(posixpath.dirname(model), inner)
    if target not in sources and os.path.isfile(folder / target):  # noqa: PTH113 - at peace with any name
        raise InvalidArgument(
            f"{model!r} keeps weights in {location!r}, which would stay behind",
            hint=f"push the folder {str(folder)!r}",
        )
    return target


_HINT = "onnx.save_model(onnx.load(path), path, save_as_external_data=True) puts them beside it"
