"""A server of this machine behind a link that is as slow and as bad as a test wants it."""

import pytest
from support.proxy import Proxy

import lmvp
from lmvp import local

SLOW = 4e6
"""32 Mbit/s, in bytes a second: on a busy machine too, encoding is quicker."""


@pytest.fixture
def link(home):
    server = local.connection()
    with Proxy(int(server.url.rpartition(":")[2]), SLOW) as proxy:
        proxy.client = lambda: lmvp.Client(proxy.url, server.token)
        yield proxy


@pytest.fixture
def another_machine(monkeypatch, tmp_path):
    """Give a function: from then on, the cache is one that nothing was kept in."""
    names = iter(range(100))
    return lambda: monkeypatch.setenv("LMVP_CACHE", str(tmp_path / f"cache-{next(names)}"))
