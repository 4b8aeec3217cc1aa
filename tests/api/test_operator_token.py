"""The server's own token: after it is replaced, nothing that the old one holds works, and all else does."""

import re
from contextlib import contextmanager

import pytest
import requests
from support.in_process import Served

from lmvp_server.services.access import OPERATOR
from lmvp_server.services.catalog import SERVER
from lmvp_server.stores.base import Delete

OLD, NEW = "o" * 43, "n" * 43
PASSWORD = "correct horse battery"


@contextmanager
def serving(folder, token):
    served = Served(folder)
    served.settings.token = token
    with served:
        yield served


class Browser(requests.Session):
    def __init__(self, served):
        super().__init__()
        self.url = served.url

    def submit(self, path, page=None, **fields):
        text = self.get(f"{self.url}/{page or path}", timeout=30).text
        fields["_xsrf"] = re.search(r'name="_xsrf" value="(\w+)"', text)[1]
        return self.post(f"{self.url}/{path}", data=fields, timeout=30, allow_redirects=False)


def holdings(served):
    """What the operator holds by its token: a token, an invitation, a session; and a token that ada holds."""
    assert served("POST", "/projects", OLD, json={"name": "p"}).ok
    assert served("POST", "/users", OLD, json={"name": "ada", "password": PASSWORD}).ok
    minted = served("POST", "/tokens", OLD, json={"name": "t", "scope": "admin"}).json()["token"]
    limited = served("POST", "/tokens", OLD, json={"name": "t", "scope": "read", "project": "p"}).json()["token"]
    adas = served("POST", "/tokens", OLD, json={"name": "t", "scope": "admin", "user": "ada"}).json()["token"]
    secret = served("POST", "/invitations", OLD, json={"project": "p", "role": "owner"}).json()["secret"]
    browser = Browser(served)
    assert browser.submit("login", token=OLD).status_code == 303
    return minted, limited, adas, secret, browser


def works(served, minted, limited, secret, browser):
    browser.url = served.url
    return {
        "token": served("GET", "/users", minted).ok,
        "limited token": served("GET", "/projects/p", limited).ok,
        "invitation": browser.get(f"{served.url}/join?code={secret}", timeout=30).status_code == 200,
        "session": browser.get(f"{served.url}/admin", timeout=30, allow_redirects=False).status_code == 200,
    }


@pytest.mark.parametrize("restarts", [1, 2])
def test_grants_of_the_operator_end_with_its_token(tmp_path, restarts):
    with serving(tmp_path / "data", OLD) as served:
        minted, limited, adas, secret, browser = holdings(served)
        kept = dict.fromkeys(("token", "limited token", "invitation", "session"), True)
        assert works(served, minted, limited, secret, browser) == kept
    with serving(tmp_path / "data", OLD) as served:
        assert works(served, minted, limited, secret, browser) == kept, "a restart alone ends nothing"
    for _ in range(restarts):
        with serving(tmp_path / "data", NEW) as served:
            assert works(served, minted, limited, secret, browser) == dict.fromkeys(kept, False)
            assert served("GET", "/projects", adas).ok, "the account of ada is its own"
            assert served("GET", "/users", NEW).ok
            join = Browser(served)
            text = join.get(f"{served.url}/login", timeout=30).text
            fields = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', text)[1], "code": secret, "name": "mallory"}
            joined = join.post(f"{served.url}/join", data={**fields, "password": PASSWORD}, timeout=30)
            assert joined.status_code in (403, 404)
            own = served("POST", "/tokens", NEW, json={"name": "t", "scope": "admin"}).json()["token"]
            assert served("GET", "/users", own).ok, "grants of the new token work"
            told = [one for one in served.services.records.events(SERVER) if one["action"] == "server.token"]
            assert [one["after"] for one in told] == [
                {"ended": {"tokens": 2, "sessions": 1, "invitations": 1, "identities": 0}}
            ]


def test_first_start_of_this_release_ends_no_grant_of_the_operator(tmp_path):
    """A folder of an earlier release has no record of the operator, and grants without a generation."""
    with serving(tmp_path / "data", OLD) as served:
        minted, limited, _, secret, browser = holdings(served)
        served.services.records.commit(SERVER, [Delete("operators", OPERATOR)])
    with serving(tmp_path / "data", OLD) as served:
        assert all(works(served, minted, limited, secret, browser).values())
    with serving(tmp_path / "data", NEW) as served:
        assert not any(works(served, minted, limited, secret, browser).values())


def test_old_token_that_comes_back_revives_nothing(tmp_path):
    with serving(tmp_path / "data", OLD) as served:
        minted, limited, _, secret, browser = holdings(served)
    with serving(tmp_path / "data", NEW):
        pass
    with serving(tmp_path / "data", OLD) as served:
        assert not any(works(served, minted, limited, secret, browser).values())


def test_first_admin_can_be_made_after_the_token_is_replaced(tmp_path):
    with serving(tmp_path / "data", OLD) as served:
        assert served.services.invitations.setup()
    with serving(tmp_path / "data", NEW) as served:
        browser, code = Browser(served), served.services.invitations.setup()
        fields = {"code": code, "name": "ada", "password": PASSWORD}
        assert browser.submit("join", f"join?code={code}", **fields).status_code == 303
        assert browser.get(f"{served.url}/admin", timeout=30, allow_redirects=False).status_code == 200
