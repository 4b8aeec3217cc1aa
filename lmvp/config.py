"""Configuration of the client: server, token, project and folders.

An argument has precedence over an environment variable, and a variable over the stored credentials.

========================  ==========================================================================================
`LMVP_HOME`               folder of all data of LMVP on this machine; default: the folders of the platform
`LMVP_URL`                URL of the server; default: the server of `lmvp.login`, then the server of this machine
`LMVP_TOKEN`              token for the server at `LMVP_URL`; not sent to other servers
`LMVP_PROJECT`            project of references that contain no project; default: `default`
`LMVP_CACHE`              folder of the download cache, see `lmvp.transfer.model_cache`
`LMVP_CACHE_LIMIT`        maximum size of the download cache, for example `10GiB`; `0` disables the cache
========================  ==========================================================================================

A token belongs to an origin (scheme, host and port). The client never sends it to another origin, so neither a
reference nor a redirect can leak it to another server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from lmvp.core import files
from lmvp.core.references import check_name
from lmvp.core.server_file import data_home
from lmvp.errors import DamagedFile, InvalidArgument

DEFAULT_PROJECT = "default"
_PORTS = {"http": 80, "https": 443}
_URL_RULE = "write https://host, or http://host:port"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_FILE_HINT = "set LMVP_HOME to a folder of yours"
_session: dict[str, str] = {}  # settings of this process, by `set_project`


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the credentials file.

    Attributes
    ----------
    url : str, optional
        The server in use.
    tokens : dict of str to str
        Tokens by origin.
    """

    url: str | None = None
    tokens: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Credentials for {', '.join(self.tokens) or 'nowhere'}>"


def config_home() -> Path:
    """Return the folder of the credentials file: `config` in `LMVP_HOME`, or the user config folder of the platform."""
    if os.environ.get("LMVP_HOME"):
        return data_home() / "config"
    import platformdirs

    return Path(platformdirs.user_config_dir("lmvp", appauthor=False))


def cache_home() -> Path:
    """Return the cache folder: `LMVP_CACHE`, `cache` in `LMVP_HOME`, or the user cache folder of the platform."""
    folder = os.environ.get("LMVP_CACHE")
    if folder:
        return Path(folder).expanduser().absolute()
    if os.environ.get("LMVP_HOME"):
        return data_home() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("lmvp", appauthor=False))


def check_url(url: object) -> str:
    """Return the URL of a server in its normal form: lower-case host, no default port, no trailing slash.

    Raises
    ------
    InvalidArgument
        If the scheme is not http or https, if the host is missing, or if the URL contains a user, a password, a query
        or a fragment.

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
    """Return scheme, host and port of a URL. Tokens are stored by this origin.

    Examples
    --------
    >>> origin("https://models.example.org/team/a")
    'https://models.example.org'
    """
    return _origin(_split(url))


def server_url(argument: str | None = None) -> str | None:
    """Return the URL of the server in use; None stands for the server of this machine."""
    url = argument or os.environ.get("LMVP_URL") or _load().url
    return check_url(url) if url else None


def url_of(host: str) -> str:
    """Return the URL of the server in an `lmvp://` reference, given as `host` or `host:port`.

    If `LMVP_URL` or a login has the same host and port, the result is that URL. Otherwise the scheme is https, or http
    for addresses of this machine.

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
    """Return the token for the origin of this URL; None if there is no token."""
    if argument:
        return check_token(argument)
    # `LMVP_TOKEN` counts only together with `LMVP_URL`; without it, the token could go to any server.
    stated, home = os.environ.get("LMVP_TOKEN"), os.environ.get("LMVP_URL")
    if stated and home and origin(home) == origin(url):
        return check_token(stated)
    return _load().tokens.get(origin(url))


def check_token(token: object) -> str:
    """Return the token without surrounding white space; raise an error if it is not valid in an HTTP header.

    The error does not contain the token.
    """
    if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]{1,4096}", token.strip()):
        return token.strip()
    raise InvalidArgument("this is no token", hint="a token is one word of ASCII characters, as the server gave it")


def login(url: str, token: str | None = None) -> str:
    """Store a server as the server in use of all processes of this user, and store its token.

    Parameters
    ----------
    url : str
        The URL of the server.
    token : str, optional
        The token. Default: do not change the stored token.

    Returns
    -------
    str
        The URL in its normal form.
    """
    plain, secret = check_url(url), token and check_token(token)
    with _changing() as credentials:
        credentials.url = plain
        if secret:
            credentials.tokens[origin(plain)] = secret
    return plain


def logout(url: str | None = None) -> bool:
    """Delete the stored token of a server. If it is the server in use, use the server of this machine again.

    Parameters
    ----------
    url : str, optional
        The URL of the server. Default: the server in use.

    Returns
    -------
    bool
        True if a token or the server in use was stored.

    Examples
    --------
    >>> lmvp.logout()  # doctest: +SKIP
    True
    """
    with _changing() as credentials:
        target = check_url(url) if url else credentials.url
        if target is None:
            return False
        known = credentials.tokens.pop(origin(target), None) is not None
        if credentials.url and origin(credentials.url) == origin(target):
            credentials.url, known = None, True
        return known


def set_project(project: str | None) -> None:
    """Set the current project of this process.

    Parameters
    ----------
    project : str or None
        The name of the project. None: use `LMVP_PROJECT`, or `default` if the variable is not set.

    Raises
    ------
    InvalidName
        If the name breaks the rule for names.

    Examples
    --------
    >>> lmvp.set_project("digits")  # doctest: +SKIP
    """
    if project is None:
        _session.pop("project", None)
    else:
        _session["project"] = check_name(project, "project name")


def current_project(argument: str | None = None) -> str:
    """Return the project of references that contain no project: argument, `set_project`, `LMVP_PROJECT` or default."""
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
    if "@" in parts.netloc:  # the message must not show the URL, because it can contain a password
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
    scheme = "http" if re.match(r"(localhost|127\.[0-9.]+)(:|$)", text) else "https"  # no TLS on local addresses
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
        data = files.read(path, follow=True)  # users can link their configuration, for example to a dotfiles folder
    except OSError as error:
        raise files.explain(error, path, _FILE_HINT, "read") from error
    if data is None:
        return Credentials()
    try:
        return msgspec.json.decode(data, type=Credentials)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DamagedFile(f"{path} is damaged", hint="remove it and log in again") from None


@contextmanager
def _changing() -> Iterator[Credentials]:
    """Yield the credentials for a change, and store them afterwards; a lock excludes other processes."""
    path = _file()
    try:
        files.make_folder(path.parent)
        # Older releases, or a copied folder, can have left these files readable for other users.
        files.secure(path.parent, [path.name, path.with_suffix(".lock").name])
        with _lock(path):
            credentials = _load()
            yield credentials
            files.atomic_write(path, msgspec.json.encode(credentials))
    except OSError as error:
        raise files.explain(error, path.parent, _FILE_HINT) from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Exclude other processes that change the credentials, if the file system has locks.

    Without locks, two logins at the same time can lose the token of one of them. The file stays valid, because it is
    replaced atomically.
    """
    from filelock import FileLock

    lock = FileLock(path.with_suffix(".lock"), timeout=10, mode=files.FILE)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except OSError as error:
            if error.errno not in files.NO_LOCKS:
                raise
        yield
