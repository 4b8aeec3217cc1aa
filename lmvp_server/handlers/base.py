"""What all handlers share: who calls, reading and writing JSON, errors, and work off the loop.

Tornado's loop runs in one thread, so whatever reads a disk, hashes or waits runs in a pool of threads: `await
self.run(…)`. Every route is closed: a handler without `open_to_all` answers 401 to a request without a token
that is known, unless it only reads and the project is public; `lmvp_server.services.access` decides what a token may.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import msgspec
from tornado.iostream import StreamClosedError
from tornado.web import Finish, HTTPError, RequestHandler, stream_request_body

from lmvp.connection import API, API_HEADER
from lmvp.durable import storage_error
from lmvp.errors import (
    AccessDenied,
    InvalidRequest,
    LmvpError,
    NotAuthenticated,
    NotFound,
    ServerError,
    TooLarge,
    TooManyRequests,
)
from lmvp.records import ErrorBody
from lmvp_server.buffers import ANSWERED_ALWAYS, Buffers
from lmvp_server.cancellation import Cancellation, Cancelled
from lmvp_server.compression import encode, may_compress
from lmvp_server.costly import CostlyWork, Lane
from lmvp_server.handlers.hosts import foreign_host
from lmvp_server.handlers.query import CURSOR, LIMIT, Parameter
from lmvp_server.services import Services, access
from lmvp_server.services.access import Caller
from lmvp_server.services.paging import Page
from lmvp_server.services.pushes import OpenPush
from lmvp_server.services.sessions import own_credential
from lmvp_server.services.throttle import network_of
from lmvp_server.serving import buffers_of, set_caller

T = TypeVar("T")
log = logging.getLogger("lmvp_server")

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_.~-]+)*")
_QUICK = 8 << 20
"""Bytes that are hashed without a turn, in some milliseconds."""
_ROOM = 0.25
"""Seconds between two looks for room in memory."""
_LOOK = 0.5
"""Seconds between two lines that say how far something is."""
RECHECK = 2.0
"""Seconds after which a long request looks up the rights of its caller again."""

JSON_LIMIT = 1 << 20
"""Bytes of a JSON body at most, where a handler does not say otherwise."""

DRAINED = 1 << 20
"""Bytes of the body of a refused request that are read before the answer."""

CLIENT_LEFT = 499
"""The status in the log of a request whose client did not wait for the answer."""

READING = frozenset({"GET", "HEAD"})


@stream_request_body
class Handler(RequestHandler):
    """The base of all handlers of the API."""

    open_to_all = False
    in_public: frozenset[str] = frozenset()
    """Methods that only read: they are answered without a token where a project is public."""
    body_limit = JSON_LIMIT
    needs: ClassVar[Mapping[str, str]] = {}
    """The right that a method takes at least, in the project that the path names first; it is checked before the body
    is read, so that a caller without it causes no work. Each method with a body has one, or is `open_to_all`."""
    makes_project: ClassVar[frozenset[str]] = frozenset()
    """Methods that may make the project of the path: who may make projects may call them if there is none."""
    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {}
    """The query parameters of each method."""
    of_model: ClassVar[bool] = False
    """Whether the path names a model; then it must exist before a method of `needs` reads the body."""

    def initialize(self) -> None:
        """Begin a request."""
        self._body: list[bytes] = []
        self._received = 0
        self._refused: tuple[int, dict[str, Any]] | None = None
        self._has_left = False
        self._checked_at = time.monotonic()
        self._turn: asyncio.Future[None] | None = None
        self._admitted = False
        self._cancellation = Cancellation()
        self._held: list[tuple[Buffers, Lane, int]] = []

    @property
    def caller(self) -> Caller:
        """The caller, looked up again by the credential of the request when a part of the body has come since.

        A client may hold its body back, and send it when its token was revoked: the request counts from its end.
        Without a body, the caller is looked up again after `RECHECK` seconds.
        """
        if time.monotonic() - self._called_at >= RECHECK:
            self.caller = self._caller(self.settings["server"].token)
        return self._known_caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._known_caller, self._called_at = caller, time.monotonic()
        holder = caller.holder if caller.known else None
        set_caller(self.request.connection, holder, self.request.remote_ip or "")

    def expire_caller(self) -> None:
        """Look the caller up again at its next use."""
        self._called_at = float("-inf")

    @property
    def services(self) -> Services:
        """The use cases."""
        services: Services = self.settings["services"]
        return services

    def prepare(self) -> Awaitable[None] | None:
        """Refuse a caller without the right to call, and a body that is too long, before the body is read."""
        server = self.settings["server"]
        if foreign_host(self.request, server):
            raise AccessDenied(f"this server does not answer for the host {self.request.host[:80]!r}")
        self.caller = self._caller(server.token)
        if not self.caller.known and self.in_public and self.path_args:  # before anything else is said of the request
            access.require(self.caller, access.READ, self.path_args[0])
        length = self.request.headers.get("Content-Length", "0")
        if is_number(length) and int(length) > self.body_limit:  # Tornado refuses a length that is no number
            raise TooLarge(f"a body of {int(length):,} bytes; the limit here is {self.body_limit:,}")
        return self._require_need()

    def _require_need(self) -> Awaitable[None] | None:
        """Check the right in `needs`; look-ups that may read the disk run in the pool."""
        right = self.needs.get(self.request.method or "")
        if right is None:
            return None
        if right in access.SERVER_WIDE:
            access.require(self.caller, right)
            return None
        if not self.of_model and self.caller.may(right, self.path_args[0]):
            return None
        return self.run(self._require_in_project, self.caller, right)

    def _require_in_project(self, caller: Caller, right: str) -> None:
        catalog, project = self.services.catalog, self.path_args[0]
        if not caller.may(right, project):
            if self.request.method in self.makes_project and catalog.may_make(caller, project):
                return
            catalog.find_project(caller, project)
            access.require(caller, right, project)
        if self.of_model:
            catalog.find_model(caller, project, self.path_args[1])

    def address_of_server(self) -> str:
        """Return the address that clients log in to: the one of this request, with the prefix of a reverse proxy.

        Jupyter's proxy has a prefix, too, but only browsers use it: clients reach a server of this machine directly.
        """
        prefix = self.request.headers.get("X-Forwarded-Prefix", "").rstrip("/")
        known = prefix if _PREFIX.fullmatch(prefix) and not self.settings["server"].local else ""
        return f"{self.request.protocol}://{self.request.host}{known}"

    def _caller(self, token: str) -> Caller:
        given = self.request.headers.get("Authorization", "")
        if not given and (self.open_to_all or self.request.method in self.in_public):
            return self._nobody()
        try:
            return self.caller_of(given.removeprefix("Bearer ") if given.startswith("Bearer ") else "", token)
        except NotAuthenticated:
            if self.open_to_all:
                return self._nobody()
            said = "this token is not known here" if given else "no token was sent"
            raise NotAuthenticated(
                said, hint="`lmvp login URL` gets a token for a server; LMVP_TOKEN holds one"
            ) from None

    def caller_of(self, given: str, token: str | None = None) -> Caller:
        """Return whose token this is.

        Raises
        ------
        NotAuthenticated
            If it is nobody's.
        """
        own = self.settings["server"].token if token is None else token
        # Neither an empty header nor an empty token file makes a caller the operator.
        if given and own and hmac.compare_digest(given.encode(), own.encode()):
            return Caller(
                self.settings["owner"],
                owner=True,
                scope="admin",
                credential=own_credential(own),
                generation=self.services.users.operator_generation,
            )
        found = self.services.tokens.caller(given, self.settings["owner"]) if given else None
        if found is None:
            raise NotAuthenticated("this token is not known here")
        return replace(found, roles=self.services.roles)

    def _nobody(self) -> Caller:
        return Caller("anonymous", scope="read", roles=self.services.roles)

    async def recheck(self, right: str, project: str = "", *, space: str = "", now: bool = False) -> None:
        """Look up the caller's rights again, by the credential of the request; a stream or a transfer does so often.

        Parameters
        ----------
        right : str
            The right that the request takes.
        project : str
            The project that it is in.
        space : str
            The id that the project must have: another one may have taken its name.
        now : bool
            Look them up even if that happened less than `RECHECK` seconds ago.

        Raises
        ------
        NotAuthenticated
            If the token or the session has ended, or its account is disabled.
        AccessDenied, NotFound
            If the caller has lost the right, or the project is gone.
        """
        if now or time.monotonic() - self._checked_at >= RECHECK:
            await self.run(self._recheck, right, project, space)
            self._checked_at = time.monotonic()

    def _recheck(self, right: str, project: str, space: str) -> None:
        caller = self._caller(self.settings["server"].token)
        if self._known_caller.known and not caller.known:
            raise NotAuthenticated("this session has ended", hint="sign in again")
        found = self.services.catalog.find_project(caller, project) if project else None
        if found is not None and space not in ("", found.id):
            raise NotFound(f"no project {project!r}", hint="it was removed; another one has its name")
        access.require(caller, right, project)

    async def project_id(self, project: str) -> str:
        """Return the id of a project, for `recheck`; empty if the caller may not read it, which the work refuses."""

        def find() -> str:
            try:
                return self.services.catalog.find_project(self.caller, project).id
            except LmvpError:
                return ""

        return await self.run(find) if project else ""

    @property
    def has_begun(self) -> bool:
        """Whether a part of the answer is sent, so that its status cannot change any more."""
        return self._headers_written

    def break_off(self) -> None:
        """Close the connection in the middle of the answer: a proper end would make it look whole."""
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            stream.close()

    def data_received(self, chunk: bytes) -> Any:
        """Keep the body; a handler of long bodies overrides this.

        Tornado logs a traceback for what is raised here, and closes the connection without an answer. So a body that
        is too long is answered at once: Tornado reads the rest of it without a call, and closes the connection.
        """
        self._received += len(chunk)
        if self.is_refused():
            return
        self.expire_caller()
        if self._received > self.body_limit:
            self._body.clear()
            error = TooLarge(f"the body is longer than {self.body_limit:,} bytes")
            self.send_error(error.http_status, exc_info=(type(error), error, None))
        elif self.hold_body(len(chunk)):
            self._body.append(chunk)

    def hold_body(self, size: int) -> bool:
        """Count bytes of the body that stay in memory; refuse the request if they find no room."""
        try:
            self.hold(size)
        except TooManyRequests as error:
            self._body.clear()
            self.release()
            self.send_error(error.http_status, exc_info=(type(error), error, None))
            return False
        return True

    def hold(self, size: int, *, required: bool = True) -> None:
        """Count bytes that this request keeps in memory, until `release` or its end.

        Raises
        ------
        TooManyRequests
            If they find no room and are `required` to.
        """
        if (found := buffers_of(self.request.connection)) is not None:
            buffers, lane = found
            if required:
                buffers.require(lane, size)
            buffers.add(lane, size)
            self._held.append((buffers, lane, size))

    def release(self) -> None:
        """Count no bytes any more for this request."""
        for buffers, lane, size in self._held:
            buffers.remove(lane, size)
        self._held.clear()

    def has_room(self, size: int) -> bool:
        """Whether more bytes find room in memory."""
        found = buffers_of(self.request.connection)
        return found is None or found[0].has_room(found[1], size)

    async def wait_for_room(self, size: int) -> None:
        """Wait until more bytes of an answer find room.

        Raises
        ------
        TooManyRequests
            If they find none, and the answer has not begun.
        StreamClosedError
            If the client closes the connection.
        """
        while not self.has_room(size):
            if not self.has_begun and (found := buffers_of(self.request.connection)) is not None:
                found[0].require(found[1], size)
            if self._has_left:
                raise StreamClosedError
            await asyncio.sleep(_ROOM)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> asyncio.Future[None]:
        """Send the rest of an answer; an answer that finds no room in memory is refused.

        Raises
        ------
        TooManyRequests
            If it is long, and it finds none.
        """
        if isinstance(chunk, (str, bytes)) and len(chunk) > ANSWERED_ALWAYS and self.get_status() < 400:
            found = buffers_of(self.request.connection)
            if found is not None and not self.has_begun:
                found[0].require(found[1], len(chunk))
        return super().finish(chunk)

    def on_finish(self) -> None:
        """Let go of the body: the answer is written."""
        self._body.clear()
        self.release()

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send an error; where a short body is still on its way, only when it has come.

        The system resets a connection that is closed with unread bytes, and the client may never see the answer.
        """
        if self._headers_written:
            self.break_off()
            return
        if self._refused is None and 0 < self._unread() <= DRAINED:
            self._refused = status_code, kwargs
            return
        super().send_error(status_code, **kwargs)

    def is_refused(self) -> bool:
        """Whether the request was refused before its body came; answers when the body has come."""
        if self._refused is not None and not self._unread() and not self._finished:
            status_code, options = self._refused
            super().send_error(status_code, **options)
        return self._refused is not None or self._finished

    def _unread(self) -> int:
        """Return how many bytes of the body are to come; 0 where its length is not known."""
        headers = self.request.headers
        length = headers.get("Content-Length", "0")
        if "Transfer-Encoding" in headers or not is_number(length):
            return 0
        return max(0, int(length) - self._received)

    @property
    def has_body(self) -> bool:
        """Whether the request has a body."""
        return any(self._body)

    @property
    def issuer(self) -> str:
        """The OpenID provider at which users can sign in; empty if the server has none."""
        found = self.settings["openid"]
        return str(found.provider.issuer) if found is not None else ""

    def read(self, type_: type[T]) -> T:
        """Return the body as a struct.

        Raises
        ------
        InvalidRequest
            Saying which field is wrong.
        """
        try:
            return msgspec.json.decode(b"".join(self._body), type=type_)
        except (ValueError, OverflowError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise InvalidRequest(f"the body is not what this route takes: {error}") from None

    def answer(self, value: Any, status: int = 200) -> None:
        """Send a struct or a document as JSON."""
        self.send(value if isinstance(value, bytes) else msgspec.json.encode(value), "application/json", status)

    async def send_compressed(self, make: Callable[[], bytes], content_type: str) -> None:
        """Make a body and compress it in a thread, then send it: it must hold no secret; see `compression.Gzip`.

        Parameters
        ----------
        make : callable
            Returns the body. It may read the handler and must not change it: Tornado's handlers belong to the loop.
        content_type : str
        """
        may_compress(self)
        accepted = self.request.headers.get("Accept-Encoding", "")
        data, coding = await self.run_public(encode, make, accepted)
        if coding:
            self.set_header("Content-Encoding", coding)
        self.set_header("Content-Type", content_type)
        self.finish(data)

    def send(self, data: bytes, content_type: str, status: int = 200) -> None:
        """Send bytes."""
        self.set_status(status)
        self.set_header("Content-Type", content_type)
        self.finish(data)

    async def answer_slowly(
        self, work: Callable[[Callable[[int, int], None]], Any], right: str = access.ADMIN, project: str = ""
    ) -> None:
        """Do something long, and report its progress: a line of JSON twice a second, and a last one with the result.

        A failure before the first line is answered like any error. If the caller loses the right meanwhile, the last
        line is that error. Work that only reads ends when the caller loses the right or closes the connection; other
        work goes on to its end, since half of it would be worse.

        Parameters
        ----------
        work : callable
            Gets a function to report how much is done and how much there is; may be called from any thread.
        right, project : str
            The right that the caller needs until the end, and the project that it is in.
        """
        far = [0, 0]

        def tell(done: int, total: int) -> None:
            far[:] = done, total

        space = await self.project_id(project)  # before the work begins, which may find another project of the name
        run = self.run_comparison if right == access.READ else self.run
        task = asyncio.ensure_future(run(work, tell))
        self.set_header("Content-Type", "application/x-ndjson")
        try:
            while not (await asyncio.wait([task], timeout=_LOOK))[0]:
                await self.recheck(right, project, space=space)
                self.write(msgspec.json.encode({"done": far[0], "total": far[1]}) + b"\n")
                await self.flush()
        except StreamClosedError:  # the client has gone; work that writes goes on, and its failure is logged
            self._cancellation.cancel()
            task.add_done_callback(self._log_failure)
            return
        except LmvpError as error:  # the caller has lost the right; work that writes goes on
            self._cancellation.cancel()
            task.add_done_callback(self._log_failure)
            self.finish(msgspec.json.encode({"error": error_body(error)}) + b"\n")
            return
        if not self._headers_written:
            task.result()
        self.finish(msgspec.json.encode(self._outcome(task)) + b"\n")

    def _log_failure(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log_exception(type(error), error, error.__traceback__)

    def _outcome(self, task: asyncio.Future[Any]) -> dict[str, Any]:
        """Return what a task gave, or the error that it ended with, for an answer that has begun already."""
        error = task.exception()
        if error is None:
            return {"result": task.result()}
        self.log_exception(type(error), error, error.__traceback__)
        return {"error": error_body(error)}

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that blocks in a thread of the pool.

        The work may wait for a thread. If it takes the caller, the caller is looked up again when a thread begins it,
        so that a right that ended meanwhile is lost.
        """
        pool: ThreadPoolExecutor = self.settings["pool"]
        return await asyncio.get_running_loop().run_in_executor(pool, self._with_current_caller, work, args)

    def _with_current_caller(self, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        caller = self._known_caller
        if caller.known and any(one is caller for one in args):
            self.expire_caller()
            args = tuple(self.caller if one is caller else one for one in args)
        return work(*args)

    async def verify_tensors(self, push: OpenPush) -> None:
        """Verify the tensor digests of a push; where that reads many bytes, beside few others of its kind.

        The request may be small, and the version still have many bytes: chunks that the server has already.
        """
        pushes = self.services.pushes
        if await self.run(pushes.cost_of_verifying, push) <= _QUICK:
            await self.run(pushes.verify_tensors, push)
            return
        async with self.settings["verifications"]:
            await self.run(pushes.verify_tensors, push)

    async def run_long(self, work: Callable[..., T], *args: Any) -> T:
        """Do something long that only reads, beside few others of its kind, in turns with other accounts.

        Raises
        ------
        Finish
            If the client closes the connection: the work does not begin, or ends at its next `cancellation.check`.
        TooManyRequests
            As `run_costly`, which does this for callers without an account.
        """
        if not self._known_caller.known:
            return await self.run_costly(work, *args)
        return await self._run_in_turn("long_reads", work, *args)

    async def run_comparison(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that may take minutes and only reads; it has threads of its own, apart from `run_long`."""
        if not self._known_caller.known:
            return await self.run_costly(work, *args)
        return await self._run_in_turn("comparisons", work, *args)

    async def _run_reading(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that only reads in a thread of the pool; it ends early if the client closes the connection."""
        try:
            return await self.run(self._cancellation.run, work, *args)
        except Cancelled:
            raise self._unanswered() from None

    async def run_costly(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that takes much processor time, in the queue for such work; see `lmvp_server.costly`.

        Raises
        ------
        TooManyRequests
            If too many such requests wait already.
        Finish
            If the client closes the connection: nobody reads the answer. The work does not begin, or ends at its next
            `cancellation.check`.
        """
        return await self._run_in_turn("costly", work, *args)

    async def _run_in_turn(self, queue: str, work: Callable[..., T], *args: Any) -> T:
        costly: CostlyWork = self.settings[queue]
        lane = await self._take_turn(costly, admitted=self._admitted)
        try:
            return await costly.run(lane, self._with_current_caller, self._cancellation.run, (work, *args))
        except Cancelled:
            raise self._unanswered() from None

    async def run_password(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that hashes a password, in a queue of its own: sign-ins keep no other request waiting.

        Raises
        ------
        TooManyRequests
            If too many such requests wait already.
        Finish
            If the client closes the connection before the work begins.
        """
        passwords: CostlyWork = self.settings["passwords"]
        lane = await self._take_turn(passwords)
        return await passwords.run(lane, self._with_current_caller, work, args)

    async def _take_turn(self, costly: CostlyWork, *, admitted: bool = False) -> Lane:
        """Wait for the turn of this request in a queue; call `run` of the queue next."""
        lane = self._lane()
        self._turn = costly.enter(lane, admitted=admitted)
        self._admitted = True
        try:
            if self._has_left:
                self._turn.cancel()
            await self._turn
        except asyncio.CancelledError:
            if not self._turn.cancelled():  # the server ends, and the turn had come
                costly.leave(lane)
            elif self._has_left:
                raise self._unanswered() from None
            raise
        if self._has_left:  # between the turn and this line
            costly.leave(lane)
            raise self._unanswered()
        return lane

    def _lane(self) -> Lane:
        caller = self._known_caller
        address = network_of(self.request.remote_ip or "")
        return Lane(caller.user or caller.name if caller.known else address, caller.known)

    async def run_shared(self, work: Callable[..., T], *args: Any) -> T:
        """Do something costly whose result other requests share: it goes on when the client of this one has left."""
        costly: CostlyWork = self.settings["costly"]
        lane = self._lane()
        turn = costly.enter(lane, admitted=True)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                costly.leave(lane)
            raise
        return await costly.run(lane, work, *args)

    async def run_public(self, work: Callable[..., T], *args: Any) -> T:
        """Do something that only reads; for callers without an account, it counts as costly."""
        return await (self._run_reading if self._known_caller.known else self.run_costly)(work, *args)

    def _unanswered(self) -> Finish:
        self.set_status(CLIENT_LEFT, "Client Closed Request")
        return Finish()

    def on_connection_close(self) -> None:
        """Leave the queue for costly work, and cancel work that only reads: nobody reads the answer."""
        is_complete = self.request._body_future.done()  # noqa: SLF001 - Tornado tells it nowhere else
        super().on_connection_close()  # or a request that is cut off waits for its body as long as the server runs
        self._has_left = True
        self._cancellation.cancel()
        if not is_complete:  # no method will run, so that `on_finish` is not called
            self._body.clear()
            self.release()
        if self._turn is not None:
            self._turn.cancel()

    def query(self, parameter: Parameter[T]) -> T:
        """Return the value of a query parameter, which the handler must list in `queries`.

        Raises
        ------
        InvalidArgument, InvalidRequest
            If the request has another value than the parameter allows.
        """
        if not any(parameter is one for one in self.queries.get(self.request.method or "", ())):
            raise LookupError(f"{type(self).__name__} does not list the query parameter {parameter.name!r}")
        return parameter.read(self.get_query_arguments(parameter.name, strip=parameter.strip))

    def page(self) -> Page:
        """Return which part of a list is asked for."""
        return Page(self.query(LIMIT), self.query(CURSOR))

    def set_default_headers(self) -> None:
        """Nothing that this API sends is for a browser to run or to guess at."""
        self.clear_header("Server")
        self.set_header(API_HEADER, str(API))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("Cache-Control", "no-store")

    def compute_etag(self) -> None:
        """Hash no answers: what never changes says so by its digest."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error the way docs/api.md says."""
        error = as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.set_error_status(error)
        self.close_if_unread()
        missing = list(getattr(error, "missing", ()))
        body = ErrorBody(
            code=error.code, message=error.message, hint=error.hint, details={"missing": missing} if missing else None
        )
        self.answer({"error": body}, error.http_status)

    def set_error_status(self, error: LmvpError) -> None:
        """Set the status of an error, and when to try again, if it says so."""
        self.set_status(error.http_status)
        if isinstance(error, TooManyRequests) and error.retry_after is not None:
            self.set_header("Retry-After", str(error.retry_after))

    def close_if_unread(self) -> None:
        """Tell the client that the connection ends here, if the request has not come in full: Tornado closes it then.

        Tornado counts a request without a body as incomplete, too, until `prepare` has returned. A client that is not
        told sends its next request over the closing connection, and gets a reset.
        """
        body = self.request._body_future  # noqa: SLF001 - Tornado tells it nowhere else
        if self._refused is not None or self._unread() or not body.done():
            self.set_header("Connection", "close")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log a fault of the server with its traceback, and one of its disk in a line; no mistakes of the caller."""
        log_failure(self, typ, value, tb)


def as_json(work: Callable[..., Any]) -> Callable[..., bytes]:
    """Return a function that calls another one and encodes its result; large results are encoded off the loop so."""

    def encoded(*args: Any) -> bytes:
        return msgspec.json.encode(work(*args))

    return encoded


def is_number(text: str) -> bool:
    """Whether a text is a number of ASCII digits below 10**18, which `int` reads and an int64 holds.

    Examples
    --------
    >>> is_number("12"), is_number(""), is_number("\u00b2"), is_number("9" * 5000)
    (True, False, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) < 19


class NoSuchRoute(Handler):
    """Answers for all paths that have no handler."""

    open_to_all = True

    def prepare(self) -> None:
        """Raise NotFound for each method."""
        super().prepare()
        raise NotFound(f"no route {self.request.path[:200]!r}", hint="docs/api.md lists the routes")


def log_failure(handler: RequestHandler, typ: Any, value: Any, tb: Any) -> None:
    """Log the exception that ended a request, if it is not the caller's mistake."""
    if isinstance(value, (HTTPError, Finish)):
        return
    error, request = as_lmvp(500, value), handler.request
    if isinstance(error, ServerError):
        log.error("%s %s failed", request.method, request.path, exc_info=(typ, value, tb))
    elif error.http_status >= 500:
        log.error("%s %s failed: %s", request.method, request.path, error.message)


def error_body(error: BaseException) -> ErrorBody:
    """Return what is said of an error in an answer that has begun already."""
    said = as_lmvp(500, error)
    return ErrorBody(code=said.code, message=said.message, hint=said.hint)


def as_lmvp(status: int, error: BaseException | None) -> LmvpError:
    """Return an error as one of ours, which says what may be said of it."""
    if isinstance(error, LmvpError):
        return error
    if isinstance(error, OSError) and (failed := storage_error(error, "the server")) is not None:
        return failed
    if isinstance(error, HTTPError) and status == 405:
        return _MethodNotAllowed("this route has no such method", hint="docs/api.md lists the methods")
    if isinstance(error, HTTPError) and status in _REASONS:
        kind, message = _REASONS[status]
        return kind(message)
    if isinstance(error, HTTPError) and status < 500:
        return InvalidRequest(error.log_message or error.reason or "bad request")
    return ServerError("the server failed; this is a bug of ours", hint="its log says more")


_REASONS: dict[int, tuple[type[LmvpError], str]] = {
    403: (AccessDenied, "this is no file that the server gives"),
    404: (NotFound, "there is no such file"),
}
"""What Tornado's handler of static files means by its statuses."""


class _MethodNotAllowed(InvalidRequest):
    code = "method_not_allowed"
    http_status = 405
