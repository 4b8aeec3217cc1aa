"""Base class of the API handlers: authentication, JSON bodies, errors and work in threads.

Tornado's event loop runs in one thread. Code that reads a disk, computes digests or waits must therefore run in the
thread pool: `await self.run(…)`.

Every route requires a token. A request without a valid token gets 401, unless the route needs none (`ANYONE`) or the
request only reads from a public project (`public`). `lmvp_server.services.access` decides which rights a token has.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias, TypeVar

import msgspec
from tornado.iostream import StreamClosedError
from tornado.web import Finish, stream_request_body

from lmvp.core.schemas import ErrorBody
from lmvp.core.schemas.base import API, API_HEADER
from lmvp.errors import (
    AccessDenied,
    LmvpError,
    NotAuthenticated,
    NotFound,
    TooLarge,
    TooManyRequests,
)
from lmvp_server.api.body import BodyHandler, is_number
from lmvp_server.api.errors import as_lmvp, error_body, log_failure
from lmvp_server.api.query import CURSOR, LIMIT, Parameter
from lmvp_server.api.route import ANYONE, Given, OnProgress, Route, names_in
from lmvp_server.http.compression import encode, may_compress
from lmvp_server.http.connections import set_caller
from lmvp_server.http.host_check import foreign_host
from lmvp_server.http.queues import CallerQueue, CostlyWork, run_in_pool
from lmvp_server.process.cancellation import Cancellation, Cancelled
from lmvp_server.services import Services, access
from lmvp_server.services.access import Caller
from lmvp_server.services.paging import Page
from lmvp_server.services.pushes import OpenPush
from lmvp_server.services.rate_limit import network_of
from lmvp_server.services.sessions import own_credential

T = TypeVar("T")
Work: TypeAlias = Callable[[OnProgress], Any]
"""Work that reports its progress."""

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_.~-]+)*")
_QUICK = 8 << 20
"""Cost in bytes up to which a push is verified without a turn in the queue; it takes a few milliseconds."""
_LOOK = 0.5
"""Seconds between two progress lines."""
RECHECK = 2.0
"""Seconds after which a long request looks up the rights of its caller again."""

CLIENT_LEFT = 499
"""Status in the log of a request whose client disconnected before the response (as in nginx)."""


@stream_request_body
class Handler(BodyHandler):
    """Base class of all handlers of the API."""

    path: ClassVar[str] = ""
    routes: ClassVar[Mapping[str, Route]] = {}
    """The routes by method. The other class attributes follow from them."""
    open_to_all: ClassVar[bool] = False
    in_public: ClassVar[frozenset[str]] = frozenset()
    """Read-only methods that need no token if the project is public."""
    needs: ClassVar[Mapping[str, str]] = {}
    """The minimum right for each method, in the project that is the first part of the path.

    It is checked before the body is read, so that a caller without the right causes no work. Each method with a body
    has an entry, or the handler is `open_to_all`.
    """
    makes_project: ClassVar[frozenset[str]] = frozenset()
    """Methods that can create the project of the path. They then need only the right to create projects."""
    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {}
    """The query parameters of each method."""
    of_model: ClassVar[bool] = False
    """Whether the path names a model. If so, it must exist before a method of `needs` reads the body."""

    def __init_subclass__(cls, path: str = "", routes: Sequence[Route] = (), **options: Any) -> None:
        """Set the class attributes of the declared routes, and the methods of the plain ones."""
        super().__init_subclass__(**options)
        if not path:
            return
        cls.path, cls.routes = path, {route.method: route for route in routes}
        cls.open_to_all = all(route.right == ANYONE for route in routes)
        public = {route.method for route in routes if route.public}
        cls.in_public = frozenset(public | {"HEAD"} if "GET" in public else public)
        cls.body_limit = max(route.body_limit for route in routes)
        cls.needs = {route.method: route.admitted_by for route in routes if route.admitted_by}
        cls.makes_project = frozenset(route.method for route in routes if route.creates_project)
        cls.of_model = "{model}" in path and not cls.makes_project
        cls.queries = {route.method: route.query for route in routes if route.query}
        for route in routes:
            if route.call is not None or route.slow_call is not None:
                setattr(cls, route.method.lower(), _plain_method(route, names_in(path)))

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._checked_at = time.monotonic()
        # The place of this request in a queue. A request that had a turn (`_admitted`) is never refused later.
        self._turn: asyncio.Future[None] | None = None
        self._admitted = False
        self._cancellation = Cancellation()

    @property
    def caller(self) -> Caller:
        """The caller of this request, authenticated again if a part of the body arrived since the last check.

        A client can delay its body until after its token was revoked. The rights at the end of the body are therefore
        the ones that count. Without a body, the caller is authenticated again after `RECHECK` seconds.
        """
        if time.monotonic() - self._called_at >= RECHECK:
            self.caller = self._caller(self.settings["server"].token)
        return self._known_caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._known_caller, self._called_at = caller, time.monotonic()
        # The connection limits treat requests with valid credentials differently.
        holder = caller.holder if caller.known else None
        set_caller(self.request.connection, holder, self.request.remote_ip or "")

    def expire_caller(self) -> None:
        """Authenticate the caller again at its next use."""
        self._called_at = float("-inf")

    @property
    def services(self) -> Services:
        """The services, which implement the use cases."""
        services: Services = self.settings["services"]
        return services

    def prepare(self) -> Awaitable[None] | None:
        """Refuse callers without the required right, and bodies that are too long, before the body is read."""
        server = self.settings["server"]
        if foreign_host(self.request, server):
            raise AccessDenied(f"this server does not answer for the host {self.request.host[:80]!r}")
        self.caller = self._caller(server.token)
        if not self.caller.known and self.in_public and self.path_args:  # first, so that an error reveals nothing
            access.require(self.caller, access.READ, self.path_args[0])
        length = self.request.headers.get("Content-Length", "0")
        if is_number(length) and int(length) > self.body_limit:  # Tornado refuses a length that is not a number
            raise TooLarge(f"a body of {int(length):,} bytes; the limit here is {self.body_limit:,}")
        return self._require_need()

    def _require_need(self) -> Awaitable[None] | None:
        """Check the right in `needs`. Look-ups that can read the disk run in the pool."""
        right = self.needs.get(self.request.method or "")
        if right is None:
            return None
        # These two checks are quick. Only look-ups that can read the disk go to a thread.
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
        """Return the URL that clients log in to: the host of this request, with the path prefix of a reverse proxy.

        Jupyter's proxy also sends a prefix, but it names the server's own address as the host, and clients reach that
        address without the prefix.
        """
        prefix = self.request.headers.get("X-Forwarded-Prefix", "").rstrip("/")
        known = prefix if _PREFIX.fullmatch(prefix) and not self._names_own_port() else ""
        return f"{self.request.protocol}://{self.request.host}{known}"

    def _names_own_port(self) -> bool:
        """Return whether the `Host` of the request has the port on which this server accepted the connection."""
        stream = getattr(self.request.connection, "stream", None)
        address = stream.socket.getsockname() if stream is not None and stream.socket is not None else ()
        return isinstance(address, tuple) and self.request.host.endswith(f":{address[1]}")

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
        """Return the account that a token belongs to.

        Raises
        ------
        NotAuthenticated
            If the token is not valid.
        """
        own = self.settings["server"].token if token is None else token
        # An empty token must never match an empty token file. `compare_digest` prevents timing attacks.
        if given and own and hmac.compare_digest(given.encode(), own.encode()):
            return Caller(
                self.settings["owner"],
                is_operator=True,
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
        """Authenticate the caller again and check its right; streams and long transfers call this often.

        Parameters
        ----------
        right : str
            The right that the request needs.
        project : str
            The project of the request.
        space : str
            The id that the project must have. After a removal, another project can have its name.
        now : bool
            Check even if the last check was less than `RECHECK` seconds ago.

        Raises
        ------
        NotAuthenticated
            If the token was revoked, the session has expired, or the account is disabled.
        AccessDenied, NotFound
            If the caller lost the right, or the project was removed.
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
        """Return the id of a project, for `recheck`; empty if the caller cannot read it (the work then fails)."""

        def find() -> str:
            try:
                return self.services.catalog.find_project(self.caller, project).id
            except LmvpError:
                return ""

        return await self.run(find) if project else ""

    @property
    def issuer(self) -> str:
        """URL of the OpenID provider for signing in; empty if none is configured."""
        found = self.settings["openid"]
        return str(found.provider.issuer) if found is not None else ""

    async def answer_route(self, route: Route, parts: Mapping[str, str]) -> None:
        """Answer a plain route: decode the input, call the service and encode the result."""
        given = self._given(route, parts)
        if (slow_call := route.slow_call) is not None:
            work: Work = lambda on_progress: slow_call(self.services, self.caller, given, on_progress)  # noqa: E731
            await self.answer_slowly(work, route.right, parts.get("project", ""))
            return
        call = route.call
        assert call is not None
        has_password = any(getattr(given.body, name, None) for name in ("password", "current_password"))
        # Hashing a password is expensive, so it runs in a queue of its own.
        run = self.run_password if has_password else getattr(self, route.cost_of(given).value)
        # The caller is an argument, so that its rights are looked up again when a thread starts the work.
        if route.response is None:
            await run(call, self.services, self.caller, given)
            self.set_status(route.status)
            self.finish()
        else:
            self.answer(await run(as_json(call), self.services, self.caller, given), route.status)

    def _given(self, route: Route, parts: Mapping[str, str]) -> Given:
        given = Given(**parts)
        given.body = None if route.request is None else self.read(route.request)
        for parameter in route.query:
            setattr(given, parameter.name, self.query(parameter))
        if LIMIT in route.query:
            given.page = Page(given.limit, given.cursor)
        return given

    def answer(self, value: Any, status: int = 200) -> None:
        """Send a struct or a document as JSON."""
        self.send(value if isinstance(value, bytes) else msgspec.json.encode(value), "application/json", status)

    async def send_compressed(self, make: Callable[[], bytes], content_type: str) -> None:
        """Create and compress a body in a thread, then send it.

        The body must not contain secrets: compression would allow a BREACH attack. See `compression.Gzip`.

        Parameters
        ----------
        make : callable
            Returns the body. It can read from the handler but must not change it, because Tornado's handlers are not
            thread-safe.
        content_type : str
            The value of the header `Content-Type`.
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

    async def answer_slowly(self, work: Work, right: str = access.ADMIN, project: str = "") -> None:
        """Run long work and stream its progress as JSON lines, two per second; the last line has the result.

        A failure before the first line gets a regular error response. If the caller loses the right meanwhile, the last
        line has that error. Read-only work is cancelled when the caller loses the right or closes the connection. Other
        work continues, because a half-finished change is worse.

        Parameters
        ----------
        work : callable
            Receives a function `(done, total)` to report progress, which can be called from any thread.
        right, project : str
            The right that the caller needs until the end, and its project.
        """
        far = [0, 0]

        def tell(done: int, total: int) -> None:
            far[:] = done, total

        space = await self.project_id(project)  # before the work, which can replace the project
        # Read-only work is cancelled when the client disconnects; maintenance work completes.
        run = self.run_comparison if right == access.READ else self.run
        task = asyncio.ensure_future(run(work, tell))
        self.set_header("Content-Type", "application/x-ndjson")
        try:
            while not (await asyncio.wait([task], timeout=_LOOK))[0]:
                await self.recheck(right, project, space=space)
                self.write(msgspec.json.encode({"done": far[0], "total": far[1]}) + b"\n")
                await self.flush()
        except StreamClosedError:  # the client disconnected; work that writes continues, and its failure is logged
            self._cancellation.cancel()
            task.add_done_callback(self._log_failure)
            return
        except LmvpError as error:  # the caller lost the right; work that writes continues
            self._cancellation.cancel()
            task.add_done_callback(self._log_failure)
            self.finish(msgspec.json.encode({"error": error_body(error)}) + b"\n")
            return
        # Without progress lines, the status is not sent yet, so an error can be a regular response.
        if not self._headers_written:
            task.result()
        self.finish(msgspec.json.encode(self._outcome(task)) + b"\n")

    def _log_failure(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log_exception(type(error), error, error.__traceback__)

    def _outcome(self, task: asyncio.Future[Any]) -> dict[str, Any]:
        """Return the result or the error of a task, for a response that has already begun."""
        error = task.exception()
        if error is None:
            return {"result": task.result()}
        self.log_exception(type(error), error, error.__traceback__)
        return {"error": error_body(error)}

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Run a blocking function in the thread pool.

        The function can wait for a free thread. If the caller is one of its arguments, it is authenticated again when a
        thread starts the function, so that a right that was revoked meanwhile has no effect.
        """
        pool: ThreadPoolExecutor = self.settings["pool"]
        return await run_in_pool(pool, self._with_current_caller, work, args)

    def _with_current_caller(self, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        caller = self._known_caller
        if caller.known and any(one is caller for one in args):
            self.expire_caller()
            args = tuple(self.caller if one is caller else one for one in args)
        return work(*args)

    async def verify_tensors(self, push: OpenPush) -> None:
        """Verify the tensor digests of a push; limit the number of large verifications that run at once.

        A small request can need a large verification: a version can consist of chunks that the server already has.
        """
        pushes = self.services.pushes
        if await self.run(pushes.cost_of_verifying, push) <= _QUICK:
            await self.run(pushes.verify_tensors, push)
            return
        async with self.settings["verifications"]:
            await self.run(pushes.verify_tensors, push)

    async def run_long(self, work: Callable[..., T], *args: Any) -> T:
        """Run long, read-only work in a queue that limits concurrency and alternates between accounts.

        Raises
        ------
        Finish
            If the client closes the connection. The work does not start, or stops at its next `cancellation.check`.
        TooManyRequests
            As for `run_costly`, which handles callers without an account.
        """
        if not self._known_caller.known:
            return await self.run_costly(work, *args)
        return await self._run_in_turn("long_reads", work, *args)

    async def run_comparison(self, work: Callable[..., T], *args: Any) -> T:
        """Run read-only work that can take minutes. It has its own threads, so that it does not delay `run_long`."""
        if not self._known_caller.known:
            return await self.run_costly(work, *args)
        return await self._run_in_turn("comparisons", work, *args)

    async def _run_reading(self, work: Callable[..., T], *args: Any) -> T:
        """Run read-only work in the pool; it is cancelled if the client closes the connection."""
        try:
            return await self.run(self._cancellation.run, work, *args)
        except Cancelled:
            raise self._unanswered() from None

    async def run_costly(self, work: Callable[..., T], *args: Any) -> T:
        """Run CPU-intensive work in the queue of `lmvp_server.http.queues`.

        Raises
        ------
        TooManyRequests
            If too many such requests wait already.
        Finish
            If the client closes the connection, because nobody reads the response. The work does not start, or stops at
            its next `cancellation.check`.
        """
        return await self._run_in_turn("costly", work, *args)

    async def _run_in_turn(self, name: str, work: Callable[..., T], *args: Any) -> T:
        costly: CostlyWork = self.settings[name]
        queue = await self._take_turn(costly, admitted=self._admitted)
        try:
            return await costly.run(queue, self._with_current_caller, self._cancellation.run, (work, *args))
        except Cancelled:
            raise self._unanswered() from None

    async def run_password(self, work: Callable[..., T], *args: Any) -> T:
        """Run work that hashes a password in a separate queue, so that sign-ins do not delay other requests.

        Raises
        ------
        TooManyRequests
            If too many such requests wait already.
        Finish
            If the client closes the connection before the work starts.
        """
        passwords: CostlyWork = self.settings["passwords"]
        queue = await self._take_turn(passwords)
        return await passwords.run(queue, self._with_current_caller, work, args)

    async def _take_turn(self, costly: CostlyWork, *, admitted: bool = False) -> CallerQueue:
        """Wait for the turn of this request in a queue. The caller must then call `run` of the queue."""
        queue = self._caller_queue()
        self._turn = costly.enter(queue, admitted=admitted)
        self._admitted = True
        try:
            if self._has_left:
                self._turn.cancel()
            await self._turn
        except asyncio.CancelledError:
            if not self._turn.cancelled():  # the server stops, and the turn was already granted
                costly.leave(queue)
            elif self._has_left:
                raise self._unanswered() from None
            raise
        if self._has_left:  # the client disconnected after the turn was granted
            costly.leave(queue)
            raise self._unanswered()
        return queue

    def _caller_queue(self) -> CallerQueue:
        caller = self._known_caller
        address = network_of(self.request.remote_ip or "")
        return CallerQueue(caller.user or caller.name if caller.known else address, caller.known)

    async def run_shared(self, work: Callable[..., T], *args: Any) -> T:
        """Run costly work whose result other requests share. It continues if this client disconnects."""
        costly: CostlyWork = self.settings["costly"]
        queue = self._caller_queue()
        turn = costly.enter(queue, admitted=True)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                costly.leave(queue)
            raise
        return await costly.run(queue, work, *args)

    async def run_public(self, work: Callable[..., T], *args: Any) -> T:
        """Run read-only work; for callers without an account, it counts as costly."""
        return await (self._run_reading if self._known_caller.known else self.run_costly)(work, *args)

    def _unanswered(self) -> Finish:
        self.set_status(CLIENT_LEFT, "Client Closed Request")
        return Finish()

    def on_connection_close(self) -> None:
        """Leave the queue and cancel read-only work, because nobody reads the response."""
        is_complete = self.request._body_future.done()  # noqa: SLF001 - Tornado has no public interface for this
        super().on_connection_close()  # otherwise a truncated request waits for its body indefinitely
        self._has_left = True
        self._cancellation.cancel()
        if not is_complete:  # no method runs, so `on_finish` is not called
            self._body.clear()
            self.release()
        if self._turn is not None:
            self._turn.cancel()

    def query(self, parameter: Parameter[T]) -> T:
        """Return the value of a query parameter, which `queries` must list.

        Raises
        ------
        InvalidArgument, InvalidRequest
            If the parameter does not allow the value.
        """
        if not any(parameter is one for one in self.queries.get(self.request.method or "", ())):
            raise LookupError(f"{type(self).__name__} does not list the query parameter {parameter.name!r}")
        return parameter.read(self.get_query_arguments(parameter.name, strip=parameter.strip))

    def page(self) -> Page:
        """Return the requested page of a list."""
        return Page(self.query(LIMIT), self.query(CURSOR))

    def set_default_headers(self) -> None:
        """Set headers that keep a browser from executing, sniffing or caching a response."""
        self.clear_header("Server")
        self.set_header(API_HEADER, str(API))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("Cache-Control", "no-store")

    def compute_etag(self) -> None:
        """Disable Tornado's ETags, which hash every response. Immutable responses set their digest as the ETag."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error in the JSON format of docs/api.md."""
        error = as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.set_error_status(error)
        self.close_if_unread()
        # The client reads the missing chunks from `details` and sends them.
        missing = list(getattr(error, "missing", ()))
        body = ErrorBody(
            code=error.code, message=error.message, hint=error.hint, details={"missing": missing} if missing else None
        )
        self.answer({"error": body}, error.http_status)

    def set_error_status(self, error: LmvpError) -> None:
        """Set the status of an error and, if it has one, the header `Retry-After`."""
        self.set_status(error.http_status)
        if isinstance(error, TooManyRequests) and error.retry_after is not None:
            self.set_header("Retry-After", str(error.retry_after))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log server faults with a traceback, storage errors in one line, and mistakes of the caller not at all."""
        log_failure(self, typ, value, tb)


def as_json(work: Callable[..., Any]) -> Callable[..., bytes]:
    """Wrap a function so that its result is encoded as JSON in the thread that calls it, not in the event loop."""

    def encoded(*args: Any) -> bytes:
        return msgspec.json.encode(work(*args))

    return encoded


def _plain_method(route: Route, names: Sequence[str]) -> Callable[..., Awaitable[None]]:
    """Return the method of a handler for a route that has a service call."""

    async def method(self: Handler, *parts: str) -> None:
        await self.answer_route(route, dict(zip(names, parts, strict=True)))

    method.__doc__ = route.summary
    method.route = route  # type: ignore[attr-defined]
    return method


class UnknownRouteHandler(Handler):
    """Handler of all paths without a route."""

    open_to_all = True

    def prepare(self) -> None:
        """Raise NotFound for each method."""
        super().prepare()
        raise NotFound(f"no route {self.request.path[:200]!r}", hint="docs/api.md lists the routes")
