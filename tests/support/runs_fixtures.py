"""A run on a real server."""

import secrets

import pytest
from support.runs_over_http import Journal, Server, begin, losses


@pytest.fixture
def served(home):
    """A server of this machine, spoken to with plain requests."""
    return Server()


@pytest.fixture
def run(served):
    """A run with five points; its journal so far is `run.data`."""
    run = secrets.token_hex(16)
    journal = begin(run, name="quiet-wren-44", params={"lr": 0.1}, tags={"gpu": "a100"}) + losses([5, 4, 3, 2, 1])
    assert served.ship(run, journal).json() == {"applied": len(journal)}
    return Journal(served, run, journal)
