"""What a pickle would build, told without building it: no class is found, no function called, nothing imported.

The opcodes are read with `pickletools`; globals are names, calls are `Node`s that were never made. So the names of
tensors in torch's files are known without unpickling anything.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmvp.storage.containers.base import Broken

LIMIT = 16 << 20
"""Bytes of a pickle that is looked at."""

_STEPS = 3_000_000
_NAME_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Global:
    """A class or a function: `torch._utils._rebuild_tensor_v2`."""

    name: str


@dataclass(slots=True, eq=False)
class Node:
    """A call: `function` is what would be called. `state`, `items` and `elements` would be added to the result."""

    function: Any
    args: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Persistent:
    """What lies outside of the pickle, by what it calls it."""

    id: Any


def read(data: bytes) -> Any:
    r"""Return what the pickle stands for.

    Raises
    ------
    Broken
        If it is none, or does what torch's do not.

    Examples
    --------
    >>> import pickle
    >>> read(pickle.dumps({"a": [1, (2.0, None)]}))
    {'a': [1, (2.0, None)]}
    >>> read(b"cos\nsystem\n(S'true'\ntR.")
    Node(function=Global(name='os.system'), args=('true',), state=None, items={}, elements=[])
    """
    if len(data) > LIMIT:
        raise Broken("a pickle as long as that")
    machine = Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about odd texts of Python 2
            for steps, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if steps > _STEPS:
                    raise Broken("a pickle of that many steps")
                machine.step(opcode.name, argument)
        return machine.stack.pop()
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise Broken(f"no pickle that could be read: {error}") from error


class _Mark:
    """Where a run of arguments begins."""


class Machine:
    """A stack and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what an opcode says."""
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name]())
        else:
            _STEPS_BY_NAME[name](self, argument)

    def pop(self) -> Any:
        """Take one value."""
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise Broken("a mark where a value should be")
        return value

    def run(self) -> list[Any]:
        """Take all values down to the last mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[index], _Mark):
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise Broken("no mark")

    def last(self, count: int) -> list[Any]:
        """Take some values."""
        return [self.pop() for _ in range(count)][::-1]

    def put(self, key: Any) -> None:
        """Remember the top of the stack."""
        self.memo[int(key)] = self.stack[-1]

    def call(self, _: Any = None) -> None:
        """Stand for a call."""
        function, args = self.last(2)
        self.stack.append(Node(function, args))

    def stack_global(self, _: Any) -> None:
        """Stand for a class by module and name."""
        module, name = self.last(2)
        if type(module) is not str or type(name) is not str or len(module) + len(name) > _NAME_LIMIT:
            raise Broken("a class without a name")
        self.stack.append(Global(f"{module}.{name}"))

    def build(self, _: Any) -> None:
        """Add a state."""
        state = self.pop()
        if isinstance(self.stack[-1], Node):
            self.stack[-1].state = state

    def extend(self, values: list[Any]) -> None:
        """Add elements."""
        target = self.stack[-1]
        (target.elements if isinstance(target, Node) else target).extend(values)

    def update(self, values: list[Any]) -> None:
        """Add keys and values; keys that are neither short texts nor numbers are passed over, they name no tensor."""
        target = self.stack[-1]
        items = target.items if isinstance(target, Node) else target
        items.update({k: v for k, v in zip(values[::2], values[1::2], strict=True) if _is_key(k)})

    def make_dict(self, values: list[Any]) -> None:
        """Start a dict."""
        self.stack.append({})
        self.update(values)


def _is_key(key: Any) -> bool:
    return (type(key) is str and len(key) <= _NAME_LIMIT) or (type(key) is int and abs(key) < 1 << 64)


_CONSTANTS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_VALUES: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "MARK": _Mark,
}
_STEPS_BY_NAME: Mapping[str, Callable[[Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _m, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, key: m.stack.append(m.memo[int(key)])),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.run(),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.run())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.last(3))),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.stack.append(m.run())),
    "DICT": lambda m, _: m.make_dict(m.run()),
    "APPEND": lambda m, _: m.extend(m.last(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.extend(m.run())),
    "SETITEM": lambda m, _: m.update(m.last(2)),
    "SETITEMS": lambda m, _: m.update(m.run()),
    "GLOBAL": lambda m, name: m.stack.append(Global(name.replace(" ", "."))),
    "STACK_GLOBAL": Machine.stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.call),
    "BUILD": Machine.build,
    "BINPERSID": lambda m, _: m.stack.append(Persistent(m.pop())),
}
