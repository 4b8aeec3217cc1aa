"""Text from other people, made fit for a terminal and a page."""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata
from collections.abc import Iterable

LIMIT = 10_000
"""Characters of a text that are shown: a name or a message of megabytes must not occupy a kernel for seconds."""

# Marks that reorder what is read after them: a message must not rearrange the table it stands in.
_UNSAFE = re.compile("[\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SPACE = re.compile(r"\s+")
# The categories Cc and Cs of Unicode. A lookup of each character takes twenty times as long.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Everything that drives a terminal or reorders its text; a newline and a tab are part of our own layout.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
_SIMILAR = dict(zip("…−×→●◆□■★≤ⁿ○·│─▁▂▃▄▅▆▇█", "~-x>o*o#*<no.|-_.-=+*%#", strict=True))
_LAYOUT = re.compile("[\n\t]")


def printable(text: str) -> str:
    r"""Escape the characters that control a terminal or reorder its text; keep newlines and tabs.

    Every output of the shell and of the magics passes this function, so that a server, or a person who chose a name,
    cannot control the reader's terminal. The escapes are those of JSON, so that JSON stays JSON of the same value.

    Examples
    --------
    >>> print(printable("\x1b[31m red \u202e"))
    \u001b[31m red \u202e
    """
    return encodable(_UNPRINTABLE.sub(_escape, text), getattr(sys.stdout, "encoding", None) or "utf-8")


def encodable(text: str, encoding: str) -> str:
    r"""Replace the characters that an output stream cannot encode, so that printing never raises an error.

    The symbols of LMVP's own pictures become similar ASCII symbols of the same width; others become escapes of JSON.

    Examples
    --------
    >>> encodable("v1 → v2, α", "ascii")
    'v1 > v2, \\u03b1'
    """
    if encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32"):
        return text
    return text.encode(encoding, _ESCAPES).decode(encoding)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\u2800" <= character <= "\u28ff":  # braille, of which curves are drawn
        return " " if character == "\u2800" else ".", error.start + 1
    similar = _SIMILAR.get(character)
    return similar or json.dumps(character)[1:-1], error.start + 1


_ESCAPES = "lmvp.escapes"
codecs.register_error(_ESCAPES, _replacement)


def one_line(text: str) -> str:
    r"""Escape newlines and tabs too: a value within a line must not begin another line.

    Examples
    --------
    >>> print(one_line("a\nb"))
    a\u000ab
    """
    return _LAYOUT.sub(_escape, printable(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def clean(text: str) -> str:
    r"""Give a text as one line without control characters.

    Examples
    --------
    >>> clean("first\n  try \x1b[31m")
    'first try �[31m'
    """
    line = _SPACE.sub(" ", _cut(text)).strip()
    return _CONTROL.sub("�", _UNSAFE.sub("", line))


def clean_code(line: str) -> str:
    r"""Give a line of code without control characters, its spaces kept.

    Examples
    --------
    >>> clean_code("\treturn x\x1b")
    '    return x�'
    """
    spaced = _UNSAFE.sub("", _cut(line).expandtabs(4))
    return _CONTROL.sub("�", spaced)


def short(text: str, most: int = 16) -> str:
    """Give the beginning of a text that is longer than `most` characters.

    Examples
    --------
    >>> short("s-ada"), short("248289761001248289761001")
    ('s-ada', '248289761001248…')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cut(text: str) -> str:
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}…"


def listed(words: Iterable[str], most: int = 100) -> str:
    """Join words with commas; beyond some, give their number.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    known = list(words)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def width(text: str) -> int:
    """Give the columns that a text takes in a terminal.

    Examples
    --------
    >>> width("abc"), width("模型"), width("e\u0301")
    (3, 4, 1)
    """
    return sum(_cell(c) for c in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, columns: int) -> str:
    """Shorten a text to some columns, with an ellipsis.

    Examples
    --------
    >>> clip("Unfreeze the last two blocks", 12)
    'Unfreeze th…'
    """
    if width(text) <= columns:
        return text
    return _fitting(text, columns - 1).rstrip() + "…" if columns > 0 else ""


def _fitting(text: str, columns: int) -> str:
    """Return as much of the beginning of a text as fits."""
    taken = 0
    for at, character in enumerate(text):
        taken += _cell(character)
        if taken > columns:
            return text[:at]
    return text


def clip_middle(text: str, columns: int) -> str:
    """Shorten a text to some columns, where its ends tell more than its middle.

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
    """Fill a text with spaces to some columns."""
    room = " " * max(columns - width(text), 0)
    return room + text if right else text + room
