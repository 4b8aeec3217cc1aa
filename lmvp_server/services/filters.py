"""The language of filters (`where=`) and acceptance rules, which compare fields of a run or a version.

Examples are `metrics.val/acc > 0.9 and params.lr < 0.01`, `tags.gpu == "a100"`, `"wren" in name`,
`status in ("running", "stale")`, `created_at > "2026-11-01"`, `params.lr is None`, and in a rule also
`val/acc >= @production`. A comparison with a missing field, or between different types, is false.

Python's parser parses the text, and `_Reader` walks the tree. Nothing is executed. A key such as `val/top-1` keeps its
slashes and dashes, which Python would parse as arithmetic. `_Reader.masked` hides it from the parser: it replaces each
character of a key by an underscore, so that the columns in error messages stay correct.
"""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.core.schemas import decode_float
from lmvp.errors import InvalidArgument
from lmvp_server.process import cancellation

LENGTH_LIMIT = 2000
"""Characters of a filter, rule or order."""

TERMS_LIMIT = 500
"""Fields and constants of a filter."""

WORK_LIMIT = 20_000_000
"""Terms that one filter evaluates over all items, about two seconds of processor time. A comparison of lists and
mappings counts their elements at all depths. A comparison of texts counts the characters that it can compare, as one
term for each `_LETTERS` of them."""

_LETTERS = 100
"""Characters of a comparison that count as one term. In the slowest case, they take about as long as a term."""

_NEEDLE = range(8, 101)
"""Characters that `in` counts for each position in the longer text: the length of the shorter text, within this range.
A position costs 10 ns even for "aab", and for long texts Python's search is linear (`Objects/stringlib/fastsearch.h`).
"""

_SORTED = 1000
"""Characters of a text that `order` compares."""


@dataclass(frozen=True)
class Fields:
    """The fields that a filter can name.

    Attributes
    ----------
    what : str
        The object, for error messages.
    words : tuple of str
        Fields with one value.
    mappings : tuple of str
        Fields that map keys to values, such as `metrics`.
    rule : bool
        Whether this is a rule: a bare name is a metric, and `@alias` is the same field of another version.
    """

    what: str
    words: tuple[str, ...]
    mappings: tuple[str, ...]
    rule: bool = False


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
"""The fields of a version. `text` is the name, message, author and aliases in lower case."""
CONTRIBUTION = Fields("a contribution", tuple(w for w in VERSION.words if w != "text"), VERSION.mappings, rule=True)

_HINT = "as `metrics.val/acc > 0.9 and params.lr < 0.01`; docs/api.md, Filters"
_PART = r"[^\s()\[\],<>=!\"']"
# A string, an alias, a word, a number, or one other character. A key can contain dots, slashes and dashes, but no
# brackets, quotes or operators.
_TOKEN = re.compile(
    rf"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<alias>@{_PART}+)|(?P<word>[^\W\d]{_PART}*)|[\d.]{_PART}*|."""
)
_CALLED = re.compile(r"\s*[\[(\"']")  # after a word: a subscript, a call or a string prefix, which stays for the parser
_BREAKS = re.compile(r"[\r\n\f\v\u2028\u2029]")
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
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
_SEARCHES = _COMPARE[ast.In], _COMPARE[ast.NotIn]

Item = Mapping[str, Any]
Test = Callable[[Item], Any]


def parse(text: str, fields: Fields = RUN) -> Callable[[Item], bool]:
    """Compile a filter to a predicate of runs or versions.

    The predicate raises `InvalidArgument` when all its calls together exceed `WORK_LIMIT`.

    Parameters
    ----------
    text : str
        The filter.
    fields : Fields, default RUN
        The fields that it can name.

    Returns
    -------
    callable
        Returns whether an item matches.

    Raises
    ------
    InvalidArgument
        If the filter is not valid; names the position of the error.

    Examples
    --------
    >>> match = parse('metrics.acc > 0.9 and params["lr"] < 0.01')
    >>> match({"metrics": {"acc": 0.95}, "params": {"lr": 0.001}}), match({"metrics": {}, "params": {}})
    (True, False)
    >>> parse("metrics.val/top-1 > 0.8 or val/top-1 == 0.5")({"metrics": {"val/top-1": 0.5}})
    True
    """
    reader = _Reader(fields)
    test = _read(text, "filter", reader, reader.test)
    if reader.terms > TERMS_LIMIT:
        raise InvalidArgument(f"the filter has {reader.terms:,} terms; the limit is {TERMS_LIMIT}", hint=_HINT)

    def match(item: Item) -> bool:
        reader.count(reader.terms)
        return bool(test(item))

    return match


