"""Escaping of text that is not valid Unicode, for JSON and URLs.

Python represents file names and arguments that are not UTF-8 with lone surrogates (`surrogateescape`). JSON encoders
reject these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec


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
        return "".join(character if not "\ud800" <= character <= "\udfff" else _escape(character) for character in text)
    return text


def _escape(surrogate: str) -> str:
    number = ord(surrogate)  # U+DC80 to U+DCFF stand for the bytes 0x80 to 0xFF (PEP 383)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def quoted(text: str) -> str:
    """Return a text as one segment of a URL path. Lone surrogates are escaped as in stored text."""
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
