"""Contributions: versions that a contributor proposes and a maintainer accepts or declines.

The record of a proposed version is in the table of versions, under a separate model id (`proposed_key`). Therefore gc,
fsck and backups treat it like a version, but the lists of the model's versions do not show it. A decision is final. The
files of a declined or withdrawn contribution stay as long as removed objects stay in the trash. Then `Trash` deletes
them, and the record moves to the table `DELETED_CONTRIBUTIONS`.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

from lmvp.core import manifest as manifests
from lmvp.errors import AccessDenied, Conflict, InvalidArgument, NotFound
from lmvp_server.services import access, filters, grants
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import Catalog, Place
from lmvp_server.services.clock import now, stamp
from lmvp_server.services.paging import Page
from lmvp_server.services.tensors import TensorDigests
from lmvp_server.services.versions import DELETED_CONTRIBUTIONS, Versions, next_number, proposed_key, version_id
from lmvp_server.stores.base import Change, Document, Put, Record, RecordStore

PROPOSED, ACCEPTED, DECLINED, WITHDRAWN = STATUSES = ("proposed", "accepted", "declined", "withdrawn")
WORDS_LIMIT, COMMENTS_LIMIT = 10_000, 500
"""Characters of a comment or reason, and comments of a contribution. All of them are in one record."""

_EARLY_RULE = re.compile(r"\s*(?P<metric>\S+)\s*(?P<op>>=|<=|>|<)\s*(?P<bar>\S+)\s*")
"""A rule in the syntax of earlier releases; see `_read_rule`."""

_NAME = re.compile(r"[cC][0-9]{1,11}")
_RULE_LIMIT = 600
"""Characters of a rule. The time that `_EARLY_RULE` takes grows with the square of the length."""
_HINT = "as `val/acc >= @production and params.lr < 0.01`; docs/api.md, Filters"


def check_rule(rule: str) -> str:
    """Check the syntax of an acceptance rule, and return the rule unchanged. An empty rule is valid.

    Raises
    ------
    InvalidArgument
        If the rule is not valid, or too long.

    Examples
    --------
    >>> check_rule("val/acc >= @production"), check_rule("metrics.val/top1 > 0.8 and params.lr < 0.01")
    ('val/acc >= @production', 'metrics.val/top1 > 0.8 and params.lr < 0.01')
    """
    if len(rule) > _RULE_LIMIT:
        raise InvalidArgument(f"the rule has {len(rule):,} characters; the limit is {_RULE_LIMIT}", hint=_HINT)
    if rule:
        _read_rule(rule)
    return rule


def _read_rule(rule: str) -> filters.Rule:
    """Compile a rule. Rules of earlier releases, where any text without spaces can be a metric, stay valid."""
    try:
        return filters.parse_rule(rule)
    except InvalidArgument as error:
        found = _EARLY_RULE.fullmatch(rule)
        named = found is not None and not found["metric"].startswith("@") and _number(found["metric"]) is None
        if found is None or not named or not (found["bar"].startswith("@") or _number(found["bar"]) is not None):
            message = f"the rule {rule[:80]!r} cannot be read: {error.message}"
            raise InvalidArgument(message, hint=error.hint or _HINT) from None
        return filters.parse_rule(f"metrics[{json.dumps(found['metric'])}] {found['op']} {found['bar']}")


class Contributions:
    """Use cases of contributions.

    Parameters
    ----------
    keep : timedelta
        How long the files of a declined or withdrawn contribution stay.
    """

    def __init__(
        self, records: RecordStore, catalog: Catalog, versions: Versions, digests: TensorDigests, keep: timedelta
    ) -> None:
        self._records, self._catalog, self._versions, self._digests = records, catalog, versions, digests
        self._keep = keep

    def of_project(self, caller: Caller, project: str, page: Page, status: str = "") -> Document:
        """List the contributions to a project, newest first; with `status`, only those of this status."""
        if status and status not in STATUSES:
            raise InvalidArgument(f"status={status[:40]!r}", hint=f"one of {', '.join(STATUSES)}")
        home = self._catalog.find_project(caller, project)
        models = {proposed_key(one.id): one for one in self._records.find(home.id, "models")}
        found = [
            (Place(home, models[one.data["model"]]), one)
            for table in ("versions", DELETED_CONTRIBUTIONS)
            for one in self._records.find(home.id, table, newest_first=True)
            if one.data["model"] in models and status in {"", one.data["contribution"]["status"]}
        ]
        found.sort(key=lambda each: (each[1].data["created_at"], each[1].data["number"]), reverse=True)
        first = page.cursor or 0
        items = [self._shown(place, one) for place, one in found[first:][: page.limit]]
        more = str(first + page.limit) if len(found) > first + page.limit else None
        return {"items": items, "next": more, "total": len(found)}

    def one(self, caller: Caller, project: str, model: str, number: str) -> Document:
        """Return one contribution."""
        place = self._catalog.find_model(caller, project, model)
        return self._shown(place, self._find(place, number))

    def deleted(self, caller: Caller, project: str, model: str, revision: str) -> Document | None:
        """Return the contribution that a revision such as `c12` names, if its files are deleted; else None."""
        if not _NAME.fullmatch(revision):
            return None
        place = self._catalog.find_model(caller, project, model)
        id_ = version_id(proposed_key(place.model.id), int(revision[1:]))
        contribution = self._records.get(place.space, DELETED_CONTRIBUTIONS, id_)
        return None if contribution is None else self._shown(place, contribution)

    def accept(self, caller: Caller, project: str, model: str, number: str) -> Document:
        """Make a contribution the next version of its model. The author of the version is the contributor.

        Raises
        ------
        Conflict
            If it is already decided, or does not meet the requirement of the model.
        """

        def attempt() -> Document:
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.WRITE, project)
            contribution = self._open(place, number)
            self._check(place, contribution)
            data = self._versions.manifest_bytes(place.space, contribution.data["digest"])
            # An older server accepted contributions without this check.
            self._digests.require_stored(place.space, manifests.decode(data))
            following = next_number(place.model)
            version = {key: value for key, value in contribution.data.items() if key != "contribution"}
            version |= {"model": place.model.id, "number": following, "created_at": now(), "push": ""}
            changes: list[Change] = [
                Put("versions", version_id(place.model.id, following), version, expect=0),
                Put("models", place.model.id, {**place.model.data, "latest": following, "last": following},
                    expect=place.model.rev),
                _decided(contribution, caller, ACCEPTED, accepted=following),
            ]  # fmt: skip
            after = {"number": following, "digest": version["digest"], "author": version["author"]}
            events = [_event(caller, "contribution.accept", place, contribution, after)]
            self._commit(caller, access.WRITE, place, changes, events)
            return self.one(caller, project, model, number)

        return self._records.retry(attempt)

    def decline(self, caller: Caller, project: str, model: str, number: str, reason: str) -> Document:
        """Decline a contribution, with a reason."""
        if not reason.strip():
            raise InvalidArgument("a contribution is declined with a reason", hint="reason='the test set has leaked'")
        return self._decide(caller, project, model, number, DECLINED, _words(reason))

    def withdraw(self, caller: Caller, project: str, model: str, number: str) -> Document:
        """Withdraw a contribution. Only its author and the operator can do this."""
        return self._decide(caller, project, model, number, WITHDRAWN, "")

    def _decide(self, caller: Caller, project: str, model: str, number: str, status: str, reason: str) -> Document:

        def attempt() -> Document:
            place = self._catalog.find_model(caller, project, model)
            right = access.PROPOSE if status == WITHDRAWN else access.WRITE
            access.require(caller, right, project)
            contribution = self._open(place, number)
            own = caller.is_operator or (bool(caller.user) and contribution.data["contribution"]["by"] == caller.user)
            if status == WITHDRAWN and not own:
                raise AccessDenied(f"c{number} is of {contribution.data['author']}", hint="a maintainer can decline it")
            events = [_event(caller, f"contribution.{_VERBS[status]}", place, contribution, reason or None)]
            self._commit(caller, right, place, [_decided(contribution, caller, status, reason=reason)], events)
            return self.one(caller, project, model, number)

        return self._records.retry(attempt)

    def comment(self, caller: Caller, project: str, model: str, number: str, words: str) -> Document:
        """Add a comment to a contribution. This is possible after the decision too."""

        def attempt() -> Document:
            place = self._catalog.find_model(caller, project, model)
            access.require(caller, access.PROPOSE, project)
            contribution = self._find(place, number)
            said = contribution.data["contribution"]["comments"]
            if len(said) >= COMMENTS_LIMIT:
                raise Conflict(f"c{number} has {COMMENTS_LIMIT} comments already")
            if not words.strip():
                raise InvalidArgument("an empty comment")
            comment = {"by": caller.name, "at": now(), "words": _words(words)}
            data = {
                **contribution.data,
                "contribution": {**contribution.data["contribution"], "comments": [*said, comment]},
            }
            events = [_event(caller, "contribution.comment", place, contribution, None)]
            table = DELETED_CONTRIBUTIONS if "deleted_at" in data["contribution"] else "versions"
            change: Change = Put(table, contribution.id, data, expect=contribution.rev)
            self._commit(caller, access.PROPOSE, place, [change], events)
            return self.one(caller, project, model, number)

        return self._records.retry(attempt)

    # -- steps

    def _commit(self, caller: Caller, right: str, place: Place, changes: list[Change], events: list[Document]) -> None:
        check = grants.still(self._records, caller, right, place.project)
        self._records.commit(place.space, changes, events, check=check)

    def _find(self, place: Place, number: str) -> Record:
        digits = number.lower().removeprefix("c")
        found = None
        if digits.isascii() and digits.isdigit() and len(digits) < 12:
            id_ = version_id(proposed_key(place.model.id), int(digits))
            found = self._records.get(place.space, "versions", id_)
            found = found or self._records.get(place.space, DELETED_CONTRIBUTIONS, id_)
        if found is None:
            raise NotFound(f"no contribution {number[:20]!r} to {place.reference}")
        return found

    def _open(self, place: Place, number: str) -> Record:
        contribution = self._find(place, number)
        status = contribution.data["contribution"]["status"]
        if status != PROPOSED:
            raise Conflict(f"c{contribution.data['number']} of {place.reference} is {status} already")
        return contribution

    def _check(self, place: Place, contribution: Record) -> None:
        """Check that a contribution meets the requirement of its model, if there is one.

        Raises
        ------
        Conflict
            If it does not, with the values that the rule compares.
        """
        rule = place.model.data.get("require", "")
        if not rule:
            return

        def version(revision: str) -> Document | None:
            try:
                return self._versions.present(place, self._versions.find(place, revision))
            except NotFound:
                return None

        read, proposed = _read_rule(rule), self._versions.present(place, contribution)
        if not read.holds(proposed, version):
            told = read.told(proposed, version)
            raise Conflict(
                f"c{contribution.data['number']} does not meet the rule of {place.reference}: {rule}; {told}",
                hint="decline it, or change the rule",
            )

    def _shown(self, place: Place, record: Record) -> Document:
        about: dict[str, Any] = dict(record.data["contribution"])
        about.pop("by")  # the id of the account, which answers do not show
        version = self._versions.present(place, record)
        return {**about, "number": record.data["number"], "version": version, "until": self._until(place, record)}

    def _until(self, place: Place, record: Record) -> str | None:
        """Return when the files of a decided contribution will be deleted; None if they are deleted or still in use."""
        about = record.data["contribution"]
        if about["status"] == PROPOSED or "deleted_at" in about:
            return None
        # An accepted contribution has the files of its version, so they stay as long as this version.
        number = about["accepted"]
        if number and self._records.get(place.space, "versions", version_id(place.model.id, number)):
            return None
        return stamp(datetime.fromisoformat(about["decided_at"].replace("Z", "+00:00")) + self._keep)


_VERBS = {DECLINED: "decline", WITHDRAWN: "withdraw"}


def _decided(contribution: Record, caller: Caller, status: str, *, reason: str = "", accepted: int = 0) -> Put:
    news = {"status": status, "reason": reason, "accepted": accepted, "decided_by": caller.name, "decided_at": now()}
    return Put(
        "versions",
        contribution.id,
        {**contribution.data, "contribution": {**contribution.data["contribution"], **news}},
        expect=contribution.rev,
    )


def _event(caller: Caller, action: str, place: Place, contribution: Record, after: object) -> Document:
    what = f"{place.reference}@c{contribution.data['number']}"
    before = contribution.data["contribution"]["status"]
    return {"at": now(), "who": caller.name, "action": action, "what": what, "before": before, "after": after}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _words(words: str) -> str:
    if len(words) > WORDS_LIMIT:
        raise InvalidArgument(f"{len(words):,} characters; the limit is {WORDS_LIMIT:,}")
    return words.strip()
