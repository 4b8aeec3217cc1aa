"""The language of `where=`: Python's own comparisons over a run's fields, walked by hand and never run.

`metrics.val_acc > 0.9 and params.lr < 0.01`, `metrics["val/acc"] >= 0.9`, `tags.gpu == "a100"`, `"wren" in name`,
`status in ("running", "stale")`, `created_at > "2026-11-01"`, `params.lr is None`. A comparison with what is not there,
or is of another kind, does not hold.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from lmvp.errors import InvalidArgument
from lmvp.records import decode_float

LENGTH_LIMIT = 2000
_MAPPINGS = ("metrics", "params", "tags", "summary")
_WORDS = ("id", "name", "status", "author", "created_at", "ended_at", "duration", "points", "epoch", "error")
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

Run = Mapping[str, Any]
Test = Callable[[Run], Any]


def parse(text: str) -> Callable[[Run], bool]:
    """Return what tells whether a run matches.

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
    if len(text) > LENGTH_LIMIT:
        raise InvalidArgument(f"a filter of {len(text):,} characters; the limit is {LENGTH_LIMIT:,}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        test = _test(tree.body)
    except SyntaxError as error:
        raise InvalidArgument(f"the filter {_shown(text)} breaks off at column {error.offset}", hint=_HINT) from None
    except (RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"the filter {_shown(text)} cannot be read", hint=_HINT) from None
    return lambda run: bool(test(run))


def _test(node: ast.expr) -> Test:
    """Return what holds or does not."""
    if isinstance(node, ast.BoolOp):
        tests = [_test(value) for value in node.values]
        every = isinstance(node.op, ast.And)
        return lambda run: (all if every else any)(test(run) for test in tests)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _test(node.operand)
        return lambda run: not inner(run)
    if isinstance(node, ast.Compare):
        return _comparison(node)
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        return _value(node)
    raise _refusal(node)


def _comparison(node: ast.Compare) -> Test:
    terms = [_value(each) for each in (node.left, *node.comparators)]
    for op in node.ops:
        if type(op) not in _COMPARE:
            raise _refusal(node)
    compare = [_COMPARE[type(op)] for op in node.ops]

    def holds(run: Run) -> bool:
        values = [term(run) for term in terms]
        return all(_holds(op, a, b) for op, a, b in zip(compare, values, values[1:], strict=False))

    return holds


def _holds(op: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    if left is None and op is operator.ne:
        return False
    try:
        return bool(op(left, right))
    except TypeError:
        return False


def _value(node: ast.expr) -> Test:
    """Return what gives a field of a run, or a constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
        return lambda _, value=node.value: value  # type: ignore[misc]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        if isinstance(node.operand.value, (int, float)):
            return lambda _, value=-node.operand.value: value  # type: ignore[misc]
    elif isinstance(node, (ast.Tuple, ast.List)):
        items = [_value(each) for each in node.elts]
        return lambda run: tuple(item(run) for item in items)
    elif isinstance(node, ast.Name):
        return _word(node)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _entry(node, node.value.id, node.attr)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if isinstance(key, str):
            return _entry(node, node.value.id, key)
    raise _refusal(node)


def _word(node: ast.Name) -> Test:
    if node.id not in _WORDS:
        some = ", ".join([*_WORDS, *(f"{each}.…" for each in _MAPPINGS)])
        raise InvalidArgument(f"{node.id[:60]!r} is nothing that a run has", hint=f"there are {some}")
    return lambda run: run.get(node.id)


def _entry(node: ast.expr, mapping: str, key: str) -> Test:
    if mapping not in _MAPPINGS:
        raise _refusal(node)

    def get(run: Run) -> Any:
        value = (run.get(mapping) or {}).get(key)
        return decode_float(value) if value in _SPECIAL and mapping != "tags" else value

    return get


def _refusal(node: ast.expr) -> InvalidArgument:
    return InvalidArgument(f"{_shown(ast.unparse(node))}, at column {node.col_offset + 1}, is no filter", hint=_HINT)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
