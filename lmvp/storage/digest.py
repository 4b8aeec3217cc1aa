"""The two digests of the format: of bytes, and of a list of chunks.

One pass over the bytes is all that a push can afford, so what is longer than one chunk is not hashed again: its
digest is that of its chunks' ids, under a key of its own so that no bytes can pass for a list. See docs/format.md,
"Digests".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from blake3 import blake3

LIST_CONTEXT = "lmvp 2026-11 digest of a list of chunks"
"""The BLAKE3 key derivation context of list digests."""


def of_bytes(*pieces: Any) -> str:
    """Return the BLAKE3-256 of the pieces, one after the other, as 64 hex digits.

    Examples
    --------
    >>> of_bytes(b"ab", b"c") == of_bytes(b"abc")
    True
    """
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def of_chunks(ids: Sequence[str]) -> str:
    """Return the digest of what lies in these chunks: the id itself for one, the list digest otherwise.

    Examples
    --------
    >>> of_chunks([of_bytes(b"abc")]) == of_bytes(b"abc")
    True
    >>> len(of_chunks([]))
    64
    """
    return ids[0] if len(ids) == 1 else _of_list(ids)


def _of_list(ids: Iterable[str]) -> str:
    hasher = blake3(derive_key_context=LIST_CONTEXT)
    for chunk in ids:
        hasher.update(bytes.fromhex(chunk))
    return hasher.hexdigest()
