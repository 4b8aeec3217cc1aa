"""Names and attributes of cookies follow `--public-url`: https, http, loopback, below a prefix, behind Jupyter."""

import re
from http.cookies import SimpleCookie

import pytest
from support.in_process import Served

HTTPS = "https://models.example.org"


@pytest.fixture(scope="module", params=["", "http://models.example.org", HTTPS], ids=["loopback", "http", "https"])
def served(request, tmp_path_factory):
    with Served(tmp_path_factory.mktemp("cookies") / "data", public_url=request.param) as served:
        served.user("ada")
        yield served


def cookies_of(answer):
    """Return the cookies that an answer sets, by name; `requests` drops those that are Secure over http."""
    found = SimpleCookie()
    for line in answer.raw.headers.getlist("Set-Cookie"):
        found.load(line)
    return found


def named(served, name):
    return f"__Host-{name}" if served.settings.public_url == HTTPS else name


def check(served, cookie):
    assert bool(cookie["secure"]) is (served.settings.public_url == HTTPS)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert (cookie["path"], cookie["domain"]) == ("/", "")


def log_in(served, headers):
    page = served("GET", "~/login", "", headers=headers)
    visitor = cookies_of(page)[named(served, "lmvp_visitor")]
    check(served, visitor)
    form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page.text)[1], "name": "ada"}
    form["password"] = "ada has a long one"
    headers = {**headers, "Cookie": f"{visitor.key}={visitor.value}"}
    return served("POST", "~/login", "", data=form, headers=headers)


@pytest.mark.parametrize("claimed", ["", "http", "https"])
@pytest.mark.parametrize("prefix", ["", "/team/lmvp"])
def test_cookies_follow_the_public_url_and_not_the_request(served, claimed, prefix):
    headers = {"X-Forwarded-Proto": claimed} if claimed else {}
    headers |= {"X-Forwarded-Prefix": prefix} if prefix else {}
    answer = log_in(served, headers)
    assert answer.status_code == 303
    found = cookies_of(answer)
    session = found[named(served, "lmvp_session")]
    check(served, session)
    assert set(found) == {named(served, "lmvp_session"), named(served, "lmvp_visitor")}
    gone = found[named(served, "lmvp_visitor")]
    check(served, gone)
    assert gone.value == ""
    inside = {**headers, "Cookie": f"{session.key}={session.value}"}
    page = served("GET", "~/account", "", headers=inside)
    assert page.status_code == 200
    form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page.text)[1]}
    answer = served("POST", "~/logout", "", data=form, headers=inside)
    ended = cookies_of(answer)[named(served, "lmvp_session")]
    check(served, ended)
    assert ended.value == ""
    assert served("GET", "~/account", "", headers=inside).status_code == 303


def test_session_cookie_of_the_other_name_signs_nobody_in(served):
    session = cookies_of(log_in(served, {}))[named(served, "lmvp_session")]
    other = "lmvp_session" if session.key.startswith("__Host-") else "__Host-lmvp_session"
    answer = served("GET", "~/account", "", headers={"Cookie": f"{other}={session.value}"})
    assert answer.status_code == 303, "it leads to the page to sign in"


@pytest.mark.parametrize("prefix", ["", "/hub/user/ada/lmvp"])
def test_theme_cookie_has_the_name_that_its_path_allows(served, prefix):
    name = "lmvp_theme" if prefix else named(served, "lmvp_theme")
    headers = {"X-Forwarded-Prefix": prefix} if prefix else {}
    page = served("GET", "~/login", "", headers={**headers, "Cookie": f"{name}=dark"}).text
    assert f'data-theme-cookie="{name}"' in page
    chosen = re.search(r'<input[^>]*value="dark"[^>]*>', page)[0]
    assert "checked" in chosen


def test_console_behind_jupyter_needs_no_session_cookie(served):
    """The proxy sends its token, the prefix, and no cookie but that of the theme."""
    headers = {"X-Forwarded-Prefix": "/hub/lmvp", "X-Forwarded-Xsrf": "mark", "Cookie": "lmvp_theme=light"}
    page = served("GET", "~/account", headers=headers)
    assert page.status_code == 200
    assert 'name="_xsrf" value="mark"' in page.text
    assert not page.raw.headers.getlist("Set-Cookie")
