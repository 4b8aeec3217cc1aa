"""Account, admin, search, runs and files: who may see them, what their forms do, and hostile words in all of them."""

import html
import re

import numpy as np
import pytest
from api.test_console import EVIL, PASSWORD, Browser
from support.in_process import Served
from support.local_server import SharedServer

from lmvp.client.models import Client

HOSTILE = "<script>alert(1)</script>"
ADMIN = ("admin", "admin/groups", "admin/storage", "admin/audit", "admin/settings")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SharedServer(tmp_path_factory.mktemp("rooms") / "data")
    server.root = Client(server.url, server.start())
    server.root.add_user("ada", PASSWORD, admin=True)
    server.root.add_user("grace", PASSWORD)
    server.root.add_user("eve", PASSWORD)
    server.root.update(
        "digits/mlp",
        {"w": np.ones((40, 40))},
        message="reads sevens",
        params={"lr": 0.5},
        metrics={"acc": 0.9},
        create=True,
    )
    server.root.set_member("digits", "grace", "contributor")
    for name, optimizer in (("first", "adam"), ("second", "sgd"), (HOSTILE, "sgd")):
        with server.root.start_run("digits", name=name, params={"optimizer": optimizer, HOSTILE: EVIL[:80]}) as run:
            run.log({"loss": 1.0 if optimizer == "adam" else 2.0}, step=0)
    yield server
    server.end()


def post(browser, path, **fields):
    page = browser.look(path).text
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1]
    return browser.post(f"{browser.url}/{path}", data={"_xsrf": xsrf, **fields}, timeout=20)


@pytest.mark.parametrize("path", [*ADMIN, "account", "search", "p/digits/-/runs", "p/digits/-/compare"])
def test_nobody_is_led_to_the_login(server, path):
    answer = Browser(server).look(path, allow_redirects=False)
    assert answer.status_code == 303
    assert f"login?next={path}" in answer.headers["Location"]


@pytest.mark.parametrize("path", ADMIN)
def test_who_is_no_admin_sees_no_admin_page(server, path):
    grace = Browser(server, "grace")
    assert grace.look(path).status_code == 403
    assert Browser(server, "ada").look(path).status_code == 200
    assert 'href="admin"' not in grace.look("account").text


HIDDEN = (
    "p/digits/-/runs",
    "p/digits/mlp/-/diff",
    "p/digits/-/curves?run=first",
    "p/digits/-/live?run=first",
    "p/digits/mlp@v1/-/files/weights.safetensors",
    "p/digits/mlp@v1/-/histograms?tensor=w",
    "p/digits/mlp@v1/-/view/weights.safetensors",
)


@pytest.mark.parametrize("path", HIDDEN)
def test_who_may_not_see_a_project_sees_none_of_it(server, path):
    assert Browser(server, "eve").look(path).status_code == 404
    assert Browser(server).look(path, allow_redirects=False).status_code in (303, 401)


def test_search_finds_what_one_may_see(server):
    found = Browser(server, "grace").look("search?as=json&q=sevens").json()
    assert [(one["kind"], one["name"], one["url"]) for one in found["items"]] == [
        ("version", "mlp v1", "p/digits/mlp@v1")
    ]
    assert Browser(server, "eve").look("search?as=json&q=sevens").json() == {"items": [], "more": False}
    assert 'href="p/digits/mlp@v1"' in Browser(server, "grace").look("search?q=Sevens+lr").text
    assert "&lt;script&gt;" in Browser(server, "grace").look("search?q=%3Cscript%3E").text


def test_runs_are_filtered_sorted_and_grouped(server):
    grace = Browser(server, "grace")

    def names(query):
        return re.findall(r'-/runs/[0-9a-f]{32}">([a-z]+)<', grace.look(f"p/digits/-/runs?{query}").text)

    assert set(names("")) == {"first", "second"}
    assert names("where=params.optimizer+==+'adam'") == ["first"]
    assert names("where=name+in+('first','second')&order=metrics.loss") == ["first", "second"]
    assert names("where=name+in+('first','second')&order=-metrics.loss") == ["second", "first"]
    grouped = grace.look("p/digits/-/runs?group=params.optimizer").text
    assert "optimizer = adam" in grouped
    assert "optimizer = sgd" in grouped
    wrong = grace.look("p/digits/-/runs?where=params.optimizer+==")
    assert wrong.status_code == 400
    assert "breaks off" in wrong.text
    assert 'value="params.optimizer =="' in wrong.text
    assert "<script>alert" not in grace.look("p/digits/-/runs").text