def order(text: str, fields: Fields = RUN) -> Callable[[Item], tuple[bool, Any]]:
    """Compile an order to a sort key of runs or versions.

    The order is a field, with `-` before it for descending order. Numbers come before texts. Items without the field,
    or whose value is neither a number nor a text, come last in both directions.

    Parameters
    ----------
    text : str
        The order.
    fields : Fields, default RUN
        The fields that it can name.

    Returns
    -------
    callable
        Returns the sort key of an item.

    Raises
    ------
    InvalidArgument
        If the order is not a field.

    Examples
    --------
    >>> key = order('-metrics["val/acc"]', VERSION)
    >>> sorted([{"metrics": {"val/acc": value}} for value in (0.5, None, 0.9)], key=key)[0]
    {'metrics': {'val/acc': 0.9}}
    """
    down = text.startswith("-")
    reader = _Reader(fields)
    value = _read(text.removeprefix("-"), "order", reader, reader.field)

    def key(item: Item) -> tuple[bool, Any]:
        found = value(item)
        if isinstance(found, str):
            found = found[:_SORTED]  # a sort compares each text many times, and each comparison can read both texts
            return (False, _Down(found) if down else found)
        if not isinstance(found, (int, float)) or found != found:  # missing, another type, or NaN, which has no order
            return (True, 0)
        return (False, -found if down else found)

    return lambda item: _of_one_kind(key(item))


def _of_one_kind(key: tuple[bool, Any]) -> tuple[bool, Any]:
    """Extend a sort key so that numbers come before texts; Python cannot compare one with the other."""
    return key[0], (not isinstance(key[1], (int, float)), key[1])


