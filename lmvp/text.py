"""Text that is not UTF-8, made fit for JSON: bytes of file names and arguments that Python keeps as lone surrogates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec


def escaped_text(text: str) -> str:
    r"""Return a text with each byte or surrogate that is not UTF-8 as an escape.

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
    number = ord(surrogate)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def quoted(text: str) -> str:
    """Return a text as one part of the path of a URL; what is not UTF-8 is escaped as in stored text."""
    return quote(escaped_text(text), safe="")


def escaped(value: Any) -> Any:
    """Return plain data with every text escaped; what is not plain data becomes its text."""
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
    """Return a struct or plain data as JSON, with text that is not UTF-8 escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(escaped(msgspec.to_builtins(value, str_keys=True)))
