"""Redaction of secrets in code, params and command lines before data leaves this process.

A secret is recognised by the name that it is assigned to (`password`), or by its form (`hf_…`). All functions take
linear time, also for hostile input. A regular expression is linear here only if no two of its starting positions scan
the same text. The patterns therefore begin with fixed text and not with a repetition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

BLOT: Final = "[redacted]"
"""The text that replaces a secret."""

_WORDS = (
    r"password|passwd|passphrase|secret|credential|authorization|bearer|cookie|(?:api|access|private)[_-]?key|token"
)
_NAME = re.compile(rf"(?:.*[_.\-])?(?:{_WORDS})s?", re.IGNORECASE)
# Names of hyperparameters such as `max_tokens` and `pad_token` contain a word of `_WORDS`, but are not secret.
_HARMLESS = re.compile(
    r"(?:max|min|num|n|pad|eos|bos|unk|mask|sep|cls|eot|image|special|new|tokens?_per).*", re.IGNORECASE
)

# In order: PEM private keys, AWS, GitHub (two), GitLab, Hugging Face, LMVP, OpenAI and Anthropic, Slack, Google, PyPI,
# passwords in URLs, and the HTTP schemes Bearer and Basic.
_FORMS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{20,}"
    r"|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bhf_[A-Za-z0-9]{20,}"
    r"|\blmvp_[A-Za-z0-9_-]{30,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|\bAIza[0-9A-Za-z_-]{35}"
    r"|\bpypi-[A-Za-z0-9_-]{16,}"
    r"|(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"
    r"|(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=Basic )[A-Za-z0-9+/=]{8,}",
    re.DOTALL,
)
_DOTTED = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*")
_JWT_HEADER = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\Z")
_JWT_PART = 8
"""Minimum number of characters of the payload of a JSON Web Token."""

# The pattern begins at the word of the secret. A prefix of the same name (`my_api_key`) does not matter for the match,
# and would make the pattern quadratic.
_ASSIGNED = re.compile(
    rf"""((?:{_WORDS})s?["']?\]?\s*(?::(?!:)|=(?!=))\s*[rbuf]?)("[^"\n]*"|'[^'\n]*')""", re.IGNORECASE
)
_OPTION = re.compile(rf"-{{1,2}}(?:[\w\-]*[_\-])?(?:{_WORDS})s?", re.IGNORECASE)


def redact_text(text: str) -> str:
    """Replace secrets in a text: values that are assigned to the name of a secret, and tokens of a known form.

    Examples
    --------
    >>> redact_text("git clone https://ada:hunter2@example.org/x")
    'git clone https://[redacted]@example.org/x'
    >>> redact_text('api_key = "abc"; max_tokens = 100')
    'api_key = [redacted]; max_tokens = 100'
    """
    text = _ASSIGNED.sub(lambda match: f"{match[1]}{BLOT}", text)
    text = _FORMS.sub(BLOT, text)
    if "eyJ" not in text:
        return text
    # A token has two dots. The pattern also matches words without dots; otherwise such a word would be scanned again
    # from each of its letters, in quadratic time.
    return _DOTTED.sub(lambda match: _without_jwt(match[0]), text)


def _without_jwt(word: str) -> str:
    """Replace each JSON Web Token (`eyJ….….…`) in a dotted word.

    A single pattern for the three parts would scan the rest of the word again at each `-eyJ`, in quadratic time.
    """
    parts, kept, at = word.split("."), list[str](), 0
    while at < len(parts):
        has_payload = at + 2 < len(parts) and len(parts[at + 1]) >= _JWT_PART
        header = _JWT_HEADER.search(parts[at]) if has_payload else None
        if header is None:
            kept.append(parts[at])
            at += 1
        else:
            kept.append(parts[at][: header.start()] + BLOT)
            at += 3
    return ".".join(kept)


def is_secret(name: str) -> bool:
    """Return whether a param, tag or variable with this name contains a secret.

    Examples
    --------
    >>> [is_secret(name) for name in ("password", "hf_token", "db.passwd", "max_token", "token_dim", "lr")]
    [True, True, True, False, False, False]
    """
    return bool(_NAME.fullmatch(name)) and not _HARMLESS.fullmatch(name.rpartition(".")[2])


def redact(value: Any) -> Any:
    """Replace secrets in JSON values: strings with a known form, and strings in mappings under the name of a secret.

    Examples
    --------
    >>> redact({"token": "abc", "lr": 0.1, "max_tokens": 100, "note": "key sk-aaaaaaaaaaaaaaaaaaaaaaaa"})
    {'token': '[redacted]', 'lr': 0.1, 'max_tokens': 100, 'note': 'key [redacted]'}
    """
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {
            key: BLOT if isinstance(each, str) and each and is_secret(str(key)) else redact(each)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(each) for each in value]
    return value


def redact_command(words: list[str]) -> list[str]:
    """Replace the values of secret options in the words of a command.

    Examples
    --------
    >>> redact_command(["train.py", "--token", "abc", "--api-key=def", "--lr", "0.1"])
    ['train.py', '--token', '[redacted]', '--api-key=[redacted]', '--lr', '0.1']
    """
    told, secret = [], False
    for word in words:
        option, equals, _ = word.partition("=")
        if secret and not word.startswith("-"):
            told.append(BLOT)
        elif equals and _OPTION.fullmatch(option):
            told.append(f"{option}={BLOT}")
        else:
            told.append(redact_text(word))
        secret = not equals and bool(_OPTION.fullmatch(word))
    return told
