"""Base classes of pages: authentication by session cookie, protection from CSRF, and redirects within the server."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote

import lmvp
from lmvp.core import number_format
from lmvp.core.sanitize import clean
from lmvp.errors import AccessDenied, InvalidRequest, LmvpError, NotFound
from lmvp_server.api.base import Handler, UnknownRouteHandler
from lmvp_server.api.errors import as_lmvp
from lmvp_server.http.compression import may_compress
from lmvp_server.http.peers import is_other_user
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.sessions import LIFE, is_xsrf_token, xsrf_token
from lmvp_server.web import svg_marks

SESSION, VISITOR, THEME = "lmvp_session", "lmvp_visitor", "lmvp_theme"
"""Names of cookies: the session, the visitor id to which forms without a session are bound, and the theme."""
CSP = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
"""Scripts are loaded only from files. Inline styles are necessary, because strips and bars set their widths inline."""
NO_FRAMES = CSP.replace("frame-ancestors 'self'", "frame-ancestors 'none'")
HTML = "text/html; charset=utf-8"
FIELDS = 50
"""Maximum number of fields in a form."""
_PROXYS = re.compile(r"[A-Za-z0-9|=_-]{1,200}")
_VISITOR = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""Valid values of the visitor cookie. The value is sent back in a header, where other characters are not allowed."""
_WITHIN = re.compile(r"[A-Za-z0-9_.~%@-]+(?:/[A-Za-z0-9_.~%@-]+)*(?:\?[A-Za-z0-9_.~%@=&-]*)?")


class SessionHandler(Handler):
    """Handler that accepts the session cookie if the request has no token.

    Use it only for handlers that read, or that verify the CSRF token of a form.
    """

    @property
    def session(self) -> str:
        """The secret of the session cookie; if this response starts a session, its new secret, for the forms."""
        return self._entered or self.get_cookie(self.cookie_name(SESSION), "") or ""

    def cookie_name(self, name: str) -> str:
        """Return the name of a cookie as the browser has it: with the prefix `__Host-` if the server uses HTTPS.

        Browsers accept such a cookie only over HTTPS, for the path `/` and without a domain. Another host of the same
        domain can therefore not plant one. The name depends on `--public-url`, not on the request.
        """
        return f"__Host-{name}" if self.settings["server"].secure else name

    def initialize(self) -> None:
        """Initialize the state of a request."""
        super().initialize()
        self._by_session = False
        self._entered = ""

    def _caller(self, token: str) -> Caller:
        """Authenticate by token or by session.

        In a session, an `Authorization` header without an LMVP token is ignored, because it can belong to a reverse
        proxy.
        """
        # A token in the headers has priority over the cookie.
        if self.request.headers.get("Authorization", "").startswith("Bearer ") or not self.session:
            return super()._caller(token)
        if is_other_user(self.request, self.settings["server"]):
            return super()._caller(token)
        found = self.services.sessions.caller(self.session, self.settings["owner"])
        if found is None:
            return super()._caller(token)
        self._by_session = True
        return replace(found, roles=self.services.roles)


