"""Compression of pages, static files and the curves of a page."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Protocol

from tornado.httputil import HTTPHeaders
from tornado.web import GZipContentEncoding

LIMIT = 256 << 10
"""Maximum size in bytes of a response that is compressed in the event loop, which takes about 5 ms.

Static files and small responses are compressed there. Handlers compress larger responses in a thread, with `encode`;
all others are sent without compression.
"""


class _Answer(Protocol):
    def set_header(self, name: str, value: str) -> None: ...


class Gzip(GZipContentEncoding):
    """Tornado transform that compresses the responses for which `may_compress` was called.

    A response that contains a secret together with text of an attacker must not be compressed: its length would reveal
    the secret (BREACH, https://breachattack.com). Tokens and links that are shown once are therefore only in responses
    to POST, which are not compressed. CSRF tokens have a new mask on each page.
    """

    GZIP_LEVEL = 3
    """Level 3 is twice as fast as level 6, for 10 % more bytes."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Compress a response if this is allowed and it is short, but not a part of a file. Tornado calls this."""
        # A range refers to the bytes of the uncompressed file.
        if headers.get("Vary") != "Accept-Encoding" or status_code == 206 or len(chunk) > LIMIT:
            self._gzipping = False
            return status_code, headers, chunk
        del headers["Vary"]
        return super().transform_first_chunk(status_code, headers, chunk, finishing)


def encode(make: Callable[[], bytes], accepted: str) -> tuple[bytes, str]:
    """Create and compress the body of a response. Call this in a thread, not in the event loop.

    Parameters
    ----------
    make : callable
        Returns the body. It must not change the state of the handler.
    accepted : str
        The header `Accept-Encoding` of the request.

    Returns
    -------
    bytes, str
        The body, and the value of `Content-Encoding`, which is empty if the body is not compressed.
    """
    data = make()
    if "gzip" not in accepted or len(data) < Gzip.MIN_LENGTH:
        return data, ""
    # Without a time, equal pages have equal bytes.
    return gzip.compress(data, Gzip.GZIP_LEVEL, mtime=0), "gzip"


def may_compress(answer: _Answer) -> None:
    """Allow the compression of a response. The header `Vary` marks it for `Gzip`."""
    answer.set_header("Vary", "Accept-Encoding")
