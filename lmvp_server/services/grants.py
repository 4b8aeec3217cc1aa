"""Grants for a project: invitations and webhooks, which act with the owner role of the account that created them.

A grant ends permanently in the commit that removes this role. Otherwise it would work again when the account becomes an
owner again. `end_lost` after a commit ends grants that were created at the same time.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from lmvp_server.services.access import OPERATOR, OWNER
from lmvp_server.services.audit import event
from lmvp_server.services.catalog import REMOVED, SERVER
from lmvp_server.services.catalog import still as still
from lmvp_server.stores.base import Change, Delete, Document, Put, Record, RecordStore

TABLES = ("invitations", "webhooks")
"""The tables of grants for a project."""


def member_id(project: str, subject: str) -> str:
    """Return the id of the record with the role of an account or group in a project."""
    return f"{project}-{subject}"


def lost(
    records: RecordStore,
    by: str,
    *,
    without: Collection[str] = (),
    demoted: str = "",
    disabled: str = "",
    tables: Collection[str] = TABLES,
) -> tuple[list[Change], list[Document]]:
    """Return the changes that end all grants whose account is no longer an owner, and their events.

    This includes the grants of projects in the trash, because a restored project has its members again. Grants without
    an account, which an earlier release created, are skipped: they grant nothing.

    Parameters
    ----------
    by : str
        The author of the events.
    without : collection of str
        Ids of the records of members and of group memberships that the same commit deletes or lowers.
    demoted, disabled : str
        The id of the account that the same commit demotes from admin, or disables.
    tables : collection of str, default TABLES
        The tables of grants to check.

    Returns
    -------
    tuple
        The changes and the events, for the same commit.
    """
    changes: list[Change] = []
    events: list[Document] = []
    for table in tables:
        for one in records.find(SERVER, table):
            project, holder = one.data["project"], _holder(records, one, table)
            home = _home(records, project) if project else None
            # The grants of the operator do not depend on a role, and a disabled webhook has ended already.
            if home is None or holder in ("", OPERATOR) or one.data.get("disabled"):
                continue
            if holder == disabled or not owns(records, holder, home, without, demoted):
                change, entry = ended(one, home, by, table)
                changes.append(change)
                events.append(entry)
    return changes, events


def ended(grant: Record, home: Record, by: str, table: str) -> tuple[Change, Document]:
    """Return the change that ends a grant, and its event. An invitation is deleted; a webhook is disabled."""
    why = f"{grant.data['by']} does not own the project any more"
    what = str(home.data["name"])
    if table == "invitations":
        before = {"id": grant.id[:12], "by": grant.data["by"]}
        entry = event(by, "invitation.end", f"{what} as {grant.data['role']}", before, {"reason": why})
        return Delete(table, grant.id), entry
    why += "; an owner can enable the webhook"
    what = f"{what}: {urlsplit(grant.data['url']).hostname}"
    entry = event(by, "webhook.disable", what, {"id": grant.id}, {"id": grant.id, "error": why[:200]})
    return Put(table, grant.id, {**grant.data, "disabled": True, "why": why[:200]}, expect=grant.rev), entry


def end_lost(records: RecordStore, by: str) -> None:
    """End all grants whose account is no longer an owner, in a separate commit."""

    def attempt() -> None:
        changes, events = lost(records, by)
        if not changes:
            return
        records.commit(SERVER, changes, events)

    records.retry(attempt)


def _holder(records: RecordStore, grant: Record, table: str) -> str:
    """Return the id of the account that created a grant; empty if there is no such account.

    Webhooks of 9d7a6ec have only the name of an account. Another account cannot take this name.
    """
    if table == "webhooks" and "user" not in grant.data:
        accounts = records.find(SERVER, "users", {"key": str(grant.data["by"]).lower()}, limit=1)
        return accounts[0].id if accounts else ""
    holder = grant.data.get("user")
    return holder if isinstance(holder, str) else ""


def _home(records: RecordStore, project: str) -> Record | None:
    """Return the record of a project by its id, also of one in the trash."""
    return records.get(SERVER, "projects", project) or records.get(SERVER, REMOVED, project)


def owns(records: RecordStore, user: str, home: Record, without: Collection[str] = (), demoted: str = "") -> bool:
    """Return whether an account is an owner of a project after a commit; see `lost` for the parameters.

    The project can be in the trash. Its settings `everyone` and `public` never grant the owner role.
    """
    account = records.get(SERVER, "users", user)
    if account is None or account.data.get("disabled") is not False:  # a record without the field grants nothing
        return False
    if account.data.get("admin") is True and user != demoted:
        return True
    groups = [one.data["group"] for one in records.find(SERVER, "belongings", {"user": user}) if one.id not in without]
    # Only the memberships that are left after the commit count.
    ids = [one for one in (member_id(home.id, subject) for subject in (user, *groups)) if one not in without]
    found = [records.get(SERVER, "members", one) for one in ids]
    return any(one is not None and one.data["role"] == OWNER for one in found)
