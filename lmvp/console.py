"""Pages of the web console: find the page of a thing, and open it in the browser, signed in.

A browser signs in by a one-time link, which the server makes for the token of this client. The code in the link is a
secret, so it is never printed in a notebook, logged, or kept in an object.
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
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lmvp import config, hints, private
from lmvp.errors import InvalidArgument, InvalidName, NotAuthenticated, NotFound
from lmvp.live import MarimoDisplay
from lmvp.records import Health, NewSignInLink, Project, SignInLink, Version
from lmvp.references import check_name

if TYPE_CHECKING:
    from lmvp.client import Client

REDIRECT = "open.html"
"""A file of the user alone that leads the browser to a link."""
_PATIENCE = 2.0


class ConsolePage(MarimoDisplay):
    """A page of the console.

    Attributes
    ----------
    path : str
        The part of the address behind that of the server.
    is_opened : bool
        Whether the browser was told to open it.
    """

    def __init__(self, client: Client, path: str, name: str = "") -> None:
        self._client, self._name = client, name
        self.path = path
        self.is_opened = False

    @property
    def url(self) -> str:
        """The address of the page, without a secret; a browser that is not signed in gets the page to sign in."""
        return f"{self._client.url}/{self.path}"  # asked again: the server of this machine may have moved

    def __repr__(self) -> str:
        from lmvp.render.words import printable

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
        """Return a link that opens the page signed in, once, within some minutes; it is a secret.

        Without a token for the server, and on a server that makes no links, it is the address of the page.

        Raises
        ------
        NotAuthenticated
            If the token has ended.
        """
        try:
            link = self._client._connection.send_json(  # noqa: SLF001 - the page is a part of the client
                "POST", "/signin-links", NewSignInLink(page=self.path), SignInLink
            )
        except NotFound:  # an older server
            return self.url
        except NotAuthenticated:
            fixed = config.server_url(self._client.fixed_url)
            if fixed is None or config.token_for(fixed, self._client.fixed_token):
                raise
            return self.url
        return f"{self._client.url}/open#{link.code}"

    def instance(self) -> str:
        """Return the id of this start of the server, by which a page recognises a proxy to the same server."""
        return self._client._connection.get("/health", Health).instance  # noqa: SLF001 - as above

    def open(self) -> bool:
        """Open the page in the browser of this machine; return whether there is one."""
        if not has_browser():
            return False
        self.is_opened = _open(self.signed_in_url())
        return self.is_opened


def page_of(client: Client, name: Any = None) -> ConsolePage:
    """Return the page of a project, a model, a version or a run; without a name, the first page.

    Parameters
    ----------
    name : str, Version or Run, optional
        `project/`, `[project/]model[@revision]`, `[project/]run` or `project/runs/run`. A bare name is a project, or a
        model or a run of the current project.

    Raises
    ------
    NotFound
        If there is nothing of that name.
    """
    text = _name(name)
    return ConsolePage(client, _path(client, text) if text else "", text)


def _name(thing: Any) -> str:
    """Return the name of an object of LMVP."""
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


def _path(client: Client, name: str) -> str:
    from lmvp.housekeeping import run_path

    if run_path(name):
        project, _, run = name.partition("/runs/")
        return _run_page(client, project, run)
    if name.endswith("/"):
        project = quote(check_name(name[:-1], "project name"), safe="")
        known = client._connection.get(f"/projects/{project}", Project)  # noqa: SLF001 - the page is a part of the client
        return f"p/{quote(known.name, safe='')}"
    if "@" in name.rpartition("/")[2]:
        version = client.version(name)
        return f"p/{quote(version.project, safe='')}/{quote(f'{version.model}@{version.name}', safe='@')}"
    project, _, last = name.rpartition("/")
    try:
        if not project:
            home, model = client._project_or_model(name)  # noqa: SLF001 - one rule for names
        else:
            found = client.model(name)
            home, model = found.project, found.name
    except (NotFound, InvalidName):  # a run may have a name that no model has
        with suppress(NotFound):
            return _run_page(client, project or client.project, last)
        raise
    return f"p/{quote(home, safe='')}" + (f"/{quote(model, safe='')}" if model else "")


def _run_page(client: Client, project: str, run: str) -> str:
    found = client.run_record(project, run)
    return f"p/{quote(project, safe='')}/-/runs/{quote(found.id, safe='')}"


def run_address(project: str, run: str, url: str | None) -> str:
    """Return the address of a run's page on a server (None: that of this machine); empty if it is not known yet.

    It sends nothing: a run begins without its server.
    """
    if url is None:
        from lmvp import serverfile

        said = serverfile.read(config.data_home())
        url = said.url if said is not None and said.here and not said.rebooted else ""
    return f"{url}/p/{quote(project, safe='')}/-/runs/{quote(run, safe='')}" if url else ""


def has_browser() -> bool:
    """Tell whether a browser with windows can be started here; a text browser in the terminal does not count."""
    if os.environ.get("BROWSER"):
        return True
    system: str = sys.platform  # mypy takes the value of its own machine for that of every machine
    if system == "darwin":
        return "SSH_CONNECTION" not in os.environ
    if system.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook, whose browser may be on another machine."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None or hints.in_marimo()


def _open(url: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(_redirect(url) if "#" in url and _lists_arguments() else url)
    except (OSError, webbrowser.Error):
        return False


def _lists_arguments() -> bool:
    """Tell whether the browser must get the link by a file, as Jupyter does it.

    On Linux a URL is an argument of the browser's process, and every user of the machine can list those. A program that
    `BROWSER` names may open nothing but URLs (that of VS Code does), and browsers from a snap read no hidden folders.
    """
    if not sys.platform.startswith("linux") or os.environ.get("BROWSER") or "WSL_DISTRO_NAME" in os.environ:
        return False
    settings = shutil.which("xdg-settings")
    if settings is None:
        return True
    with suppress(OSError, subprocess.SubprocessError):
        asked = [settings, "get", "default-web-browser"]
        default = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout.strip()
        return "_" not in default  # firefox_firefox.desktop is that of a snap
    return True


def _redirect(url: str) -> str:
    """Write a link to a file that only this user reads; return the address of the file.

    The file stays, since nothing tells when the browser has read it; its code works once, for some minutes.
    """
    folder: Path = config.config_home()
    private.make_folder(folder)
    safe = escape(url)
    text = (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>LMVP</title>'
        f'<meta http-equiv="refresh" content="0; url={safe}"><p><a href="{safe}" rel="noreferrer">Open LMVP</a></p>\n'
    )
    private.write(folder / REDIRECT, text.encode(), sync=False)
    return (folder / REDIRECT).as_uri()
