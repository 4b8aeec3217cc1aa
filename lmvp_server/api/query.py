"""Query parameters. Each is declared once, for the handler that reads it and for the OpenAPI document.

A handler lists the parameters of its methods in `queries` and reads them with `Handler.query`, which raises for any
other parameter. The document therefore lists every parameter, with the limits and defaults that the handler uses.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp_server.services.filters import LENGTH_LIMIT
from lmvp_server.services.paging import PAGE_LIMIT, Page

T = TypeVar("T")
_SHOWN = 40
"""Maximum number of characters of an invalid value in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter(ABC, Generic[T]):
    """A query parameter.

    Parameters
    ----------
    name : str
        The name in the URL.
    description : str
        One sentence for the OpenAPI document.
    required : bool
        Whether the handler refuses a request without it, with a message of the handler.
    many : bool
        Whether a request can have it several times. The value is then a tuple.
    strip : bool
        Whether spaces at the ends of the value are ignored.
    """

    name: str
    description: str
    required: bool = False
    many: bool = False
    strip: bool = True

    def read(self, given: Sequence[str]) -> T:
        """Return the value for the texts in a request. If one value is expected, the last text counts."""
        if self.many:
            return cast("T", tuple(map(self.parse, given)))
        return cast("T", self.parse(given[-1]) if given else self.absent())

    @abstractmethod
    def parse(self, text: str) -> Any:
        """Parse the text of a value.

        Raises
        ------
        InvalidArgument, InvalidRequest
            If the text is not an allowed value.
        """

    @abstractmethod
    def absent(self) -> Any:
        """Return the value for a request without this parameter."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of one value."""

    def document(self) -> dict[str, Any]:
        """Return the parameter object of the OpenAPI document."""
        schema = self.schema()
        if self.many:
            schema = {"type": "array", "items": schema} | ({"minItems": 1} if self.required else {})
        elif self.absent() not in (None, ""):
            schema["default"] = self.absent()
        shown = {"name": self.name, "in": "query", "required": self.required, "description": self.description}
        return shown | {"schema": schema}


@dataclass(frozen=True, kw_only=True, slots=True)
class Text(Parameter[T]):
    """A text parameter.

    Parameters
    ----------
    choices : tuple of str
        The allowed texts; empty for no restriction.
    pattern : str
        A regular expression for the complete text; empty for no restriction.
    rule : str
        A description of `pattern` for the error message.
    longest : int
        The maximum length in characters; 0 for no limit.
    """

    default: str = ""
    choices: tuple[str, ...] = ()
    pattern: str = ""
    rule: str = ""
    longest: int = 0

    def parse(self, text: str) -> str:
        """Return the text if it is allowed. An empty text means the default."""
        if not text:
            return self.default
        if self.longest and len(text) > self.longest:
            raise InvalidArgument(f"{self.name} has {len(text):,} characters; the limit is {self.longest:,}")
        if self.choices and text not in self.choices:
            raise InvalidArgument(f"{self.name}={text[:_SHOWN]!r}", hint=f"one of {', '.join(self.choices)}")
        if self.pattern and not re.fullmatch(self.pattern, text, re.ASCII):
            raise InvalidArgument(f"{self.name}={text[:_SHOWN]!r} is not {self.rule}")
        return text

    def absent(self) -> str:
        """Return the default."""
        return self.default

    def schema(self) -> dict[str, Any]:
        """Return the schema of a string."""
        schema: dict[str, Any] = {"type": "string"}
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.pattern:
            # JSON schema searches anywhere in the text; `parse` matches the complete text.
            schema["pattern"] = f"^(?:{self.pattern})$"
        if self.longest:
            schema["maxLength"] = self.longest
        return schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole(Parameter[T]):
    """An integer, also written as `1e3` or `1000.0` as in JSON. With `default` None, it is optional."""

    default: int | None = None
    least: int = 0
    most: int = 10**18 - 1
    hint: str | None = None

    def parse(self, text: str) -> int:
        """Return the integer if it is in the range."""
        value = _whole(text)
        if value is None or not self.least <= value <= self.most:
            message = f"{self.name}={text[:_SHOWN]!r} is not a number from {self.least} to {self.most}"
            raise InvalidArgument(message, hint=self.hint)
        return value

    def absent(self) -> int | None:
        """Return the default."""
        return self.default

    def schema(self) -> dict[str, Any]:
        """Return the schema of an integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, kw_only=True, slots=True)
class Number(Parameter["float | None"]):
    """A finite floating-point number, or None."""

    def parse(self, text: str) -> float:
        """Return the number if it is finite."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Without a bound, a client leaves the parameter out.
        if not math.isfinite(value):
            raise InvalidArgument(f"{self.name}={text[:_SHOWN]!r} is not a number")
        return value

    def absent(self) -> None:
        """Return None."""

    def schema(self) -> dict[str, Any]:
        """Return the schema of a number."""
        return {"type": "number"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag(Parameter[bool]):
    """A boolean: `1` is true; `0` or no parameter is false."""

    def parse(self, text: str) -> bool:
        """Return True for `1` and False for `0`."""
        if text not in ("0", "1"):
            raise InvalidRequest(
                f"{self.name}={text[:_SHOWN]!r}", hint=f"{self.name}=1, or a request without {self.name}"
            )
        return text == "1"

    def absent(self) -> bool:
        """Return False."""
        return False

    def schema(self) -> dict[str, Any]:
        """Return the schema of the two values."""
        return {"type": "string", "enum": ["0", "1"]}

    def document(self) -> dict[str, Any]:
        """Return the parameter object, with the default as a request writes it."""
        shown = {"name": self.name, "in": "query", "required": False, "description": self.description}
        return shown | {"schema": {**self.schema(), "default": "0"}}


def _whole(text: str) -> int | None:
    """Parse an integer; return None if the text is not one.

    Examples
    --------
    >>> _whole("1000"), _whole("1e3"), _whole("1000.0"), _whole("1.5"), _whole("-1"), _whole("9" * 20)
    (1000, 1000, 1000, None, None, None)
    """
    if text.isascii() and text.isdigit():
        # Python refuses to parse very long numbers; 19 digits are enough for an int64.
        return int(text) if len(text) < 20 else None
    if len(text) < 20 and re.fullmatch(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]+)?", text) and float(text).is_integer():
        return int(float(text))
    return None


LIMIT: Whole[int] = Whole(
    name="limit",
    description="The greatest number of items in the answer.",
    default=Page().limit,
    least=1,
    most=PAGE_LIMIT,
)
CURSOR: Whole[int | None] = Whole(
    name="cursor", description="The place in the list: `next` of the page before.", most=1 << 62
)
PAGE: tuple[Parameter[Any], ...] = (LIMIT, CURSOR)
"""The parameters of every list."""

WHERE: Text[str] = Text(
    name="where", description="A filter, in the language of docs/api.md, Filters.", longest=LENGTH_LIMIT
)
ORDER: Text[str] = Text(
    name="order",
    description="The field that sorts the list; `-` before it sorts from the greatest.",
    longest=LENGTH_LIMIT,
)
NOW = Flag(name="now", description="Delete permanently: the object cannot be restored.")
RUNS: Text[tuple[str, ...]] = Text(
    name="run", description="The id or the name of a run; once for each run.", many=True, required=True
)
KEYS: Text[tuple[str, ...]] = Text(
    name="key", description="The key of a metric; once for each key. Without it: all metrics.", many=True, strip=False
)
