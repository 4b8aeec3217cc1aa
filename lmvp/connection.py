"""HTTP connection to one server: requests, retries and errors.

All requests of the API are safe to repeat. If a connection breaks, or a server or proxy is busy (429, 502, 503, 504),
the request is sent up to five times, with exponential backoff or the pause of `Retry-After`. The count of failed
attempts restarts when an attempt makes more progress than the one before, so long transfers survive many interruptions.
"""

from __future__ import annotations

import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from lmvp import hints, local
from lmvp.core.sanitize import as_json, clean, escaped
from lmvp.core.schemas import ErrorBody
from lmvp.core.schemas.base import API, API_HEADER, INCOMPLETE_HEADER
from lmvp.core.throughput import Meter
from lmvp.errors import BY_CODE, LmvpError, MissingChunks, ServerError, ServerMismatch, ServerUnavailable

if TYPE_CHECKING:
    import requests

    from lmvp.local import Local

T = TypeVar("T")


ATTEMPTS = 5
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 120.0
_BUSY = {429, 502, 503, 504}
"""Statuses after which a request is repeated: rate limit, bad gateway, unavailable, gateway timeout."""
LONGEST_WAIT = 30.0
"""Maximum pause between two attempts in seconds, whatever `Retry-After` states."""
LONGEST_RETRY_AFTER = 60.0
"""A `Retry-After` of more seconds fails the request immediately. Users would take a longer silent wait for a hang."""
ANSWER_LIMIT = 256 << 20
"""Maximum size of a response that is read as a whole, in bytes. Chunks and exports are streamed instead."""
LINE_LIMIT = 64 << 20
"""Maximum length of a line of a streamed response, in bytes. The longest result is the list of problems of fsck."""
_LINE_PIECE = 512
"""Bytes to read at once from a streamed response. A larger buffer would delay a line until more lines arrive."""
_ERROR_LIMIT = 1 << 20
"""Maximum size of an error response in bytes."""
_FIRST_WAIT = 0.1
"""Base of the exponential backoff in seconds."""
_SMALL = 4 << 10
"""Requests of fewer bytes measure the latency; larger ones would measure the upload."""
_LONGEST_DELAY = 1.0
"""Latencies of more seconds are ignored as unknown."""
_GUESS = 25e6
"""Assumed throughput of a new connection in bytes per second (200 Mbit/s)."""


class Address(msgspec.Struct, frozen=True):
    """The URL of a server and the token for it.

    Attributes
    ----------
    url : str
    token : str, optional
    local : Local, optional
        Set for the server of this machine. The client verifies its identity on each connection; see `lmvp.local.prove`.
    """

    url: str
    token: str | None = None
    local: Local | None = None


