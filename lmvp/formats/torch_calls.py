"""Check of the calls in the structure of a module, on the opcodes, before torch runs them.

`torch.load(weights_only=True)` calls safe names with any arguments. `bytearray(10**11)` and `torch.nn.Linear(10**5,
10**5)` use safe names, and exhaust the memory. So each call must be one that `dump` writes, and the total size of the
objects that calls build must be in proportion to the size of the structure.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from lmvp.core.containers.base import Broken
from lmvp.core.containers.pickled import Global, Machine, Node
from lmvp.errors import DamagedFile
from lmvp.formats.trust import Trust

LIMIT = 64 << 20
"""Largest structure, in bytes."""

# Greatest number of opcodes.
_STEPS = 20_000_000
_SPENT = 1 << 20
"""Items and bytes that calls may build in addition to `_SHARE` times the size of the structure."""

_SHARE = 16
_TUPLE = 1 << 20
"""Greatest number of items of a tuple, counting nested tuples as often as they occur: hashing visits all of them."""

_LAYERS = 4096
"""Greatest number of layers of an RNN: torch builds a list of names for each when it restores the state."""

_ATOMS = (str, int, float, bool, type(None))
_LATIN = ("latin1", "latin-1")


def check(program: bytes, name_of: Callable[[str], str], trusted: Trust) -> None:
    """Check all calls of a pickle.

    Parameters
    ----------
    name_of : callable
        Returns the full name for the argument of a `GLOBAL` opcode.
    trusted : Trust
        The classes that the caller of `download` trusts. Any arguments are accepted for them.

    Raises
    ------
    DamagedFile
        If a call differs from those that `dump` writes. The message names it.
    """
    machine = _Calls(name_of, trusted, _SPENT + _SHARE * len(program))
    try:
        for opcode, argument, _ in pickletools.genops(program):
            machine.step(opcode.name, argument)
    except (Broken, AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise DamagedFile(f"the structure of this version is damaged: {error}") from error


class _Calls(Machine):
    """A pickle machine with stack and memo that calls nothing, and checks each call."""

    def __init__(self, name_of: Callable[[str], str], trusted: Trust, budget: int) -> None:
        super().__init__()
        self._name_of, self._trusted, self._budget, self._steps = name_of, trusted, budget, _STEPS
        # By id. The reference to each tuple prevents Python from using an id again.
        self._tuples: dict[int, tuple[int, tuple[Any, ...]]] = {}

    def step(self, name: str, argument: Any) -> None:
        """Check an opcode, then execute it symbolically."""
        self._steps -= 1
        if self._steps < 0:
            raise Broken(f"it has more than {_STEPS:,} steps")
        if name == "GLOBAL":
            self.stack.append(Global(self._name_of(argument)))
            return
        if name in {"REDUCE", "NEWOBJ"}:
            self._check_call(*self.stack[-2:], new=name == "NEWOBJ")
        elif name == "BUILD":
            self._check_state(*self.stack[-2:])
        elif name not in _OPCODES:
            raise Broken(f"it has an opcode {name}, which torch does not write here")
        super().step(name, argument)
        if name.startswith("TUPLE"):
            self._weigh(self.stack[-1])

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise Broken("it builds far more than it holds")

    def _weigh(self, value: tuple[Any, ...]) -> None:
        weight = 1 + sum(self._tuples[id(one)][0] if id(one) in self._tuples else 1 for one in value)
        if weight > _TUPLE:
            raise Broken("it has a tuple of tuples of that many items")
        self._tuples[id(value)] = weight, value

    def _check_call(self, function: Any, args: Any, *, new: bool) -> None:
        name = function.name if isinstance(function, Global) else ""
        if name in self._trusted:
            return
        if not name or not isinstance(args, tuple):
            raise Broken("it calls something that has no name")
        if new:
            fits = not args
        else:
            check = _CALLS.get(name)
            fits = check is not None and check(args)
        if not fits:
            raise Broken(f"it calls {name} as no structure does")
        for one in args:
            self._spend(_length(one))

    def _check_state(self, target: Any, state: Any) -> None:
        self._spend(_length(state))
        function = target.function if isinstance(target, Node) else None
        if (
            isinstance(function, Global)
            and function.name.startswith("torch.nn.modules.rnn.")
            and isinstance(state, dict)
        ):
            layers = state.get("num_layers", 0)
            if not isinstance(layers, int) or layers > _LAYERS:
                raise Broken(f"it has an RNN of {str(layers)[:40]} layers")


def _length(value: Any) -> int:
    """Return the number of items or bytes that are copied if a value is an argument."""
    if isinstance(value, Node) and _is_bytes(value):
        return len(value.args[0]) if value.args else 1
    if isinstance(value, Node):
        return 1 + len(value.items) + len(value.elements)
    if isinstance(value, tuple):
        return 1 + sum(len(one) if isinstance(one, (dict, list, str)) else 1 for one in value)
    return len(value) if isinstance(value, (str, bytes, list, dict)) else 1


def _atoms(args: tuple[Any, ...]) -> bool:
    return all(isinstance(one, _ATOMS) for one in args)


def _text(args: tuple[Any, ...]) -> bool:
    """Return whether the arguments are a text and its codec, as protocol 2 writes bytes, and not a length."""
    return not args or (len(args) == 2 and isinstance(args[0], str) and args[1] in _LATIN)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, Node) and value.function == Global("_codecs.encode")


def _bytes(args: tuple[Any, ...]) -> bool:
    """Return whether the arguments are a text and its codec, or bytes from such a call, and not a length."""
    return _text(args) or (len(args) == 1 and _is_bytes(args[0]))


def _container(args: tuple[Any, ...]) -> bool:
    return not args or (len(args) == 1 and isinstance(args[0], (list, tuple, dict)))


def _lengths(args: tuple[Any, ...]) -> bool:
    return len(args) == 1 and isinstance(args[0], (list, tuple)) and all(type(one) is int for one in args[0])


_CALLS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "_codecs.encode": _text,
    "builtins.bytearray": _bytes,
    "builtins.complex": _atoms,
    "builtins.frozenset": _container,
    "builtins.set": _container,
    "builtins.slice": _atoms,
    "collections.Counter": _container,
    "collections.OrderedDict": _container,
    "torch.Size": _lengths,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda args: len(args) == 4,
    "torch._utils._rebuild_parameter": lambda args: len(args) == 3,
    "torch._utils._rebuild_parameter_with_state": lambda args: len(args) == 4,
    "torch.device": _atoms,
    "torch.nn.utils.parametrizations._OrthMaps": _atoms,
}
"""The functions that may be called, with a check of their arguments. Classes of layers are never called: `NEWOBJ`
creates an instance without running the constructor.
"""

_OPCODES = frozenset(
    {
        *(
            "PROTO",
            "STOP",
            "MARK",
            "NONE",
            "NEWTRUE",
            "NEWFALSE",
            "EMPTY_LIST",
            "EMPTY_DICT",
            "EMPTY_TUPLE",
            "EMPTY_SET",
        ),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"),
    }
)
"""The other opcodes of protocol 2 that Python writes and torch reads. `BINPERSID` is missing, because a structure
contains no storages.
"""
