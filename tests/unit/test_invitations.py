"""Invitations and webhooks, on the services without HTTP: they end with the right of their creator."""

import pytest
from support.accounts import HERE, NAME, PASSWORD, ROOT, caller, events, token

from lmvp.core.schemas import Invite, NewWebhook, UserChange
from lmvp.errors import (
    AccessDenied,
    NotFound,
)
from lmvp_server.services.catalog import SERVER
from lmvp_server.stores.base import Put


@pytest.mark.parametrize("end", ["disabled", "lowered", "removed", "demoted", "old record"])
def test_invitation_ends_when_its_creator_loses_the_right(services, end):
    name = "ada" if end == "demoted" else "grace"
    if name == "grace":
        services.members.set_member(ROOT, "digits", "grace", "owner")
        services.members.set_member(ROOT, "digits", "ada", "owner")
    made = services.invitations.create(caller(services, token(services, name)), Invite(project="digits", role="owner"))
    assert services.invitations.look(made.secret, HERE).role == "owner"
    if end == "disabled":
        services.users.change(ROOT, "grace", UserChange(disabled=True))
    elif end == "lowered":
        services.members.set_member(ROOT, "digits", "grace", "maintainer")
    elif end == "removed":
        services.members.remove(ROOT, "digits", "grace")
    elif end == "demoted":
        services.users.change(ROOT, "ada", UserChange(admin=False))
    else:
        (record,) = services.records.find(SERVER, "invitations")
        data = {key: value for key, value in record.data.items() if key not in {"user", "generation"}}
        services.records.commit(SERVER, [Put("invitations", record.id, data)])
    for use in (
        lambda: services.invitations.look(made.secret, HERE),
        lambda: services.invitations.accept(made.secret, "eve", PASSWORD, HERE, NAME),
        lambda: services.invitations.accept_as(caller(services, token(services, "ada")), made.secret, HERE),
    ):
        with pytest.raises((AccessDenied, NotFound), match="invitation"):
            use()
    with pytest.raises(NotFound):
        services.users.find("eve")
    listed = [one.ended for one in services.invitations.of_project(ROOT, "digits")["items"]]
    assert listed == (["it names no account"] if end == "old record" else [])


TAKEN = {
    "role": (
        lambda services: services.members.set_member(ROOT, "digits", "grace", "owner"),
        lambda services: services.members.set_member(ROOT, "digits", "grace", "maintainer"),
    ),
    "membership": (
        lambda services: services.members.set_member(ROOT, "digits", "grace", "owner"),
        lambda services: services.members.remove(ROOT, "digits", "grace"),
    ),
    "group": (
        lambda services: services.members.set_group(ROOT, "team", ("ada", "grace")),
        lambda services: services.members.set_group(ROOT, "team", ("ada",)),
    ),
    "group removed": (
        lambda services: (
            services.members.set_group(ROOT, "team", ("grace",)),
            services.members.set_member(ROOT, "digits", "@team", "owner"),
        ),
        lambda services: services.members.remove_group(ROOT, "team"),
    ),
    "role of the group": (
        lambda services: services.members.set_member(ROOT, "digits", "@team", "owner"),
        lambda services: services.members.set_member(ROOT, "digits", "@team", "viewer"),
    ),
    "admin": (
        lambda services: services.users.change(ROOT, "grace", UserChange(admin=True)),
        lambda services: services.users.change(ROOT, "grace", UserChange(admin=False)),
    ),
    "account": (
        lambda services: (
            services.members.set_member(ROOT, "digits", "grace", "owner"),
            services.users.change(ROOT, "grace", UserChange(disabled=False)),
        ),
        lambda services: services.users.change(ROOT, "grace", UserChange(disabled=True)),
    ),
}


