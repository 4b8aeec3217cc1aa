"""The services of a shared server with two accounts, without HTTP."""

import pytest
from argon2 import PasswordHasher
from support.accounts import PASSWORD, ROOT, caller, token

from lmvp.core.schemas import NewUser
from lmvp_server.services import Services, passwords
from lmvp_server.services.webhook_allowlist import WebhookAllowlist


@pytest.fixture
def services(tmp_path, monkeypatch):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # argon2 as it is, at a cost that tests can pay
    monkeypatch.setattr(passwords, "_hasher", lambda: cheap)
    services = Services.open(tmp_path / "data", shared=True, allowlist=WebhookAllowlist.parse(["127.0.0.1"]))
    services.catalog.create_project(ROOT, "digits")
    for name in ("ada", "grace"):
        services.users.add(ROOT, NewUser(name=name, password=PASSWORD, admin=name == "ada"))
    yield services
    services.close()


@pytest.fixture
def grace(services):
    """A contributor of `digits`, who cannot see `priv`."""
    services.catalog.create_project(ROOT, "priv")
    services.members.set_member(ROOT, "digits", "grace", "contributor")
    return caller(services, token(services, "grace"))
