"""A client and the services of its server are the same source: both give equal views of a history."""

from dataclasses import replace

import numpy as np
import pytest
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp.views import version as version_view
from lmvp.views.curve_queries import of_runs
from lmvp.views.curves import curves_data
from lmvp.views.diff import diff_data, diff_of
from lmvp.views.history import History, history_data
from lmvp.views.runs import RecordedRun
from lmvp.views.version import showing_data
from lmvp_server.services.access import Caller
from lmvp_server.web import histories
from lmvp_server.web.source import ServiceSource

NAME = "digits/cnn"
AT = ("digits", "cnn")


def network(scale, **more):
    return {"conv.weight": np.full((8, 3), scale, "float32"), "conv.bias": np.ones(8, "float32"), **more}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A client, and the services of its server with the rights of the same caller."""
    with pytest.MonkeyPatch.context() as patch, Served(tmp_path_factory.mktemp("served")) as served:
        patch.setenv("LMVP_HOME", str(tmp_path_factory.mktemp("home")))
        client = Client(served.url, TOKEN)
        with client.start_run("digits", name="quiet-wren-44", create=True, system_metrics=False) as run:
            for step in range(20):
                run.log({"train/loss": 1 / (step + 1), "val/loss": 2 / (step + 1), "epoch": step / 4}, step=step)
            run.update("cnn", network(0.5), message="first", metrics={"acc": 0.9}, create=True, progress=False)
        client.update(NAME, network(0.6), message="second", metrics={"acc": 0.95}, tags={"by": "ada"}, progress=False)
        client.update(NAME, network(0.7, head=np.zeros(4, "float32")), params={"lr": 0.1}, progress=False)
        client.diff(f"{NAME}@v1", f"{NAME}@v2")  # measures the changes, which strips show from then on
        client.diff(f"{NAME}@v2", f"{NAME}@v3")
        yield client, ServiceSource(served.services, Caller("server", is_operator=True, scope="admin"))


def forms(view, data):
    """Return the text, HTML and JSON forms of a view."""
    return repr(view), view._repr_html_(), data(view)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_details_of_a_version_are_equal(sources, number):
    views = [version_view.show(source, source.version(f"{NAME}@v{number}")) for source in sources]
    client, server = views
    assert client.tensors
    assert bool(client.children) == (number < 3)
    assert bool(client.amounts) == (number > 1)
    assert forms(client, showing_data) == forms(server, showing_data)
    assert client.to_svg() == server.to_svg()
    assert client.spread(["conv.weight"]) == server.spread(["conv.weight"])
    assert replace(client, spread=None) == replace(server, spread=None)


@pytest.mark.parametrize(("before", "after"), [("v1", "v2"), ("v2", "v3"), ("v3", "v1")])
def test_diffs_are_equal(sources, before, after):
    client, server = sources
    old, new = (server.version(f"{NAME}@{name}") for name in (before, after))
    found = client.diff(old.reference, new.reference, progress=False)
    same = diff_of(server, old, new, server.changes(old, new))
    assert any(tensor.amount for tensor in found.tensors)
    assert forms(found, diff_data) == forms(same, diff_data)
    assert found.spread(["conv.weight"]) == same.spread(["conv.weight"])


def test_histories_are_equal(sources):
    client, server = sources
    found = client.show_history(NAME)
    versions = [server.version(version.reference) for version in found]
    page = histories.history(server._services, server._caller, *AT)
    same = History(
        versions, title=NAME, layers=lambda _: server._services.layers.strips(server._caller, *AT, [1, 2, 3])
    )
    assert repr(found) == repr(same)
    assert found._repr_html_() == same._repr_html_()
    assert history_data(found) | {"pages": False} == history_data(same) == page.data  # only a client fetches pages
    assert [client.layers(version) for version in found] == [server.layers(version) for version in versions]


def test_curves_are_equal(sources):
    client, server = sources
    runs = [RecordedRun(run.record) for run in client.runs("digits")]
    views = [of_runs(source, runs, axis="step") for source in sources]
    assert [line.key for line in views[0].lines] == ["train/loss", "val/loss"]
    assert forms(views[0], curves_data) == forms(views[1], curves_data)
    assert [client.metric_keys("digits", runs[0].id)] == [server.metric_keys("digits", runs[0].id)]
