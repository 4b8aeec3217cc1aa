"""The language of filters (`where=`) and of acceptance rules: comparisons of fields of a run or a version.

`metrics.val/acc > 0.9 and params.lr < 0.01`, `tags.gpu == "a100"`, `"wren" in name`, `status in ("running", "stale")`,
`created_at > "2026-11-01"`, `params.lr is None`; in a rule also `val/acc >= @production`. A comparison with a field
that is missing, or of another type, does not hold.

Python's parser reads the text, and `_Reader` walks the tree; nothing is run. Keys are written as they were logged, with
slashes and dashes, which Python would read as arithmetic. `_masked` hides them from the parser: it puts underscores in
their places, as many as they have characters, so that columns in messages stay right.
"""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.errors import InvalidArgument
from lmvp.records import decode_float
from lmvp_server import cancellation

LENGTH_LIMIT = 2000
TERMS_LIMIT = 500
"""Fields and constants of a filter."""
WORK_LIMIT = 20_000_000
"""Terms that one filter evaluates over all items; about two seconds of processor time. A comparison of lists and
mappings counts their elements, at all depths. A comparison of texts counts the characters that it may compare: one term
for each `_LETTERS`."""
_LETTERS = 100
"""Characters of a comparison that count as one term: a slow one takes about as long as a term."""
_NEEDLE = range(8, 101)
"""Characters that `in` counts at each place of the longer text: those of the shorter text, within these bounds. A place
costs 10 ns even for "aab", and for long texts Python's search is linear (`Objects/stringlib/fastsearch.h`)."""
_SORTED = 1000
"""Characters of a text by which `order` sorts."""


@dataclass(frozen=True)
class Fields:
    """What a filter may name: words, and mappings of keys to values."""

    what: str
    words: tuple[str, ...]
    mappings: tuple[str, ...]
    rule: bool = False
    """Whether any bare name is a metric, and `@alias` stands for the same field of another version."""


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
CONTRIBUTION = Fields("a contribution", tuple(w for w in VERSION.words if w != "text"), VERSION.mappings, rule=True)

