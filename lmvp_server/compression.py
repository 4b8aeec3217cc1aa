"""Compression of what is read often: pages, styles and scripts, the curves of a page."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Protocol

from tornado.httputil import HTTPHeaders
from tornado.web import GZipContentEncoding

LIMIT = 256 << 10
"""Bytes that are compressed on the event loop, at most, about 5 ms: static files and small answers. Handlers make and
compress longer answers in a thread, with `encode`; any other long answer is sent as it is."""


class _Answer(Protocol):
    def set_header(self, name: str, value: str) -> None: ...


class Gzip(GZipContentEncoding):
    """Compresses an answer whose handler said that it may: `may_compress`.

    An answer that holds a secret beside what somebody else can place in it must not say so, since its length would then
    tell the secret, letter by letter (BREACH, https://breachattack.com): the tokens and links that are shown once stand
    in answers to POST, which are not compressed, and what forms carry is masked anew in each page.
    """

    GZIP_LEVEL = 3
    """Twice as fast as 6 for a tenth more bytes."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Compress what may be and can be read, but no part of a file. Tornado calls this."""
        if headers.get("Vary") != "Accept-Encoding" or status_code == 206 or len(chunk) > LIMIT:
            self._gzipping = False
            return status_code, headers, chunk
        del headers["Vary"]
        return super().transform_first_chunk(status_code, headers, chunk, finishing)


def encode(make: Callable[[], bytes], accepted: str) -> tuple[bytes, str]:
    """Make the body of an answer that may be compressed, and compress it; a thread calls this, not the event loop.

    Parameters
    ----------
    make : callable
        Returns the body. It must not change the state of the handler.
    accepted : str
        The header `Accept-Encoding` of the request.

    Returns
    -------
    bytes, str
        The body, and the value of `Content-Encoding`, empty if the body is not compressed.
    """
    data = make()
    if "gzip" not in accepted or len(data) < Gzip.MIN_LENGTH:
        return data, ""
    return gzip.compress(data, Gzip.GZIP_LEVEL, mtime=0), "gzip"


def may_compress(answer: _Answer) -> None:
    """Say of the answer of a handler that it may be compressed."""
    answer.set_header("Vary", "Accept-Encoding")
