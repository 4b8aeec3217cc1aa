"""Which server, with which token, in which project: an argument beats the environment, which beats what is stored.

========================  ===========================================================================
`LMVP_HOME`               folder of all that LMVP keeps on this machine, instead of the platform's own
`LMVP_URL`                the server; without it the one of `lmvp.login`, else the one of this machine
`LMVP_TOKEN`              the token for the server at `LMVP_URL`, and for no other
`LMVP_PROJECT`            the project of references that name none
`LMVP_CACHE`              folder of the chunks that are kept for the next time, see `lmvp.transfer.cache`
`LMVP_CACHE_LIMIT`        what it may take: `10GiB`; `0` for no cache at all
========================  ===========================================================================

A token belongs to an origin (scheme, host and port) and is never given for another one, so that neither a reference
nor a redirect can draw it elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import msgspec

from lmvp import private
from lmvp.errors import DamagedFile, InvalidArgument
from lmvp.references import check_name

if TYPE_CHECKING:
    from filelock import BaseFileLock

DEFAULT_PROJECT = "default"
_PORTS = {"http": 80, "https": 443}
_URL_RULE = "write https://host, or http://host:port"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_FILE_HINT = "set LMVP_HOME to a folder of yours"
_session: dict[str, str] = {}


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """The credentials file: the server in use, and a token per origin."""

    url: str | None = None
    tokens: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Credentials for {', '.join(self.tokens) or 'nowhere'}>"


def data_home() -> Path:
    """Return the folder of the embedded server: `LMVP_HOME`, or the platform's folder for user data.

    Raises
    ------
    InvalidArgument
        If `LMVP_HOME` begins with the `~` of a user that there is not.
    """
    home = os.environ.get("LMVP_HOME")
    if home:
        try:
            return Path(home).expanduser().absolute()
        except RuntimeError:
            raise InvalidArgument(f"LMVP_HOME is {home!r}, and nobody here is called so", hint=_FILE_HINT) from None
    import platformdirs

    return Path(platformdirs.user_data_dir("lmvp", appauthor=False))


def config_home() -> Path:
    """Return the folder of the credentials file: `config` in `LMVP_HOME`, or the platform's folder."""
    if os.environ.get("LMVP_HOME"):
        return data_home() / "config"
    import platformdirs

    return Path(platformdirs.user_config_dir("lmvp", appauthor=False))


def cache_home() -> Path:
    """Return the folder of the cache: `LMVP_CACHE`, `cache` in `LMVP_HOME`, or the platform's folder."""
    folder = os.environ.get("LMVP_CACHE")
    if folder:
        return Path(folder).expanduser().absolute()
    if os.environ.get("LMVP_HOME"):
        return data_home() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("lmvp", appauthor=False))


