"""OpenID Connect: the conversation with the provider where people have their accounts already.

The flow of authorisation codes, with PKCE, as OpenID Connect Core 1.0, section 3.1, and RFC 7636 have it. What a
sign-in was begun with is kept in memory for ten minutes, and belongs to the browser that began it.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmvp.errors import InvalidArgument, MissingDependency, NotAuthenticated, ServerUnavailable
from lmvp_server.services.access import Caller
from lmvp_server.services.identities import Identity
from lmvp_server.settings import is_loopback

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

LIFETIME = 600.0
"""Seconds between the beginning of a sign-in and its end."""
_BEGUN = 1000
_TIMEOUT = 10.0
_KEYS_EVERY = 60.0
"""Seconds before keys are fetched again because one was not among them."""
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY = 60


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider that a server is told of.

    Attributes
    ----------
    issuer : str
        As it names itself: `https://sign-in.example.org`.
    name : str
        What its button says.
    sign_up : bool
        Whether everybody whom it knows may make an account; else it takes an invitation.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    name: str = ""
    sign_up: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not safe or parts.query or parts.fragment or "@" in parts.netloc:
            raise InvalidArgument(f"{self.issuer[:80]!r} is no issuer", hint="https://sign-in.example.org")
        if not self.client_id:
            raise InvalidArgument("the provider knows this server by a client id", hint="--openid-client ID")
        try:
            import authlib  # noqa: F401
        except ImportError:
            raise MissingDependency("OpenID Connect needs Authlib", hint="pip install lmvp[openid]") from None

    @property
    def title(self) -> str:
        """What to call it."""
        return self.name or urlsplit(self.issuer).hostname or self.issuer


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in under way: what only the browser and the provider's answer can know, and what is to come of it."""

    nonce: str
    verifier: str
    browser: str
    at: float
    after: str = "."
    invitation: str = ""
    caller: Caller | None = None


