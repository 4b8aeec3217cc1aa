"""Pages of the web console: URLs of projects, models, versions and runs, and opening them in a signed-in browser.

The browser signs in with a one-time link, which the server creates for the token of this client. The code in the link
is a secret. It is never printed in a notebook, logged, or stored in an object.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from lmvp import config
from lmvp.core import files
from lmvp.core.marimo import MarimoDisplay
from lmvp.core.references import check_name
from lmvp.core.schemas import (
    Health,
    NewSignInLink,
    Project,
    SignInLink,
    Version,
)
from lmvp.errors import InvalidArgument, InvalidName, NotAuthenticated, NotFound

if TYPE_CHECKING:
    from lmvp.connection import Connection
    from lmvp.core.schemas import Model
    from lmvp.core.schemas.runs import RunRecord

REDIRECT = "open.html"
"""Name of the file that redirects the browser to a link. Only the user can read it."""
_PATIENCE = 2.0
"""Seconds to wait for the answer of `xdg-settings`."""


class ConsoleClient(Protocol):
    """The members of a client that a page of its server needs."""

    _connection: Connection

    @property
    def url(self) -> str:
        """The URL of the server."""

    @property
    def fixed_url(self) -> str | None:
        """The URL that the client was created with; None if the configuration sets it."""

    @property
    def fixed_token(self) -> str | None:
        """The token that the client was created with; None if the configuration sets it."""

    @property
    def project(self) -> str:
        """The current project."""

    def version(self, name: str, /) -> Version:
        """Return a version."""

    def model(self, name: str, /) -> Model:
        """Return the record of a model."""

    def run_record(self, project: str, run: str, /) -> RunRecord:
        """Return the record of a run."""

    def _project_or_model(self, name: str, /) -> tuple[str, str | None]:
        """Return the project and the model with a name; a name without a slash can be either."""


class ConsolePage(MarimoDisplay):
    """A page of the console.

    Attributes
    ----------
    path : str
        The path of the page, relative to the URL of the server.
    is_opened : bool
        Whether a browser was started with the page.
    """

    def __init__(self, client: ConsoleClient, path: str, name: str = "") -> None:
        self._client, self._name = client, name
        self.path = path
        self.is_opened = False

    @property
    def url(self) -> str:
        """The URL of the page, without a secret. A browser that is not signed in gets the sign-in page first."""
        return f"{self._client.url}/{self.path}"  # not cached: the server of this machine can restart on another port

    def __repr__(self) -> str:
        from lmvp.core.sanitize import printable

        if self.is_opened:
            return printable(f"{self.url} is open in the browser")
        return printable(
            f"{self.url}\nto open it signed in: `lmvp open {shlex.quote(self._name) if self._name else ''}".rstrip()
            + "` in a terminal"
        )

    def _repr_html_(self) -> str:
        link = f'<a href="{escape(self.url)}" target="_blank" rel="noopener noreferrer">{escape(self.url)}</a>'
        command = f"lmvp open {escape(self._name)}".rstrip()
        where = "in a terminal of the kernel's machine, or this cell after <code>%load_ext lmvp_jupyter</code>"
        return f"<p>{link}</p><p>To open it signed in: <code>{command}</code> {where}.</p>"

    def signed_in_url(self) -> str:
        """Return a link that signs the browser in and opens the page. The link is a secret, and works once.

        It expires after a few minutes. Without a token for the server, and for servers without one-time links, the
        result is the URL of the page.

        Raises
        ------
        NotAuthenticated
            If the token is expired or revoked.
        """
        try:
            link = self._client._connection.send_json(  # noqa: SLF001 - this class belongs to the client
                "POST", "/signin-links", NewSignInLink(page=self.path), SignInLink
            )
        except NotFound:  # a server of an older release, without this route
            return self.url
        except NotAuthenticated:
            fixed = config.server_url(self._client.fixed_url)
            if fixed is None or config.token_for(fixed, self._client.fixed_token):
                raise
            return self.url
        return f"{self._client.url}/open#{link.code}"

    def instance(self) -> str:
        """Return the id of the server process. A notebook page compares it to recognise a proxy of the same server."""
        return self._client._connection.get("/health", Health).instance  # noqa: SLF001 - as above

    def open(self) -> bool:
        """Open the page in the browser of this machine; return whether a browser was started."""
        if not has_browser():
            return False
        self.is_opened = _open(self.signed_in_url())
        return self.is_opened


def page_of(client: ConsoleClient, name: Any = None) -> ConsolePage:
    """Return the page of a project, a model, a version or a run.

    Parameters
    ----------
    name : str, Version or Run, optional
        `project/`, `[project/]model[@revision]`, `[project/]run` or `project/runs/run`. A name without a slash is a
        project, or a model or a run of the current project. Default: the start page.

    Raises
    ------
    NotFound
        If no project, model, version or run has this name.
    """
    text = _name(name)
    return ConsolePage(client, _path(client, text) if text else "", text)


def _name(thing: Any) -> str:
    """Return the name of a version or a run; a string is returned unchanged."""
    if thing is None:
        return ""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Version):
        return thing.reference
    project, run = getattr(thing, "project", None), getattr(thing, "id", None)
    if isinstance(project, str) and isinstance(run, str):
        return f"{project}/runs/{run}"
    raise InvalidArgument(f"a {type(thing).__name__} has no page", hint="name a project, a model, a version or a run")


def _path(client: ConsoleClient, name: str) -> str:
    from lmvp.client.maintenance import run_path

    if run_path(name):
        project, _, run = name.partition("/runs/")
        return _run_page(client, project, run)
    if name.endswith("/"):
        project = quote(check_name(name[:-1], "project name"), safe="")
        known = client._connection.get(f"/projects/{project}", Project)  # noqa: SLF001 - this class belongs to the client
        return f"p/{quote(known.name, safe='')}"
    if "@" in name.rpartition("/")[2]:
        version = client.version(name)
        return f"p/{quote(version.project, safe='')}/{quote(f'{version.model}@{version.name}', safe='@')}"
    project, _, last = name.rpartition("/")
    try:
        if not project:
            home, model = client._project_or_model(name)  # noqa: SLF001 - the same rule for names
        else:
            found = client.model(name)
            home, model = found.project, found.name
    except (NotFound, InvalidName):  # names of runs can contain characters that are invalid in names of models
        with suppress(NotFound):
            return _run_page(client, project or client.project, last)
        raise
    return f"p/{quote(home, safe='')}" + (f"/{quote(model, safe='')}" if model else "")


def _run_page(client: ConsoleClient, project: str, run: str) -> str:
    found = client.run_record(project, run)
    return f"p/{quote(project, safe='')}/-/runs/{quote(found.id, safe='')}"


def has_browser() -> bool:
    """Return whether a graphical browser can be started on this machine; text browsers do not count."""
    if os.environ.get("BROWSER"):
        return True
    system: str = sys.platform  # without the annotation, mypy checks only the branch of its own platform
    if system == "darwin":
        return "SSH_CONNECTION" not in os.environ
    if system.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def _open(url: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(_redirect(url) if "#" in url and _lists_arguments() else url)
    except (OSError, webbrowser.Error):
        return False


def _lists_arguments() -> bool:
    """Return whether the browser must get the link through a file, as in Jupyter.

    On Linux, the URL is an argument of the browser process, and every user of the machine can list arguments. There are
    two exceptions: the program in `BROWSER` can be limited to URLs (that of VS Code is), and browsers from a snap
    cannot read hidden folders.
    """
    if not sys.platform.startswith("linux") or os.environ.get("BROWSER") or "WSL_DISTRO_NAME" in os.environ:
        return False
    settings = shutil.which("xdg-settings")
    if settings is None:
        return True
    with suppress(OSError, subprocess.SubprocessError):
        asked = [settings, "get", "default-web-browser"]
        default = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout.strip()
        return "_" not in default  # snaps have names such as firefox_firefox.desktop
    return True


def _redirect(url: str) -> str:
    """Write an HTML page that redirects to a link; return the URL of its file, which only this user can read.

    The file is not deleted, because the browser does not report when it has read it. The code in it works once and
    expires after a few minutes.
    """
    folder: Path = config.config_home()
    files.make_folder(folder)
    safe = escape(url)
    text = (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>LMVP</title>'
        f'<meta http-equiv="refresh" content="0; url={safe}"><p><a href="{safe}" rel="noreferrer">Open LMVP</a></p>\n'
    )
    files.atomic_write(folder / REDIRECT, text.encode(), sync=False)
    return (folder / REDIRECT).as_uri()
