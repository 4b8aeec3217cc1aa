"""All URLs of the server, and the Tornado application."""

from __future__ import annotations

import asyncio
import getpass
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from tornado.web import Application

from lmvp_server.api import (
    aliases,
    backups,
    catalog,
    contributions,
    devices,
    downloads,
    events,
    export,
    health,
    invitations,
    maintenance,
    metrics,
    pushes,
    runs,
    sse,
    team,
    tokens,
    trash,
    versions,
    webhooks,
)
from lmvp_server.api.base import Handler
from lmvp_server.api.route import pattern_of
from lmvp_server.http.compression import Gzip
from lmvp_server.http.queues import PASSWORD_BOUNDS, CostlyWork
from lmvp_server.process.notifier import Notifier
from lmvp_server.services import Services
from lmvp_server.web import (
    auth,
    device,
    index,
    openid,
    pages,
)
from lmvp_server.web.base_page import UnknownAddressPage
from lmvp_server.web.rendering import Rendering
from lmvp_server.web.ui_modules import UI_MODULES

API = "/api/v1"
_PART = "([^/]+)"

MODULES: dict[str, ModuleType] = {
    "Server": health,
    "Audit log": events,
    "Device login": devices,
    "Tokens and identities": tokens,
    "Invitations and sign-in links": invitations,
    "Accounts, groups and members": team,
    "Trash": trash,
    "Maintenance": maintenance,
    "Backups": backups,
    "Projects and models": catalog,
    "Webhooks": webhooks,
    "Aliases": aliases,
    "Versions": versions,
    "Contents of versions": downloads,
    "Pushes": pushes,
    "Contributions and forks": contributions,
    "Runs": runs,
    "Metrics": metrics,
    "Export of metrics": export,
    "Live metrics": sse,
}
"""The modules of the API by their headings, in the order of docs/api.md."""


def handlers_of(module: ModuleType) -> list[type[Handler]]:
    """Return the handlers of a module that declare a path, in their order in the file."""
    classes = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Handler)]
    return [one for one in classes if one.__module__ == module.__name__ and "path" in vars(one)]


# The order matters: Tornado uses the first pattern that matches.
ROUTES: list[tuple[str, type[Handler]]] = [
    (pattern_of(handler.path), handler) for module in MODULES.values() for handler in handlers_of(module)
]
"""The routes of the API. Each handler declares its path and its methods."""

HERE = Path(__file__).parent

# The order matters: Tornado uses the first pattern that matches.
PAGES: list[tuple[Any, ...]] = [
    ("/", index.HomePage),
    (f"/p/{_PART}", pages.ProjectPage),
    (f"/p/{_PART}/-/contributions", pages.ContributionsPage),
    (f"/p/{_PART}/-/members", pages.MembersPage),
    (f"/p/{_PART}/-/activity", pages.ActivityPage),
    (f"/p/{_PART}/-/removed", pages.TrashPage),
    (f"/p/{_PART}/-/settings", pages.ProjectSettingsPage),
    (f"/p/{_PART}/-/runs", pages.RunsPage),
    (f"/p/{_PART}/-/runs/{_PART}", pages.RunPage),
    (f"/p/{_PART}/-/compare", pages.ComparePage),
    (f"/p/{_PART}/-/curves", pages.PageCurvesHandler),
    (f"/p/{_PART}/-/live", pages.PageLiveHandler),
    ("/p/([^/]+)/([^/@]+)", pages.ModelPage),
    ("/p/([^/]+)/([^/@]+)/-/diff", pages.DiffPage),
    ("/p/([^/]+)/([^/@]+)/-/settings", pages.ModelSettingsPage),
    ("/p/([^/]+)/([^/@]+)@([^/]+)", pages.VersionPage),
    ("/p/([^/]+)/([^/@]+)@([^/]+)/-/view/(.+)", pages.FilePage),
    ("/p/([^/]+)/([^/@]+)@([^/]+)/-/files/(.+)", pages.PageFileHandler),
    ("/p/([^/]+)/([^/@]+)@([^/]+)/-/histograms", pages.PageHistogramsHandler),
    ("/search", pages.SearchPage),
    ("/account", pages.AccountPage),
    ("/admin", pages.UsersPage),
    ("/admin/groups", pages.GroupsPage),
    ("/admin/storage", pages.StoragePage),
    ("/admin/audit", pages.AuditLogPage),
    ("/admin/settings", pages.ServerSettingsPage),
    ("/p/(.*)", pages.UnknownPage),
    ("/device", device.DevicePage),
    ("/login", auth.LoginPage),
    ("/open", auth.SignInLinkPage),
    ("/logout", auth.LogoutPage),
    ("/join", auth.JoinPage),
    ("/openid", openid.OpenIdBeginPage),
    ("/openid-back", openid.OpenIdReturnPage),
    ("/static/(.*)", index.StaticFile, {"path": str(HERE / "static")}),
]
"""Pages for browsers. All links in them are relative, so that they work below any path prefix."""

THREADS = 8
"""Threads for blocking work: disk, hashing, records."""

LONG_READS = 3
"""Threads for read-only work that can take seconds; see `Handler.run_long`."""

VERIFICATIONS = 2
"""Pushes whose tensor digests are verified at once if that reads many bytes; see `Handler.verify_tensors`."""

COMPARISONS = 2
"""Threads for comparisons of versions of any size; see `Handler.run_comparison`."""


def make_application(services: Services, server: Any) -> Application:
    """Create the Tornado application.

    Parameters
    ----------
    services : Services
        The use cases.
    server : object
        The settings of the server, for example `token`, `instance`, `local`, `webhook_to` and `openid`.
    """
    return Application(
        [*((API + path, handler) for path, handler in ROUTES), *PAGES],
        transforms=[Gzip],
        template_path=str(HERE / "templates"),
        autoescape="xhtml_escape",
        ui_modules=UI_MODULES,
        default_handler_class=UnknownAddressPage,
        services=services,
        server=server,
        owner=_owner(),
        pool=ThreadPoolExecutor(THREADS, thread_name_prefix="lmvp"),
        costly=CostlyWork(),
        passwords=CostlyWork(bounds=PASSWORD_BOUNDS, name="passwords"),
        rendering=Rendering(),
        streams=sse.Streams(),
        openid=_openid(server),
        notifier=Notifier(services.webhooks, server.webhook_to),
        # One thread fewer than the pool for each account, so that no account can occupy all of them.
        long_reads=CostlyWork(LONG_READS, each=LONG_READS - 1, name="long-reads"),
        verifications=asyncio.Semaphore(VERIFICATIONS),
        comparisons=CostlyWork(COMPARISONS, name="comparisons"),
        in_hand=asyncio.Semaphore(pushes.IN_HAND),
        openapi=_openapi,
    )


def _openapi() -> dict[str, Any]:
    from lmvp_server import openapi

    return openapi.document(ROUTES, API)


def _openid(server: Any) -> Any:
    """Return the client of the OpenID provider, or None."""
    if server.openid is None:
        return None
    from lmvp_server.web.openid_client import OpenId

    return OpenId(server.openid)


def _owner() -> str:
    """Return the user name of the server process: the author of actions with the operator's token."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in some containers
        return "owner"
