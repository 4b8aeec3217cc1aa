"""One server, spoken to over HTTP: requests, retries, and what its answers mean.

A request may be sent again without harm, so a connection that breaks, a server that is just starting, or a proxy that
is busy costs time, not work: up to five attempts, waiting longer each time, or as long as `Retry-After` says. An
attempt that got further than the one before is not counted as failed.
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

from lmvp import hints
from lmvp.errors import BY_CODE, LmvpError, MissingChunks, ServerError, ServerMismatch, ServerUnavailable
from lmvp.meter import Meter
from lmvp.records import ErrorBody
from lmvp.render.words import clean
from lmvp.text import as_json, escaped

if TYPE_CHECKING:
    import requests

    from lmvp.local import Local

T = TypeVar("T")

API = 1
API_HEADER = "LMVP-API"
INCOMPLETE_HEADER = "LMVP-Incomplete"
"""Why data is missing from the answer: a file of the server is damaged."""

ATTEMPTS = 5
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 120.0
_BUSY = {429, 502, 503, 504}
LONGEST_WAIT = 30.0
"""Seconds between two attempts at most, whatever a server asks for."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds of `Retry-After` beyond which a request fails at once: nobody waits for a silent program that long."""
ANSWER_LIMIT = 256 << 20
"""Bytes of an answer that is read as a whole, at most; chunks and exports come as streams."""
LINE_LIMIT = 64 << 20
"""Bytes of a line of a long answer, at most. The last line holds the result: the longest one lists what fsck found."""
_LINE_PIECE = 512
"""Bytes that are read at once: a line must not wait until the next ones come."""
_ERROR_LIMIT = 1 << 20
_FIRST_WAIT = 0.1
_SMALL = 4 << 10
_LONGEST_DELAY = 1.0
_GUESS = 25e6
"""Bytes a second over a connection that nothing is known of."""


class Address(msgspec.Struct, frozen=True):
    """Where a server is, and the token for it.

    Attributes
    ----------
    local : Local, optional
        The server of this machine. Each connection to it begins with a proof; see `lmvp.local.prove`.
    """

    url: str
    token: str | None = None
    local: Local | None = None


