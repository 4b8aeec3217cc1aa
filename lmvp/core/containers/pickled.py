"""Static reader of pickles: it creates no instance of a class, calls no function and imports nothing.

The opcodes are parsed with `pickletools`. Globals become names, and calls become `Node` objects that are not executed.
So the names of the tensors in torch's files are found without unpickling.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmvp.core.containers.base import Broken

LIMIT = 16 << 20
"""Maximum bytes of a pickle that is parsed."""

_STEPS = 3_000_000
_NAME_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function: `torch._utils._rebuild_tensor_v2`."""

    name: str


@dataclass(slots=True, eq=False)
class Node:
    """A call that is not executed. `state`, `items` and `elements` are data that would be added to its result."""

    function: Any
    args: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Persistent:
    """A reference to an object outside of the pickle, by its persistent id."""

    id: Any


def read(data: bytes) -> Any:
    r"""Parse a pickle to plain objects and nodes.

    Raises
    ------
    Broken
        If it is not a pickle, exceeds a limit, or has an opcode that torch does not write.

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
            warnings.simplefilter("ignore", DeprecationWarning)  # about invalid escapes in strings of Python 2
            for steps, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if steps > _STEPS:
                    raise Broken("a pickle of that many steps")
                machine.step(opcode.name, argument)
        return machine.stack.pop()
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise Broken(f"no pickle that could be read: {error}") from error


class _Mark:
    """The start of a sequence of arguments on the stack."""


class Machine:
    """A pickle machine: a stack and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute an opcode."""
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name]())
        else:
            _STEPS_BY_NAME[name](self, argument)

    def pop(self) -> Any:
        """Pop a value; raise `Broken` at a mark."""
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise Broken("a mark where a value should be")
        return value

    def run(self) -> list[Any]:
        """Pop all values above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[index], _Mark):
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise Broken("no mark")

    def last(self, count: int) -> list[Any]:
        """Pop `count` values; return them in the order in which they were pushed."""
        return [self.pop() for _ in range(count)][::-1]

    def put(self, key: Any) -> None:
        """Store the top of the stack in the memo."""
        self.memo[int(key)] = self.stack[-1]

    def call(self, _: Any = None) -> None:
        """Replace function and arguments by a node."""
        function, args = self.last(2)
        self.stack.append(Node(function, args))

    def stack_global(self, _: Any) -> None:
        """Replace module and name by a global."""
        module, name = self.last(2)
        if type(module) is not str or type(name) is not str or len(module) + len(name) > _NAME_LIMIT:
            raise Broken("a class without a name")
        self.stack.append(Global(f"{module}.{name}"))

    def build(self, _: Any) -> None:
        """Set the state of a node."""
        state = self.pop()
        if isinstance(self.stack[-1], Node):
            self.stack[-1].state = state

    def extend(self, values: list[Any]) -> None:
        """Add elements to a list or node."""
        target = self.stack[-1]
        (target.elements if isinstance(target, Node) else target).extend(values)

    def update(self, values: list[Any]) -> None:
        """Add items to a dict or node. Keys other than short strings and integers are skipped: they name no tensor."""
        target = self.stack[-1]
        items = target.items if isinstance(target, Node) else target
        items.update({k: v for k, v in zip(values[::2], values[1::2], strict=True) if _is_key(k)})

    def make_dict(self, values: list[Any]) -> None:
        """Push a new dict with these items."""
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
    "EMPTY_SET": list,  # elements can be unhashable nodes here
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
