"""The reference in docs/api.md is generated from the declared routes, and states the role of each one."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tools"))
import api_reference
from api.test_roles import ANYBODY, RIGHTS

from lmvp_server.routes import ROUTES
from lmvp_server.services.access import (
    ACCOUNT,
    ADMIN,
    ALIAS,
    CREATE,
    ENTER,
    GRANT,
    LOG,
    MAINTAIN,
    OWN,
    PROPOSE,
    READ,
    WRITE,
)

PAGE = (Path(__file__).parent.parent.parent / "docs" / "api.md").read_text("utf-8")
NAMED = {
    ANYBODY: "no token", ENTER: "account", CREATE: "account", GRANT: "account, scope `admin`",
    ACCOUNT: "account, scope `admin`", ADMIN: "admin", READ: "viewer", LOG: "contributor", PROPOSE: "contributor",
    ALIAS: "contributor", WRITE: "maintainer", MAINTAIN: "maintainer", OWN: "owner",
}  # fmt: skip
"""The holders of each right, as the page names them."""


def rows():
    """Return method, path and holders of each route on the page."""
    found = re.findall(r"^\| `([A-Z]+) ([^`?]*)[^`]*` \| ([^|]*) \|", PAGE, re.MULTILINE)
    return [(method, f"/{path}", holders) for method, path, holders in found]


def test_page_has_the_generated_reference():
    assert api_reference.renew(PAGE) == PAGE, "run: python tools/api_reference.py"


def test_page_lists_every_route_once():
    declared = [(method, handler.path) for _, handler in ROUTES for method in handler.routes]
    assert sorted((method, path) for method, path, _ in rows()) == sorted(declared)
    assert len(declared) >= 100


def test_page_states_the_role_of_the_access_table():
    for method, path, holders in rows():
        pattern = re.sub(r"{(\w+)}", lambda name: ".+" if name[1] == "path" else "[^/]+", path)
        expected = {
            NAMED[right] for (asked, asked_path), right in RIGHTS.items()
            if asked.upper() == method and re.fullmatch(pattern, asked_path)
        }  # fmt: skip
        # The run of the table belongs to the operator. For its author, a contributor's role is enough.
        if "/runs/{run}" in path and expected == {"maintainer"}:
            expected = {"contributor"}
        assert holders.partition(";")[0] in expected, f"{method} {path}"


def test_page_states_no_lower_role_than_the_backups_need():
    for method, path, holders in rows():
        if path.startswith("/backups"):
            assert holders == "admin", f"{method} {path}"
    assert "owner of the server" not in PAGE


def test_page_states_parameters_with_their_limits():
    assert "| `bins` | `GET …/{model}/versions/{revision}/histograms` | integer from 1 to 512, default `28` |" in PAGE
    assert "| `status` | `GET projects/{project}/contributions` | `proposed` or `accepted`" in PAGE
    assert re.search(r"\| 409 \| `already_exists`, `conflict`, `protected_alias` \| changes \|", PAGE)
