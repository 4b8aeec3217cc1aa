"""The two digests of the format: of bytes, and of a list of chunks.

The list digest of a file or tensor is computed from the ids of its chunks, so a push hashes each byte only once. Its
key derivation context ensures that it never equals a digest of bytes. See docs/format.md, "Digests".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from blake3 import blake3

LIST_CONTEXT = "lmvp 2026-11 digest of a list of chunks"
"""BLAKE3 key derivation context of list digests."""


def of_bytes(*pieces: Any) -> str:
    """Return the BLAKE3-256 of the concatenated pieces as 64 hex digits.

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
    """Return the digest of a file or tensor: the chunk id if there is exactly one chunk, otherwise the list digest.

    Examples
    --------
    >>> of_chunks([of_bytes(b"abc")]) == of_bytes(b"abc")
    True
    >>> len(of_chunks([]))
    64
    """
    # The id of a single chunk is the digest of its bytes, so that a small file has the digest that `b3sum` prints.
    return ids[0] if len(ids) == 1 else _of_list(ids)


def _of_list(ids: Iterable[str]) -> str:
    hasher = blake3(derive_key_context=LIST_CONTEXT)
    for chunk in ids:
        hasher.update(bytes.fromhex(chunk))
    return hasher.hexdigest()
