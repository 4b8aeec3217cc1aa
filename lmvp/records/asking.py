"""The bodies of what clients ask about projects, models and versions; unknown fields are mistakes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from lmvp.records.models import Parent
from lmvp.records.people import Head
from lmvp.records.values import Request, Scalar, WireFloat


class NewProject(Request, frozen=True, kw_only=True):
    """The body of `POST projects`."""

    name: str
    description: str = ""


class NewModel(Request, frozen=True, kw_only=True):
    """The body of `POST …/models`."""

    name: str
    description: str = ""


class Fork(Request, frozen=True, kw_only=True):
    """The body of `POST …/{model}/fork`: where to, as `project/model`."""

    to: str


class Contribute(Request, frozen=True, kw_only=True):
    """The body of `POST …/versions/{revision}/contribute`; without a message, the version's own."""

    message: str = ""


class MoveAlias(Request, frozen=True, kw_only=True):
    """The body of `PUT …/aliases/{alias}`."""

    revision: str


class ModelChange(Request, frozen=True, kw_only=True):
    """The body of `PATCH …/models/{model}`: what is None stays as it is."""

    description: str | None = None
    keep: str | None = None
    require: str | None = None
    protected: tuple[str, ...] | None = None


class Prune(Request, frozen=True, kw_only=True):
    """The body of `POST …/models/{model}/prune`.

    Attributes
    ----------
    keep : str
        The rule; empty: the one that the model has.
    dry_run : bool
        Only tell what would go.
    """

    keep: str = ""
    dry_run: bool = False


class Collect(Request, frozen=True, kw_only=True):
    """The body of `POST gc`; with `removed`, what could still be brought back goes too."""

    removed: bool = False


class Check(Request, frozen=True, kw_only=True):
    """The body of `POST fsck`: whether damaged frames are set aside."""

    repair: bool = False
    heads: tuple[Head, ...] = ()
    """Kept elsewhere: the logs of events must go on from there."""


class Amendment(Request, frozen=True, kw_only=True):
    """The body of `PATCH …/versions/{revision}`: what is None stays as it is; a dict replaces the whole dict."""

    message: str | None = None
    metrics: dict[str, WireFloat] | None = None
    params: dict[str, Scalar] | None = None
    tags: dict[str, str] | None = None
    forget_code: bool = False
    """Erase the code that was kept with the version, for good."""


class Words(Request, frozen=True, kw_only=True):
    """What is said with a decision about a contribution, or about it."""

    words: str = ""


class ProjectChange(Request, frozen=True, kw_only=True):
    """The body of `PATCH projects/{project}`: what is None stays as it is."""

    description: str | None = None
    public: bool | None = None
    everyone: str | None = None


class Against(Request, frozen=True, kw_only=True):
    """The body of `POST …/versions/{revision}/changes`: `[model]@revision` of the project, or a bare revision."""

    against: str


class Recorded(Request, frozen=True, kw_only=True):
    """What was written down about a version elsewhere: an import keeps it. Only an owner may send it.

    Attributes
    ----------
    number : int
        Above all numbers that the model has used.
    digest : str
        What the manifest with these parents must come to.
    parents : tuple of Parent
        They need not be there: a removed version stays the parent of what grew from it.
    last : int
        The highest number that was ever used there, if that is above this one: it is not used again here either.
    """

    number: int
    digest: str
    created_at: datetime
    author: str = ""
    parents: tuple[Parent, ...] = ()
    last: int = 0


class NewPush(Amendment, frozen=True, kw_only=True):
    """The body of `POST …/pushes`, and the head of a small push.

    Attributes
    ----------
    push : str
        32 hex digits made up by the client, so that a lost answer can be asked for again.
    manifest : Raw
        Without parents: the server adds them.
    parent : str, optional
        Digest of the version that the object grew from; the latest one at the time of the commit if None.
    expect_parent : str, optional
        Refuse the commit unless this digest is still the latest one; the empty string: unless there is no version.
    run : str
        Id of the run that made it, in the same project.
    create : bool
        Make the model and the project where they are not there, on a shared server too.
    recorded : Recorded, optional
        Number, date, author and parents of a version that was made elsewhere.
    """

    push: str
    manifest: msgspec.Raw
    parent: str | None = None
    expect_parent: str | None = None
    aliases: tuple[str, ...] = ()
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    author: str = ""
    run: str = ""
    create: bool = False
    recorded: Recorded | None = None
    propose: bool = False
    """Propose it, for a maintainer to accept: a contribution, and no version yet."""


class WantedChunks(Request, frozen=True, kw_only=True):
    """The body of `POST …/versions/{revision}/chunks`.

    Attributes
    ----------
    want : tuple of str
        Chunks of this version.
    accept : tuple of str
        Codecs that the answer may use besides raw, by name; those that the server does not know are passed over.
    base : str, optional
        Digest of a version of the same project.
    have : tuple of str
        Chunks of the base that the client holds, and that deltas may lean on; others are passed over.
    """

    want: tuple[str, ...]
    accept: tuple[str, ...] = ()
    base: str | None = None
    have: tuple[str, ...] = ()


class WantedPieces(Request, frozen=True, kw_only=True):
    """The body of `POST backups/{backup}/{kind}/{space}`.

    Attributes
    ----------
    want : tuple of str
        Ids of chunks, or digests of manifests.
    plain : bool
        Chunks decoded, as raw frames, not as they are kept.
    """

    want: tuple[str, ...]
    plain: bool = False
