"""OpenID Connect client: sign-in with accounts of an external provider.

It implements the authorization code flow with PKCE: OpenID Connect Core 1.0, section 3.1, and RFC 7636. The server
holds the state of a sign-in in memory for ten minutes and binds it to the browser that started it.

The provider is trusted only with the identities of its users. `ProviderAdapter` limits the size and the time of its
responses, follows no redirects, and refuses private addresses that the operator did not configure.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from lmvp.errors import (
    AccessDenied,
    LmvpError,
    NotAuthenticated,
    ServerUnavailable,
    TooManyRequests,
)
from lmvp_server.services.access import Caller
from lmvp_server.services.identities import Identity
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.settings import Provider

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

T = TypeVar("T")

LIFETIME = 600.0
"""Seconds within which a sign-in must be finished."""
_BEGUN, _BEGUN_BY_ADDRESS = 10_000, 100
"""Maximum number of unfinished sign-ins, in total and from one address. New ones replace the oldest."""
_TIMEOUT = 10.0
"""Seconds for a complete response of the provider, even if it sends slowly."""
_BODY_LIMIT = 512 << 10
_TOKEN_LIMIT = 64 << 10
_URL_LIMIT = 2000
_THREADS, _AT_ONCE = 16, 48
"""Number of threads that wait for the provider, and of sign-ins that can wait for such a thread."""
_METADATA_EVERY = 3600.0
_KEYS_EVERY = 60.0
"""Minimum seconds between two downloads of the keys because no key matches a signature."""
_FAILED_FOR = 5.0
"""Seconds for which a failed discovery is not repeated."""
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_KEYS_LIMIT = 100
_PUBLIC = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
}
"""The public parameters of a key, by type. Private ones are ignored, because the check of such a key takes time."""
_RSA_BYTES = range(256, 1025)
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
"""Exceptions that libraries raise for data of an unexpected type or depth."""
_LEEWAY = 60


class ProviderFailed(ServerUnavailable):
    """The provider is unreachable or its response is not valid. Status 502: this server acts as its gateway."""

    http_status = 502


@dataclass(frozen=True, slots=True)
class Begun:
    """The state of an unfinished sign-in."""

    nonce: str
    verifier: str
    browser: str
    back: str
    address: str
    at: float
    after: str = "."
    invitation: str = ""
    caller: Caller | None = None


class ProviderAdapter(HTTPAdapter):
    """A `requests` adapter that sends one request to a provider that is not trusted.

    Parameters
    ----------
    check : callable
        Raises an `OSError` if the server must not connect to this address of this host.
    """

    def __init__(self, check: Callable[[str, str], None]) -> None:
        self._check = check
        self._sockets: list[socket.socket] = []
        self._responses: list[HTTPResponse] = []
        self._is_late = False
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Let `connected` open the connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Let `connected` open the connections to an HTTP proxy."""
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _pools(self)
        return manager

    def send(self, request: Any, *_: Any, verify: Any = True, proxies: Any = None, **__: Any) -> requests.Response:
        """Send a request and return the complete response."""
        request.headers["Accept-Encoding"] = "identity"  # no decompression: the limit is for transferred bytes
        # A timer limits the total time, because `timeout` limits only the time between two bytes.
        timer = Timer(_TIMEOUT, self._cut)
        timer.daemon = True
        timer.start()
        try:
            answer = super().send(request, stream=True, timeout=_TIMEOUT, verify=verify, proxies=proxies)
            answer._content = self._body(answer)  # noqa: SLF001 - the attribute in which requests stores a body
        finally:
            timer.cancel()
            for response in self._responses:  # urllib3 leaves a response with conflicting lengths open
                response.close()
            for each in self._sockets:
                each.close()
        return answer

    def connected(self, connection: Any, connect: Callable[[], socket.socket]) -> socket.socket:
        """Connect if the address is allowed. An HTTP proxy is always allowed, because the operator configured it."""
        if connection.proxy is None:
            for *_, address in socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM):
                self._check(connection.host, str(address[0]))
        found = connect()
        try:
            if connection.proxy is None:  # the second DNS answer can differ
                self._check(connection.host, str(found.getpeername()[0]))  # TLS takes over the socket itself
            self._sockets.append(found.dup())  # TLS takes the socket itself over
            self._demand_time()
        except BaseException:
            found.close()
            raise
        return found

    def answered(self, response: HTTPResponse) -> None:
        """Register a response, which is closed at the end of the request even after an error."""
        self._responses.append(response)

    def _body(self, answer: requests.Response) -> bytes:
        try:
            if answer.is_redirect or answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise requests.ConnectionError("a redirect, or a compressed body")
            body: bytes = answer.raw.read(_BODY_LIMIT + 1, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError("the response broke off") from error
        finally:
            answer.close()
        self._demand_time()
        if len(body) > _BODY_LIMIT:
            raise requests.ConnectionError("the response is too long")
        return body

    def _demand_time(self) -> None:
        if self._is_late:
            raise requests.Timeout("the response took too long")

    def _cut(self) -> None:
        """Abort the request. A socket timeout alone is not sufficient: it restarts with every byte that arrives."""
        self._is_late = True
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _pools(adapter: ProviderAdapter) -> dict[str, Any]:
    """Return connection pools of urllib3 whose connections the adapter opens."""

    class Response(HTTPResponse):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            adapter.answered(self)

    class Plain(urllib3.connection.HTTPConnection):
        response_class = Response

        def _new_conn(self) -> socket.socket:
            return adapter.connected(self, super()._new_conn)

    class Secure(urllib3.connection.HTTPSConnection):
        response_class = Response

        def _new_conn(self) -> socket.socket:
            return adapter.connected(self, super()._new_conn)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class OpenId:
    """The client of one provider. All methods except `run` block."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._begun: dict[str, Begun] = {}
        self._lock, self._discovery = Lock(), Lock()
        self._metadata: tuple[float, dict[str, Any]] = (0.0, {})
        self._failed: tuple[float, ServerUnavailable | None] = (0.0, None)
        self._keys: tuple[float, KeySet | None] = (0.0, None)
        # Whether the issuer is in a private network; set at each connection to it.
        self._is_internal = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lmvp-openid")
        self._waiting = 0

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Call a method in a separate thread pool, so that a slow provider does not delay other requests.

        Raises
        ------
        TooManyRequests
            If too many sign-ins wait for the provider.
        """
        if self._waiting >= _AT_ONCE:
            raise TooManyRequests(f"too many sign-ins wait for {self.provider.title}", hint="try again in a minute")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._waiting -= 1

    def begin(
        self,
        browser: str,
        back: str,
        *,
        address: str = "",
        after: str = ".",
        invitation: str = "",
        caller: Caller | None = None,
    ) -> str:
        """Start a sign-in and return the URL of the provider where the user signs in.

        Parameters
        ----------
        browser : str
            A secret that only this browser has, in its cookie.
        back : str
            The redirect URI.
        address : str
            The IP address of the browser.
        after : str
            The page to show after the sign-in.
        invitation : str
            The code of an invitation to accept.
        caller : Caller, optional
            The caller whose account is to be connected. Without it, the sign-in starts a session.

        Raises
        ------
        ProviderFailed
            If the provider is unreachable or its metadata are not valid.
        """
        nonce, verifier, state = (secrets.token_urlsafe(32) for _ in range(3))
        with self._session(back) as session:
            url, _ = session.create_authorization_url(
                self._endpoint("authorization_endpoint"), state=state, nonce=nonce, code_verifier=verifier
            )
        self._remember(
            state, Begun(nonce, verifier, browser, back, address, time.monotonic(), after, invitation, caller)
        )
        return str(url)

    def _remember(self, state: str, begun: Begun) -> None:
        """Store a sign-in. One address cannot displace the sign-ins of other addresses before the limit is reached."""
        with self._lock:
            oldest = time.monotonic() - LIFETIME
            for key in [key for key, one in self._begun.items() if one.at < oldest]:
                del self._begun[key]
            # Dicts are ordered by insertion, so the first entries are the oldest.
            same = [key for key, one in self._begun.items() if one.address == begun.address]
            for key in same[: max(0, len(same) - _BEGUN_BY_ADDRESS + 1)]:
                del self._begun[key]
            for key in list(self._begun)[: max(0, len(self._begun) - _BEGUN + 1)]:
                del self._begun[key]
            self._begun[state] = begun

    def end(self, browser: str, answer: Mapping[str, str]) -> tuple[Begun, Identity]:
        """Finish a sign-in with the parameters of the redirect from the provider; return it with the identity.

        Raises
        ------
        NotAuthenticated
            If another browser started the sign-in, it has expired, or the provider refused it.
        ProviderFailed
            If the provider is unreachable or its response is not valid.
        """
        # `pop`: a sign-in can be used only once.
        with self._lock:
            begun = self._begun.pop(answer.get("state", ""), None)
        if begun is None or time.monotonic() - begun.at > LIFETIME:
            raise NotAuthenticated("this sign-in was used, or is too old", hint="begin again")
        # The cookie binds the sign-in to this browser (protection from login CSRF).
        if not hmac.compare_digest(begun.browser.encode(), browser.encode()):
            raise NotAuthenticated("another browser has begun this sign-in", hint="begin again in this one")
        # RFC 9207: protects from a response of another provider (mix-up attack).
        if answer.get("iss", self.provider.issuer) != self.provider.issuer:
            raise NotAuthenticated("the answer is not from the provider that was asked", hint="begin again")
        if "code" not in answer:
            raise NotAuthenticated(f"{self.provider.title} did not sign you in", hint="begin again")
        return begun, self._identity(self._claims(self._token(answer["code"], begun), begun.nonce))

    # -- steps

    def _session(self, back: str) -> Any:
        methods = self._about().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        secret = self.provider.client_secret
        # `client_secret_basic` is the default of OpenID Connect Discovery 1.0, section 3.
        is_basic = not isinstance(methods, list) or "client_secret_basic" in methods
        method = "client_secret_basic" if is_basic else "client_secret_post"
        return self._guarded(
            scope="openid profile email",
            redirect_uri=back,
            code_challenge_method="S256",
            client_secret=secret or None,
            token_endpoint_auth_method=method if secret else "none",
        )

    def _guarded(self, **options: Any) -> Any:
        """Return a session whose requests have limits."""
        from authlib.integrations.requests_client import OAuth2Session

        session = OAuth2Session(self.provider.client_id, **options)
        for scheme in ("http://", "https://"):
            session.mount(scheme, ProviderAdapter(self._check_address))
        return session

    def _check_address(self, host: str, text: str) -> None:
        """Refuse private addresses, so that a provider cannot use this server to reach its network.

        The operator chose the host of the issuer. If it is in a private network, the other hosts can be there too.
        """
        address = ipaddress.ip_address(text.partition("%")[0])
        if host.lower() == urlsplit(self.provider.issuer).hostname:
            self._is_internal = _is_internal(address)
            return
        try:
            WebhookAllowlist().check_address(text)
        except AccessDenied:
            if not (self._is_internal and _is_internal(address)):
                raise ProviderFailed(
                    f"{self.provider.title} has an endpoint at {host[:80]!r}, which is not a public address"
                ) from None

    def _token(self, code: str, begun: Begun) -> str:
        from authlib.common.errors import AuthlibBaseError

        try:
            with self._session(begun.back) as session:
                given = session.fetch_token(
                    self._endpoint("token_endpoint"), code=code, code_verifier=begun.verifier, allow_redirects=False
                )
            token = given.get("id_token")
        except LmvpError:
            raise
        except AuthlibBaseError:
            raise NotAuthenticated(f"{self.provider.title} refused the code", hint="begin again") from None
        except (OSError, *_MALFORMED):
            raise self._silent() from None
        if not isinstance(token, str) or not token or len(token) > _TOKEN_LIMIT:
            raise self._invalid("sent no usable ID token", ProviderFailed)
        return token

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token after verifying that it is valid for this server and this sign-in."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        client = self.provider.client_id
        expected = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self.provider.issuer},
            aud={"essential": True, "value": client},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = self._decoded(token)
            expected.validate(claims)
        except LmvpError:
            raise
        except (JoseError, *_MALFORMED):
            raise self._invalid("sent an ID token that is not valid for this sign-in") from None
        if claims["nonce"] != nonce or not _is_subject(claims["sub"]):  # joserfc accepts a list that contains the nonce
            raise self._invalid("sent an ID token that is not valid for this sign-in")
        # OpenID Connect Core 1.0, section 3.1.3.7: with several audiences, `azp` must be this client.
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", client if not several else "") != client:
            raise self._invalid("sent an ID token for another client")
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            return dict(jwt.decode(token, self._key_set(), algorithms=_ALGORITHMS).claims)
        except LmvpError:
            raise
        except (JoseError, *_MALFORMED):  # the provider can have rotated its keys
            return dict(jwt.decode(token, self._key_set(newer=True), algorithms=_ALGORITHMS).claims)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        # Only a proposal for the account name; `sub` identifies the user.
        names = [claims.get("preferred_username"), claims.get("email")]
        preferred, email = (name if isinstance(name, str) else "" for name in names)
        return Identity(self.provider.issuer, claims["sub"], (preferred or email.partition("@")[0])[:200])

    # -- metadata of the provider

    def _about(self) -> dict[str, Any]:
        with self._discovery:
            at, found = self._metadata
            if found and time.monotonic() - at < _METADATA_EVERY:
                return found
            failed_at, error = self._failed
            if error is not None and time.monotonic() - failed_at < _FAILED_FOR:
                # The error is raised again, and its traceback would grow each time.
                raise error.with_traceback(None)
            try:
                found = self._get(f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration")
                if found.get("issuer") != self.provider.issuer:
                    raise ProviderFailed(
                        f"{self.provider.issuer} names another issuer: {str(found.get('issuer'))[:80]!r}",
                        hint="--openid takes the issuer that the provider names",
                    )
            except ServerUnavailable as failure:
                self._failed = time.monotonic(), failure
                raise
            self._metadata, self._failed = (time.monotonic(), found), (0.0, None)
            return found

    def _endpoint(self, name: str) -> str:
        url = self._about().get(name)
        issuer = urlsplit(self.provider.issuer)
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
            # Plain HTTP is accepted only if the operator configured it for the issuer.
            is_safe = parts.scheme == "https" or (parts.scheme, parts.hostname) == (issuer.scheme, issuer.hostname)
            is_plain = parts.port != 0 and bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment
        except ValueError:
            is_safe = is_plain = False
        if not isinstance(url, str) or not is_safe or not is_plain or not _is_plain(url):
            raise self._invalid(f"has no safe {name}", ProviderFailed)
        return url

    def _key_set(self, *, newer: bool = False) -> KeySet:
        at, keys = self._keys
        # A rate limit, so that invalid tokens cannot cause a download for each request.
        if keys is None or (newer and time.monotonic() - at > _KEYS_EVERY):
            keys = _key_set(self._get(self._endpoint("jwks_uri")))
            if not keys.keys:
                raise self._invalid("has no key that can be used", ProviderFailed)
            self._keys = (time.monotonic(), keys)
        return keys

    def _get(self, url: str) -> dict[str, Any]:
        try:
            with self._guarded() as session:
                # A redirect could lead to an internal address.
                answer = session.get(url, withhold_token=True, allow_redirects=False)
            answer.raise_for_status()
            found = answer.json()
        except LmvpError:
            raise
        except (OSError, *_MALFORMED):
            raise self._silent() from None
        if not isinstance(found, dict):
            raise self._silent()
        return found

    def _silent(self) -> ProviderFailed:
        return ProviderFailed(f"{self.provider.title} cannot be reached", hint="try again, or sign in another way")

    def _invalid(self, why: str, kind: type[LmvpError] = NotAuthenticated) -> LmvpError:
        return kind(f"{self.provider.title} {why}", hint="begin again; if it persists, tell the operator of the server")


def _is_internal(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address is in a private network; loopback and link-local (metadata services) do not count."""
    return address.is_private and not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}') and len(url) <= _URL_LIMIT


def _is_subject(subject: str) -> bool:
    """Return whether a `sub` is a valid identifier (OpenID Connect Core 1.0, section 2). It must not be truncated."""
    return 0 < len(subject) <= 255 and subject.isprintable()


def _key_set(found: Mapping[str, Any]) -> KeySet:
    """Parse a JWK set. Keys that cannot verify an ID token are ignored, as RFC 7517, section 5, requires."""
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry, KeySet

    keys: list[Any] = []
    given = found.get("keys")
    for one in given[:_KEYS_LIMIT] if isinstance(given, list) else ():
        public = _public(one)
        if public is None:
            continue
        with suppress(JoseError, *_MALFORMED):
            keys.append(JWKRegistry.import_key(public))
    return KeySet(keys)


def _public(key: Any) -> dict[str, str] | None:
    """Return the public parameters of a key; None if it is not for signatures, too weak, or too slow to verify with."""
    kind = key.get("kty") if isinstance(key, dict) else None
    names = _PUBLIC.get(kind) if isinstance(kind, str) else None
    if names is None or key.get("use", "sig") != "sig":
        return None
    public = {name: key[name] for name in ("kty", "kid", "alg", "use", *names) if name in key}
    if not all(isinstance(value, str) and len(value) <= 2 * _RSA_BYTES.stop for value in public.values()):
        return None
    if kind == "RSA" and (len(public.get("n", "")) * 3 // 4 not in _RSA_BYTES or len(public.get("e", "")) > 8):
        return None
    return public
