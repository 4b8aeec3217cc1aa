"""Format of files and folders: bytes on disk, with the tensors that the files contain.

`lmvp.core.safetensors` and `lmvp.core.containers` find the tensors. Files are read in pieces during the push.
Each read, and a last check before the commit, verifies that size, time and inode of the file did not change. So a
version never mixes two states of a file.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmvp.core import containers, safetensors
from lmvp.core.containers import Elsewhere, Layout, placed
from lmvp.core.manifest_validation import path_problem
from lmvp.errors import FileChanged, InvalidArgument, InvalidName, MissingDependency, NotFound
from lmvp.formats import numpy, tensors
from lmvp.formats.base import Package, PackedFile, Reader, Source

NAMES = ("files",)
_SUFFIX = ".safetensors"
_HUB_FOLDER = re.compile(r"(models|datasets|spaces)--.")
"""The name of a repository's folder in the cache of the Hugging Face Hub."""


def recognises(obj: Any) -> bool:
    """Return whether the object is a path; the path need not exist."""
    return isinstance(obj, (str, os.PathLike))


def pack(obj: Any) -> Package:
    """Turn a file or a folder into a package. Only headers of files with tensors are read.

    Raises
    ------
    NotFound
        If the path does not exist.
    InvalidArgument, InvalidName
        If an entry of the folder cannot be stored: a link to a target outside of the folder, a socket, a name that is
        not Unicode, or an ONNX model whose external data is not in the folder.
    DamagedFile
        If a safetensors file is damaged.
    """
    root = Path(os.fsdecode(obj)).expanduser()
    if not os.path.lexists(root):
        # The shell passes a Path; in Python, a text can be the name of a variable in quotes by mistake.
        hint = "to push an object, give it without quotes" if isinstance(obj, str) else None
        raise NotFound(f"there is no file or folder {str(obj)!r}", hint=hint)
    folder = root.is_dir()
    found = dict(_files_in(root, _real(root)) if folder else [_named(root.name, root)])
    if not found:
        raise InvalidArgument(f"there are no files in the folder {str(root)!r}")
    sources = {path: DiskFile.open(found[path]) for path in sorted(found, key=str.encode)}
    layouts = {path: _layout(path, source) for path, source in sources.items()}
    layouts |= external_layouts(root if folder else root.parent, sources, layouts)
    files = [PackedFile(path, [sources[path]], one.tensors, one.breaks) for path, one in layouts.items()]
    pull = {} if len(files) == 1 and files[0].path.lower().endswith(_SUFFIX) else {"to": True}
    meta = {"kind": "folder" if folder else "file"}
    return Package("files", files, meta, finish=lambda: _check(sources.values()), pull=pull)


def _check(sources: Iterable[DiskFile]) -> None:
    for source in sources:
        source.check()


def _layout(path: str, source: DiskFile) -> containers.Layout:
    if path.lower().endswith(_SUFFIX):
        return containers.Layout(tuple(safetensors.parse(source.read, source.size, path)))
    return containers.layout(path, source.read, source.size)


