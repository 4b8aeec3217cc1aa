"""Sanitizing and measuring of text from other users, for terminals, pages, JSON and URLs."""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

LIMIT = 10_000
"""Maximum number of characters of a text. A message of several megabytes would block the kernel for seconds."""

# Bidirectional marks and line separators. They would reorder or break the table around a message.
_UNSAFE = re.compile("[\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SPACE = re.compile(r"\s+")
# The Unicode categories Cc and Cs. `unicodedata.category` for each character takes twenty times as long.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Characters that control a terminal or reorder its text, except newline and tab, which LMVP's own tables contain.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
# ASCII characters of the same width for the symbols in LMVP's own output.
_SIMILAR = dict(zip("…−×→●◆□■★≤ⁿ○·│─▁▂▃▄▅▆▇█", "~-x>o*o#*<no.|-_.-=+*%#", strict=True))
_LAYOUT = re.compile("[\n\t]")


def printable(text: str) -> str:
    r"""Escape the characters that control a terminal or reorder its text; keep newlines and tabs.

    All output of the shell and of the magics passes this function, so that text from a server or from another user
    cannot control the reader's terminal. The escapes are those of JSON, so that JSON output keeps its value.

    Examples
    --------
    >>> print(printable("\x1b[31m red \u202e"))
    \u001b[31m red \u202e
    """
    return encodable(_UNPRINTABLE.sub(_escape, text), getattr(sys.stdout, "encoding", None) or "utf-8")


def encodable(text: str, encoding: str) -> str:
    r"""Replace characters that an output stream cannot encode, so that printing does not raise an error.

    Symbols of LMVP's own output become ASCII characters of the same width. Other characters become JSON escapes.

    Examples
    --------
    >>> encodable("v1 → v2, α", "ascii")
    'v1 > v2, \\u03b1'
    """
    if encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32"):
        return text
    return text.encode(encoding, _ESCAPES).decode(encoding)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of a character that cannot be encoded, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\u2800" <= character <= "\u28ff":  # braille characters, with which curves are drawn
        return " " if character == "\u2800" else ".", error.start + 1
    similar = _SIMILAR.get(character)
    return similar or json.dumps(character)[1:-1], error.start + 1


_ESCAPES = "lmvp.escapes"
codecs.register_error(_ESCAPES, _replacement)


def one_line(text: str) -> str:
    r"""Escape control characters including newlines and tabs, for a value within a line.

    Examples
    --------
    >>> print(one_line("a\nb"))
    a\u000ab
    """
    return _LAYOUT.sub(_escape, printable(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def clean(text: str) -> str:
    r"""Return a text as one line without control characters, cut to 10,000 characters.

    Examples
    --------
    >>> clean("first\n  try \x1b[31m")
    'first try �[31m'
    """
    line = _SPACE.sub(" ", _cut(text)).strip()
    return _CONTROL.sub("�", _UNSAFE.sub("", line))


def clean_code(line: str) -> str:
    r"""Return a line of code without control characters. Spaces are preserved and tabs become spaces.

    Examples
    --------
    >>> clean_code("\treturn x\x1b")
    '    return x�'
    """
    spaced = _UNSAFE.sub("", _cut(line).expandtabs(4))
    return _CONTROL.sub("�", spaced)


def short(text: str, most: int = 16) -> str:
    """Cut a text to at most `most` characters, 16 by default, with an ellipsis.

    Examples
    --------
    >>> short("s-ada"), short("248289761001248289761001")
    ('s-ada', '248289761001248…')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cut(text: str) -> str:
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}…"


def listed(words: Iterable[str], most: int = 100) -> str:
    """Join words with commas; after `most` words, 100 by default, append the number of remaining words.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    known = list(words)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def width(text: str) -> int:
    """Return the width of a text in terminal columns.

    Examples
    --------
    >>> width("abc"), width("模型"), width("e\u0301")
    (3, 4, 1)
    """
    return sum(_cell(c) for c in text)


def _cell(character: str) -> int:
    """Return the width of a character: 0 for combining marks, 2 for wide East Asian characters, otherwise 1."""
    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, columns: int) -> str:
    """Shorten a text to a width in columns, with an ellipsis at the end.

    Examples
    --------
    >>> clip("Unfreeze the last two blocks", 12)
    'Unfreeze th…'
    """
    if width(text) <= columns:
        return text
    return _fitting(text, columns - 1).rstrip() + "…" if columns > 0 else ""


def _fitting(text: str, columns: int) -> str:
    """Return the longest beginning of a text that fits a width."""
    taken = 0
    for at, character in enumerate(text):
        taken += _cell(character)
        if taken > columns:
            return text[:at]
    return text


def clip_middle(text: str, columns: int) -> str:
    """Shorten a text to a width in columns, with an ellipsis in the middle, for names that differ at their ends.

    Examples
    --------
    >>> clip_middle("validation/top_1/accuracy", 16), clip_middle("val/accuracy", 16)
    ('valida…/accuracy', 'val/accuracy')
    """
    if width(text) <= columns:
        return text
    if columns < 4:
        return clip(text, columns)
    head = _fitting(text, (columns + 1) // 2 - 2)
    return f"{head}…{_fitting(text[::-1], columns - 1 - width(head))[::-1]}"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Pad a text with spaces to a width in columns, on the left if `right`."""
    room = " " * max(columns - width(text), 0)
    return room + text if right else text + room


# -- text that is not valid Unicode


def escaped_text(text: str) -> str:
    r"""Return a text in which each lone surrogate is replaced by an escape: `\xNN` for a byte, otherwise `\uNNNN`.

    Examples
    --------
    >>> import os
    >>> escaped_text(os.fsdecode(b"caf\xe9")), escaped_text("\ud800"), escaped_text("é")
    ('caf\\xe9', '\\ud800', 'é')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_surrogate_escape(each) if "\ud800" <= each <= "\udfff" else each for each in text)
    return text


def _surrogate_escape(surrogate: str) -> str:
    number = ord(surrogate)  # U+DC80 to U+DCFF stand for the bytes 0x80 to 0xFF (PEP 383)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def quoted(text: str) -> str:
    """Percent-encode a text as one URL path segment. Lone surrogates are escaped as in stored text."""
    return quote(escaped_text(text), safe="")


def escaped(value: Any) -> Any:
    """Return JSON values with all strings escaped; an object of another type is replaced by its `str`."""
    if isinstance(value, str):
        return escaped_text(value)
    if isinstance(value, Mapping):
        return {escaped_text(str(key)): escaped(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(each) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return escaped_text(str(value))


def as_json(value: Any) -> bytes:
    """Encode a struct or JSON values as JSON, with lone surrogates escaped."""
    try:  # nearly all data is valid, so the copy with escaped strings is created only after an error
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(escaped(msgspec.to_builtins(value, str_keys=True)))