class Connection:
    """Requests to one server.

    Parameters
    ----------
    find : callable
        Returns the address. It is called before the first request and after each failed one, because the server of this
        machine exits when it is idle and can use another port after its next start.
    lost : callable
        Called after a failed request, before `find`.
    local : bool, default False
        Whether the server runs on this machine for certain. A loopback address is not enough: it can be the end of a
        tunnel.

    Attributes
    ----------
    up, down : Meter
        Throughput of raw chunks to and from the server, in bytes per second.
    sent : int
        Bytes of frames that large pushes sent. Threads add to it without a lock, because it is only displayed.
    """

    def __init__(
        self, find: Callable[[], Address], lost: Callable[[], None] = lambda: None, *, local: bool = False
    ) -> None:
        self._find, self._lost = find, lost
        self.local = local
        self._delay = math.inf
        self.up, self.down = Meter(_GUESS), Meter(_GUESS)
        self.sent = 0
        self._session: tuple[Address, requests.Session] | None = None
        self._address: Address | None = None

    @property
    def delay(self) -> float:
        """The shortest duration of a small request so far, in seconds; 0 if unknown."""
        return self._delay if self._delay < _LONGEST_DELAY else 0.0

    @property
    def address(self) -> Address | None:
        """The address of the server; None if it is not known yet."""
        return self._address

    @property
    def url(self) -> str:
        """The URL of the server. The first access can start the server of this machine."""
        return self._reach().url

    def get(self, path: str, type_: type[T], **query: Any) -> T:
        """Send a GET request, and decode the response."""
        return self.attempt(lambda: self.decoded(self._once("GET", path, query=query).content, type_))

    def send_json(self, method: str, path: str, body: Any, type_: type[T]) -> T:
        """Send a struct as JSON, and decode the response."""
        headers = {"Content-Type": "application/json"}
        return self.decoded(self.send(method, path, data=as_json(body), headers=headers).content, type_)

    def send_frames(self, method: str, path: str, frames: Iterable[Any], type_: type[T]) -> T:
        """Send frames. `frames` has a length in bytes and can be iterated several times, once for each attempt."""
        headers = {"Content-Type": "application/x-lmvp-frames"}
        return self.decoded(self.send(method, path, data=frames, headers=headers).content, type_)

    def put_frames(self, path: str, frames: Iterable[Any], type_: type[T]) -> T:
        """Send frames in one attempt, for use within `attempt`."""
        headers = {"Content-Type": "application/x-lmvp-frames"}
        return self.decoded(self._once("PUT", path, data=frames, headers=headers).content, type_)

    def get_once(self, path: str, type_: type[T]) -> T:
        """Send a GET request in one attempt, for use within `attempt`."""
        return self.decoded(self._once("GET", path).content, type_)

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, with retries, and return the response with its whole body.

        Raises
        ------
        LmvpError
            The error that the server returned, as the class of its code.
        ServerUnavailable
            If the server does not answer, or is not an LMVP server.
        """
        return self.attempt(lambda: self._once(method, path, **options))

    def decoded(self, body: bytes | msgspec.Raw, type_: type[T]) -> T:
        """Decode a JSON response.

        Raises
        ------
        ServerError
            If the body is not JSON, or does not match the type.
        """
        try:
            return msgspec.json.decode(body, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.unreadable(error) from None

    def unreadable(self, error: Exception) -> ServerError:
        """Return the error for a response that cannot be decoded."""
        return ServerError(
            f"the answer of {self.url} cannot be read: {error}",
            hint="check LMVP_URL; if it is right, update lmvp here and on the server",
        )

    @contextmanager
    def stream(self, method: str, path: str, body: Any) -> Iterator[requests.Response]:
        """Send a struct, or an empty body (None), and yield the response as a stream; one attempt."""
        headers = {"Content-Type": "application/json"}
        data = None if body is None else as_json(body)
        answer = self._once(method, path, data=data, headers=headers, stream=True)
        try:
            yield answer
        finally:
            answer.close()

    @staticmethod
    def lines(answer: requests.Response) -> Iterator[bytes]:
        """Yield the lines of a streamed response as they arrive.

        An interrupted response raises the error that `attempt` retries.

        Raises
        ------
        ServerError
            If a line is longer than `LINE_LIMIT`. A faulty server must not fill the memory of its clients.
        """
        import requests

        begun: list[bytes] = []  # pieces of the current line; joining them at each piece would take quadratic time
        size = 0
        try:
            for piece in answer.iter_content(_LINE_PIECE):
                *ended, rest = piece.split(b"\n")
                for line in ended:
                    yield b"".join([*begun, line]).rstrip(b"\r")
                    begun, size = [], 0
                begun.append(rest)
                size += len(rest)
                if size > LINE_LIMIT:
                    raise ServerError(
                        f"the server's answer has a line of more than {LINE_LIMIT >> 20} MiB",
                        hint="is this an LMVP server? check LMVP_URL",
                    )
        except requests.RequestException as error:
            raise _Interrupted(_reason(error)) from error
        if last := b"".join(begun):
            yield last

    def attempt(self, work: Callable[[], T], done: Callable[[], int] = lambda: 0) -> T:
        """Call a function that sends requests; repeat the call while the connection fails, up to `ATTEMPTS` times.

        Parameters
        ----------
        work : callable
            The function. It must be safe to repeat.
        done : callable
            Returns the progress of this and all concurrent transfers. If it grew since the last failure, the count of
            failed attempts restarts.
        """
        failed, before = 0, done()
        while True:
            try:
                return work()
            except _Interrupted as error:
                failed, before = 1 if done() > before else failed + 1, done()
                if failed >= ATTEMPTS:
                    raise self._unavailable(error) from error.__cause__
                if (asked := _asked_pause(error.retry_after)) is not None and asked > LONGEST_RETRY_AFTER:
                    raise self._later(error, asked) from error.__cause__
                self._forget()  # the server of this machine can have restarted on another port
                time.sleep(pause(failed, error.retry_after))

    def once(self, method: str, path: str, type_: type[T], *, timeout: float, **options: Any) -> T:
        """Send a request without retries; wait at most `timeout` seconds for each part of the response.

        Raises
        ------
        ServerUnavailable
            If the server does not answer, or the response is interrupted.
        """
        try:
            return self.decoded(self._once(method, path, timeout=timeout, **options).content, type_)
        except _Interrupted as error:
            self._forget()
            raise self._unavailable(error) from error.__cause__

    # -- one request

    def _once(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        data: Any = None,
        headers: Any = None,
        stream: bool = False,
        timeout: float = READ_TIMEOUT,
    ) -> requests.Response:
        import requests

        address = self._reach()
        session = self._open(address)
        try:
            answer = session.request(
                method,
                f"{address.url}/api/v1{path}",
                params=escaped(query),
                data=data,
                headers=headers,
                auth=_Bearer(address.token),
                stream=True,
                allow_redirects=False,  # a redirect could send the token and the data to another server
                timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            )
        except requests.exceptions.SSLError as error:  # before its base class; a retry cannot fix a certificate
            raise ServerUnavailable(f"no trusted connection to {address.url}: {_reason(error)}") from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _Interrupted(_reason(error)) from error
        if not stream and len(data or b"") < _SMALL:
            self._delay = min(self._delay, answer.elapsed.total_seconds())
        understood = self._understood(answer)
        if not stream:
            understood._content = _whole_body(understood, ANSWER_LIMIT)  # noqa: SLF001 - the attribute behind `content`
        return understood

    def _reach(self) -> Address:
        if self._address is None:
            self._address = self._find()
        return self._address

    def _open(self, address: Address) -> requests.Session:
        """Return the session for an address. A new address gets a new session, so no socket is reused for it."""
        known = self._session
        if known is None or known[0] != address:
            import requests
            from requests.adapters import HTTPAdapter

            session = requests.Session()
            session.trust_env = not (address.local or _loopback(address.url))  # a proxy cannot reach this machine
            session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # trust_env=False would ignore the variable
            session.headers["User-Agent"] = "lmvp"
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_maxsize=8))
            if address.local:
                from lmvp.local_session import proven_adapter

                session.mount("http://", proven_adapter(address.local, pool_maxsize=8))
            self._session = known = address, session
        return known[1]

    def _forget(self) -> None:
        self._address = None
        self._lost()

    def _understood(self, answer: requests.Response) -> requests.Response:
        """Return a successful response of an LMVP server with the same API version; otherwise raise the error."""
        # A 503 of a server without `Retry-After` is a final error, for example a failed disk. Without the API header,
        # the response is from a proxy whose server is restarting.
        spoken = answer.headers.get(API_HEADER)
        if answer.status_code in _BUSY and (spoken is None or "Retry-After" in answer.headers):
            raise _Interrupted(f"{answer.status_code} {answer.reason}", answer.headers.get("Retry-After"))
        if spoken is None:
            raise self._foreign(answer)
        if spoken != str(API):
            raise ServerMismatch(
                f"the server at {self.url} speaks API {spoken}, this client {API}",
                hint="install the same release of LMVP on both sides",
            )
        if answer.status_code >= 400:
            raise error_of(_whole_body(answer, _ERROR_LIMIT), answer.status_code)
        if missing := answer.headers.get(INCOMPLETE_HEADER):
            warnings.warn(hints.translated(f"{self.url}: {clean(missing)}"), stacklevel=4)
        return answer

    def _foreign(self, answer: requests.Response) -> ServerUnavailable:
        where = answer.headers.get("Location")
        if 300 <= answer.status_code < 400 and where:
            return ServerUnavailable(f"{self.url} sends us on to {where}", hint="give that URL, if you trust it")
        kind = answer.headers.get("Content-Type", "nothing").partition(";")[0]
        return ServerUnavailable(
            f"what answers at {self.url} is not an LMVP server ({answer.status_code}, {kind})", hint="check LMVP_URL"
        )

    def _later(self, error: _Interrupted, seconds: float) -> ServerUnavailable:
        url = self._address.url if self._address else "there"
        return ServerUnavailable(
            f"{url} is busy ({error}) and asks to wait {seconds:,.0f} s; the limit is {LONGEST_RETRY_AFTER:.0f} s",
            hint="try again later",
        )

    def _unavailable(self, error: _Interrupted) -> ServerUnavailable:
        url = self._address.url if self._address else "there"
        return ServerUnavailable(
            f"no answer from {url}: {error}", hint="is it running? `lmvp status` shows the server in use"
        )


def _whole_body(answer: requests.Response, limit: int) -> bytes:
    """Return the whole body, decompressed.

    Raises
    ------
    ServerError
        If the body is longer than the limit. A faulty server must not fill the memory of its clients.
    """
    import urllib3

    raw = answer.raw
    try:
        coded = answer.headers.get("Content-Encoding") or answer.headers.get("Transfer-Encoding")
        # Only a body with a length, neither compressed nor chunked, has a known size; others can be of any size.
        if not coded and _is_short(answer.headers.get("Content-Length"), limit):
            whole: bytes = raw.read(decode_content=True)  # one read; `content` would read pieces of 10 KiB
            return whole
        body = bytearray()
        while piece := raw.read(1 << 20, decode_content=True):
            body += piece
            if len(body) > limit:
                answer.close()
                raise ServerError(
                    f"the server's answer is longer than {limit >> 20} MiB",
                    hint="is this an LMVP server? check LMVP_URL",
                )
    except urllib3.exceptions.HTTPError as error:
        raise _Interrupted(_reason(error)) from error
    return bytes(body)


def _is_short(length: str | None, limit: int) -> bool:
    return length is not None and length.isascii() and length.isdigit() and int(length[:20]) <= limit


class _Interrupted(Exception):
    """A request that can be repeated: the connection failed, or the server asks for a retry."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


