"""Each reading route has a class of cost; costs that grow with stored data run in the threads for costly work."""

import inspect
import re
import threading

import numpy as np
import pytest
import requests
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp_server.api import sse
from lmvp_server.routes import API, PAGES, ROUTES
from lmvp_server.services.audit import Audit
from lmvp_server.services.chunk_reader import ChunkReader
from lmvp_server.services.metrics import Metrics

SMALL = {  # one record or one short list, whatever is stored; of the operator and admins, any list
    "api.aliases.AliasHandler.get",
    "api.aliases.AliasesHandler.get",
    "api.backups.BackupHandler.get",
    "api.backups.BackupRecordsHandler.get",
    "api.backups.BackupSeriesHandler.get",
    "api.catalog.ModelHandler.get",
    "api.catalog.ModelsHandler.get",
    "api.catalog.ProjectHandler.get",
    "api.catalog.ProjectsHandler.get",
    "api.contributions.ContributionHandler.get",
    "api.tokens.IdentitiesHandler.get",
    "api.tokens.TokensHandler.get",
    "api.invitations.InvitationsHandler.get",
    "api.events.HeadsHandler.get",
    "api.health.OpenApiHandler.get",
    "web.openid.OpenIdReturnPage.get",
    "api.pushes.PushHandler.get",
    "api.trash.ProjectTrashHandler.get",
    "api.trash.TrashHandler.get",
    "api.runs.WriterHandler.get",
    "api.team.GroupsHandler.get",
    "api.team.MeHandler.get",
    "api.team.MembersHandler.get",
    "api.team.UsersHandler.get",
    "api.versions.VersionHandler.get",
    "api.webhooks.WebhooksHandler.get",
}
NO_READ = {
    "web.pages.base.UnknownPage.get",
    "web.device.DevicePage.get",
    "web.auth.JoinPage.get",
    "web.auth.LoginPage.get",
    "web.auth.SignInLinkPage.get",
    "api.health.HealthHandler.get",
    "web.openid.OpenIdBeginPage.get",
}
PUBLIC = {  # costly for callers without an account, ended early for the others
    "api.downloads.VersionChunksHandler.post",
    "api.export.ExportHandler.get",
    "api.sse.LiveHandler.get",
    "api.metrics.RunMetricsHandler.get",
    "api.runs.RunHandler.get",
    "api.versions.ChildrenHandler.get",
    "api.versions.ManifestHandler.get",
}
LONG = {
    "web.pages.runs.PageCurvesHandler.get",
    "web.pages.search.SearchPage.get",
    "api.downloads.FileHandler.get",
    "api.downloads.FileHandler.head",
    "api.contributions.ProjectContributionsHandler.get",
    "api.metrics.CurvesHandler.get",
    "api.maintenance.ModelUsageHandler.get",
    "api.maintenance.ProjectUsageHandler.get",
    "api.maintenance.ServerUsageHandler.get",
    "api.versions.ChangesHandler.get",
    "api.versions.HistogramsHandler.get",
    "api.versions.LayersHandler.get",
}
LONG_WITH_A_FILTER = {
    "api.runs.RunsHandler.get",
    "api.versions.ProjectVersionsHandler.get",
    "api.versions.VersionsHandler.get",
}
COSTLY = {"web.pages.base.ConsolePage.get", "web.index.HomePage.get"}
COSTLY_WITH_A_FILTER = {"api.events.ProjectEventsHandler.get", "api.events.ServerEventsHandler.get"}
RUNNERS = {
    **{key: set() for key in NO_READ},
    **{key: {"run"} for key in SMALL},
    **{key: {"run_public"} for key in PUBLIC},
    **{key: {"run_long"} for key in LONG},
    **{key: {"run_public", "run_long"} for key in LONG_WITH_A_FILTER},
    **{key: {"run_costly"} for key in COSTLY},
    **{key: {"run_long", "run_costly"} for key in COSTLY_WITH_A_FILTER},
}
RUN = "0" * 32


def declared(handler, method):
    """Return the methods that run a plain route, from its declaration; None for other handlers."""
    route = vars(handler).get("routes", {}).get(method.upper())
    if route is None or route.call is None:
        return None
    return {cost.value for cost in (route.cost, route.filtered_cost) if cost is not None}


