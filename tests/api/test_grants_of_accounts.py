"""Grants of accounts over HTTP: each gives what its account may do at the moment of use, and nothing after its end."""

import re

import pytest
import requests
from support.in_process import Served

PASSWORD = "eve has a long one"


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path / "data", public_url="") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        yield served


def approved_code(served, token):
    """Return the device code of a login that the holder of a token approved."""
    code = served("POST", "/device/code", token="", json={"client_name": "laptop"}).json()
    decision = served("POST", "/device/decision", token, json={"user_code": code["user_code"], "approve": True})
    assert decision.ok, decision.text
    return code["device_code"]


def test_device_code_gives_no_token_after_its_approver_was_disabled(served):
    eve = served.user("eve", "viewer")
    code = approved_code(served, eve["token"])
    assert served("PATCH", "/users/eve", json={"disabled": True}).ok
    answer = served("POST", "/device/token", token="", json={"device_code": code})
    assert 400 <= answer.status_code < 500, f"a token was given: {answer.text}"
    assert "access_token" not in answer.json()


def test_device_code_gives_no_token_after_its_approvers_token_was_revoked(served):
    eve = served.user("eve", "viewer")
    code = approved_code(served, eve["token"])
    assert served("DELETE", f"/tokens/{eve['id']}").ok
    answer = served("POST", "/device/token", token="", json={"device_code": code})
    assert 400 <= answer.status_code < 500, f"a token was given: {answer.text}"


def test_device_token_has_the_rights_of_its_account(served):
    eve = served.user("eve", "viewer")
    code = approved_code(served, eve["token"])
    token = served("POST", "/device/token", token="", json={"device_code": code}).json()["access_token"]
    assert served("GET", "/me", token).json()["name"] == "eve"
    assert served("GET", "/users", token).status_code == 403
    assert served("PATCH", "/users/eve", json={"disabled": True}).ok
    assert served("GET", "/me", token).status_code == 401


@pytest.mark.parametrize("change", [{"password": "taken over by a token"}, {"admin": True}, {"disabled": True}])
def test_token_for_one_project_changes_no_account(served, change):
    """The account is an admin, so only the limit of its token closes the route."""
    served.user("eve", admin=True)
    token = {"name": "ci", "user": "eve", "project": "p", "scope": "admin"}
    limited = served("POST", "/tokens", json=token).json()["token"]
    assert served("GET", "/projects/p", limited).ok
    answer = served("PATCH", "/users/eve", limited, json=change)
    assert answer.status_code == 403, answer.text
    assert signs_in(served, PASSWORD)


def test_token_has_the_least_scope_where_none_is_named(served):
    served.user("eve", "owner")
    made = served("POST", "/tokens", json={"name": "ci", "user": "eve"}).json()
    assert made["scope"] == "read"
    assert served("POST", "/projects/p/models", made["token"], json={"name": "m"}).status_code == 403


def test_tokens_and_sessions_end_when_the_password_changes(served):
    eve = served.user("eve", "owner")
    session = signs_in(served, PASSWORD)
    assert served("PATCH", "/users/eve", json={"password": "another long password"}).ok
    assert served("GET", "/me", eve["token"]).status_code == 401
    assert session.get(f"{served.url}/p/p", timeout=9, allow_redirects=False).status_code != 200


def signs_in(served, password):
    """Return the browser of eve after its login, or None if it is refused."""
    browser = requests.Session()
    page = browser.get(f"{served.url}/login", timeout=9).text
    form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page)[1], "name": "eve", "password": password}
    answer = browser.post(f"{served.url}/login", form, timeout=9, allow_redirects=False)
    return browser if answer.status_code == 303 else None
