"""Accounts for tests of the services: the operator, passwords, and how tokens and sessions begin and end."""

import time
from dataclasses import replace

from lmvp.core.schemas import MakeToken, UserChange
from lmvp_server.services import access
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.identities import Identity
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Delete, Put

NAME = "the-operator"
ROOT = Caller(NAME, is_operator=True, scope="admin", credential="")
PASSWORD, OTHER = "correct horse battery", "another long password"
HERE, THERE = "192.0.2.1", "192.0.2.2"
ISSUER = "https://sign-in.example.org"
MINE = Identity(ISSUER, "s-grace", "grace")


def token(services, name, scope="admin", project="", by=ROOT):
    made = services.tokens.create(by, MakeToken(name="t", scope=scope, user=name, project=project))
    return made.token


def caller(services, secret):
    found = services.tokens.caller(secret, NAME)
    return None if found is None else roled(services, found)


def roled(services, found):
    return replace(found, roles=services.roles)


def session(services, name, proof=True):
    secret = services.sessions.begin(name, PASSWORD, HERE)
    if not proof:
        (found,) = services.records.find(SERVER, "sessions", {"user": services.users.find(name).id})
        services.records.commit(
            SERVER, [Put("sessions", found.id, {**found.data, "began": time.time() - access.FRESH})]
        )
    return secret, roled(services, services.sessions.caller(secret, NAME))


def connected(services, name, identity=None):
    """Connect an identity to an account; return the id that it is listed by."""
    _, by = session(services, name)
    services.identities.connect(by, identity or Identity(ISSUER, f"s-{name}", name), NAME)
    return services.identities.every(by, Page())["items"][-1].id


def sign_up(services, identity):
    return services.identities.sign_up(identity, "", HERE, NAME, free=True)


def approve(services, by, scope=""):
    code = services.devices.begin("laptop", HERE, "page", scope or "write")
    services.devices.decide(by, code.user_code, HERE, approve=True, scope=scope)
    return code.device_code


def events(services, action):
    return [one for one in services.records.events(SERVER) if one["action"] == action]


def end_account(services, name, how):
    if how == "deleted":
        account = services.users.find(name)
        services.records.commit(SERVER, [Delete("users", account.id), Delete("names", f"users:{name}")])
        return
    services.users.change(ROOT, name, UserChange(disabled=True))
    if how == "disabled and enabled":
        services.users.change(ROOT, name, UserChange(disabled=False))


HOW = ("disabled", "disabled and enabled", "deleted")


def session_of(services, name, password):
    return roled(services, services.sessions.caller(services.sessions.begin(name, password, HERE), NAME))


def session_by(services, subject):
    identity = Identity(ISSUER, subject, "")
    secret = services.sessions.open(services.identities.account(identity), HERE, "provider", identity.id)
    return roled(services, services.sessions.caller(secret, NAME))