def runners(work):
    source = inspect.getsource(work)
    found = set(re.findall(r"self\.(run(?:_\w+)?)\b", source))
    if "self.answer_slowly(work, access.READ" in source:
        found.add("run_long")
    if "self._draw(" in source:
        found.add("run_costly")
    return found


def test_reading_routes_have_a_class_of_cost():
    found = {}
    for _, handler, *_ in [*ROUTES, *PAGES]:
        for method in ("get", "head", "post"):
            work = getattr(handler, method)
            if work.__module__.startswith("tornado") or (
                method == "post" and "POST" not in getattr(handler, "in_public", ())
            ):
                continue
            if plain := declared(handler, method):
                found[f"{handler.__module__.removeprefix('lmvp_server.')}.{handler.__name__}.{method}"] = plain
            elif not hasattr(work, "route"):  # a plain route of the API that a page serves, too
                found[f"{work.__module__.removeprefix('lmvp_server.')}.{work.__qualname__}"] = runners(work)
    assert found == RUNNERS


def test_declared_cost_is_the_cost_of_the_handler():
    """The methods of a class state their cost in the declaration, too."""
    for _, handler in ROUTES:
        for method, route in handler.routes.items():
            if route.call or route.slow_call or (method not in {"GET", "HEAD"} and not route.public):
                continue
            costs = {cost.value for cost in (route.cost, route.filtered_cost) if cost is not None}
            work = getattr(handler, method.lower())
            name = f"{work.__module__.removeprefix('lmvp_server.')}.{work.__qualname__}"
            assert costs == (RUNNERS[name] or {"run"}), name


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("costly") / "data") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        root = Client(served.url, TOKEN)
        root.update("p/m", {"weight": np.ones(4, "f4")}, create=True, progress=False)
        assert served("PATCH", "/projects/p", json={"public": True}).ok
        assert served("POST", "/projects/p/runs", json={"run": RUN, "format": 1}).ok
        values = {f"key{at}": float(at) for at in range(1000)}
        for step in range(sse._FEW // 1000 + 1):
            assert served("POST", f"/projects/p/runs/{RUN}/metrics", json={"values": values, "step": step}).ok
        served.member = served.user("ada", "viewer", scope="read")["token"]
        yield served


@pytest.fixture
def threads(monkeypatch):
    """Record the threads in which some work runs."""

    def watch(kind, name):
        real, seen = getattr(kind, name), []

        def work(*args, **options):
            seen.append(threading.current_thread().name.rpartition("_")[0])
            return real(*args, **options)

        monkeypatch.setattr(kind, name, work)
        return seen

    return watch


FILE = "/projects/p/models/m/versions/v1/files/weights.safetensors"


@pytest.mark.parametrize(("method", "headers"), [("HEAD", {}), ("GET", {}), ("GET", {"Range": "bytes=0-3"})])
def test_chunks_of_a_file_are_looked_at_in_a_costly_thread(served, threads, method, headers):
    seen = threads(ChunkReader, "check_sizes")
    assert served(method, FILE, None, headers=headers).ok
    assert seen == ["lmvp-costly"]


def test_chunks_of_a_file_that_the_client_has_are_looked_at_in_a_costly_thread(served, threads):
    """A 304 confirms the file of the client, so it must not confirm one of a false size."""
    digest = served("HEAD", FILE, None).headers["ETag"]
    seen = threads(ChunkReader, "check_sizes")
    answer = served("GET", FILE, None, headers={"If-None-Match": digest})
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", digest)
    assert served("GET", FILE, None, headers={"If-None-Match": '"other"'}).status_code == 200
    assert seen == ["lmvp-costly", "lmvp-costly"]


def test_filtered_events_are_read_in_a_costly_thread(served, threads):
    seen = threads(Audit, "_of_space")
    assert served("GET", "/projects/p/events?who=nobody", served.member).json()["items"] == []
    assert served("GET", "/projects/p/events", served.member).json()["items"] != []
    assert seen == ["lmvp-costly", "lmvp-long-reads"], "a filter reads many events, a page of a list few"


@pytest.mark.parametrize(("cursor", "thread"), [(0, "lmvp-costly"), (1500, "lmvp")])
def test_live_event_of_many_points_is_made_in_a_costly_thread(served, threads, cursor, thread):
    seen = threads(Metrics, "since")
    query = f"/projects/p/metrics/live?run={RUN}&cursor={cursor}"
    with requests.get(f"{served.url}{API}{query}", stream=True, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith(b"data:"):
                break
    assert seen[0] == thread
