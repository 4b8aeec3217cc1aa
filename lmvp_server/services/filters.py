"""The language of `where=`: Python's own comparisons over the fields of a run or version, walked by hand, never run.

`metrics.val_acc > 0.9 and params.lr < 0.01`, `metrics["val/acc"] >= 0.9`, `tags.gpu == "a100"`, `"wren" in name`,
`status in ("running", "stale")`, `created_at > "2026-11-01"`, `params.lr is None`. A comparison with what is not there,
or is of another kind, does not hold.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lmvp.errors import InvalidArgument
from lmvp.records import decode_float
from lmvp_server import cancellation

LENGTH_LIMIT = 2000
TERMS_LIMIT = 500
"""Fields and constants of a filter."""
WORK_LIMIT = 20_000_000
"""Terms that one filter evaluates over all items. A comparison of long texts counts more: one for each `_LETTERS`. A
comparison of lists and mappings counts their elements, at all depths."""
_LETTERS = 1000
"""Characters of a text that count as one term, and by which `order` sorts."""


@dataclass(frozen=True)
class Fields:
    """What a filter may name: words, and mappings of keys to values."""

    what: str
    words: tuple[str, ...]
    mappings: tuple[str, ...]


RUN = Fields(
    "a run",
    ("id", "name", "status", "author", "created_at", "ended_at", "duration", "points", "epoch", "error"),
    ("metrics", "params", "tags", "summary"),
)
VERSION = Fields(
    "a version",
    ("number", "name", "model", "message", "author", "created_at", "aliases", "size", "sent", "format", "digest", "run",
     "text"),
    ("metrics", "params", "tags"),
)  # fmt: skip
"""`text` is number, message, author and aliases, in small letters."""

_HINT = "as `metrics.val_acc > 0.9 and params.lr < 0.01`; docs/api.md, Filters"
_SPECIAL = ("NaN", "Infinity", "-Infinity")

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}

Item = Mapping[str, Any]
Test = Callable[[Item], Any]


def parse(text: str, fields: Fields = RUN) -> Callable[[Item], bool]:
    """Return what tells whether a run, or a version, matches.

    Raises
    ------
    InvalidArgument
        Pointing at what is not understood.

    Examples
    --------
    >>> match = parse('metrics.acc > 0.9 and params["lr"] < 0.01')
    >>> match({"metrics": {"acc": 0.95}, "params": {"lr": 0.001}}), match({"metrics": {}, "params": {}})
    (True, False)
    """
    reader = _Reader(fields)
    test = _read(text, "filter", reader.test)
    if reader.terms > TERMS_LIMIT:
        raise InvalidArgument(f"the filter has {reader.terms:,} terms; the limit is {TERMS_LIMIT}", hint=_HINT)

    def match(item: Item) -> bool:
        reader.count(reader.terms)
        return bool(test(item))

    return match


def order(text: str, fields: Fields = RUN) -> Callable[[Item], tuple[bool, Any]]:
    """Return what runs, or versions, are to be sorted by: a field, with `-` before it from the greatest to the least.

    What has no such value, or one that is no number or text, comes last.

    Examples
    --------
    >>> key = order('-metrics["val/acc"]', VERSION)
    >>> sorted([{"metrics": {"val/acc": value}} for value in (0.5, None, 0.9)], key=key)[0]
    {'metrics': {'val/acc': 0.9}}
    """
    down = text.startswith("-")
    value = _read(text.removeprefix("-"), "order", _Reader(fields).field)

    def key(item: Item) -> tuple[bool, Any]:
        found = value(item)
        if isinstance(found, str):
            found = found[:_LETTERS]  # each of the many comparisons of a sort reads both texts
            return (False, _Down(found) if down else found)
        if not isinstance(found, (int, float)) or found != found:
            return (True, 0)
        return (False, -found if down else found)

    return lambda item: _of_one_kind(key(item))


def _of_one_kind(key: tuple[bool, Any]) -> tuple[bool, Any]:
    """Let numbers come before texts, which do not compare with them."""
    return key[0], (not isinstance(key[1], (int, float)), key[1])


class _Down(str):
    """A text that sorts the other way round."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _read(text: str, what: str, walk: Callable[[ast.expr], Test]) -> Test:
    if len(text) > LENGTH_LIMIT:
        raise InvalidArgument(f"the {what} has {len(text):,} characters; the limit is {LENGTH_LIMIT:,}")
    try:
        return walk(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise InvalidArgument(f"the {what} {_shown(text)} breaks off at column {error.offset}", hint=_HINT) from None
    except (RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"the {what} {_shown(text)} cannot be read", hint=_HINT) from None


class _Reader:
    """Walks over an expression."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.terms = 0
        self.work = 0

    def test(self, node: ast.expr) -> Test:
        """Return what holds or does not."""
        if isinstance(node, ast.BoolOp):
            tests = [self.test(value) for value in node.values]
            every = isinstance(node.op, ast.And)
            return lambda run: (all if every else any)(test(run) for test in tests)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.test(node.operand)
            return lambda run: not inner(run)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            return self._value(node)
        raise _refusal(node)

    def _comparison(self, node: ast.Compare) -> Test:
        terms = [self._value(each) for each in (node.left, *node.comparators)]
        for op in node.ops:
            if type(op) not in _COMPARE:
                raise _refusal(node)
        compare = [_COMPARE[type(op)] for op in node.ops]

        def holds(run: Item) -> bool:
            values = [term(run) for term in terms]
            self._count_values(values)
            return all(_holds(op, a, b) for op, a, b in zip(compare, values, values[1:], strict=False))

        return holds

    def count(self, work: int) -> None:
        """Count work, and refuse to go on beyond the limit."""
        cancellation.check()
        self.work += work
        if self.work > WORK_LIMIT:
            raise InvalidArgument(
                f"the filter evaluates more than {WORK_LIMIT:,} terms", hint="use fewer terms, or shorter texts"
            )

    def _count_values(self, values: list[Any]) -> None:
        """Count what a comparison of values costs at most: `==` and `in` look at each element once."""
        letters, waiting = 0, [one for one in values if isinstance(one, (str, list, tuple, dict))]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                letters += len(value)
                continue
            self.count(len(value))  # before the walk, which costs as much
            waiting.extend(one for one in value if isinstance(one, (str, list, tuple, dict)))
            if isinstance(value, dict):
                waiting.extend(one for one in value.values() if isinstance(one, (str, list, tuple, dict)))
        self.count(letters // _LETTERS)

    def _value(self, node: ast.expr) -> Test:
        """Return what gives a field of a run, or a constant."""
        self.terms += 1
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
            return lambda _, value=node.value: value  # type: ignore[misc]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            if isinstance(node.operand.value, (int, float)):
                return lambda _, value=-node.operand.value: value  # type: ignore[misc]
        elif isinstance(node, (ast.Tuple, ast.List)):
            items = [self._value(each) for each in node.elts]
            return lambda run: tuple(item(run) for item in items)
        elif isinstance(node, ast.Name):
            return self._word(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self._entry(node, node.value.id, node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if isinstance(key, str):
                return self._entry(node, node.value.id, key)
        raise _refusal(node)

    def _word(self, node: ast.Name) -> Test:
        if node.id not in self._fields.words:
            some = ", ".join([*self._fields.words, *(f"{each}.…" for each in self._fields.mappings)])
            raise InvalidArgument(f"{node.id[:60]!r} is nothing that {self._fields.what} has", hint=f"there are {some}")
        return lambda run: run.get(node.id)

    def _entry(self, node: ast.expr, mapping: str, key: str) -> Test:
        if mapping not in self._fields.mappings:
            raise _refusal(node)

        def get(run: Item) -> Any:
            value = (run.get(mapping) or {}).get(key)
            return decode_float(value) if value in _SPECIAL and mapping != "tags" else value

        return get

    def field(self, node: ast.expr) -> Test:
        """Return what gives a field: nothing else can be sorted by."""
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            return self._value(node)
        raise _refusal(node)


def _holds(op: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    if left is None and op is operator.ne:
        return False
    try:
        return bool(op(left, right))
    except (TypeError, RecursionError):  # of two kinds, or nested as deep as only a stored document can be
        return False


def _refusal(node: ast.expr) -> InvalidArgument:
    return InvalidArgument(f"{_shown(ast.unparse(node))}, at column {node.col_offset + 1}, is no filter", hint=_HINT)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