def test_a_run_is_ended_by_nobody_but_those_who_may(server):
    (run,) = server.root.runs("digits", where="name == 'first'")
    page = Browser(server, "grace").look(f"p/digits/-/runs/{run.id}").text
    assert "finished" in page
    assert "Delete" not in page
    assert (
        post(Browser(server, "grace"), f"p/digits/-/runs/{run.id}".replace(run.id, "first"), do="remove").status_code
        == 403
    )
    both = "&".join(f"run={one.id}" for one in server.root.runs("digits"))
    compared = Browser(server, "grace").look(f"p/digits/-/compare?{both}")
    assert compared.status_code == 200
    assert "<script>alert" not in compared.text
    assert Browser(server, "grace").look("p/digits/-/compare?run=first").status_code == 400


def test_a_token_is_made_shown_once_and_revoked(server):
    grace = Browser(server, "grace")
    made = post(grace, "account", do="make_token", name="laptop", scope="read", days="7").text
    secret = re.search(r"<code>(lmvp_[^<]+)</code>", made)[1]
    assert Client(server.url, secret).me().name == "grace"
    page = grace.look("account").text
    assert secret not in page
    token = re.search(r'name="token" value="([^"]+)"', page)[1]
    assert post(grace, "account", do="revoke", token=token).ok
    with pytest.raises(Exception, match="not known"):
        Client(server.url, secret).me()
    assert "not a number of days" in post(grace, "account", do="make_token", name="x", days="soon").text


def test_a_password_is_changed_by_who_knows_the_old_one(server):
    eve = Browser(server, "eve")
    assert (
        "the current password does not match"
        in post(eve, "account", do="set_password", old="no", new="a new long password").text
    )
    assert post(eve, "account", do="set_password", old=PASSWORD, new="a new long password").ok
    server.root.change_user("eve", password=PASSWORD)


def test_accounts_and_groups_are_kept_by_an_admin(server):
    ada = Browser(server, "ada")
    assert post(ada, "admin", do="add", name="robot").ok
    assert post(ada, "admin", do="disable", name="robot").ok
    (robot,) = [user for user in server.root.users() if user.name == "robot"]
    assert (robot.disabled, robot.service) == (True, True)
    assert post(ada, "admin/groups", do="set_group", name="vision", users="ada, grace").ok
    assert {group.name: set(group.users) for group in server.root.groups()} == {"vision": {"ada", "grace"}}
    assert "no user" in post(ada, "admin/groups", do="set_group", name="vision", users="nobody-here").text.lower()
    assert post(ada, "admin/groups", do="remove_group", name="vision").ok
    assert server.root.groups() == []


def test_upkeep_says_how_far_it_is_and_what_came_of_it(server):
    ada = Browser(server, "ada")
    assert "0 problems" in post(ada, "admin/storage", do="fsck").text
    ada.headers["Accept"] = "application/x-ndjson"
    page = ada.get(f"{server.url}/admin/storage", headers={"Accept": "text/html"}, timeout=20).text
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1]
    answer = ada.post(f"{server.url}/admin/storage", data={"_xsrf": xsrf, "do": "gc"}, timeout=20)
    assert answer.headers["Content-Type"] == "application/x-ndjson", answer.text
    assert '"chunks"' in answer.text.splitlines()[-1]
    assert ada.post(f"{server.url}/admin/storage", data={"do": "gc"}, timeout=20).status_code == 403


def test_the_audit_log_is_filtered(server):
    ada = Browser(server, "ada")
    page = ada.look("admin/audit?project=digits&action=version").text
    assert "version.create" in page
    assert "model.create" not in page
    assert server.root.audit_heads()[0].chain not in page
    assert "no time" in ada.look("admin/audit?since=yesterday").text


def test_a_card_can_do_nothing(server):
    hostile = f"{HOSTILE} [x](javascript:alert(1)) ![p](https://elsewhere.example/x.png)"
    card = f"# Hi\n{hostile}\n\n| a |\n|---|\n| 1 |"
    server.root.set_card("digits/mlp", card)
    page = Browser(server, "grace").look("p/digits/mlp").text
    assert "<h2>Hi</h2>" in page
    assert "<script>alert" not in page
    assert 'href="javascript' not in page
    assert "<img" not in page
    assert "<td>1</td>" in page


