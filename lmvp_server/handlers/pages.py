"""What pages share: who looks by their cookie, forms that no other site can send, and where a page may lead."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote

import lmvp
from lmvp.errors import AccessDenied, InvalidRequest, LmvpError, NotFound
from lmvp.render.words import clean
from lmvp_server.compression import may_compress
from lmvp_server.handlers.base import Handler, NoSuchRoute, as_lmvp
from lmvp_server.handlers.peers import is_other_user
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.sessions import LIFE, is_xsrf_token, xsrf_token

SESSION, VISITOR, THEME = "lmvp_session", "lmvp_visitor", "lmvp_theme"
"""Cookies: the session, what forms are bound to before there is one, and the theme."""
CSP = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
"""Scripts only from files; strips and bars set their widths inline."""
NO_FRAMES = CSP.replace("frame-ancestors 'self'", "frame-ancestors 'none'")
HTML = "text/html; charset=utf-8"
FIELDS = 50
"""Fields of a form at most."""
_PROXYS = re.compile(r"[A-Za-z0-9|=_-]{1,200}")
_VISITOR = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""The values of the cookie of a visitor. It is sent back, and no header may hold other characters."""
_WITHIN = re.compile(r"[A-Za-z0-9_.~%@-]+(?:/[A-Za-z0-9_.~%@-]+)*(?:\?[A-Za-z0-9_.~%@=&-]*)?")


class BySession(Handler):
    """A handler whose caller is, without a token in its headers, whose session the cookie names.

    It is for what only reads, or for what sees that a form comes from a page of ours.
    """

    @property
    def session(self) -> str:
        """The secret in the cookie; of a session that this answer begins, the new one, for the forms in the answer."""
        return self._entered or self.get_cookie(self.cookie_name(SESSION), "") or ""

    def cookie_name(self, name: str) -> str:
        """Return the name that a cookie has in browsers: with `__Host-` where people use https.

        Browsers take a cookie of such a name only over https, for the path `/` and without a domain, so that no other
        host of the same domain can plant one. The names of cookies follow `--public-url` and not the request.
        """
        return f"__Host-{name}" if self.settings["server"].secure else name

    def initialize(self) -> None:
        """Begin a request."""
        super().initialize()
        self._by_session = False
        self._entered = ""

    def _caller(self, token: str) -> Caller:
        """Return whose token or else whose session this is: a proxy may have used the header for a login of its own."""
        if self.request.headers.get("Authorization", "").startswith("Bearer ") or not self.session:
            return super()._caller(token)
        if is_other_user(self.request, self.settings["server"]):
            return super()._caller(token)
        found = self.services.sessions.caller(self.session, self.settings["owner"])
        if found is None:
            return super()._caller(token)
        self._by_session = True
        return replace(found, roles=self.services.roles)


