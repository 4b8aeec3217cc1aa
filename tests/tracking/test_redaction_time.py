"""Redaction takes linear time. Quadratic time would exceed the time-out of these tests a hundredfold."""

import pytest

from lmvp.redaction import BLOT, is_secret, redact_command, redact_text

SIZE = 1 << 18

WORDS = {
    "DNA": "GATTACA",
    "hex": "0123456789abcdef",
    "base32": "MFRGGZDFMZTWQ2LK",
    "base64url": "aB-_9",
    "dotted names": "a.b_c.",
    "snake names": "a_",
    "dashes": "-",
    "dots": ".",
    "spaces": " ",
    "quotes": "'",
    "URL credentials": "://a:b",
    "token headers": "eyJhbGciOiJ-",
    "token headers with dots": "eyJhbGciOiJIUzI1.",
    "short token headers": "eyJ.",
    "names of secrets": "password",
    "assignments": "password='",
    "assignments with two kinds of quotes": "password=\"a'",
    "names and spaces": "token    ",
    "options": "a1-token",
    "private keys": "-----BEGIN PRIVATE KEY-----",
    "headings of private keys": "PRIVATE KEY-----BEGIN ",
    "authorization": "Bearer Basic ",
    "letters outside ASCII": "é",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_redaction_is_linear(word):
    text = word * (SIZE // len(word))
    redact_text(text)
    redact_text(f"://a:{text}")
    is_secret(text)
    redact_command([text, f"--{text}", f"--{text}=1"])


@pytest.mark.timeout(60)
def test_redaction_finds_secrets_in_long_words():
    long = "GATTACA" * (SIZE // 7)
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_123"
    assert redact_text(f"{long}_password = 'x'") == f"{long}_password = {BLOT}"
    assert redact_text(f"{long}-{token}") == f"{long}-{BLOT}"
    assert redact_text(f"https://ada:{long}@example.org") == f"https://{BLOT}@example.org"