@pytest.mark.parametrize("way", TAKEN)
def test_invitation_and_webhook_stay_ended_when_their_creator_has_the_right_again(services, way):
    services.members.set_member(ROOT, "digits", "ada", "owner")
    if "group" in way:
        services.members.set_group(ROOT, "team", ("grace",))
        services.members.set_member(ROOT, "digits", "@team", "owner")
    give, take = TAKEN[way]
    give(services)
    grace = caller(services, token(services, "grace"))
    ours = services.invitations.create(caller(services, token(services, "ada")), Invite(project="digits", role="owner"))
    made = services.invitations.create(grace, Invite(project="digits", role="owner"))
    hook = services.webhooks.add(grace, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",))).id
    take(services)
    assert [one["what"] for one in events(services, "webhook.disable")] == ["digits: 127.0.0.1"]
    assert len(events(services, "invitation.end")) == (0 if way == "account" else 1)
    give(services)
    with pytest.raises(NotFound, match="revoked"):
        services.invitations.look(made.secret, HERE)
    services.catalog.create_model(ROOT, "digits", "mlp")
    assert services.webhooks.due() == []
    assert services.records.get(SERVER, "webhooks", hook).data["disabled"] is True
    assert services.invitations.look(ours.secret, HERE).by == "ada", "ada's stay"


def test_invitation_and_webhook_stay_while_their_creator_owns_the_project_in_another_way(services):
    services.members.set_group(ROOT, "team", ("grace",))
    services.members.set_member(ROOT, "digits", "@team", "owner")
    services.members.set_member(ROOT, "digits", "grace", "owner")
    grace = caller(services, token(services, "grace"))
    made = services.invitations.create(grace, Invite(project="digits", role="owner"))
    services.webhooks.add(grace, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",)))
    services.members.remove(ROOT, "digits", "grace")
    assert services.invitations.look(made.secret, HERE).by == "grace"
    assert not services.webhooks.of_project(ROOT, "digits")["items"][0].disabled


@pytest.mark.parametrize("noticed", ["use", "start"])
def test_invitation_that_an_earlier_release_kept_ends_when_it_is_noticed(services, noticed):
    services.members.set_member(ROOT, "digits", "grace", "owner")
    services.members.set_member(ROOT, "digits", "ada", "owner")
    grace = caller(services, token(services, "grace"))
    made = services.invitations.create(grace, Invite(project="digits", role="owner"))
    (member,) = (
        one
        for one in services.records.find(SERVER, "members")
        if one.data["subject"] == services.users.find("grace").id
    )
    services.records.commit(SERVER, [Put("members", member.id, {**member.data, "role": "viewer"})])
    if noticed == "start":
        services.end_grants_without_holder()
    else:
        with pytest.raises(AccessDenied, match="grace does not own"):
            services.invitations.look(made.secret, HERE)
    services.members.set_member(ROOT, "digits", "grace", "owner")
    with pytest.raises(NotFound, match="revoked"):
        services.invitations.look(made.secret, HERE)


def test_invitation_is_listed_and_revoked_by_owners_alone(services):
    made = services.invitations.create(ROOT, Invite(project="digits", role="maintainer", days=3))
    grace = caller(services, token(services, "grace"))
    services.members.set_member(ROOT, "digits", "grace", "maintainer")
    assert services.invitations.every(grace)["items"] == []
    with pytest.raises(AccessDenied):
        services.invitations.of_project(grace, "digits")
    with pytest.raises(NotFound, match="no invitation"):
        services.invitations.revoke(grace, made.id)
    services.members.set_member(ROOT, "digits", "grace", "owner")
    (listed,) = services.invitations.every(grace)["items"]
    assert (listed.id, listed.role, listed.by, listed.ended, listed.secret) == (made.id, "maintainer", NAME, "", "")
    services.invitations.revoke(grace, made.id)
    (told,) = events(services, "invitation.revoke")
    assert (told["who"], told["what"]) == ("grace", "digits as maintainer")
    with pytest.raises(NotFound, match="revoked"):
        services.invitations.look(made.secret, HERE)


@pytest.mark.parametrize("old", [False, True])
def test_webhook_sends_while_its_creator_owns_the_project(services, old):
    services.members.set_member(ROOT, "digits", "grace", "owner")
    services.members.set_member(ROOT, "digits", "ada", "owner")
    grace = caller(services, token(services, "grace"))
    id_ = services.webhooks.add(grace, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",))).id
    if old:  # a record of 9d7a6ec
        record = services.records.get(SERVER, "webhooks", id_)
        data = {key: value for key, value in record.data.items() if key != "user"}
        services.records.commit(SERVER, [Put("webhooks", id_, data)])
    services.catalog.create_model(ROOT, "digits", "mlp")
    assert [one.hook for one in services.webhooks.due()] == [id_]
    services.members.set_member(ROOT, "digits", "grace", "maintainer")
    assert services.webhooks.due() == []
    (shown,) = services.webhooks.of_project(ROOT, "digits")["items"]
    assert (shown.disabled, shown.error) == (
        True,
        "grace does not own the project any more; an owner can enable the webhook",
    )
    services.members.set_member(ROOT, "digits", "grace", "owner")
    assert services.webhooks.due() == [], "it has ended for good"
    services.webhooks.enable(caller(services, token(services, "ada")), "digits", id_)
    services.members.set_member(ROOT, "digits", "grace", "viewer")
    assert [one.hook for one in services.webhooks.due()] == [id_], "it is ada's now"


def test_webhook_of_an_older_release_without_an_account_waits_for_an_owner(services):
    id_ = services.webhooks.add(ROOT, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",))).id
    services.catalog.create_model(ROOT, "digits", "mlp")
    assert [one.hook for one in services.webhooks.due()] == [id_]
    record = services.records.get(SERVER, "webhooks", id_)
    services.records.commit(SERVER, [Put("webhooks", id_, {k: v for k, v in record.data.items() if k != "user"})])
    assert services.webhooks.due() == []
    services.webhooks.enable(ROOT, "digits", id_)
    assert [one.hook for one in services.webhooks.due()] == [id_]