class Connection:
    """Requests to one server.

    Parameters
    ----------
    find : callable
        Returns the address; asked at the first request, and again after a failed one, since the server of this machine
        may end when it is idle and start anew elsewhere.
    local : bool
        Whether it is surely a server of this machine, with nothing slow in between (a tunnel may begin here too).

    Attributes
    ----------
    up, down : Meter
        Bytes a second of raw chunks, to and from the server.
    sent : int
        Bytes of frames that large pushes sent; threads add to it without a lock, it is for people to see.
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
        """Seconds that a small request takes, at the least: there, a look at its disk, and back; 0 if unknown."""
        return self._delay if self._delay < _LONGEST_DELAY else 0.0

    @property
    def address(self) -> Address | None:
        """The address of the server; None if it is not known yet."""
        return self._address

    @property
    def url(self) -> str:
        """The URL of the server, found now if it was not known."""
        return self._reach().url

    def get(self, path: str, type_: type[T], **query: Any) -> T:
        """Ask for something."""
        return self.attempt(lambda: self.decoded(self._once("GET", path, query=query).content, type_))

    def send_json(self, method: str, path: str, body: Any, type_: type[T]) -> T:
        """Send a struct as JSON."""
        headers = {"Content-Type": "application/json"}
        return self.decoded(self.send(method, path, data=as_json(body), headers=headers).content, type_)

    def send_frames(self, method: str, path: str, frames: Iterable[Any], type_: type[T]) -> T:
        """Send frames; `frames` can be iterated again for another attempt, and has a length in bytes."""
        headers = {"Content-Type": "application/x-lmvp-frames"}
        return self.decoded(self.send(method, path, data=frames, headers=headers).content, type_)

    def put_frames(self, path: str, frames: Iterable[Any], type_: type[T]) -> T:
        """Send frames; one attempt, for use within `attempt`."""
        headers = {"Content-Type": "application/x-lmvp-frames"}
        return self.decoded(self._once("PUT", path, data=frames, headers=headers).content, type_)

    def get_once(self, path: str, type_: type[T]) -> T:
        """Ask for something; one attempt, for use within `attempt`."""
        return self.decoded(self._once("GET", path).content, type_)

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, again if need be, and return the whole answer.

        Raises
        ------
        LmvpError
            What the server said, as the class that it named; `ServerUnavailable` if nobody sensible answered.
        """
        return self.attempt(lambda: self._once(method, path, **options))

    def decoded(self, body: bytes | msgspec.Raw, type_: type[T]) -> T:
        """Decode JSON that the server sent.

        Raises
        ------
        ServerError
            If it is not JSON, or not the JSON of that type.
        """
        try:
            return msgspec.json.decode(body, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.unreadable(error) from None

    def unreadable(self, error: Exception) -> ServerError:
        """Return the error for an answer that cannot be decoded."""
        return ServerError(
            f"the answer of {self.url} cannot be read: {error}",
            hint="check LMVP_URL; if it is right, update lmvp here and on the server",
        )

    @contextmanager
    def stream(self, method: str, path: str, body: Any) -> Iterator[requests.Response]:
        """Send a struct, or nothing (None), and give the answer while it comes; one attempt."""
        headers = {"Content-Type": "application/json"}
        data = None if body is None else as_json(body)
        answer = self._once(method, path, data=data, headers=headers, stream=True)
        try:
            yield answer
        finally:
            answer.close()

    @staticmethod
    def lines(answer: requests.Response) -> Iterator[bytes]:
        """Give the lines of an answer while they come; within `attempt`, what is cut off is asked for again.

        Raises
        ------
        ServerError
            If a line is longer than `LINE_LIMIT`: a server must not fill the memory of its clients.
        """
        import requests

        begun: list[bytes] = []  # a line in pieces: to join it at each piece would take quadratic time
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
        """Do some work that talks to the server, again while it fails for want of a connection.

        Parameters
        ----------
        done : callable
            Tells how far this and what goes on beside it have come: as long as anything comes through, the count of
            attempts begins anew.
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
                self._forget()
                time.sleep(pause(failed, error.retry_after))

    def once(self, method: str, path: str, type_: type[T], *, timeout: float, **options: Any) -> T:
        """Send a request, once, and wait no longer than `timeout` seconds for each part of the answer.

        Raises
        ------
        ServerUnavailable
            If nobody answers, or the answer breaks off.
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
                allow_redirects=False,
                timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            )
        except requests.exceptions.SSLError as error:
            raise ServerUnavailable(f"no trusted connection to {address.url}: {_reason(error)}") from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _Interrupted(_reason(error)) from error
        if not stream and len(data or b"") < _SMALL:
            self._delay = min(self._delay, answer.elapsed.total_seconds())
        understood = self._understood(answer)
        if not stream:
            understood._content = _whole_body(understood, ANSWER_LIMIT)  # noqa: SLF001 - where requests keeps it
        return understood

    def _reach(self) -> Address:
        if self._address is None:
            self._address = self._find()
        return self._address

    def _open(self, address: Address) -> requests.Session:
        """Return the session for an address; the sockets of a former server are not used for the next one."""
        known = self._session
        if known is None or known[0] != address:
            import requests
            from requests.adapters import HTTPAdapter

            session = requests.Session()
            session.trust_env = not (address.local or _loopback(address.url))  # no proxy reaches this machine itself
            session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # which comes with the rest of trust_env
            session.headers["User-Agent"] = "lmvp"
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(pool_maxsize=8))
            if address.local:
                from lmvp.proven import proven_adapter

                session.mount("http://", proven_adapter(address.local, pool_maxsize=8))
            self._session = known = address, session
        return known[1]

    def _forget(self) -> None:
        self._address = None
        self._lost()

    def _understood(self, answer: requests.Response) -> requests.Response:
        """Return an answer that an LMVP server of our API gave, or raise what it says."""
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
        If it is longer than the limit: a server must not fill the memory of its clients.
    """
    import urllib3

    raw = answer.raw
    try:
        coded = answer.headers.get("Content-Encoding") or answer.headers.get("Transfer-Encoding")
        if not coded and _is_short(answer.headers.get("Content-Length"), limit):  # chunks would come without an end
            whole: bytes = raw.read(decode_content=True)  # at once; requests would take it in small pieces
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
    """A request got no answer, or was told to come again."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


Interrupted = _Interrupted


class _Bearer:
    """Adds the token; as an auth object, since a header would lose against ~/.netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def error_of(data: bytes, status: int = 500) -> LmvpError:
    """Return the error that a server sent as JSON, as the class that it named."""
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
    """Return the seconds to wait after so many failures: what the server asked for, or a random time.

    Up to a limit that doubles each time, so that clients that failed together do not come back together.

    Parameters
    ----------
    retry_after : str, optional
        The header of that name: seconds, or a date.
    """
    asked = _asked_pause(retry_after)
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_WAIT)
    return random.uniform(0, min(_FIRST_WAIT * 2**failed, LONGEST_WAIT))  # noqa: S311 - spreads clients, hides nothing


def _asked_pause(retry_after: str | None) -> float | None:
    return _seconds_until(retry_after.strip()) if retry_after else None


def _seconds_until(retry_after: str) -> float | None:
    """Read a header `Retry-After`; None if it says neither seconds nor a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None


def _reason(error: BaseException) -> str:
    """Return the innermost cause, which says more than the layers around it."""
    text = str(error)
    for name in ("Connection refused", "timed out", "Connection reset", "Name or service not known", "closed"):
        if name.lower() in text.lower():
            return name.lower()
    return text[:200] or type(error).__name__


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