class PageHandler(SessionHandler):
    """Handler that can send a page, at least the page of an error."""

    framed = False
    """Whether pages of the same origin can show the page in a frame."""
    compressed = False
    """Whether a GET response contains no secret, so that its compressed length reveals nothing."""

    def _proves_itself(self) -> bool:
        """Return whether the request has a token in its headers, which a form of another site cannot set.

        Browsers send the user name and password of HTTP basic authentication automatically, so these do not count.
        """
        return self.caller.known and not self._by_session and self.request.headers.get("Authorization", "") != ""

    @property
    def xsrf(self) -> str:
        """The CSRF token of forms; below a proxy that checks its own token, such as Jupyter, that token."""
        forwarded = self.request.headers.get("X-Forwarded-Xsrf", "")
        if self._proves_itself() and _PROXYS.fullmatch(forwarded):
            return forwarded
        return xsrf_token(self._known_to_forms())

    def _known_to_forms(self) -> str:
        """Return the secret to which CSRF tokens are bound: the session, or without a session the visitor cookie."""
        return self.session or self._visitor()

    def _visitor(self) -> str:
        if not hasattr(self, "_known_visitor"):
            given = self.get_cookie(self.cookie_name(VISITOR), "") or ""
            self._known_visitor = given if _VISITOR.fullmatch(given) else secrets.token_urlsafe(16)
            self.set_cookie(self.cookie_name(VISITOR), self._known_visitor, **self.cookie_options())
        return self._known_visitor

    @property
    def root(self) -> str:
        """The relative path from this page to the index page: empty, or `../` repeated."""
        return "../" * (self.request.path.count("/") - 1)

    def show(self, template: str, **fields: Any) -> None:
        """Send a small page. It is rendered in the event loop."""
        self.render(template, **self._begin_page(fields))

    async def show_large(self, template: str, **fields: Any) -> None:
        """Render and compress a large page in a thread, then send it."""
        known = self._begin_page(fields)
        # The first use of these properties stores them in the handler, which is not thread-safe.
        _ = self.current_user, self.locale
        make = partial(self.render_string, template, **known)
        if self._may_compress():
            await self.send_compressed(make, HTML)
        else:
            self.finish(await self.run_public(make))

    def _may_compress(self) -> bool:
        return self.compressed and self.request.method == "GET"

    def _begin_page(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Set the headers of a page and return the fields that every template needs."""
        self.set_header("Content-Security-Policy", CSP if self.framed else NO_FRAMES)
        self.set_header("Content-Type", HTML)
        # URLs can contain names of private projects.
        self.set_header("Referrer-Policy", "no-referrer")
        if self._may_compress():
            may_compress(self)
        found = self.settings["openid"]
        self._common = {
            "marks": svg_marks,
            "numbers": number_format,
            "clean": clean,
            "root": self.root,
            "release": lmvp.__version__,
            "caller": self.caller,
            "xsrf": self.xsrf,
            "by_session": self._by_session,
            "admin": self.caller.known and self.caller.may(access.ADMIN),
            "embedded": self.settings["server"].embedded,
            "theme": self.get_cookie(self.theme_cookie, ""),
            "theme_cookie": self.theme_cookie,
        }
        return {**self._common, "openid": found.provider if found else None, **fields}

    def get_template_namespace(self) -> dict[str, Any]:
        """Return the names that all templates can use; UI modules get only these."""
        return {**super().get_template_namespace(), **self._common}

    def cookie_options(self) -> dict[str, Any]:
        """Return the cookie attributes. To delete a cookie, a browser needs the same attributes as for setting it."""
        return {"httponly": True, "samesite": "Lax", "secure": self.settings["server"].secure, "path": "/"}

    @property
    def theme_cookie(self) -> str:
        """The name of the theme cookie, which a script of the page sets.

        Below a path prefix, as behind Jupyter, the cookie is limited to that path, which `__Host-` does not allow. The
        proxy, not this server, then determines whether browsers use HTTPS.
        """
        return THEME if self.request.headers.get("X-Forwarded-Prefix") else self.cookie_name(THEME)

    def wants_page(self) -> bool:
        """Return whether the client is a browser that loads a page, and not an API client."""
        return "text/html" in self.request.headers.get("Accept", "") and not self.request.path.startswith("/api/")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error as a page to browsers, and as JSON to other clients."""
        if not self.wants_page():
            super().write_error(status_code, **kwargs)
            return
        self.show_error(as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1]))

    def show_error(self, error: LmvpError) -> None:
        """Send the page of an error."""
        self.set_error_status(error)
        self.close_if_unread()
        if not hasattr(self, "caller"):  # refused before authentication
            self.finish(f"{error.message}\n")
            return
        # The page links to sign-in, which returns here.
        here = quote(self.request.path.lstrip("/"), safe="/@")
        self.show("problem.html", error=error, heading=heading(error.http_status), here=within(here))


