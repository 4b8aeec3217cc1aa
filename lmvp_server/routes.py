"""All URLs of the server, and the Tornado application."""

from __future__ import annotations

import asyncio
import getpass
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
    forks,
    maintenance,
    metrics,
    pushes,
    runs,
    sse,
    team,
    trash,
    versions,
    webhooks,
)
from lmvp_server.api.health import HealthHandler
from lmvp_server.api.openapi import OpenApi
from lmvp_server.http.compression import Gzip
from lmvp_server.http.queues import PASSWORD_BOUNDS, CostlyWork
from lmvp_server.process.notifier import Notifier
from lmvp_server.services import Services
from lmvp_server.web import (
    auth,
    index,
    openid,
    pages,
)
from lmvp_server.web.base_page import NoSuchAddress
from lmvp_server.web.rendering import Rendering

API = "/api/v1"
_PART = "([^/]+)"
_PROJECT = f"/projects/{_PART}"
_MODEL = f"{_PROJECT}/models/{_PART}"
_VERSION = f"{_MODEL}/versions/{_PART}"
_PUSH = f"{_MODEL}/pushes/{_PART}"
_RUN = f"{_PROJECT}/runs/{_PART}"

ROUTES: list[tuple[str, type]] = [
    ("/health", HealthHandler),
    ("/openapi.json", OpenApi),
    ("/events", events.ServerEvents),
    ("/events/heads", events.Heads),
    ("/device/code", devices.DeviceCodes),
    ("/device/token", devices.DeviceTokens),
    ("/device/decision", devices.DeviceDecisions),
    ("/tokens", devices.TokenList),
    (f"/tokens/{_PART}", devices.Token),
    ("/identities", devices.IdentityList),
    (f"/identities/{_PART}", devices.Identity),
    ("/me", team.Me),
    ("/signin-links", auth.SignInLinks),
    ("/users", team.UserList),
    (f"/users/{_PART}", team.User),
    ("/invitations", auth.Invitations),
    (f"/invitations/{_PART}", auth.Invitation),
    ("/groups", team.GroupList),
    (f"/groups/{_PART}", team.Group),
    ("/removed", trash.Removed),
    ("/usage", maintenance.ServerUsage),
    ("/gc", maintenance.Garbage),
    ("/compact", maintenance.Compaction),
    ("/fsck", maintenance.Proof),
    ("/backups", backups.Backups),
    (f"/backups/{_PART}", backups.Backup),
    (f"/backups/{_PART}/records/{_PART}", backups.Records),
    (f"/backups/{_PART}/series/{_PART}/{_PART}", backups.Series),
    (f"/backups/{_PART}/{_PART}/{_PART}", backups.Pieces),
    ("/projects", catalog.Projects),
    (_PROJECT, catalog.Project),
    (f"{_PROJECT}/webhooks", webhooks.Webhooks),
    (f"{_PROJECT}/webhooks/{_PART}", webhooks.Webhook),
    (f"{_PROJECT}/webhooks/{_PART}/enable", webhooks.Enable),
    (f"{_PROJECT}/webhooks/{_PART}/test", webhooks.Test),
    (f"{_PROJECT}/removed", trash.ProjectRemoved),
    (f"{_PROJECT}/undelete", trash.UndeleteProject),
    (f"{_PROJECT}/models", catalog.Models),
    (f"{_PROJECT}/versions", versions.ProjectVersions),
    (f"{_PROJECT}/contributions", contributions.ProjectContributions),
    (f"{_PROJECT}/members", team.MemberList),
    (f"{_PROJECT}/members/{_PART}", team.Member),
    (f"{_PROJECT}/events", events.ProjectEvents),
    (f"{_PROJECT}/usage", maintenance.ProjectUsage),
    (f"{_PROJECT}/metrics", metrics.Curves),
    (f"{_PROJECT}/metrics/export", export.Export),
    (f"{_PROJECT}/metrics/live", sse.Live),
    (f"{_PROJECT}/runs", runs.Runs),
    (_RUN, runs.Run),
    (f"{_RUN}/end", runs.End),
    (f"{_RUN}/undelete", runs.Undelete),
    (f"{_RUN}/metrics", metrics.RunMetrics),
    (f"{_RUN}/writers/{_PART}", runs.Writer),
    (_MODEL, catalog.Model),
    (f"{_MODEL}/fork", forks.Fork),
    (f"{_MODEL}/undelete", trash.UndeleteModel),
    (f"{_MODEL}/layers", versions.Layers),
    (f"{_MODEL}/usage", maintenance.ModelUsage),
    (f"{_MODEL}/prune", maintenance.Pruning),
    (f"{_MODEL}/aliases", aliases.Aliases),
    (f"{_MODEL}/aliases/{_PART}", aliases.Alias),
    (f"{_MODEL}/versions", versions.Versions),
    (_VERSION, versions.Version),
    (f"{_VERSION}/contribute", forks.Contribute),
    (f"{_VERSION}/undelete", trash.UndeleteVersion),
    (f"{_VERSION}/manifest", versions.Manifest),
    (f"{_VERSION}/changes", versions.Changes),
    (f"{_VERSION}/children", versions.Children),
    (f"{_VERSION}/histograms", versions.Histograms),
    (f"{_VERSION}/chunks", downloads.Chunks),
    (f"{_VERSION}/files/(.+)", downloads.File),
    (f"{_MODEL}/contributions/{_PART}", contributions.Contribution),
    (f"{_MODEL}/contributions/{_PART}/accept", contributions.Accept),
    (f"{_MODEL}/contributions/{_PART}/decline", contributions.Decline),
    (f"{_MODEL}/contributions/{_PART}/withdraw", contributions.Withdraw),
    (f"{_MODEL}/contributions/{_PART}/comments", contributions.Comments),
    (f"{_MODEL}/pushes", pushes.Pushes),
    (_PUSH, pushes.Push),
    (f"{_PUSH}/chunks", pushes.Chunks),
    (f"{_PUSH}/commit", pushes.Commit),
]

