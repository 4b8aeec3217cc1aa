"""Rights in a project at the moment of a commit: a request that waits while its right ends changes nothing.

Each row is an action that writes versions, aliases, models, contributions or runs. The test ends the right immediately
before the commit of the action, and compares the records of the project.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from argon2 import PasswordHasher

from lmvp.core.chunk_frames import Frame
from lmvp.core.run_frames import END, UPDATE, note
from lmvp.core.schemas import (
    Amendment,
    MakeToken,
    ModelChange,
    NewPush,
    NewUser,
    Prune,
    UserChange,
)
from lmvp.core.schemas.runs import NewRun, RunEnd, RunUpdate
from lmvp.errors import AccessDenied, NotAuthenticated, NotFound
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.services import Services, passwords
from lmvp_server.services.access import Caller

ROOT = Caller("the-operator", is_operator=True, scope="admin")
PASSWORD = "correct horse battery"
REFUSED = (NotAuthenticated, AccessDenied, NotFound)
RUN, WRITER = "a" * 32, "b" * 32
NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)


@pytest.fixture
def services(tmp_path, monkeypatch):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # argon2 at a cost that tests can pay
    monkeypatch.setattr(passwords, "_hasher", lambda: cheap)
    services = Services.open(tmp_path / "data", shared=True, keep_removed=timedelta(days=7))
    services.catalog.create_project(ROOT, "digits")
    services.users.add(ROOT, NewUser(name="grace", password=PASSWORD))
    services.members.set_member(ROOT, "digits", "grace", "maintainer")
    for number in range(2):
        push(services, ROOT, number, create=True)()
    push(services, ROOT, 2, propose=True)()
    services.runs.start(ROOT, "digits", NewRun(run=RUN))
    yield services
    services.close()


def push(services, caller, number, model="mlp", **fields):
    """Send the chunks of a push; return the function that commits it."""
    described = describe(pack({"w": np.full(9, number, "f8")}))
    body = NewPush(
        push=secrets.token_hex(16),
        manifest=msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted")),
        **fields,
    )
    missing = services.pushes.begin(caller, "digits", model, body).missing
    opened = services.pushes.resume(caller, "digits", model, body.push)
    for chunk in missing:
        data = b"".join(described.places[chunk].read())
        services.pushes.receive(opened, Frame(chunk, len(data), len(data)), [memoryview(data)])
    return lambda: services.pushes.commit(caller, "digits", model, body.push)


def removed(services, what):
    if what == "version":
        services.trash.remove_version(ROOT, "digits", "mlp", "1")
    elif what == "model":
        services.trash.remove_model(ROOT, "digits", "mlp")
    else:
        ended(services)
        services.runs.remove(ROOT, "digits", RUN)


def ended(services):
    services.runs.end(ROOT, "digits", RUN, RunEnd(status="finished", ended_at=NOW))


def journal(services, caller, *frames):
    start = note(1, msgspec.json.encode(NewRun(run=RUN)))
    applied = services.intake.ingest(ROOT, "digits", RUN, WRITER, 0, start).applied
    return lambda: services.intake.ingest(caller, "digits", RUN, WRITER, applied, b"".join(frames))


def after(step, act):
    step()
    return act


# the action of the event -> a function that prepares the action and returns it
ACTIONS = {
    "version.create": lambda s, c: push(s, c, 3),
    "alias.move with a push": lambda s, c: push(s, c, 1, aliases=("best",)),
    "version.amend": lambda s, c: lambda: s.versions.amend(c, "digits", "mlp", "1", Amendment(message="new")),
    "version.remove": lambda s, c: lambda: s.trash.remove_version(c, "digits", "mlp", "1"),
    "version.prune": lambda s, c: lambda: s.retention.prune(c, "digits", "mlp", Prune(keep="last:1")),
    "version.undelete": lambda s, c: after(
        lambda: removed(s, "version"), lambda: s.trash.restore_version(c, "digits", "mlp", "1")
    ),
    "alias.move": lambda s, c: lambda: s.aliases.move(c, "digits", "mlp", "production", "1"),
    "alias.remove": lambda s, c: after(
        lambda: s.aliases.move(ROOT, "digits", "mlp", "best", "1"), lambda: s.aliases.remove(c, "digits", "mlp", "best")
    ),
    "model.create": lambda s, c: lambda: s.catalog.create_model(c, "digits", "new"),
    "model.amend": lambda s, c: lambda: s.retention.change_model(c, "digits", "mlp", ModelChange(description="new")),
    "model.remove": lambda s, c: lambda: s.trash.remove_model(c, "digits", "mlp"),
    "model.undelete": lambda s, c: after(
        lambda: removed(s, "model"), lambda: s.trash.restore_model(c, "digits", "mlp")
    ),
    "model.fork": lambda s, c: lambda: s.forks.fork(c, "digits", "mlp", "digits/copy"),
    "contribution.propose": lambda s, c: push(s, c, 3, propose=True),
    "contribution.accept": lambda s, c: lambda: s.contributions.accept(c, "digits", "mlp", "c1"),
    "contribution.decline": lambda s, c: lambda: s.contributions.decline(c, "digits", "mlp", "c1", "worse"),
    "contribution.comment": lambda s, c: lambda: s.contributions.comment(c, "digits", "mlp", "c1", "nice"),
    "contribution.withdraw": lambda s, c: after(
        push(s, c, 3, propose=True), lambda: s.contributions.withdraw(c, "digits", "mlp", "c2")
    ),
    "run.start": lambda s, c: lambda: s.runs.start(c, "digits", NewRun(run="c" * 32)),
    "run.resume": lambda s, c: lambda: s.runs.start(c, "digits", NewRun(run=RUN, resume=True, epoch=7)),
    "run.amend": lambda s, c: lambda: s.runs.amend(c, "digits", RUN, RunUpdate(name="new")),
    "run.end": lambda s, c: lambda: s.runs.end(c, "digits", RUN, RunEnd(status="failed", ended_at=NOW)),
    "run.amend by a journal": lambda s, c: journal(s, c, note(UPDATE, b'{"name": "new"}')),
    "run.end by a journal": lambda s, c: journal(
        s, c, note(END, msgspec.json.encode(RunEnd(status="failed", ended_at=NOW)))
    ),
    "run.remove": lambda s, c: after(lambda: ended(s), lambda: s.runs.remove(c, "digits", RUN)),
    "run.undelete": lambda s, c: after(lambda: removed(s, "run"), lambda: s.runs.restore(c, "digits", RUN)),
}


def end_credential(services, caller):
    services.tokens.revoke(ROOT, caller.credential.partition(":")[2])


def disable(services, caller):
    services.users.change(ROOT, caller.name, UserChange(disabled=True))


def take_role(services, caller):
    services.members.remove(ROOT, "digits", caller.name)


ENDS = {"token": end_credential, "account": disable, "role": take_role}


def grace(services):
    made = services.tokens.create(ROOT, MakeToken(name="t", scope="admin", user="grace"))
    return replace(services.tokens.caller(made.token, ROOT.name), roles=services.roles)


def kept(services):
    moment = services.records.snapshot(services.catalog.find_project(ROOT, "digits").id)
    return {table: [(one.id, one.rev) for one in records] for table, records in moment.tables.items()}, moment.count


CELLS = [(action, "account") for action in ACTIONS]
CELLS += [(action, end) for action in ("version.create", "alias.move", "run.amend") for end in ("token", "role")]


@pytest.mark.parametrize(("action", "end"), CELLS)
def test_right_that_ends_before_the_commit_changes_no_project(services, monkeypatch, action, end):
    caller = grace(services)
    act = ACTIONS[action](services, caller)
    original, found = type(services.records).commit, []

    def commit(self, space, changes, events=(), **options):
        if not found and any(one["action"] == action.partition(" ")[0] for one in events):
            found.append(kept(services))
            ENDS[end](services, caller)
        return original(self, space, changes, events, **options)

    monkeypatch.setattr(type(services.records), "commit", commit)
    with pytest.raises(REFUSED):
        act()
    assert found, "the right ended before no commit"
    assert kept(services) == found[0]


@pytest.mark.parametrize("action", ACTIONS)
def test_right_that_lasts_changes_the_project(services, action):
    act = ACTIONS[action](services, grace(services))
    before = kept(services)
    act()
    assert kept(services)[1] > before[1]
    space = services.catalog.find_project(ROOT, "digits").id
    events = [one["action"] for one in services.records.events(space, newest_first=True, limit=3)]
    assert action.partition(" ")[0] in events