Interrupted = _Interrupted


class _Bearer:
    """Adds the token to a request. As an auth object, it has precedence over ~/.netrc; a header would not."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def error_of(data: bytes, status: int = 500) -> LmvpError:
    """Return the error in a JSON response of the server, as the class of its code."""
    try:
        body = msgspec.convert(msgspec.json.decode(data)["error"], ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        return ServerError(f"the server answered {status} without saying why")
    default = ServerError if status >= 500 else BY_CODE["bad_request"]
    error = BY_CODE.get(body.code, default)(body.message, hint=body.hint)
    if isinstance(error, MissingChunks) and body.details:
        error.missing = body.details.get("missing", ())
    return error


def pause(failed: int, retry_after: str | None = None) -> float:
    """Return the seconds to wait before the next attempt.

    Without `Retry-After`, the pause is random with an upper limit that doubles after each failure (exponential backoff
    with full jitter). Clients that failed at the same time therefore do not retry at the same time.

    Parameters
    ----------
    failed : int
        The number of failed attempts.
    retry_after : str, optional
        The value of the header `Retry-After`: seconds or a date.
    """
    asked = _asked_pause(retry_after)
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_WAIT)
    return random.uniform(0, min(_FIRST_WAIT * 2**failed, LONGEST_WAIT))  # noqa: S311 - jitter, not cryptography


def _asked_pause(retry_after: str | None) -> float | None:
    return _seconds_until(retry_after.strip()) if retry_after else None


def _seconds_until(retry_after: str) -> float | None:
    """Parse the header `Retry-After`; return None if it contains neither seconds nor a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])  # a bounded length: the header of a faulty server can have thousands of digits
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None


def _reason(error: BaseException) -> str:
    """Return the cause of a failed connection in short; urllib3 nests it in several exceptions."""
    text = str(error)
    for name in ("Connection refused", "timed out", "Connection reset", "Name or service not known", "closed"):
        if name.lower() in text.lower():
            return name.lower()
    return text[:200] or type(error).__name__


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def own_connection(address: Address | None) -> Connection:
    """Return a new, unshared connection to a server (None: the server of this machine), for use in a thread."""
    if address:
        return Connection(lambda: address)
    embedded = _Embedded()
    return Connection(embedded.find, embedded.lost, local=True)


class _Embedded:
    """Finds the server of this machine, and finds or starts it again after a lost connection."""

    def __init__(self) -> None:
        self._local: local.Local | None = None

    def find(self) -> Address:
        self._local = local.connection()
        return Address(self._local.url, self._local.token, self._local)

    def lost(self) -> None:
        if self._local is not None:
            local.forget(self._local)