def test_text_is_shown_and_what_is_none_is_not(server, tmp_path):
    (tmp_path / "train.py").write_text("# sevens\nif True:\n    x = '<b>'\n")
    server.root.update("digits/files", tmp_path, message="code", create=True)
    shown = Browser(server, "grace").look("p/digits/files@v1/-/view/train.py").text
    assert '<span class="cm"># sevens</span>' in shown
    assert "&#x27;&lt;b&gt;&#x27;" in shown or "&lt;b&gt;" in shown
    binary = Browser(server, "grace").look("p/digits/mlp@v1/-/view/weights.safetensors").text
    assert "This file is not text" in binary
    assert Browser(server, "grace").look("p/digits/files@v1/-/view/none.py").status_code == 404


def test_the_login_of_a_proxy_neither_hinders_nor_proves(server):
    """A browser adds it to every request by itself, those that other sites make it send, too."""
    grace = Browser(server, "grace")
    grace.headers["Authorization"] = "Basic Z3JhY2U6eA=="
    assert grace.look("p/digits", allow_redirects=False).status_code == 200
    forged = grace.post(f"{server.url}/account", data={"do": "make_token", "name": "forged"}, timeout=10)
    assert forged.status_code == 403
    assert post(grace, "account", do="make_token", name="own", scope="read", days="1").ok
    assert [token.name for token in server.root.tokens() if token.user == "grace"] == ["own"]


# -- settings


def test_a_project_is_set_up_by_its_owners_alone(server):
    server.root.update("setup/m", {"w": np.ones(3)}, create=True, progress=False)
    server.root.set_member("setup", "grace", "maintainer")
    grace, ada = Browser(server, "grace"), Browser(server, "ada")
    assert grace.look("p/setup/-/settings").status_code == 403
    assert "/-/settings" not in grace.look("p/setup").text
    assert Browser(server, "eve").look("p/setup/-/settings").status_code == 404
    assert Browser(server).look("p/setup/-/settings", allow_redirects=False).status_code == 303
    path = "p/setup/-/settings"
    assert post(ada, path, do="set_access", everyone="viewer", public="1").ok
    assert "public" in Browser(server).look("p/setup").text
    assert Browser(server, "eve").look("p/setup").ok
    assert post(ada, path, do="set_access", everyone="king").status_code == 400
    assert post(ada, path, do="set_access").ok
    assert Browser(server, "eve").look("p/setup").status_code == 404


def test_two_who_describe_a_project_do_not_overwrite_each_other(server):
    server.root.update("told/m", {"w": np.ones(3)}, create=True, progress=False)
    ada = Browser(server, "ada")
    page = ada.look("p/told/-/settings").text
    was = re.search(r'name="was" value="([0-9a-f]+)"', page)[1]
    assert post(ada, "p/told/-/settings", do="describe", description="for birds", was=was).ok
    refused = post(ada, "p/told/-/settings", do="describe", description=f"for {HOSTILE}", was=was)
    assert refused.status_code == 409
    assert 'value="for &lt;script&gt;' in refused.text
    assert "for birds" in ada.look("p/told").text


def test_rules_of_a_model(server):
    ada = Browser(server, "ada")
    path = "p/digits/mlp/-/settings"
    assert Browser(server, "grace").look(path).status_code == 403
    assert post(ada, path, do="set_rules", keep="last:5", require="acc >= 0.5", protected="production, staging").ok
    page = ada.look(path).text
    for told in ('value="last:5"', 'value="acc &gt;= 0.5"', 'value="production staging"'):
        assert told in page
    wrong = post(ada, path, do="set_rules", keep="first:5")
    assert (wrong.status_code, 'value="first:5"' in wrong.text) == (400, True)
    assert post(ada, path, do="set_rules", keep="", require="", protected="production").ok


def test_webhooks_go_nowhere_until_the_server_is_told(server):
    ada = Browser(server, "ada")
    assert "--webhook-to" in ada.look("p/digits/-/settings").text
    refused = post(ada, "p/digits/-/settings", do="add_webhook", url="http://127.0.0.1:9/x")
    assert refused.status_code == 403
    assert "whsec_" not in refused.text


def test_the_server_says_how_it_was_started(server):
    page = Browser(server, "ada").look("admin/settings").text
    assert str(server.data) in page
    assert "--webhook-to" in page


# -- what is typed is not lost


