"""Sign-in links: once, within minutes, with the rights of the token that made them; over HTTP, as browsers use them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import requests
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp_server.services.catalog import SERVER
from lmvp_server.stores.base import Put
from lmvp_server.web.pages.base import mark


class Browser(requests.Session):
    """Keeps cookies, and sends the form of `/open`."""

    def __init__(self, url):
        super().__init__()
        self.base = url

    def page(self, path=""):
        return self.get(f"{self.base}/{path}", timeout=20, allow_redirects=False)

    def form(self, page, **fields):
        found = re.search(r'name="_xsrf" value="([0-9a-f]+)"', self.page(page).text)
        given = {"_xsrf": found[1] if found else "", **fields}
        return self.post(f"{self.base}/{page.partition('?')[0]}", data=given, timeout=20, allow_redirects=False)

    def redeem(self, code, **more):
        return self.form("open", code=code, **more)

    @property
    def is_signed_in(self):
        return self.page("p/digits").status_code == 200


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("links") / "data") as served:
        client = Client(served.url, TOKEN)
        for project in ("digits", "words"):
            client.update(f"{project}/mlp", {"w": np.ones(3)}, create=True, progress=False)
        yield served


def link(served, token=TOKEN, page="p/digits/mlp"):
    made = served("POST", "/signin-links", token, json={"page": page})
    assert made.status_code == 201, made.text
    return made.json()["code"]


def token_of(served, name, **fields):
    served.user(name, "owner", "digits")
    made = served("POST", "/tokens", json={"name": "t", "user": name, **fields})
    assert made.ok, made.text
    return made.json()["token"]


def test_link_signs_in_once_and_leads_to_its_page(served):
    first, second, code = Browser(served.url), Browser(served.url), link(served)
    answer = first.redeem(code)
    assert (answer.status_code, answer.headers["Location"]) == (303, "p/digits/mlp")
    assert first.is_signed_in
    again = first.redeem(code)
    assert (again.status_code, again.headers["Location"]) == (303, "p/digits/mlp"), "the same browser loads it again"
    assert first.is_signed_in
    answer = second.redeem(code)
    assert answer.status_code == 401
    assert "this link was used" in answer.text.lower()
    assert not second.is_signed_in
    assert not first.is_signed_in, "of two browsers that have the code, one is not the user's: neither stays signed in"


def test_link_is_not_used_up_by_reading_it(served):
    browser, code = Browser(served.url), link(served)
    for method in ("GET", "HEAD", "GET"):
        requests.request(method, f"{served.url}/open", timeout=20)
        requests.request(method, f"{served.url}/open?code={code}", timeout=20)
    forged = requests.post(f"{served.url}/open", data={"code": code}, timeout=20)
    assert forged.status_code == 403, "a form of another site has no token of ours"
    assert browser.redeem(code).status_code == 303


def test_link_page_tells_nobody_the_address_it_came_from(served):
    headers = requests.get(f"{served.url}/open", timeout=20).headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_link_gives_one_session_to_browsers_that_race(served):
    code, answers, browsers = link(served), [], [Browser(served.url) for _ in range(6)]
    for browser in browsers:
        browser.page("open")  # each has its form before the race

    def race(browser):
        answers.append(browser.redeem(code).status_code)

    threads = [threading.Thread(target=race, args=(browser,)) for browser in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [303] + [401] * 5
    assert not any(browser.is_signed_in for browser in browsers), "a code that two browsers have begins no session"


def test_link_expires(served):
    code = link(served)
    (record,) = [one for one in served.services.records.find(SERVER, "signin_links") if not one.data["used"]
                 and one.data["ends"] > time.time() + 290][-1:]  # fmt: skip
    assert 295 < record.data["ends"] - time.time() <= 300
    served.services.records.commit(
        SERVER, [Put("signin_links", record.id, {**record.data, "ends": time.time() - 1}, record.rev)]
    )
    assert Browser(served.url).redeem(code).status_code == 401
    link(served)
    assert served.services.records.get(SERVER, "signin_links", record.id) is None, "the next link removes it"


def test_link_of_a_read_token_begins_a_session_that_only_reads(served):
    browser = Browser(served.url)
    token = token_of(served, "reader", scope="read")
    assert browser.redeem(link(served, token)).status_code == 303
    assert browser.is_signed_in
    card = {"do": "describe", "was": mark(""), "description": "new"}
    refused = browser.form("p/digits/mlp", **card)
    assert refused.status_code == 403
    assert "scope &#x27;read&#x27;" in refused.text or "scope &#39;read&#39;" in refused.text
    made = browser.form("account", do="make_token", name="more", scope="admin")
    assert made.status_code == 403
    assert [one["name"] for one in served("GET", "/tokens").json()["items"] if one["name"] == "more"] == []


def test_link_of_a_token_for_one_project_opens_that_project_alone(served):
    browser = Browser(served.url)
    served.user("ada", "owner", "digits")
    served("PUT", "/projects/words/members/ada", json={"role": "owner"})
    made = served("POST", "/tokens", json={"name": "t", "user": "ada", "scope": "write", "project": "digits"}).json()
    assert browser.redeem(link(served, made["token"])).status_code == 303
    assert (browser.page("p/digits").status_code, browser.page("p/words").status_code) == (200, 404)


def test_link_of_a_limited_token_does_not_reduce_a_session_with_all_rights(served):
    browser, token = Browser(served.url), token_of(served, "grace", scope="write")
    signed = browser.form("login", name="grace", password="grace has a long one")
    assert signed.status_code == 303, signed.text
    session = dict(browser.cookies)
    assert browser.redeem(link(served, token)).status_code == 303
    assert dict(browser.cookies) == session
    id_ = next(one["id"] for one in served("GET", "/tokens").json()["items"] if one["user"] == "grace")
    served("DELETE", f"/tokens/{id_}")
    assert browser.is_signed_in, "it does not depend on the token"


def test_link_for_another_account_asks_before_it_signs_in(served):
    """Otherwise anybody could send a link that signs the reader in to the sender's account."""
    browser, token = Browser(served.url), token_of(served, "mallory", scope="admin")
    assert browser.redeem(link(served)).status_code == 303
    before, code = dict(browser.cookies), link(served, token)
    asked = browser.redeem(code)
    assert asked.status_code == 409
    assert "Continue as mallory" in asked.text
    assert dict(browser.cookies) == before
    assert browser.redeem(code, change="1").status_code == 303
    assert dict(browser.cookies) != before
    assert "mallory" in browser.page("account").text