class Drawn(BySession):
    """A handler that can answer with a page: with an error at least."""

    framed = False
    """Whether pages of the same origin may show it in a frame."""
    compressed = False
    """Whether what a GET shows holds no secret, so that its length may tell what it likes."""

    def _proves_itself(self) -> bool:
        """Whether the request has a token in its headers, which no form of another site can have.

        A browser sends the name and password of a proxy's login by itself, so that proves nothing.
        """
        return self.caller.known and not self._by_session and self.request.headers.get("Authorization", "") != ""

    @property
    def xsrf(self) -> str:
        """What forms carry; below a proxy that looks for something of its own in forms, that."""
        forwarded = self.request.headers.get("X-Forwarded-Xsrf", "")
        if self._proves_itself() and _PROXYS.fullmatch(forwarded):
            return forwarded
        return xsrf_token(self._known_to_forms())

    def _known_to_forms(self) -> str:
        """Return what forms are bound to: the session; before there is one, a cookie that the page sets."""
        return self.session or self._visitor()

    def _visitor(self) -> str:
        if not hasattr(self, "_known_visitor"):
            given = self.get_cookie(self.cookie_name(VISITOR), "") or ""
            self._known_visitor = given if _VISITOR.fullmatch(given) else secrets.token_urlsafe(16)
            self.set_cookie(self.cookie_name(VISITOR), self._known_visitor, **self.cookie_options())
        return self._known_visitor

    @property
    def root(self) -> str:
        """What leads from this page to the first one: empty, or `../` as often as it lies deep."""
        return "../" * (self.request.path.count("/") - 1)

    def show(self, template: str, **fields: Any) -> None:
        """Send a small page; it is rendered on the event loop."""
        self.render(template, **self._begin_page(fields))

    async def show_large(self, template: str, **fields: Any) -> None:
        """Render a page, and compress it if it may be, in a thread; send it then."""
        known = self._begin_page(fields)
        # Their first use stores them in the handler, which only the loop may do.
        _ = self.current_user, self.locale
        make = partial(self.render_string, template, **known)
        if self._may_compress():
            await self.send_compressed(make, HTML)
        else:
            self.finish(await self.run_public(make))

    def _may_compress(self) -> bool:
        return self.compressed and self.request.method == "GET"

    def _begin_page(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Set the headers of a page, and return all that its template needs."""
        self.set_header("Content-Security-Policy", CSP if self.framed else NO_FRAMES)
        self.set_header("Content-Type", HTML)
        self.set_header("Referrer-Policy", "no-referrer")
        if self._may_compress():
            may_compress(self)
        found = self.settings["openid"]
        known = {
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
        return {**known, "openid": found.provider if found else None, **fields}

    def cookie_options(self) -> dict[str, Any]:
        """Return the attributes of cookies; a cookie is deleted only with the attributes that its name needs."""
        return {"httponly": True, "samesite": "Lax", "secure": self.settings["server"].secure, "path": "/"}

    @property
    def theme_cookie(self) -> str:
        """The name of the cookie of the theme, which a script of the page sets.

        Below a prefix, as behind Jupyter, the cookie is for that path alone, which `__Host-` does not allow; the scheme
        there is that of the proxy.
        """
        return THEME if self.request.headers.get("X-Forwarded-Prefix") else self.cookie_name(THEME)

    def wants_page(self) -> bool:
        """Whether a person asks, by a browser that loads a page: for an address that is none of the API's."""
        return "text/html" in self.request.headers.get("Accept", "") and not self.request.path.startswith("/api/")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error as a page to people, and as JSON to programs."""
        if not self.wants_page():
            super().write_error(status_code, **kwargs)
            return
        self.show_error(as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1]))

    def show_error(self, error: LmvpError) -> None:
        """Send the page of an error."""
        self.set_error_status(error)
        self.close_if_unread()
        if not hasattr(self, "caller"):  # refused before it was asked who looks
            self.finish(f"{error.message}\n")
            return
        here = quote(self.request.path.lstrip("/"), safe="/@")
        self.show("problem.html", error=error, heading=heading(error.http_status), here=within(here), clean=clean)


class Page(Drawn):
    """A page.

    A form changes nothing before `form` has seen that it comes from a page of ours.
    """

    open_to_all = True
    body_limit = 64 << 10

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return self.request.remote_ip or ""

    def form(self) -> dict[str, str]:
        """Return the fields of a form.

        Raises
        ------
        AccessDenied
            If it does not come from a page of ours: it lacks what only such a page knows.
        """
        fields = self.fields()
        if not self.is_ours(fields):
            raise too_old()
        return fields

    def fields(self) -> dict[str, str]:
        """Return the fields of a form, whoever sent it.

        Raises
        ------
        InvalidRequest
            If there are too many of them.
        """
        body = b"".join(self._body).decode("utf-8", "replace")
        try:
            fields = parse_qs(body, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise InvalidRequest(f"a form of more than {FIELDS} fields", hint="load the page again") from None
        return {name: values[0] for name, values in fields.items()}

    def is_ours(self, fields: dict[str, str]) -> bool:
        """Whether a form comes from a page of this session, and not from another site."""
        return self._proves_itself() or is_xsrf_token(fields.get("_xsrf", ""), self._known_to_forms())

    def is_of_this_origin(self) -> bool:
        """Whether the browser says that a page of this server sent the form: of another session, then.

        Said is it in headers that no page can set (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header).
        """
        headers = self.request.headers
        if "Sec-Fetch-Site" in headers:
            return headers["Sec-Fetch-Site"] == "same-origin"
        return headers.get("Origin", "").partition("://")[2] == self.request.host

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error as a page."""
        self.show_error(as_lmvp(status_code, kwargs.get("exc_info", (None, None, None))[1]))

    def enter(self, secret: str) -> None:
        """Give the browser a session: always a new one, so that nobody can have planted it."""
        self._entered = secret
        self.set_cookie(self.cookie_name(SESSION), secret, max_age=int(LIFE), **self.cookie_options())
        self.clear_cookie(self.cookie_name(VISITOR), **self.cookie_options())

    def leave(self) -> None:
        """Take the browser's session away."""
        self.clear_cookie(self.cookie_name(SESSION), **self.cookie_options())

    def go(self, where: str) -> None:
        """Lead to a page of ours, named relative to the first one."""
        self.set_status(303)
        self.set_header("Location", within(where))
        self.finish()


class NoSuchAddress(Drawn, NoSuchRoute):
    """Answers for all addresses that have no handler: people get a page, programs get JSON."""

    def prepare(self) -> None:
        """Raise the error, whatever the method."""
        if not self.wants_page():
            super().prepare()
        Handler.prepare(self)
        raise NotFound(f"there is no page at {self.request.path[:200]}", hint="check the address for typing errors")


def heading(status: int) -> str:
    """Return the heading of the page of an error.

    Examples
    --------
    >>> [heading(status) for status in (404, 403, 401, 409, 429, 500)]
    ['Page not found', 'Access denied', 'Sign in to continue', 'Request refused', 'Too many requests', 'Server error']
    """
    known = {401: "Sign in to continue", 403: "Access denied", 404: "Page not found", 429: "Too many requests"}
    return known.get(status, "Server error" if status >= 500 else "Request refused")


def too_old() -> AccessDenied:
    """Return the refusal of a form that is not from a page of this session."""
    return AccessDenied("this form is too old, or not from a page of this server", hint="load the page again")


def within(where: str) -> str:
    """Return a place below the first page; what leads elsewhere leads to the first page.

    Examples
    --------
    >>> within("device?code=ABCD-EFGH"), within("//evil.example"), within("https://evil.example"), within("..%2f/../x")
    ('device?code=ABCD-EFGH', '.', '.', '.')
    """
    fits = _WITHIN.fullmatch(where) is not None and ".." not in where
    return where if fits else "."