def ended(browser, server, path):
    """A page of a session that has ended meanwhile: what its forms carry."""
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', browser.look(path).text)[1]
    browser.post(f"{browser.url}/logout", data={"_xsrf": xsrf}, timeout=20)
    return xsrf


def test_a_form_of_an_ended_session_can_be_sent_again(server):
    ada = Browser(server, "ada")
    path, typed = "p/digits/mlp", {"do": "describe", "description": "one\ntwo </textarea>", "was": "x"}
    xsrf = ended(ada, server, path)
    here = {"Sec-Fetch-Site": "same-origin"}
    kept = ada.post(f"{server.url}/{path}", data={"_xsrf": xsrf, **typed}, headers=here, timeout=20)
    assert kept.status_code == 401
    assert "one\ntwo &lt;/textarea&gt;</textarea>" in kept.text
    assert 'name="was" value="x"' in kept.text
    assert 'target="_blank"' in kept.text
    other = Browser(server, "ada")
    ada.cookies = other.cookies
    again = ada.post(f"{server.url}/{path}", data={"_xsrf": xsrf, **typed}, headers=here, timeout=20)
    assert again.status_code == 403
    assert "You are now signed in as ada" in again.text
    fresh = re.search(r'action="[^"]+mlp"[^>]*>\s*<input type="hidden" name="_xsrf" value="([0-9a-f]+)"', again.text)[1]
    assert ada.post(f"{server.url}/{path}", data={"_xsrf": fresh, **typed}, timeout=20).status_code == 409


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://[x"},
    ],
)
def test_another_site_has_nothing_sent_again(server, headers):
    ada = Browser(server, "ada")
    typed = {"do": "describe", "description": "forged", "_xsrf": "0" * 128}
    answer = ada.post(f"{server.url}/p/digits/mlp", data=typed, headers=headers, timeout=20)
    assert answer.status_code == 403
    assert "forged" not in answer.text


def test_passwords_are_not_kept(server):
    ada = Browser(server, "ada")
    typed = {"do": "set_password", "old": "the old one", "new": "the new one", "_xsrf": ended(ada, server, "account")}
    here = {"Sec-Fetch-Site": "same-origin"}
    answer = ada.post(f"{server.url}/account", data=typed, headers=here, timeout=20)
    assert answer.status_code == 401
    assert "the new one" not in answer.text + str(answer.headers)
    assert "Send</button>" not in answer.text


def test_what_is_typed_of_a_model_that_went_is_there_to_copy(server):
    server.root.update("digits/gone", {"w": np.ones(3)}, create=True, progress=False)
    ada = Browser(server, "ada")
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', ada.look("p/digits/gone").text)[1]
    server.root.remove("digits/gone", yes=True)
    typed = {"do": "describe", "description": "a long card", "was": "x", "_xsrf": xsrf}
    answer = ada.post(f"{server.url}/p/digits/gone", data=typed, timeout=20)
    assert answer.status_code == 404
    assert "a long card</textarea>" in answer.text
    assert "Send</button>" not in answer.text


def cells_on(page):
    """Return the blocks of code on a page, as text."""
    section = page.partition("<h2>Code</h2>")[2].partition("</section>")[0]
    blocks = re.findall(r"<code>(.*?)</code>", section, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", block)).rstrip("\n") for block in blocks], section


@pytest.mark.parametrize(
    ("environment", "cells"),
    [
        ({"code": {"cells": ["import lmvp", 'print("<b>")\nfor i in x:\n    pass']}},
         ["import lmvp", 'print("<b>")\nfor i in x:\n    pass']),
        ({"code": {"script": "train.py", "source": "import lmvp\nlmvp.log"}}, ["import lmvp\nlmvp.log"]),
        ({"cell": "run.log({})"}, ["run.log({})"]),
    ],
    ids=["cells", "script", "cell of the magic"],
)  # fmt: skip
def test_run_page_shows_code_as_highlighted_cells(tmp_path, environment, cells):
    with Served(tmp_path / "data") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        new = {"run": "a" * 32, "name": "quiet-wren-44", "environment": environment}
        assert served("POST", "/projects/p/runs", json=new).ok
        shown, section = cells_on(served("GET", f"~/p/p/-/runs/{'a' * 32}").text)
        assert shown == cells
        assert "&#x27;cells&#x27;" not in section
        if "import" in cells[0]:
            assert '<span class="kw">import</span>' in section