def check_url(url: object) -> str:
    """Return the URL of a server in its plain form: lower-case host, no default port, no slash at the end.

    Raises
    ------
    InvalidArgument
        If it is not http or https, has no host, or holds a password, a query or a fragment.

    Examples
    --------
    >>> check_url("HTTPS://Models.Example.org:443/")
    'https://models.example.org'
    >>> check_url("models.example.org")
    Traceback (most recent call last):
    lmvp.errors.InvalidArgument: 'models.example.org' is no URL of a server
      hint: write https://models.example.org
    """
    parts = _split(url)
    return _origin(parts) + parts.path.rstrip("/")


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, which is what a token belongs to.

    Examples
    --------
    >>> origin("https://models.example.org/team/a")
    'https://models.example.org'
    """
    return _origin(_split(url))


def server_url(argument: str | None = None) -> str | None:
    """Return the URL of the server in use; None: the one of this machine."""
    url = argument or os.environ.get("LMVP_URL") or _load().url
    return check_url(url) if url else None


def url_of(host: str) -> str:
    """Return the URL of the server that an `lmvp://` reference names by `host` or `host:port`.

    A server that is known, from `LMVP_URL` or a login, is meant if its host and port agree; else https is, or http on
    this machine itself.

    Examples
    --------
    >>> url_of("localhost:8000")
    'http://localhost:8000'
    """
    known = [url for url in (os.environ.get("LMVP_URL"), _load().url, *_load().tokens) if url]
    same = [url for url in map(check_url, known) if urlsplit(url).netloc == host.lower()]
    if same:
        return same[0]
    local = re.match(r"(localhost|127(\.\d+){3}|\[::1\])(:|$)", host, re.IGNORECASE)
    return check_url(f"{'http' if local else 'https'}://{host}")


def token_for(url: str, argument: str | None = None) -> str | None:
    """Return the token to send to this URL, if there is one for its origin."""
    if argument:
        return check_token(argument)
    stated, home = os.environ.get("LMVP_TOKEN"), os.environ.get("LMVP_URL")
    if stated and home and origin(home) == origin(url):
        return check_token(stated)
    return _load().tokens.get(origin(url))


def check_token(token: object) -> str:
    """Return the token without white space around it, if it can stand in a header; never shows it."""
    if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]{1,4096}", token.strip()):
        return token.strip()
    raise InvalidArgument("this is no token", hint="a token is one word of ASCII characters, as the server gave it")


def login(url: str, token: str | None = None) -> str:
    """Make this server the one in use from now on, in every process of this user; keep the token for it.

    Returns
    -------
    str
        The URL as it was stored.
    """
    plain, secret = check_url(url), token and check_token(token)
    with _changing() as credentials:
        credentials.url = plain
        if secret:
            credentials.tokens[origin(plain)] = secret
    return plain


def logout(url: str | None = None) -> bool:
    """Forget the token for this server (the one in use, if none is named); tells whether anything was known."""
    with _changing() as credentials:
        target = check_url(url) if url else credentials.url
        if target is None:
            return False
        known = credentials.tokens.pop(origin(target), None) is not None
        if credentials.url and origin(credentials.url) == origin(target):
            credentials.url, known = None, True
        return known


def set_project(project: str | None) -> None:
    """Make this the current project of this process; None: whatever the environment says."""
    if project is None:
        _session.pop("project", None)
    else:
        _session["project"] = check_name(project, "project name")


def current_project(argument: str | None = None) -> str:
    """Return the project that is meant where none is named."""
    project = argument or _session.get("project") or os.environ.get("LMVP_PROJECT") or DEFAULT_PROJECT
    return check_name(project, "project name")


def _split(url: object) -> SplitResult:
    if not isinstance(url, str):
        raise InvalidArgument(f"the URL of a server is a text, not {type(url).__name__}", hint=_URL_RULE)
    try:
        parts = urlsplit(url.strip())
        port, host = parts.port, parts.hostname
    except ValueError:
        raise _bad_url(url) from None
    if "@" in parts.netloc:  # never shown: a password may stand there
        hint = "leave out user:password@; `lmvp login URL` stores a token for it"
        raise InvalidArgument("the URL of a server holds no user or password", hint=hint)
    plain = re.fullmatch(r"[\x21-\x7e]+", url.strip()) and not (parts.query or parts.fragment)
    if parts.scheme not in _PORTS or not host or not _HOST.fullmatch(host) or port == 0 or not plain:
        raise _bad_url(url)
    return parts


def _bad_url(url: str) -> InvalidArgument:
    text = url.strip()
    if "@" in text:
        return InvalidArgument("this is no URL of a server", hint=_URL_RULE)
    bare = re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?", text)
    scheme = "http" if re.match(r"(localhost|127\.[0-9.]+)(:|$)", text) else "https"  # no certificate is for these
    return InvalidArgument(
        f"{text[:80]!r} is no URL of a server", hint=f"write {scheme}://{text}" if bare else _URL_RULE
    )


def _origin(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _file() -> Path:
    return config_home() / "credentials.json"


def _load() -> Credentials:
    path = _file()
    try:
        data = private.read(path, follow=True)
    except OSError as error:
        raise private.explain(error, path, _FILE_HINT, "read") from error
    if data is None:
        return Credentials()
    try:
        return msgspec.json.decode(data, type=Credentials)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DamagedFile(f"{path} is damaged", hint="remove it and log in again") from None


@contextmanager
def _changing() -> Iterator[Credentials]:
    """Hand out the credentials for a change, and store them; one process at a time."""
    path = _file()
    try:
        private.make_folder(path.parent)
        private.secure(path.parent, [path.name, path.with_suffix(".lock").name])
        with _lock(path):
            credentials = _load()
            yield credentials
            private.write(path, msgspec.json.encode(credentials))
    except OSError as error:
        raise private.explain(error, path.parent, _FILE_HINT) from error


def _lock(path: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(path.with_suffix(".lock"), timeout=10, mode=private.FILE)
