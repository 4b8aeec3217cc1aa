"""Webhooks: HTTP requests about the events of a project. The events are read from its audit log.

A webhook stores the number of the last delivered event; there is no other queue. After a crash, the server continues
from there, so an event is delivered at least once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from lmvp.core.schemas import MadeWebhook, NewWebhook, Webhook
from lmvp.errors import Conflict, InvalidArgument, NotFound
from lmvp_server.services import access, grants
from lmvp_server.services.access import OPERATOR, Caller, Roles
from lmvp_server.services.audit import event, head_of
from lmvp_server.services.catalog import SERVER, Catalog
from lmvp_server.services.clock import now
from lmvp_server.services.users import Users
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.stores.base import Delete, Document, Put, Record, RecordStore

log = logging.getLogger("lmvp_server")

EVENTS = ("version.", "model.", "alias.", "contribution.", "run.")
"""Prefixes of the actions that can be sent."""

LIMIT = 20
"""The maximum number of webhooks of a project."""

FIRST_WAIT, LONGEST_WAIT = 5.0, 3600.0  # seconds between attempts, doubled after each failure
PATIENCE = 3 * 86400.0
"""Seconds of failures after which a webhook is disabled."""

GONE = 410  # the receiver asks for no more requests
_BATCH = 200  # events that are read at a time
_TABLE = "webhooks"
_ITSELF = "the server"
"""The author of events that the server causes. Account names cannot contain a space."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to send to one webhook.

    Attributes
    ----------
    hook : str
        The id of the webhook.
    seq : int
        The number of the event in the log of its project. 0: a test.
    id : str
        The id of the message. It is equal for all webhooks and attempts.
    url : str
        The address.
    body : bytes
        The JSON body.
    secret : str
        The secret that signs the message.
    """

    hook: str
    seq: int
    id: str
    url: str
    body: bytes
    secret: str

    def headers(self) -> dict[str, str]:
        """Return the headers of an attempt at this moment; see https://www.standardwebhooks.com/."""
        at = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "User-Agent": "LMVP",
            "webhook-id": self.id,
            "webhook-timestamp": at,
            "webhook-signature": sign(self.secret, self.id, at, self.body),
        }