HERE = Path(__file__).parent

# The order matters: Tornado uses the first pattern that matches.
PAGES: list[tuple[Any, ...]] = [
    ("/", index.Home),
    (f"/p/{_PART}", pages.Project),
    (f"/p/{_PART}/-/contributions", pages.Contributions),
    (f"/p/{_PART}/-/members", pages.Members),
    (f"/p/{_PART}/-/activity", pages.Activity),
    (f"/p/{_PART}/-/removed", pages.Removed),
    (f"/p/{_PART}/-/settings", pages.ProjectSettings),
    (f"/p/{_PART}/-/runs", pages.Runs),
    (f"/p/{_PART}/-/runs/{_PART}", pages.Run),
    (f"/p/{_PART}/-/compare", pages.Compare),
    (f"/p/{_PART}/-/curves", pages.Curves),
    (f"/p/{_PART}/-/live", pages.Live),
    ("/p/([^/]+)/([^/@]+)", pages.Model),
    ("/p/([^/]+)/([^/@]+)/-/diff", pages.Diff),
    ("/p/([^/]+)/([^/@]+)/-/settings", pages.ModelSettings),
    ("/p/([^/]+)/([^/@]+)@([^/]+)", pages.Version),
    ("/p/([^/]+)/([^/@]+)@([^/]+)/-/view/(.+)", pages.FilePage),
    ("/p/([^/]+)/([^/@]+)@([^/]+)/-/files/(.+)", pages.File),
    ("/p/([^/]+)/([^/@]+)@([^/]+)/-/histograms", pages.Histograms),
    ("/search", pages.Search),
    ("/account", pages.Account),
    ("/admin", pages.Users),
    ("/admin/groups", pages.Groups),
    ("/admin/storage", pages.Storage),
    ("/admin/audit", pages.AuditLog),
    ("/admin/settings", pages.ServerSettings),
    ("/p/(.*)", pages.NoSuchPage),
    ("/device", devices.DevicePage),
    ("/login", auth.Login),
    ("/open", auth.Open),
    ("/logout", auth.Logout),
    ("/join", auth.Join),
    ("/openid", openid.Begin),
    ("/openid-back", openid.Back),
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
        default_handler_class=NoSuchAddress,
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
