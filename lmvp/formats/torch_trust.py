"""The classes that the structure of a module may use. A class that is not listed is never imported or called.

A structure is a pickle, and a pickle can run any code. It is read only by `torch.load(weights_only=True)`, which uses
only objects that are declared safe. This module declares them: torch's layers, a few harmless helpers, the hooks that
prune and normalise weights (they compute one tensor of their module from others), and the classes that the caller
trusts. The names are read from the opcodes of the pickle, without running it.
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Collection, Sequence
from typing import Any

from lmvp.errors import DamagedFile, Untrusted
from lmvp.formats import torch_calls
from lmvp.formats.trust import Trust, find, option

_PRUNING = (
    "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "PruningContainer", "RandomStructured",
    "RandomUnstructured",
)  # fmt: skip
_SPECTRAL = "SpectralNorm", "SpectralNormLoadStateDictPreHook", "SpectralNormStateDictHook"
_LAYERS = re.compile(r"torch\.nn\.(modules\..+|utils\.parametri(ze|zations))")
"""The modules in which torch defines its layers."""

_HELPERS = {
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.set",
    "builtins.slice",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.device",
    "torch.nn.modules.module._WrappedHook",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.parameter.Parameter",
    "torch.nn.utils.parametrizations._OrthMaps",
    *(f"torch.nn.utils.prune.{name}" for name in _PRUNING),
    *(f"torch.nn.utils.spectral_norm.{name}" for name in _SPECTRAL),
    "torch.nn.utils.weight_norm.WeightNorm",
    "torch.optim.swa_utils.AveragedModel",
}
# Functions that layers store as attributes, for example `TransformerEncoderLayer.activation`.
_ACTIVATIONS = re.compile(
    r"(celu|elu|gelu|glu|hardshrink|hardsigmoid|hardswish|hardtanh|leaky_relu|log_softmax|logsigmoid|mish|prelu|relu|relu6"
    r"|rrelu|selu|sigmoid|silu|softmax|softmin|softplus|softshrink|softsign|tanh|tanhshrink|threshold)"
)
_DTYPE = re.compile(r"torch\.(bool|(u?int|b?float|complex)\d+(_e\dm\d\w*)?)")


def names_in(structure: bytes) -> set[str]:
    """Return the full names of all objects that the pickle in a torch file refers to, without running it.

    Raises
    ------
    DamagedFile
        If it is not a torch file with a pickle of protocol 2.
    """
    data = program(structure)
    found: set[str] = set()
    try:
        for place, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            # Later protocols have the opcode STACK_GLOBAL, which takes a name from the stack. This scan would miss it.
            if not place and (opcode.name, argument) != ("PROTO", 2):
                raise DamagedFile("the structure of this version is no pickle of protocol 2")
            if opcode.name == "GLOBAL":
                found.add(_full_name(argument))
    except (ValueError, RuntimeError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"the structure of this version is damaged: {error}") from error
    return found


def program(structure: bytes) -> bytes:
    """Return the pickle in a torch file.

    Raises
    ------
    DamagedFile
        If it is not a torch file, is too long, or its pickle is compressed.
    """
    if len(structure) > torch_calls.LIMIT:
        raise DamagedFile(
            f"the structure of this version has {len(structure):,} bytes; the limit is {torch_calls.LIMIT:,}"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(structure)) as archive:
            (entry,) = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError("its pickle is compressed, as torch never does")  # noqa: TRY301
            return archive.read(entry)
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise DamagedFile(f"the structure of this version is damaged: {error}") from error


def alone(pickled: bytes) -> io.BytesIO:
    """Return a torch file with only this pickle.

    torch and Python have different parsers of zip files. In the original file, torch could find another pickle than the
    checked one, or decompress data that was not checked.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", data)
    file.seek(0)
    return file


def check_calls(pickled: bytes, trust: Sequence[str | type]) -> None:
    """Check the calls of a pickle; see `lmvp.formats.torch_calls`."""
    torch_calls.check(pickled, _full_name, Trust.of(trust))


def _full_name(argument: Any) -> str:
    """Map names of Python 2, which pickles of protocol 2 use, to those of Python 3."""
    module, _, name = str(argument).partition(" ")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def allow(names: Collection[str], trust: Sequence[str | type]) -> list[tuple[Any, str]]:
    """Return the objects with these names, for `torch.serialization.safe_globals`.

    Raises
    ------
    Untrusted
        If a name is not trusted. The message lists all of them; nothing has been imported then.
    MissingDependency
        If a trusted name is not found.
    """
    unknown = unknown_in(names, trust)
    if unknown:
        raise Untrusted(
            f"this module needs code that nobody vouched for: {', '.join(unknown)}",
            hint=f"if you trust who pushed it, give {option(unknown)}; "
            "or build the module, and fill it: `--into MODEL`",
        )
    trusted = Trust.of(trust)
    wanted = sorted(name for name in names if not _DTYPE.fullmatch(name))
    # Some safe names are aliases, so the check of `find` that a name is defined there does not apply.
    exact = {*trusted.names, *filter(_is_safe, wanted)}
    return [(trusted.given[n] if n in trusted.given else find(n, n in exact), n) for n in wanted]


def unknown_in(names: Collection[str], trust: Sequence[str | type] = ()) -> list[str]:
    """Return the names that are neither known to be safe nor trusted, sorted."""
    trusted = Trust.of(trust)
    return sorted(name for name in names if name not in trusted and not _is_safe(name))


def _is_safe(name: str) -> bool:
    return name in _HELPERS or bool(_DTYPE.fullmatch(name)) or _is_layer(name) or _is_activation(name)


def _is_activation(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module in {"torch.nn.functional", "torch._C._nn"} and bool(_ACTIVATIONS.fullmatch(last))


def _is_layer(name: str) -> bool:
    """Return whether the name is a layer of torch, in a module that `import torch` has loaded."""
    module, _, last = name.rpartition(".")
    if not _LAYERS.fullmatch(module):
        return False
    found = getattr(sys.modules.get(module), last, None)
    layer = sys.modules["torch"].nn.Module
    return isinstance(found, type) and issubclass(found, layer) and found.__module__ == module