class _Down(str):
    """A text that sorts in descending order."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


@dataclass(frozen=True)
class Rule:
    """An acceptance rule: a filter that can compare with other versions of the model.

    Attributes
    ----------
    test : callable
        The compiled rule.
    used : sequence of (str, callable)
        The fields of the rule as they are written, and functions that return their values.
    """

    test: Test
    used: Sequence[tuple[str, Test]]

    def holds(self, item: Item, version: Callable[[str], Item | None]) -> bool:
        """Return whether a contribution meets the rule.

        Parameters
        ----------
        item : mapping
            The contribution.
        version : callable
            Returns the version that an alias or another revision names, or None if it does not exist. A comparison
            with a version that does not exist is true, so that the first contribution can be accepted.
        """
        return bool(self.test({**item, _VERSION: version}))

    def told(self, item: Item, version: Callable[[str], Item | None]) -> str:
        """Return the values that the rule compares: `val/acc is 0.79, @production has 0.8`."""
        known = {**item, _VERSION: version}
        return ", ".join(f"{name} {_told(get(known), name)}" for name, get in dict(self.used).items())


_VERSION = "@"
"""The key under which the evaluation of a rule adds the function that finds versions to the item. A field cannot have
this name."""


def _told(value: Any, name: str) -> str:
    written = f"{value:g}" if isinstance(value, float) else f"{value}"
    if name.startswith("@"):
        return f"has {'none' if value in (None, _NOTHING) else written}"
    return "is missing" if value is None else f"is {written}"


def parse_rule(text: str) -> Rule:
    """Compile an acceptance rule.

    Raises
    ------
    InvalidArgument
        If the rule is not valid; names the position of the error.

    Examples
    --------
    >>> rule = parse_rule("val/acc >= @production and metrics.val/loss < 0.3")
    >>> found = {"metrics": {"val/acc": 0.79, "val/loss": 0.2}}
    >>> rule.holds(found, lambda _: {"metrics": {"val/acc": 0.8}}), rule.holds(found, lambda _: None)
    (False, True)
    >>> rule.told(found, lambda _: {"metrics": {"val/acc": 0.8}})
    'val/acc is 0.79, @production has 0.8, metrics.val/loss is 0.2'
    """
    reader = _Reader(CONTRIBUTION)
    return Rule(_read(text, "rule", reader, reader.test), reader.used)


def _read(text: str, what: str, reader: _Reader, walk: Callable[[ast.expr], Test]) -> Test:
    """Parse a text and compile its tree with `walk`; `what` names the text in error messages."""
    if len(text) > LENGTH_LIMIT:
        raise InvalidArgument(f"the {what} has {len(text):,} characters; the limit is {LENGTH_LIMIT:,}")
    try:
        return walk(ast.parse(reader.masked(text), mode="eval").body)
    except SyntaxError as error:
        column = error.offset or len(text.strip()) + 1  # Python reports the end of a text as column 0
        raise InvalidArgument(f"the {what} {_shown(text)} breaks off at column {column}", hint=_HINT) from None
    except (RecursionError, MemoryError, ValueError) as error:  # deep nesting, or a null byte
        if isinstance(error, InvalidArgument):  # a ValueError too
            raise
        raise InvalidArgument(f"the {what} {_shown(text)} cannot be read", hint=_HINT) from None


class _Reader:
    """Compiles the syntax tree of a filter to functions, and counts the terms and the work of their evaluation."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._text = self._masked = ""
        self._keys: dict[int, _Key] = {}
        self.terms = 0
        self.work = 0
        self.used: list[tuple[str, Test]] = []
        """The fields of a rule as they are written, and functions that return their values."""

    def masked(self, text: str) -> str:
        """Return a text as one line, with underscores in place of keys and aliases; store these by their positions."""
        self._text = _BREAKS.sub(" ", text).strip()
        parts: list[str] = []
        offset = 0
        for found in _TOKEN.finditer(self._text):
            key = self._key(found)
            if key is not None:
                self._keys[offset] = key
            parts.append(found[0] if key is None else "_" * len(found[0]))
            offset += len(parts[-1].encode("utf-8", "replace"))  # the columns of `ast` count bytes in UTF-8
        self._masked = "".join(parts)
        return self._masked

    def _key(self, found: re.Match[str]) -> _Key | None:
        """Return the key or alias of a token; None if the token is left to Python's parser."""
        word = found["word"]
        if found["alias"]:
            return _Key("", found["alias"])
        if not word or keyword.iskeyword(word) or _CALLED.match(self._text, found.end()):
            return None
        mapping, dot, key = word.partition(".")
        if dot and key and mapping in self._fields.mappings:
            return _Key(mapping, key)
        if word in self._fields.words or word in self._fields.mappings:
            return None
        return _Key("metrics", word, bare=True) if self._fields.rule or "/" in word else None

    def _key_of(self, node: ast.expr) -> _Key | None:
        return self._keys.get(node.col_offset) if isinstance(node, ast.Name) else None

    def source(self, node: ast.expr) -> str:
        """Return the original text of a node."""
        first, last = (self._column(at) for at in (node.col_offset, node.end_col_offset or node.col_offset))
        return self._text[first:last]

    def _column(self, offset: int) -> int:
        """Convert a column in bytes, which `ast` reports, to characters."""
        return len(self._masked.encode("utf-8", "replace")[:offset].decode("utf-8", "replace"))

    def refusal(self, node: ast.expr) -> InvalidArgument:
        """Return the error for a part of the text that is not valid in a filter."""
        return InvalidArgument(
            f"{_shown(self.source(node))}, at column {self._column(node.col_offset) + 1}, is no filter", hint=_HINT
        )

    def test(self, node: ast.expr) -> Test:
        """Compile a condition."""
        if isinstance(node, ast.BoolOp):
            tests = [self.test(value) for value in node.values]
            every = isinstance(node.op, ast.And)
            return lambda run: (all if every else any)(test(run) for test in tests)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.test(node.operand)
            return lambda run: not inner(run)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        key = self._key_of(node)
        if key is not None and (key.is_alias or (key.bare and self._fields.rule)):  # a metric alone is not a condition
            raise self.refusal(node)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            return self._value(node)
        raise self.refusal(node)

    def _comparison(self, node: ast.Compare) -> Test:
        sides = [node.left, *node.comparators]
        if any(type(op) not in _COMPARE for op in node.ops):
            raise self.refusal(node)
        keys = [self._key_of(side) for side in sides]
        aliases = [key is not None and key.is_alias for key in keys]
        values = [None if alias else self._value(side) for side, alias in zip(sides, aliases, strict=True)]
        pairs = []
        for at, op in enumerate(node.ops):
            self._check_pair(op, sides[at : at + 2], keys[at : at + 2])
            left, right = values[at], values[at + 1]
            left = self._of_version(keys[at], right) if left is None else left
            pairs.append((_COMPARE[type(op)], left, self._of_version(keys[at + 1], left) if right is None else right))

        def holds(run: Item) -> bool:
            for op, left, right in pairs:
                a, b = left(run), right(run)
                self._count_values([a, b])
                if op in _SEARCHES and isinstance(a, str) and isinstance(b, str):
                    # `in` can compare up to this many characters at each position of the longer text.
                    each = min(max(len(a), _NEEDLE.start), _NEEDLE.stop - 1)
                    self.count(len(b) * each // _LETTERS)
                if a is not _NOTHING and b is not _NOTHING and not _holds(op, a, b):
                    return False
            return True

        return holds

    def _check_pair(self, op: ast.cmpop, sides: Sequence[ast.expr], keys: Sequence[_Key | None]) -> None:
        """Refuse to compare two aliases, an alias with anything but a field, or two bare names.

        In `val/acc >= production`, the second bare name is probably an alias without its `@`.
        """
        aliases = [key is not None and key.is_alias for key in keys]
        if any(aliases):
            named = sides[0] if aliases[1] else sides[1]
            field = isinstance(named, (ast.Name, ast.Attribute, ast.Subscript))
            if all(aliases) or not field or not isinstance(op, _ORDERED):
                raise self.refusal(sides[1] if aliases[1] else sides[0])
        elif self._fields.rule and all(key is not None and key.bare for key in keys):
            other = self.source(sides[1])
            raise InvalidArgument(f"{other[:60]!r} would be a metric here", hint=f"@{other[:60]} is an alias")

    def _of_version(self, alias: _Key | None, value: Test | None) -> Test:
        """Compile an alias to the value that its version has in the field on the other side of the comparison."""
        assert alias is not None, "a side without a value is an alias"
        assert value is not None, "its other side is a field"
        if not self._fields.rule:
            raise InvalidArgument(f"{alias.key} is compared in a filter", hint="only acceptance rules know aliases")
        self.terms += 1

        def get(item: Item) -> Any:
            version = item[_VERSION](alias.key.removeprefix("@"))
            return _NOTHING if version is None else value(version)

        self.used.append((alias.key, get))
        return get

    def count(self, work: int) -> None:
        """Add to the work of the evaluation; raise an error beyond `WORK_LIMIT`."""
        cancellation.check()
        self.work += work
        if self.work > WORK_LIMIT:
            raise InvalidArgument(
                f"the filter evaluates more than {WORK_LIMIT:,} terms; {_LETTERS} characters of texts count as one",
                hint="use fewer terms, or shorter texts",
            )

    def _count_values(self, values: list[Any]) -> None:
        """Count the largest cost of a comparison: `==` and `in` read each element of lists and mappings once."""
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
        """Compile a field or a constant."""
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
            masked = self._key_of(node)
            if masked is None:
                return self._word(node)
            if not masked.is_alias:
                return self._entry(node, masked.mapping, masked.key)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self._entry(node, node.value.id, node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if isinstance(key, str):
                return self._entry(node, node.value.id, key)
        raise self.refusal(node)

    def _word(self, node: ast.Name) -> Test:
        if node.id not in self._fields.words:
            some = ", ".join([*self._fields.words, *(f"{each}.…" for each in self._fields.mappings)])
            meant = f"metrics.{node.id[:60]} or params.{node.id[:60]}? "
            raise InvalidArgument(
                f"{node.id[:60]!r} is no field of {self._fields.what}", hint=f"{meant}The fields are {some}"
            )
        return self._using(node, lambda run: run.get(node.id))

    def _using(self, node: ast.expr, get: Test) -> Test:
        self.used.append((self.source(node), get))
        return get

    def _entry(self, node: ast.expr, mapping: str, key: str) -> Test:
        if mapping not in self._fields.mappings:
            raise self.refusal(node)

        def get(run: Item) -> Any:
            value = (run.get(mapping) or {}).get(key)
            # JSON has no NaN and infinity, so records store them as texts. A tag is always a text.
            return decode_float(value) if value in _SPECIAL and mapping != "tags" else value

        return self._using(node, get)

    def field(self, node: ast.expr) -> Test:
        """Compile a field; refuse anything else."""
        key = self._key_of(node)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and not (key is not None and key.is_alias):
            return self._value(node)
        raise self.refusal(node)


@dataclass(frozen=True)
class _Key:
    """A key of a mapping, or an alias with its `@`, that is hidden from Python's parser.

    Attributes
    ----------
    mapping : str
        The mapping of the key, such as `metrics`; empty for an alias.
    key : str
        The key, or the alias with its `@`.
    bare : bool
        Whether the key is written without its mapping.
    """

    mapping: str
    key: str
    bare: bool = False

    @property
    def is_alias(self) -> bool:
        return not self.mapping


_NOTHING = object()
"""The value of each field of a version that does not exist."""


def _holds(op: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    if left is None and op is operator.ne:  # a comparison with a missing field is false, `!=` too
        return False
    try:
        return bool(op(left, right))
    except (TypeError, RecursionError):  # different types, or a stored value that is nested too deeply
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