def _files_in(folder: Path, root: Path, above: str = "", parents: tuple[Path, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder, hidden ones too, by their path in it; follow links inside of `root`."""
    here = _real(folder)
    if here in parents:
        raise InvalidArgument(f"the link {str(folder)!r} leads back to a folder that it lies in")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidArgument(f"cannot read the folder {str(folder)!r}: {error.strerror}") from error
    for entry in entries:
        path, place = _named(above + entry.name, Path(entry.path))
        if entry.is_symlink():
            _check_link(place, root)
        if place.is_dir():
            yield from _files_in(place, root, f"{path}/", (*parents, here))
        else:
            yield path, place


def _real(path: Path) -> Path:
    """Resolve all links; `Path.resolve` raises for a link that refers to itself."""
    return Path(os.path.realpath(path))


def _named(path: str, place: Path) -> tuple[str, Path]:
    """Check the path that a file gets in the version, and return it with its place on disk."""
    if (problem := path_problem(path)) is not None:
        raise InvalidName(f"the path {path!r} {problem}, so it cannot be kept", hint="rename it")
    return path, place


def _check_link(link: Path, root: Path) -> None:
    target = _real(link)
    if not target.is_relative_to(root) and not _is_blob(target, root):
        raise InvalidArgument(
            f"the link {str(link)!r} leads out of the folder, to {str(target)!r}",
            hint="links are followed inside the folder that is pushed only; put the file itself there",
        )


def _is_blob(target: Path, root: Path) -> bool:
    """Return whether a link of a Hugging Face Hub snapshot points to a blob of the same repository.

    The Hub's cache stores the files of all revisions once, under `blobs/`, and has a folder of links for each revision:
    `models--org--name/snapshots/<revision>/config.json -> ../../blobs/<digest>`.
    """
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and _HUB_FOLDER.match(folder.parent.parent.name):
            return target.parent == folder.parent.parent / "blobs"
    return False


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A source over a file on disk; `mark` identifies the state in which it was packed."""

    path: Path
    size: int
    mark: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> DiskFile:
        """Return the source of a file, after a check that it is a regular file and can be read."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgument(f"{str(path)!r} is no regular file but a {_kind(status.st_mode)}")
            with path.open("rb", buffering=0) as file:
                return cls(path, status.st_size, _mark(os.fstat(file.fileno())))
        except OSError as error:
            raise InvalidArgument(f"cannot read {str(path)!r}: {error.strerror}") from error

    def read(self, offset: int, size: int) -> memoryview:
        """Read from the disk.

        Raises
        ------
        FileChanged
            If the file changed since it was packed.
        """
        buffer = memoryview(bytearray(size))
        try:
            # Opened for each read: a folder can have more files than a process can have descriptors. The status is that
            # of the open descriptor, because another file can replace the path at any time.
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                count = _read_into(file, offset, buffer)
        except OSError as error:
            raise self._vanished(error) from error
        self._compare(status)
        if count < size:
            raise FileChanged(f"{str(self.path)!r} became shorter while it was pushed", hint=_HINT)
        return buffer

    def check(self) -> None:
        """Raise `FileChanged` if the file changed since it was packed."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._vanished(error) from error
        self._compare(status)

    def _compare(self, status: os.stat_result) -> None:
        if _mark(status) != self.mark:
            raise FileChanged(f"{str(self.path)!r} changed while it was pushed", hint=_HINT)

    def _vanished(self, error: OSError) -> FileChanged:
        return FileChanged(f"{str(self.path)!r} vanished while it was pushed: {error.strerror}", hint=_HINT)


def _read_into(file: io.RawIOBase, offset: int, buffer: memoryview) -> int:
    """Fill the buffer from the file and return the number of bytes read."""
    file.seek(offset)
    # One `readinto` reads at most about 2 GiB on Linux, and can return less.
    filled = 0
    while filled < len(buffer) and (count := file.readinto(buffer[filled:])):
        filled += count
    return filled


_HINT = "nothing was published; push again when nothing writes to it"


def _mark(status: os.stat_result) -> tuple[int, ...]:
    """Return size, modification time, inode and device, which change when a file is written or replaced."""
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def _kind(mode: int) -> str:
    tests = {"named pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK, "device": stat.S_ISCHR, "folder": stat.S_ISDIR}
    return next((name for name, test in tests.items() if test(mode)), "device")


def unpack(reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:  # noqa: ARG001 - no code here
    """Return the tensors of a single safetensors file as a dict.

    `into=` is handled by the formats of tensors.

    Raises
    ------
    InvalidArgument
        If the version is a folder or another file: it does not define an object.
    """
    files = reader.manifest.files
    if len(files) != 1 or not files[0].path.lower().endswith(_SUFFIX):
        kind = "a folder" if reader.manifest.meta.get("kind") == "folder" else f"the file {files[0].path!r}"
        filled = "; `--into MODEL` fills a model with its tensors" if reader.manifest.tensors else ""
        raise InvalidArgument(f"this version is {kind}, not an object", hint=f"`--to folder/` gives the files{filled}")
    stored = tensors.stored(reader.manifest)
    # Use torch, not ml_dtypes, for dtypes that numpy lacks: the type of the result must not depend on whether JAX has
    # installed ml_dtypes.
    plain = all(tensor.dtype in numpy.PLAIN for tensor in stored.values())
    return numpy.load(reader, stored) if plain else _as_torch(reader, stored)


def _as_torch(reader: Reader, stored: dict[str, tensors.Stored]) -> dict[str, Any]:
    try:
        from lmvp.formats import torch_tensors

        return torch_tensors.load(reader, stored)
    except ImportError as error:
        strange = next(tensor for tensor in stored.values() if tensor.dtype not in numpy.PLAIN)
        raise MissingDependency(
            f"{strange.name!r} is {strange.dtype}, which numpy does not have",
            hint="pip install torch; or `--to folder/` gives the files",
        ) from error


def external_layouts(folder: Path, sources: Mapping[str, Source], known: Mapping[str, Layout]) -> dict[str, Layout]:
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
        raise InvalidArgument(f"{model!r} keeps weights in {location!r}, outside of its folder", hint=_EXTERNAL_HINT)
    target = posixpath.join(posixpath.dirname(model), inner)
    # `Path.is_file` raises for a name that is too long; `os.path.isfile` returns False.
    if target not in sources and os.path.isfile(folder / target):  # noqa: PTH113
        raise InvalidArgument(
            f"{model!r} keeps weights in {location!r}, which would stay behind",
            hint=f"push the folder {str(folder)!r}",
        )
    return target


_EXTERNAL_HINT = "onnx.save_model(onnx.load(path), path, save_as_external_data=True) puts them beside it"