def sign(secret: str, id_: str, at: str, body: bytes) -> str:
    """Return the signature of a message according to Standard Webhooks (version 1, symmetric).

    Examples
    --------
    >>> sign("whsec_c2VjcmV0", "1", "1764237600", b"{}")
    'v1,Fq44CQWmug7aCY1ro3mIIdwJNUPmtsyREzdX1YMDHz0='
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id_}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhooks:
    """Use cases of webhooks."""

    def __init__(
        self, records: RecordStore, catalog: Catalog, allowlist: WebhookAllowlist, users: Users, roles: Roles
    ) -> None:
        self._records, self._catalog, self._allowlist = records, catalog, allowlist
        self._users, self._roles = users, roles
        self._passed: dict[str, int] = {}  # for each webhook, the last event that was skipped because it is not wanted

    # -- management by owners

    def of_project(self, caller: Caller, project: str) -> Document:
        """List the webhooks of a project."""
        home = self._home(caller, project)
        items = [_shown(one) for one in self._of(home.id)]
        return {"items": items, "next": None, "total": len(items)}

    def add(self, caller: Caller, project: str, new: NewWebhook) -> MadeWebhook:
        """Add a webhook for events from now on. Only this answer contains its secret.

        Raises
        ------
        AccessDenied
            If webhooks to this host are not allowed.
        InvalidArgument
            If the URL or an event prefix is invalid.
        Conflict
            If the project has the maximum number of webhooks.
        """
        home = self._home(caller, project)
        host = self._allowlist.check_url(new.url).hostname
        events = _checked_events(new.events)
        if len(self._of(home.id)) >= LIMIT:
            raise Conflict(f"{home.data['name']!r} has {LIMIT} webhooks", hint="take one away first")
        id_, secret = secrets.token_hex(4), f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        data: Document = {
            "project": home.id,
            "url": new.url,
            "events": list(events),
            "secret": secret,
            "created_at": now(),
            "by": caller.name,
            "user": caller.holder,
            "sent": head_of(self._records, home.id, "").seq,
            **_RESTED,
        }
        entry = event(caller.name, "webhook.add", f"{home.data['name']}: {host}", None, {"id": id_, "events": events})
        check = grants.still(self._records, caller, access.OWN, home)
        self._records.commit(SERVER, [Put(_TABLE, id_, data, expect=0)], [entry], check=check)
        grants.end_lost(self._records, caller.name)  # in case the caller lost the role at the same time
        return MadeWebhook(id=id_, url=new.url, events=events, secret=secret)

    def remove(self, caller: Caller, project: str, id_: str) -> None:
        """Remove a webhook."""
        home = self._home(caller, project)
        webhook = self._find(home, id_)
        entry = event(caller.name, "webhook.remove", home.data["name"], {"id": id_}, None)
        check = grants.still(self._records, caller, access.OWN, home)
        self._records.commit(SERVER, [Delete(_TABLE, webhook.id)], [entry], check=check)

    def enable(self, caller: Caller, project: str, id_: str) -> Webhook:
        """Enable a webhook that is disabled or waits.

        It sends the events since then, and belongs to the caller from now on.
        """
        home = self._home(caller, project)
        webhook = self._find(home, id_)
        was = {"id": id_, "disabled": webhook.data["disabled"]}
        entry = event(caller.name, "webhook.enable", _named(home, webhook), was, {"id": id_, "disabled": False})
        check = grants.still(self._records, caller, access.OWN, home)
        self._change(webhook.id, {**_RESTED, "user": caller.holder, "by": caller.name}, entry, check=check)
        grants.end_lost(self._records, caller.name)
        return _shown(self._find(home, id_))

    def test(self, caller: Caller, project: str, id_: str) -> Delivery:
        """Return a test message for a webhook."""
        home = self._home(caller, project)
        webhook = self._find(home, id_)
        said = {"type": "ping", "timestamp": now(), "data": {"project": home.data["name"], "who": caller.name}}
        id_, body = f"ping-{secrets.token_hex(8)}", msgspec.json.encode(said)
        return Delivery(webhook.id, 0, id_, webhook.data["url"], body, webhook.data["secret"])

    def tested(self, caller: Caller, project: str, delivery: Delivery, status: int, error: str) -> None:
        """Record a test of a webhook and its result."""
        home = self._home(caller, project)
        webhook = self._records.get(SERVER, _TABLE, delivery.hook)
        result = {"id": delivery.hook, "status": status, "error": error}
        what = home.data["name"] if webhook is None else _named(home, webhook)
        self._records.commit(SERVER, [], [event(caller.name, "webhook.test", what, None, result)])

    def _home(self, caller: Caller, project: str) -> Record:
        home = self._catalog.find_project(caller, project)
        access.require(caller, access.OWN, project)
        return home

    def _of(self, project: str) -> list[Record]:
        return self._records.find(SERVER, _TABLE, {"project": project})

    def _find(self, home: Record, id_: str) -> Record:
        webhook = self._records.get(SERVER, _TABLE, id_)
        if webhook is None or webhook.data["project"] != home.id:
            raise NotFound(f"no webhook {id_[:20]!r} of {home.data['name']!r}", hint="`lmvp webhooks` lists them")
        return webhook

    # -- deliveries

    def due(self, but: Collection[str] = ()) -> list[Delivery]:
        """Return the next event of each webhook that has one and does not wait, except the webhooks in `but`."""
        ready = (hook for hook in self._records.find(SERVER, _TABLE) if hook.id not in but)
        found = [self._next(hook) for hook in ready]
        return [each for each in found if each is not None]

    def _next(self, hook: Record | None) -> Delivery | None:
        """Return the next event for a webhook; None if it is removed or waits, or has no new events."""
        if hook is None or hook.data["disabled"] or hook.data["next_at"] > time.time():
            return None
        home = self._records.get(SERVER, "projects", hook.data["project"])
        if home is None:  # in the trash: it can be restored, so the webhook stays
            return None
        if not self._is_owned(hook, home):
            why = f"{hook.data['by']} does not own the project any more; an owner can enable the webhook"
            log.warning("the webhook %s is disabled: %s", hook.id, why)
            ended = {"id": hook.id, "error": why[:200]}
            entry = event(_ITSELF, "webhook.disable", _named(home, hook), {"id": hook.id}, ended)
            self._change(hook.id, {"disabled": True, "why": why[:200]}, entry)
            return None
        # Unwanted events are remembered in memory only, so that they need no commit.
        after = max(hook.data["sent"], self._passed.get(hook.id, 0))
        wanted = tuple(hook.data["events"])
        while some := self._records.events(home.id, after=after, limit=_BATCH):
            for one in some:
                if one["action"].startswith(wanted):
                    return _delivery(home, hook, one)
            after = self._passed[hook.id] = some[-1]["seq"]
        return None

    def _is_owned(self, hook: Record, home: Record) -> bool:
        """Whether the account that added or enabled a webhook owns the project now.

        Records of commit 9d7a6ec have only the name of the account; no other account can take that name. If the account
        does not exist, the webhook is disabled until an owner enables it.
        """
        holder = hook.data.get("user")
        if holder is None:
            accounts = self._records.find(SERVER, "users", {"key": str(hook.data["by"]).lower()}, limit=1)
            holder = accounts[0].id if accounts else None
        if holder == OPERATOR:
            return True
        account = self._users.active(holder)
        if account is None:
            return False
        owner = Caller(
            account.data["name"],
            user=account.id,
            admin=account.data.get("admin") is True,
            scope="admin",
            roles=self._roles,
        )
        return owner.may(access.OWN, home.data["name"])

    def arrived(self, delivery: Delivery) -> Delivery | None:
        """Record that an event was delivered, and return the next one for the same webhook."""
        self._change(delivery.hook, {**_RESTED, "sent": delivery.seq, "arrived_at": now()})
        return self._next(self._records.get(SERVER, _TABLE, delivery.hook))

    def failed(self, delivery: Delivery, why: str, *, gone: bool = False) -> None:
        """Record a failed attempt. The event is sent again later, or the webhook is disabled."""
        webhook = self._records.get(SERVER, _TABLE, delivery.hook)
        if webhook is None:
            return
        tries, since = webhook.data["tries"] + 1, webhook.data["since"] or time.time()
        # Exponential backoff with up to 10 % jitter, so that webhooks that failed together do not retry together.
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries - 1, 20)) * (1 + secrets.randbelow(100) / 1000)
        over = gone or time.time() - since > PATIENCE
        news = {"tries": tries, "since": since, "next_at": time.time() + wait, "why": why[:200], "disabled": over}
        home = self._records.get(SERVER, "projects", webhook.data["project"])
        what = _named(home, webhook) if home is not None else ""
        entry = event(_ITSELF, "webhook.disable", what, {"id": webhook.id}, {"id": webhook.id, "error": why[:200]})
        self._change(delivery.hook, news, *([entry] if over else []))

    def _change(self, id_: str, news: Document, *events: Document, check: Callable[[], object] | None = None) -> None:
        self._records.update(SERVER, _TABLE, id_, lambda data: {**data, **news}, events, check=check)


_RESTED: Document = {"tries": 0, "since": 0.0, "next_at": 0.0, "why": "", "disabled": False}
"""The failure fields of a webhook that works."""


def _named(home: Record, hook: Record) -> str:
    """Return the name of a webhook for events: its host, because its URL can contain a secret."""
    return f"{home.data['name']}: {urlsplit(hook.data['url']).hostname}"


def _checked_events(events: tuple[str, ...]) -> tuple[str, ...]:
    for each in events:
        if not any(each.startswith(kind) for kind in EVENTS) or len(each) > 40:
            raise InvalidArgument(f"no events begin with {each[:40]!r}", hint=f"these do: {', '.join(EVENTS)}")
    return tuple(dict.fromkeys(events)) or EVENTS


def _delivery(home: Record, hook: Record, one: Document) -> Delivery:
    data = {"project": home.data["name"], "what": one["what"], "who": one["who"], "after": one["after"]}
    body = msgspec.json.encode({"type": one["action"], "timestamp": one["at"], "data": data})
    return Delivery(hook.id, one["seq"], f"{home.id}-{one['seq']}", hook.data["url"], body, hook.data["secret"])


def _shown(record: Record) -> Webhook:
    data = record.data
    return Webhook(
        id=record.id,
        url=data["url"],
        events=tuple(data["events"]),
        created_at=data["created_at"],
        created_by=data["by"],
        arrived_at=data.get("arrived_at"),
        tries=data["tries"],
        error=data["why"],
        disabled=data["disabled"],
    )
