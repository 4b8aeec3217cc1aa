"""Contributions: proposed, looked at, accepted, declined; and the whole story of a team, with two clients."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import numpy as np
import pytest
from support.in_process import TOKEN, Served
from support.local_server import SharedServer

from lmvp import errors
from lmvp.client.models import Client

PASSWORD = "a long password"


@pytest.fixture
def server(home, tmp_path):
    server = SharedServer(tmp_path / "served")
    server.root = Client(server.url, server.start())
    yield server
    server.end()


def person(server, name, role=None, **more):
    """A client of somebody who has an account, and maybe a role in `digits`."""
    server.root.add_user(name, PASSWORD, **more)
    if role:
        server.root.set_member("digits", name, role)
    client = Client(server.url, server.root.create_token("t", scope="admin", user=name).token)
    client.again = lambda: Client(server.url, client._token)
    return client


def weights(step=0.0, head=0.0):
    rng = np.random.default_rng(0)
    tree = {f"blocks.{i}.w": rng.standard_normal((40, 40)) for i in range(3)} | {"head.w": rng.standard_normal((9, 40))}
    return {name: w + (head if name == "head.w" else step) for name, w in tree.items()}


@pytest.fixture
def team(server):
    server.ada = person(server, "ada", admin=True)
    server.ada.update("digits/mlp", weights(), message="first", metrics={"val/acc": 0.8}, create=True, progress=False)
    server.ada.alias("digits/mlp@v1", "production")
    server.grace = person(server, "grace", "contributor")
    return server


def propose(client, head, acc, message="better head"):
    model = client.download("digits/mlp", progress=False)
    model["head.w"] += head
    return client.update("digits/mlp", model, message=message, metrics={"val/acc": acc}, propose=True, progress=False)


class Notebook:
    """A kernel of its own; `run` gives what a cell prints, and hands it on while it comes."""

    def __init__(self):
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(self, code, seen=lambda text: None):
        told = []

        def hear(message):
            content = message["content"]
            data = content.get("data", {})
            text = content.get("text") or data.get("text/plain") or "\n".join(content.get("traceback", []))
            told.append(text or "")
            seen("".join(told))

        self.client.execute_interactive(code, output_hook=hear, timeout=120)
        return "".join(told)

    def end(self):
        process = self.manager.provisioner.process
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.client.context.destroy(linger=0)
        if process is not None:
            process.wait(10)


def in_her_notebook(notebook, server, browser, before):
    """Grace logs in, pulls, trains, may not publish, proposes; give a client that acts as she does."""
    approved = []

    def approve(text):
        page, code = re.search(r"(http\S+/device\S*)", text), re.search(r"code ([A-Z]{4}-[A-Z]{4})", text)
        if page and code and not approved:
            approved.append(code[1])
            xsrf = re.search(r'name="_xsrf" value="(\w+)"', browser.get(page[1], timeout=9).text)[1]
            form = {"_xsrf": xsrf, "code": code[1], "verdict": "approve"}
            assert browser.post(f"{server.url}/device", data=form, timeout=9).ok

    notebook.run("%load_ext lmvp_jupyter")
    assert "grace" in notebook.run(f"%lmvp login {server.url}", approve)
    assert approved
    notebook.run("%lmvp pull digits/mlp model")
    notebook.run("model['head.w'] += 0.1")
    assert "grace has no right to write" in notebook.run("%lmvp push digits/mlp model")
    said = notebook.run('%lmvp push digits/mlp model --propose -m "trained the head" --metric val/acc=0.9')
    assert "c1" in said, said
    grace = Client(server.url, server.root.create_token("beside", scope="admin", user="grace").token)
    proposed = grace.version("digits/mlp@c1")
    assert (proposed.name, proposed.status, proposed.author) == ("c1", "proposed", "grace")
    assert np.array_equal(grace.download("digits/mlp@c1", progress=False)["head.w"], before["head.w"] + 0.1)
    return grace


def test_a_team_at_work(server, monkeypatch):
    """Ada invites Grace, Grace proposes, Ada accepts, moves production, rolls back; the log tells it all."""
    import requests

    ada = person(server, "ada", admin=True)
    ada.update("digits/mlp", weights(), message="first", metrics={"val/acc": 0.8}, create=True, progress=False)
    ada.alias("digits/mlp", "production")
    link = ada.invite("digits", "contributor")
    browser = requests.Session()
    xsrf = re.search(r'name="_xsrf" value="(\w+)"', browser.get(link.url, timeout=9).text)[1]
    form = {"_xsrf": xsrf, "code": link.secret, "name": "grace", "password": PASSWORD}
    assert browser.post(f"{server.url}/join", data=form, timeout=9).ok
    # grace logs in from a notebook by a code, which she approves in her browser
    notebook = Notebook()
    try:
        grace = in_her_notebook(notebook, server, browser, weights())
    finally:
        notebook.end()
    # ada sees what is new in it, and accepts
    assert ada.version("digits/mlp").number == 1, "what is proposed is never the latest"
    (waiting,) = ada.contributions("digits", status="proposed")
    diff = ada.diff("digits/mlp", waiting.reference, progress=False)
    assert [each.name for each in diff.tensors if each.change != "identical"] == ["head.w"]
    assert ada.comment(waiting.reference, "Nice. Which seed?").comments[0].by == "ada"
    done = ada.accept(waiting.reference)
    assert (done.status, done.accepted, done.decided_by) == ("accepted", 2, "ada")
    newest = ada.version("digits/mlp")
    assert (newest.number, newest.author, newest.message) == (2, "grace", "trained the head")
    assert [parent.number for parent in newest.parents] == [1]
    # production moves, something is wrong, ada rolls back
    ada.alias("digits/mlp@v2", "production", yes=True)
    with pytest.raises(errors.AccessDenied):
        grace.rollback("digits/mlp@production", yes=True)
    assert ada.rollback("digits/mlp@production", yes=True).number == 1
    assert ada.version("digits/mlp@production@{1}").number == 2
    events = server.root._connection.send("GET", "/projects/digits/events").json()["items"]
    told = [(each["who"], each["action"]) for each in reversed(events)]
    assert told == [
        ("ada", "model.create"),
        ("ada", "version.create"),
        ("ada", "alias.move"),
        ("grace", "contribution.propose"),
        ("ada", "contribution.comment"),
        ("ada", "contribution.accept"),
        ("ada", "alias.move"),
        ("ada", "alias.move"),
    ]


def test_push_of_a_contributor_is_refused_with_the_way_to_propose_it(team):
    with pytest.raises(errors.AccessDenied) as refused:
        team.grace.update("digits/mlp", weights(1), progress=False)
    assert "`--propose`" in refused.value.hint
    assert "`propose=True`" in str(refused.value)
    viewer = person(team, "viewer", "viewer")
    with pytest.raises(errors.AccessDenied) as refused:
        viewer.update("digits/mlp", weights(1), progress=False)
    assert "propose" not in refused.value.hint, "a viewer may not propose either"


def test_what_is_decided_stays_so(team, tmp_path):
    first = propose(team.grace, 0.1, 0.85)
    second = propose(team.grace, 0.2, 0.86)
    assert [first.name, second.name] == ["c1", "c2"]
    with pytest.raises(errors.InvalidArgument, match="with a reason"):
        team.ada.decline("digits/mlp@c1", " ")
    declined = team.ada.decline("digits/mlp@c1", "the test set has leaked")
    assert (declined.status, declined.reason) == ("declined", "the test set has leaked")
    for act in (team.ada.accept, team.grace.withdraw, lambda name: team.ada.decline(name, "again")):
        with pytest.raises(errors.Conflict, match="is declined already"):
            act("digits/mlp@c1")
    stranger = person(team, "hopper", "contributor")
    with pytest.raises(errors.AccessDenied, match="c2 is of grace"):
        stranger.withdraw("digits/mlp@c2")
    assert team.grace.withdraw("digits/mlp@c2").status == "withdrawn"
    assert [one.status for one in team.ada.contributions("digits")] == ["withdrawn", "declined"]
    assert team.ada.version("digits/mlp").number == 1
    assert team.ada.download("digits/mlp@c1", progress=False), "it can be looked at"
    with pytest.raises(errors.Conflict, match="stays as it was proposed"):
        team.ada.amend("digits/mlp@c1", message="x")
    with pytest.raises(errors.Conflict, match="is only proposed"):
        team.ada.alias("digits/mlp@c1", "best")
    with pytest.raises(errors.InvalidReference, match="no version yet"):
        team.ada.export_model("digits/mlp", tmp_path / "out", versions="c1")
    with pytest.raises(errors.InvalidReference, match="no version yet"):
        team.ada.bisect("digits/mlp", good="v1", bad="c1", test=lambda model: True)
    with pytest.raises(errors.Conflict, match="not removed"):
        team.ada.remove("digits/mlp@c1")
    with pytest.raises(errors.NotFound, match="no contribution"):
        team.ada.accept("digits/mlp@c99")
    with pytest.raises(errors.InvalidReference, match="names no contribution"):
        team.ada.accept("digits/mlp@v1")


def test_lists_of_versions_hold_versions_alone(team):
    propose(team.grace, 0.1, 0.85)
    team.ada.update("digits/mlp", weights(0.5), metrics={"val/acc": 0.7}, progress=False)
    propose(team.grace, 0.2, 0.86)
    team.ada.accept("digits/mlp@c2")
    assert [v.name for v in team.ada.show_history("digits/mlp")] == ["v3", "v2", "v1"]
    whole = team.ada.show_history("digits")
    assert [v.name for v in whole] == ["v3", "v2", "v1"]
    assert whole.total == 3
    assert [v.name for v in team.ada.show_history("digits", where="metrics['val/acc'] > 0.75")] == ["v3", "v1"]
    assert [v.name for v in team.ada.show_history("digits", limit=2)] == ["v3", "v2"]
    assert team.ada.show("digits/mlp@v1").grown == 1, "what is proposed has not grown yet"
    assert "c1" in repr(team.ada.show("digits/mlp@c1"))
    sizes = {row.name for row in team.ada.usage("digits/mlp").rows}
    assert sizes == {f"digits/mlp@{name}" for name in ("v1", "v2", "v3", "c1", "c2")}


def test_upkeep_keeps_what_is_proposed(team):
    model = weights(head=0.3)
    team.grace.update("digits/mlp", model, propose=True, progress=False)
    team.root.collect_garbage()
    team.root.compact()
    assert team.root.check().problems == ()
    assert np.array_equal(team.ada.download("digits/mlp@c1", progress=False)["head.w"], model["head.w"])
    team.ada.accept("digits/mlp@c1")
    team.ada.remove("digits/mlp@v2", now=True)
    assert np.array_equal(team.grace.download("digits/mlp@c1", progress=False)["head.w"], model["head.w"])
    team.ada.remove("digits/mlp", now=True, yes=True)
    with pytest.raises(errors.NotFound):
        team.ada.version("digits/mlp@c1")
    assert team.root.check().problems == ()


def test_a_rule_decides_what_may_be_accepted(team):
    assert team.ada.require("digits/mlp", "val/acc >= @production").require == "val/acc >= @production"
    propose(team.grace, 0.1, 0.79)
    propose(team.grace, 0.2, 0.81)
    with pytest.raises(errors.Conflict, match=r"c1 does not meet the rule .*val/acc is 0.79, @production has 0.8"):
        team.ada.accept("digits/mlp@c1")
    assert team.ada.accept("digits/mlp@c2").accepted == 2
    team.ada.require("digits/mlp", "val/loss < 0.2")
    propose(team.grace, 0.3, 0.9)
    with pytest.raises(errors.Conflict, match="val/loss is missing"):
        team.ada.accept("digits/mlp@c3")
    team.ada.require("digits/mlp", "")
    assert team.ada.accept("digits/mlp@c3").accepted == 3
    for odd in ("val/acc", "val/acc >= production", "val/acc in @production", ">= 3", "@a < @b", "1 < @a"):
        with pytest.raises(errors.InvalidArgument, match="cannot be read"):
            team.ada.require("digits/mlp", odd)
    with pytest.raises(errors.AccessDenied):
        team.grace.require("digits/mlp", "")


def test_rule_of_acceptance_has_the_language_of_filters(team):
    team.ada.require("digits/mlp", "metrics.val/acc > 0.8 and metrics['val/acc'] >= @production and not tags.draft")
    propose(team.grace, 0.1, 0.79)
    propose(team.grace, 0.2, 0.81)
    with pytest.raises(errors.Conflict, match=r"metrics.val/acc is 0.79"):
        team.ada.accept("digits/mlp@c1")
    assert team.ada.accept("digits/mlp@c2").accepted == 2
    team.ada.require("digits/mlp", "val/acc > 0.8 or 'try' in message")
    found = team.ada.show_history("digits/mlp", where="metrics.val/acc > 0.8 or 'try' in message")
    assert [version.number for version in found] == [2]


def test_rule_of_an_earlier_release_still_holds(team):
    team.ada.require("digits/mlp", "top(1)/acc >= 0.5")
    propose(team.grace, 0.1, 0.79)
    with pytest.raises(errors.Conflict, match="is missing"):
        team.ada.accept("digits/mlp@c1")


def test_two_who_accept_at_once_make_one_version(team):
    propose(team.grace, 0.1, 0.85)
    done, failed = [], []

    def accept():
        try:
            done.append(team.ada.again().accept("digits/mlp@c1").accepted)
        except errors.Conflict as error:
            failed.append(error)

    threads = [threading.Thread(target=accept) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert done == [2]
    assert len(failed) == 7
    assert team.ada.version("digits/mlp").number == 2


def test_what_is_acknowledged_outlives_the_server(team):
    propose(team.grace, 0.1, 0.85)
    team.ada.accept("digits/mlp@c1")
    propose(team.grace, 0.2, 0.9)
    team.kill()
    team.start()
    assert [(one.number, one.status, one.accepted) for one in team.ada.contributions("digits")] == [
        (2, "proposed", 0), (1, "accepted", 2),
    ]  # fmt: skip
    assert team.ada.version("digits/mlp").author == "grace"


def test_a_proposal_says_no_alias_and_makes_no_model(team):
    with pytest.raises(errors.InvalidRequest, match="without aliases"):
        team.grace.update("digits/mlp", weights(1.0), propose=True, alias="best", progress=False)
    with pytest.raises(errors.NotFound, match="no model 'new'"):
        team.grace.update("digits/new", weights(1.0), propose=True, create=True, progress=False)


def test_chunks_of_another_project_are_no_part_of_a_proposal(team):
    """A manifest that names what only another project has: the bytes must come, they are not lent."""
    import secrets

    import msgspec

    from lmvp.core import manifest as manifests
    from lmvp.core.schemas import NewPush, Push
    from lmvp.formats import pack
    from lmvp.transfer.manifest_builder import describe

    hidden = {"w": np.random.default_rng(7).standard_normal((99, 99))}
    team.ada.update("secret/m", hidden, create=True, progress=False)
    manifest = describe(pack(hidden)).manifest
    body = NewPush(push=secrets.token_hex(16), manifest=msgspec.Raw(manifests.encode(manifest)), propose=True)
    path = "/projects/digits/models/mlp/pushes"
    begun = team.grace._connection.send_json("POST", path, body, Push)
    chunks = {chunk.id for file in manifest.files for chunk in file.chunks}
    assert set(begun.missing) == chunks
    with pytest.raises(errors.MissingChunks):
        team.grace._connection.send("POST", f"{path}/{body.push}/commit")


def test_each_move_of_an_alias_is_kept(team, capsys, monkeypatch):
    from lmvp.cli import main

    team.ada.update("digits/mlp", weights(0.1), progress=False)
    team.ada.alias("digits/mlp@v2", "production", yes=True)
    team.ada.rollback("digits/mlp@production", yes=True)
    found = team.grace.alias_history("digits/mlp@production")
    assert [(one.number, one.by) for one in found.moves] == [(1, "ada"), (2, "ada"), (1, "ada")]
    assert [team.ada.version(f"digits/mlp@production@{{{back}}}").number for back in range(3)] == [1, 2, 1]
    monkeypatch.setenv("LMVP_URL", team.url)
    monkeypatch.setenv("LMVP_TOKEN", team.grace._token)
    assert main(["alias", "digits/mlp", "production", "--history"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "@production@{1}" in told[2]
    assert "v2" in told[2]
    assert main(["alias", "digits/mlp", "--history"]) == 2


def test_protected_aliases_are_moved_by_maintainers_alone(team):
    assert team.grace.alias("digits/mlp@v1", "candidate").number == 1
    with pytest.raises(errors.AccessDenied):
        team.grace.alias("digits/mlp@v1", "PRODUCTION")
    assert team.ada.protect("digits/mlp@candidate").protected == ("production", "candidate")
    for act in (lambda: team.grace.alias("digits/mlp@v1", "candidate"),
                lambda: team.grace.remove_alias("digits/mlp", "candidate", yes=True),
                lambda: team.grace.protect("digits/mlp@candidate", on=False)):  # fmt: skip
        with pytest.raises(errors.AccessDenied):
            act()
    assert [each.protected for each in team.grace.aliases("digits/mlp")] == [True, True]
    team.ada.protect("digits/mlp@production", on=False)
    assert team.grace.alias("digits/mlp@v1", "production").protected is False
    with pytest.raises(errors.InvalidName):
        team.ada.protect("digits/mlp@v3")


def test_files_of_a_declined_contribution_are_stated_and_deleted(tmp_path, capsys, monkeypatch):
    """`gc`, `du`, the shell, the console and a download state how long the files are kept, and their deletion."""
    from lmvp.cli import main

    with Served(tmp_path / "data", keep_removed=timedelta(days=7)) as served:
        client = Client(served.url, TOKEN)
        client.update("digits/mlp", weights(), create=True, progress=False)
        propose(client, 0.1, 0.85)
        served.user("grace", "contributor", "digits")
        services = served.services
        secret = services.sessions.open(services.users.find("grace"), "192.0.2.1", "password")

        def page():
            answer = served("GET", "~/p/digits/mlp@c1", token="", cookies={"lmvp_session": secret})
            assert answer.status_code == 200, answer.text
            return answer.text

        def shell(*words):
            assert main([*words]) == 0
            return capsys.readouterr().out

        monkeypatch.setenv("LMVP_URL", served.url)
        monkeypatch.setenv("LMVP_TOKEN", TOKEN)
        assert "the files of this contribution" not in page()
        assert "decided" not in shell("gc")
        told = shell("decline", "digits/mlp@c1", "-m", "the test set has leaked")
        until = client.contribution("digits/mlp@c1").until
        assert told.strip().endswith(f"its files are kept until {until.astimezone():%Y-%m-%d %H:%M}")
        assert f"LMVP deletes the files of this contribution after {until:%Y-%m-%d}" in page()
        assert "1 decided contribution can be downloaded until" in shell("gc")
        assert "digits/mlp@c1 (declined)" in shell("du", "digits/mlp")
        assert client.download("digits/mlp@c1", progress=False)
        assert "decided" not in shell("gc", "--removed")
        assert "c1" not in shell("du", "digits/mlp")
        found, deleted = page(), client.contribution("digits/mlp@c1").deleted_at
        assert f"LMVP deleted the files of this contribution on {deleted:%Y-%m-%d}" in found
        assert "the test set has leaked" in found
        assert "<h2>Pull</h2>" not in found
        with pytest.raises(errors.NotFound, match="it was declined on"):
            client.download("digits/mlp@c1", progress=False)
        assert "mlp@c1" in shell("contributions", "digits", "--all")
        events = client.events("digits", action="contribution.purge")
        assert [(one.what, one.before) for one in events] == [
            ("digits/mlp@c1", {"status": "declined", "digest": client.contribution("digits/mlp@c1").version.digest})
        ]