_HINT = "as `metrics.val/acc > 0.9 and params.lr < 0.01`; docs/api.md, Filters"
_PART = r"[^\s()\[\],<>=!\"']"
_TOKEN = re.compile(
    rf"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<alias>@{_PART}+)|(?P<word>[^\W\d]{_PART}*)|[\d.]{_PART}*|."""
)
_CALLED = re.compile(r"\s*[\[(\"']")
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
    """Return what runs, or versions, are to be sorted by: a field, with `-` before it from the greatest to the least.

    What has no such value, or one that is no number or text, comes last.

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
            found = found[:_SORTED]  # each of the many comparisons of a sort reads both texts
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


@dataclass(frozen=True)
class Rule:
    """An acceptance rule: a filter that can compare with other versions of the model."""

    test: Test
    used: Sequence[tuple[str, Test]]

    def holds(self, item: Item, version: Callable[[str], Item | None]) -> bool:
        """Tell whether a contribution meets the rule.

        Parameters
        ----------
        version : callable
            Returns the version that an alias or another revision names; None if there is none. A comparison with a
            version that does not exist holds: there is nothing yet to be better than.
        """
        return bool(self.test({**item, _VERSION: version}))

    def told(self, item: Item, version: Callable[[str], Item | None]) -> str:
        """Return the values that the rule compares: `val/acc is 0.79, @production has 0.8`."""
        known = {**item, _VERSION: version}
        return ", ".join(f"{name} {_told(get(known), name)}" for name, get in dict(self.used).items())


_VERSION = "@"
"""The key of the function that finds versions, in the item that a rule is evaluated with."""


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
        If it cannot be read.

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
    if len(text) > LENGTH_LIMIT:
        raise InvalidArgument(f"the {what} has {len(text):,} characters; the limit is {LENGTH_LIMIT:,}")
    try:
        return walk(ast.parse(reader.masked(text), mode="eval").body)
    except SyntaxError as error:
        column = error.offset or len(text.strip()) + 1  # Python counts the end of a text as column 0
        raise InvalidArgument(f"the {what} {_shown(text)} breaks off at column {column}", hint=_HINT) from None
    except (RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"the {what} {_shown(text)} cannot be read", hint=_HINT) from None


class _Reader:
    """Walks over an expression."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._text = self._masked = ""
        self._keys: dict[int, _Key] = {}
        self.terms = 0
        self.work = 0
        self.used: list[tuple[str, Test]] = []
        """The fields that a rule reads, as they are written, and the functions that give their values."""

    def masked(self, text: str) -> str:
        """Take a text; return it with underscores in the places of keys and aliases, in one line."""
        self._text = _BREAKS.sub(" ", text).strip()
        parts: list[str] = []
        offset = 0
        for found in _TOKEN.finditer(self._text):
            key = self._key(found)
            if key is not None:
                self._keys[offset] = key
            parts.append(found[0] if key is None else "_" * len(found[0]))
            offset += len(parts[-1].encode("utf-8", "replace"))
        self._masked = "".join(parts)
        return self._masked

    def _key(self, found: re.Match[str]) -> _Key | None:
        """Return the key or the alias that a token is; None if Python can read the token."""
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
        """Return the text of a node as it was written."""
        first, last = (self._column(at) for at in (node.col_offset, node.end_col_offset or node.col_offset))
        return self._text[first:last]

    def _column(self, offset: int) -> int:
        """Return the character at a number of bytes, which is how Python counts columns."""
        return len(self._masked.encode("utf-8", "replace")[:offset].decode("utf-8", "replace"))

    def refusal(self, node: ast.expr) -> InvalidArgument:
        """Return the error for a part of the text that is no filter."""
        return InvalidArgument(
            f"{_shown(self.source(node))}, at column {self._column(node.col_offset) + 1}, is no filter", hint=_HINT
        )

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
        key = self._key_of(node)
        if key is not None and (key.is_alias or (key.bare and self._fields.rule)):
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
                    each = min(max(len(a), _NEEDLE.start), _NEEDLE.stop - 1)
                    self.count(len(b) * each // _LETTERS)
                if a is not _NOTHING and b is not _NOTHING and not _holds(op, a, b):
                    return False
            return True

        return holds

    def _check_pair(self, op: ast.cmpop, sides: Sequence[ast.expr], keys: Sequence[_Key | None]) -> None:
        """Refuse comparisons of two aliases, of an alias with anything but a field, and of two bare names."""
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
        """Return what gives the value that another version has of the field on the other side of a comparison."""
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
        """Count work, and refuse to go on beyond the limit."""
        cancellation.check()
        self.work += work
        if self.work > WORK_LIMIT:
            raise InvalidArgument(
                f"the filter evaluates more than {WORK_LIMIT:,} terms; {_LETTERS} characters of texts count as one",
                hint="use fewer terms, or shorter texts",
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
            return decode_float(value) if value in _SPECIAL and mapping != "tags" else value

        return self._using(node, get)

    def field(self, node: ast.expr) -> Test:
        """Return what gives a field: nothing else can be sorted by."""
        key = self._key_of(node)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and not (key is not None and key.is_alias):
            return self._value(node)
        raise self.refusal(node)


@dataclass(frozen=True)
class _Key:
    """A key of a mapping, or an alias with its `@`, that is hidden from Python's parser."""

    mapping: str
    key: str
    bare: bool = False

    @property
    def is_alias(self) -> bool:
        return not self.mapping


_NOTHING = object()
"""The value of a version that does not exist."""


def _holds(op: Callable[[Any, Any], Any], left: Any, right: Any) -> bool:
    if left is None and op is operator.ne:
        return False
    try:
        return bool(op(left, right))
    except (TypeError, RecursionError):  # of two kinds, or nested as deep as only a stored document can be
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
