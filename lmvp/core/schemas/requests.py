"""Request schemas for projects, models and versions. Unknown fields are an error."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from lmvp.core.schemas.accounts import Head
from lmvp.core.schemas.base import Request, Scalar, WireFloat
from lmvp.core.schemas.models import Parent


class NewProject(Request, frozen=True, kw_only=True):
    """Body of `POST projects`."""

    name: str
    description: str = ""


class NewModel(Request, frozen=True, kw_only=True):
    """Body of `POST …/models`."""

    name: str
    description: str = ""


class Fork(Request, frozen=True, kw_only=True):
    """Body of `POST …/{model}/fork`: the destination as `project/model`."""

    to: str


class Contribute(Request, frozen=True, kw_only=True):
    """Body of `POST …/versions/{revision}/contribute`. An empty message means the message of the version."""

    message: str = ""


class MoveAlias(Request, frozen=True, kw_only=True):
    """Body of `PUT …/aliases/{alias}`."""

    revision: str


class ModelChange(Request, frozen=True, kw_only=True):
    """Body of `PATCH …/models/{model}`. Fields that are None stay unchanged; see `Model` for their meaning."""

    description: str | None = None
    keep: str | None = None
    require: str | None = None
    protected: tuple[str, ...] | None = None


class Prune(Request, frozen=True, kw_only=True):
    """Body of `POST …/models/{model}/prune`.

    Attributes
    ----------
    keep : str
        The retention rule to apply; the rule of the model if empty.
    dry_run : bool
        Only list the versions that would be deleted.
    """

    keep: str = ""
    dry_run: bool = False


class Collect(Request, frozen=True, kw_only=True):
    """Body of `POST gc`. With `removed`, gc also deletes permanently everything in the trash."""

    removed: bool = False


class Check(Request, frozen=True, kw_only=True):
    """Body of `POST fsck`. With `repair`, damaged frames are set aside."""

    repair: bool = False
    heads: tuple[Head, ...] = ()
    """Heads of audit logs that were stored outside the server; fsck verifies that the logs still contain them."""


class Amendment(Request, frozen=True, kw_only=True):
    """Body of `PATCH …/versions/{revision}`. Fields that are None stay unchanged; a dict replaces the whole dict."""

    message: str | None = None
    metrics: dict[str, WireFloat] | None = None
    params: dict[str, Scalar] | None = None
    tags: dict[str, str] | None = None
    forget_code: bool = False
    """Delete the captured code of the version permanently."""


class Words(Request, frozen=True, kw_only=True):
    """Body of a comment on a contribution, or of the decision about it."""

    words: str = ""


class ProjectChange(Request, frozen=True, kw_only=True):
    """Body of `PATCH projects/{project}`. Fields that are None stay unchanged; see `Project` for their meaning."""

    description: str | None = None
    public: bool | None = None
    everyone: str | None = None


class Against(Request, frozen=True, kw_only=True):
    """Body of `POST …/versions/{revision}/changes`: `[model]@revision` in the project, or a revision alone."""

    against: str


class Recorded(Request, frozen=True, kw_only=True):
    """The metadata of an imported version: number, date, author and parents. Only an owner can send it.

    Attributes
    ----------
    number : int
        Must be higher than every number that the model has used.
    digest : str
        The expected digest of the manifest with these parents. The server refuses the push if it differs.
    parents : tuple of Parent
        They can be missing on the server: a removed version stays the parent of its children.
    last : int
        The highest number used in the exported model, if it is higher than this one. The server does not use the
        numbers up to it again.
    """

    number: int
    digest: str
    created_at: datetime
    author: str = ""
    parents: tuple[Parent, ...] = ()
    last: int = 0


class NewPush(Amendment, frozen=True, kw_only=True):
    """Body of `POST …/pushes`, and the head of a small push.

    Attributes
    ----------
    push : str
        32 hex digits, chosen by the client. A client that got no answer repeats the request with the same id.
    manifest : Raw
        The manifest without parents: the server adds them.
    parent : str, optional
        Digest of the version that the object was derived from. None means the latest version at the time of the commit.
    expect_parent : str, optional
        Refuse the commit unless this is the digest of the latest version. The empty string means that the model must
        have no version yet.
    run : str
        Id of the run that produced the object, in the same project.
    create : bool
        Create the model and the project if they do not exist, also on a shared server.
    recorded : Recorded, optional
        Metadata of an imported version.
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
    """Propose a contribution, which a maintainer can accept, instead of publishing a version."""


class WantedChunks(Request, frozen=True, kw_only=True):
    """Body of `POST …/versions/{revision}/chunks`. See docs/format.md, "The wire".

    Attributes
    ----------
    want : tuple of str
        Ids of chunks of this version.
    accept : tuple of str
        Names of the codecs that the answer can use besides raw. The server ignores names that it does not know.
    base : str, optional
        Digest of a version of the same project.
    have : tuple of str
        Ids of chunks of the base that the client has, so that deltas can depend on them. The server ignores others.
    """

    want: tuple[str, ...]
    accept: tuple[str, ...] = ()
    base: str | None = None
    have: tuple[str, ...] = ()


class WantedPieces(Request, frozen=True, kw_only=True):
    """Body of `POST backups/{backup}/{kind}/{space}`.

    Attributes
    ----------
    want : tuple of str
        Ids of chunks or digests of manifests.
    plain : bool
        Send chunks decoded, as raw frames, instead of in their stored encoding.
    """

    want: tuple[str, ...]
    plain: bool = False