def test_link_needs_a_token(served):
    browser = Browser(served.url)
    assert browser.redeem(link(served)).status_code == 303
    cookies = dict(browser.cookies)
    for how in ({}, {"cookies": cookies}):
        answer = requests.post(f"{served.url}/api/v1/signin-links", json={}, timeout=20, **how)
        assert answer.status_code == 401


@pytest.mark.parametrize("page", ["//evil.example", "https://evil.example", "../../etc", "p/../../x", "javascript:x"])
def test_link_leads_to_no_other_site(served, page):
    answer = Browser(served.url).redeem(link(served, page=page))
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")


def test_link_is_recorded_without_its_code(served):
    code = link(served, page="p/digits/mlp")
    text = served("GET", "/events?limit=1000").text
    assert code not in text
    events = served("GET", "/events?action=session.link&limit=1").json()["items"]
    assert (events[0]["what"], events[0]["action"]) == ("p/digits/mlp", "session.link")
    stored = [str(one.data) + one.id for one in served.services.records.find(SERVER, "signin_links")]
    assert not any(code in each for each in stored), "of a code only the digest is stored"


def test_links_of_one_account_are_limited(served):
    token = token_of(served, "eager", scope="read")
    codes = [served("POST", "/signin-links", token, json={}).status_code for _ in range(31)]
    assert codes == [201] * 30 + [429]


def test_login_page_tells_where_a_token_is(served, tmp_path):
    team = served("GET", "~/login", None).text
    assert "the file <code>token</code> of the data folder" in team
    assert "<code>lmvp open</code>" in team
    with Served(tmp_path / "own", embedded=True) as own:
        page = own("GET", "~/login", None).text
        assert "the field <code>token</code> of the file <code>server.json</code>" in page
        assert '"token":' in (tmp_path / "own" / "server.json").read_text()
        assert not (tmp_path / "own" / "token").exists()
        assert "the file <code>token</code>" not in page


AS_USER = """
import encodings.idna, http.client, os, socket, sys, urllib.parse
user, host, cookie, code, xsrf = sys.argv[1:]
socket.getaddrinfo("127.0.0.1", 1)  # loads all that another user may not read
os.setuid(int(user))
for method, path, body in (("GET", "/p/digits", None), ("POST", "/open", {"code": code, "_xsrf": xsrf})):
    connection = http.client.HTTPConnection(host, timeout=20)
    sent = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request(method, path, body and urllib.parse.urlencode(body), sent)
    print(connection.getresponse().status)
"""


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root acts as another user")
def test_other_users_of_the_machine_use_no_session_and_no_link_of_an_embedded_server(tmp_path):
    """Another user takes the port of a server that has ended, and gets the cookie that an open tab sends."""
    with Served(tmp_path / "data", embedded=True) as own:
        Client(own.url, TOKEN).update("digits/mlp", {"w": np.ones(3)}, create=True, progress=False)
        browser = Browser(own.url)
        assert browser.redeem(link(own)).status_code == 303
        assert browser.is_signed_in
        cookie = "; ".join(f"{each.name}={each.value}" for each in browser.cookies)
        xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', browser.page("open").text)[1]
        host = own.url.partition("//")[2]
        command = [sys.executable, "-c", AS_USER]
        for user, expected in (("65534", ["303", "403"]), ("0", ["200", "303"])):
            sent = [user, host, cookie, link(own), xsrf]
            done = subprocess.run([*command, *sent], capture_output=True, text=True, timeout=60, check=False)
            assert done.stdout.split() == expected, done.stderr