class OpenId:
    """Sends people to the provider, and understands what comes back. All of it blocks."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._begun: dict[str, Begun] = {}
        self._lock = Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: tuple[float, KeySet | None] = (0.0, None)

    def begin(
        self, browser: str, back: str, *, after: str = ".", invitation: str = "", caller: Caller | None = None
    ) -> str:
        """Return where to send somebody who signs in.

        Parameters
        ----------
        browser : str
            What only this browser has: a cookie.
        back : str
            The URL that the provider sends them back to.
        caller : Caller, optional
            The caller whose account is to be connected; without it, the sign-in begins a session.

        Raises
        ------
        ServerUnavailable
            If the provider cannot be asked.
        """
        nonce, verifier, state = (secrets.token_urlsafe(32) for _ in range(3))
        with self._session(back) as session:
            url, _ = session.create_authorization_url(
                self._endpoint("authorization_endpoint"), state=state, nonce=nonce, code_verifier=verifier
            )
        with self._lock:
            old = [key for key, one in self._begun.items() if time.monotonic() - one.at > LIFETIME]
            for key in [*old, *list(self._begun)[: max(0, len(self._begun) - len(old) - _BEGUN + 1)]]:
                self._begun.pop(key, None)
            self._begun[state] = Begun(nonce, verifier, browser, time.monotonic(), after, invitation, caller)
        return str(url)

    def end(self, browser: str, back: str, answer: Mapping[str, str]) -> tuple[Begun, Identity]:
        """Return what was begun, and who it is, from the answer that the provider sent a browser back with.

        Raises
        ------
        NotAuthenticated
            If this browser did not begin it, it is too old, or the provider says no.
        ServerUnavailable
            If the provider cannot be asked.
        """
        with self._lock:
            begun = self._begun.pop(answer.get("state", ""), None)
        if begun is None or time.monotonic() - begun.at > LIFETIME:
            raise NotAuthenticated("this sign-in was used, or is too old", hint="begin again")
        if not hmac.compare_digest(begun.browser.encode(), browser.encode()):
            raise NotAuthenticated("another browser has begun this sign-in", hint="begin again in this one")
        if answer.get("iss", self.provider.issuer) != self.provider.issuer:
            raise NotAuthenticated("the answer is not from the provider that was asked", hint="begin again")
        if "code" not in answer:
            raise NotAuthenticated(f"{self.provider.title} did not sign you in", hint="begin again")
        return begun, self._who(self._claims(self._token(back, answer["code"], begun), begun.nonce))

    # -- steps

    def _session(self, back: str) -> Any:
        from authlib.integrations.requests_client import OAuth2Session

        methods = self._about().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        secret = self.provider.client_secret
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        return OAuth2Session(
            self.provider.client_id,
            secret or None,
            scope="openid profile email",
            redirect_uri=back,
            code_challenge_method="S256",
            token_endpoint_auth_method=method if secret else "none",
        )

    def _token(self, back: str, code: str, begun: Begun) -> str:
        from authlib.common.errors import AuthlibBaseError

        try:
            with self._session(back) as session:
                given = session.fetch_token(
                    self._endpoint("token_endpoint"), code=code, code_verifier=begun.verifier, timeout=_TIMEOUT
                )
        except OSError:  # whatever kept it from being asked
            raise self._silent() from None
        except AuthlibBaseError:
            raise NotAuthenticated(f"{self.provider.title} did not take the code back", hint="begin again") from None
        return str(given.get("id_token", ""))

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """Return what a token says, once it is proved to be the provider's, for this server, and for this sign-in."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        expected = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self.provider.issuer},
            aud={"essential": True, "value": self.provider.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = self._decoded(token)
            expected.validate(claims)
        except (JoseError, ValueError):
            raise NotAuthenticated(f"what {self.provider.title} says cannot be believed", hint="begin again") from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", self.provider.client_id if not several else "") != self.provider.client_id:
            raise NotAuthenticated(f"what {self.provider.title} says is for somebody else", hint="begin again")
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            return dict(jwt.decode(token, self._key_set(), algorithms=_ALGORITHMS).claims)
        except (JoseError, ValueError):  # signed with a key that is newer than what we have
            return dict(jwt.decode(token, self._key_set(anew=True), algorithms=_ALGORITHMS).claims)

    def _who(self, claims: dict[str, Any]) -> Identity:
        name = claims.get("preferred_username") or str(claims.get("email", "")).partition("@")[0]
        return Identity(self.provider.issuer, str(claims["sub"])[:255], str(name)[:200])

    # -- what the provider says of itself

    def _about(self) -> dict[str, Any]:
        if not self._metadata:
            found = self._get(f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self.provider.issuer:
                raise ServerUnavailable(f"{self.provider.issuer} calls itself {str(found.get('issuer'))[:80]!r}",
                                        hint="--openid is to be what it calls itself")  # fmt: skip
            self._metadata = found
        return self._metadata

    def _endpoint(self, name: str) -> str:
        url = str(self._about().get(name, ""))
        parts, issuer = urlsplit(url), urlsplit(self.provider.issuer)
        if parts.scheme != "https" and (parts.scheme, parts.hostname) != (issuer.scheme, issuer.hostname):
            raise ServerUnavailable(f"{self.provider.title} has no safe {name}")
        return url

    def _key_set(self, *, anew: bool = False) -> KeySet:
        from joserfc.jwk import KeySet

        at, keys = self._keys
        if keys is None or (anew and time.monotonic() - at > _KEYS_EVERY):
            keys = KeySet.import_key_set(self._get(self._endpoint("jwks_uri")))
            self._keys = (time.monotonic(), keys)
        return keys

    def _get(self, url: str) -> dict[str, Any]:
        from authlib.integrations.requests_client import OAuth2Session

        try:
            with OAuth2Session(self.provider.client_id) as session:
                answer = session.get(url, withhold_token=True, timeout=_TIMEOUT, allow_redirects=False)
            answer.raise_for_status()
            found = answer.json()
        except (OSError, ValueError):
            raise self._silent() from None
        if not isinstance(found, dict):
            raise self._silent()
        return found

    def _silent(self) -> ServerUnavailable:
        return ServerUnavailable(f"{self.provider.title} cannot be reached", hint="try again, or sign in another way")