class WebPage(PageHandler):
    """Base class of pages.

    A form must pass `form`, which verifies its CSRF token, before it changes anything.
    """

    open_to_all = True
    body_limit = 64 << 10

    @property
    def address(self) -> str:
        """IP address of the client."""
        return self.request.remote_ip or ""

    def form(self) -> dict[str, str]:
        """Return the fields of a form with a valid CSRF token.

        Raises
        ------
        AccessDenied
            If the CSRF token is missing or not valid.
        """
        fields = self.fields()
        if not self.is_ours(fields):
            raise too_old()
        return fields

    def fields(self) -> dict[str, str]:
        """Return the fields of a form without verifying the CSRF token.

        Raises
        ------
        InvalidRequest
            If the form has too many fields.
        """
        body = b"".join(self._body).decode("utf-8", "replace")
        try:
            fields = parse_qs(body, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise InvalidRequest(f"a form of more than {FIELDS} fields", hint="load the page again") from None
        return {name: values[0] for name, values in fields.items()}

    def is_ours(self, fields: dict[str, str]) -> bool:
        """Return whether a form has the CSRF token of this session."""
        return self._proves_itself() or is_xsrf_token(fields.get("_xsrf", ""), self._known_to_forms())

    def is_of_this_origin(self) -> bool:
        """Return whether the browser reports that a page of this server sent the form, although of another session.

        It reads headers that scripts cannot set (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header).
        """
        headers = self.request.headers
        if "Sec-Fetch-Site" in headers:
            return headers["Sec-Fetch-Site"] == "same-origin"
        return headers.get("Origin", "").partition("://")[2] == self.request.host

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error as a page."""
        self.show_error(as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1]))

    def enter(self, secret: str) -> None:
        """Set the session cookie. The secret is always new, which prevents session fixation."""
        self._entered = secret
        self.set_cookie(self.cookie_name(SESSION), secret, max_age=int(LIFE), **self.cookie_options())
        # Forms are bound to the session from now on.
        self.clear_cookie(self.cookie_name(VISITOR), **self.cookie_options())

    def leave(self) -> None:
        """Delete the session cookie."""
        self.clear_cookie(self.cookie_name(SESSION), **self.cookie_options())

    def go(self, where: str) -> None:
        """Redirect to a page of this server, given relative to the index page."""
        self.set_status(303)
        self.set_header("Location", within(where))
        self.finish()


class UnknownAddressPage(PageHandler, UnknownRouteHandler):
    """Handler of unknown URLs: sends a page to browsers and JSON to other clients."""

    def prepare(self) -> None:
        """Raise NotFound for all methods."""
        if not self.wants_page():
            super().prepare()
        Handler.prepare(self)
        raise NotFound(f"there is no page at {self.request.path[:200]}", hint="check the address for typing errors")


def heading(status: int) -> str:
    """Return the heading of an error page.

    Examples
    --------
    >>> [heading(status) for status in (404, 403, 401, 409, 429, 500)]
    ['Page not found', 'Access denied', 'Sign in to continue', 'Request refused', 'Too many requests', 'Server error']
    """
    known = {401: "Sign in to continue", 403: "Access denied", 404: "Page not found", 429: "Too many requests"}
    return known.get(status, "Server error" if status >= 500 else "Request refused")


def too_old() -> AccessDenied:
    """Return the error for a form without a valid CSRF token."""
    return AccessDenied("this form is too old, or not from a page of this server", hint="load the page again")


def within(where: str) -> str:
    """Return a relative URL if it is below the index page, otherwise the index page. This prevents open redirects.

    Examples
    --------
    >>> within("device?code=ABCD-EFGH"), within("//evil.example"), within("https://evil.example"), within("..%2f/../x")
    ('device?code=ABCD-EFGH', '.', '.', '.')
    """
    fits = _WITHIN.fullmatch(where) is not None and ".." not in where
    return where if fits else "."
