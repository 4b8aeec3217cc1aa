"""Responses and requests of projects, models and versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from lmvp.core.schemas.base import (
    Request,
    Scalar,
    Struct,
    WireFloat,
    copied,
    decode_float,
    freeze_fields,
)
from lmvp.errors import ProtectedAlias


class Project(Struct, frozen=True, kw_only=True):
    """A workspace of a team for models and runs.

    Attributes
    ----------
    id : str
        Permanent id. It stays the same when the project is renamed, and the server stores data under it.
    name : str
        Name in references.
    created_at : datetime
        Time of creation.
    description : str
        Free text.
    models : int
        Number of models in the project.
    public : bool
        Whether users can read it without an account.
    everyone : str
        The role that every account has in the project; empty for no role.
    """

    id: str
    name: str
    created_at: datetime
    description: str = ""
    models: int = 0
    public: bool = False
    everyone: str = ""


class Model(Struct, frozen=True, kw_only=True):
    """A named series of versions in a project.

    Attributes
    ----------
    id : str
        Permanent id of the model.
    project, name : str
        Names of the project and of the model, as in `project/name`.
    created_at : datetime
        Time of creation.
    description : str
        The model card, in Markdown.
    latest : int
        Number of the newest version; 0 before the first push.
    keep : str
        The retention rule, in the syntax of `lmvp.core.retention_rules`; empty if all versions stay.
    protected : tuple of str
        Aliases that only maintainers can move.
    require : str
        The requirement for contributions, for example `val_acc >= @production`; empty for no requirement.
    proposed : int
        Number of contributions so far. The next one gets the next number.
    last : int
        The highest version number that was used. It is higher than `latest` if the newest versions were removed.
    origin : str
        The model that this model was forked from; empty if it is not a fork or the caller cannot read that model.
    """

    id: str
    project: str
    name: str
    created_at: datetime
    description: str = ""
    latest: int = 0
    keep: str = ""
    protected: tuple[str, ...] = ("production",)
    require: str = ""
    proposed: int = 0
    last: int = 0
    origin: str = ""

    @property
    def following(self) -> int:
        """The number of the next version."""
        # `last` counts removed versions: a number is never used again.
        return max(self.latest, self.last) + 1


class Parent(Struct, frozen=True, kw_only=True):
    """A version that another version was derived from."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"v{self.number}"


def _amended(field: str, reference: str) -> tuple[str, str | None]:
    # `amend` changes message, metrics, params and tags; the environment is only written by the push.
    if field == "environment":
        return copied(field, reference)
    hint = f"lmvp.amend({reference!r}, {field}={{**version.{field}, …}}) changes them on the server"
    return f"the {field} of {reference} cannot be changed here: this is a copy of the server's record", hint


class Version(Struct, frozen=True, kw_only=True):
    """One state of a model: immutable content and a record that can be amended.

    A contribution is described by the same fields; its `status` is not empty. The mappings refuse changes, because a
    change would not reach the server: `lmvp.amend` changes the record.

    Attributes
    ----------
    project, model : str
        Names of the project and the model.
    number : int
        The number in the revision: 3 in `v3`, 12 in `c12`.
    digest : str
        BLAKE3 of the manifest, 64 hex digits. It covers files, tensors and parents.
    content : str
        BLAKE3 of the manifest without its parents; equal for versions with equal files and tensors.
    format : str
        Format of the object: `torch.module`, `numpy`, `files`, …
    created_at : datetime
        Time of the commit.
    author : str
        Name of the author.
    message : str
        Message of the version.
    parents : tuple of Parent
        The versions that this version was derived from, with the first parent first.
    aliases : tuple of str
        Names of the aliases that point at this version.
    metrics : dict of str to float
        Metrics by key; NaN and infinity are possible.
    params : dict of str to str, int, float, bool or None
        Params by key.
    tags : dict of str to str
        Tags by key.
    environment : dict
        Origin of the version: user, host, git commit, Python, packages and, if captured, code.
    size : int
        Bytes of all files.
    stored : int
        Bytes that this version added to the data folder.
    sent : int
        Bytes of encoded chunks that the push sent. If a push created no version, its answer states the bytes of that
        push.
    run : str
        Id of the run that produced this version; empty if there is no run.
    revised : int
        Number of amendments of the record.
    status : str
        Status of a contribution: `proposed`, `accepted`, `declined` or `withdrawn`; empty for a version.
    """

    project: str
    model: str
    number: int
    digest: str
    content: str
    format: str
    created_at: datetime
    author: str = ""
    message: str = ""
    parents: tuple[Parent, ...] = ()
    aliases: tuple[str, ...] = ()
    metrics: dict[str, WireFloat] = msgspec.field(default_factory=dict)
    params: dict[str, Scalar] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    size: int = 0
    stored: int = 0
    sent: int = 0
    run: str = ""
    revised: int = 0
    status: str = ""

    def __post_init__(self) -> None:
        # The server sends NaN and infinity as strings; most versions have only floats and need no copy.
        metrics = self.metrics
        if any(not isinstance(value, float) for value in metrics.values()):
            metrics = {key: decode_float(value) for key, value in metrics.items()}
            msgspec.structs.force_setattr(self, "metrics", metrics)
        freeze_fields(self, ("metrics", "params", "tags", "environment"), _amended, self.reference)

    @property
    def name(self) -> str:
        """The revision of this version, `v3`, or of a contribution, `c3`."""
        return f"{'c' if self.status else 'v'}{self.number}"

    @property
    def reference(self) -> str:
        """The full reference of this version, `project/model@v3`."""
        return f"{self.project}/{self.model}@{self.name}"

    def __repr__(self) -> str:
        from lmvp.core.sanitize import one_line  # late: `import lmvp` must stay fast

        return one_line(f"<Version {self.reference} {self.digest[:10]}>")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from lmvp.core.sanitize import printable

        # A version inside a list or another object is printed in one line.
        alone = len(printer.stack) == 1 and not cycle
        printer.text(printable(version_text(self)) if alone else repr(self))

    def _repr_html_(self) -> str:
        return version_html(self)


def version_text(version: Version) -> str:
    """Return a version as a line with its reference and message, and a line for each property."""
    from lmvp.core.sanitize import clean, one_line, pad, width

    head = one_line(f"{version.reference}  {clean(version.message)}".rstrip())
    facts = version_facts(version)
    wide = max(width(key) for key, _ in facts)
    return "\n".join([head, *(f"  {pad(key, wide)}  {value}" for key, value in facts)])


def version_facts(version: Version) -> list[tuple[str, str]]:
    """Return the properties of a version as pairs of label and text, without empty ones."""
    from lmvp.core import number_format
    from lmvp.core.sanitize import clean, listed, one_line

    def each(values: Mapping[str, str]) -> str:
        return listed(f"{clean(key)} {clean(value)}" for key, value in values.items())

    by = f" by {clean(version.author)}" if version.author else ""
    pairs = [
        ("published", f"{number_format.stamp(version.created_at)} UTC{by}"),
        ("aliases", listed(map(clean, version.aliases))),
        ("metrics", each({k: number_format.one(float(v)) for k, v in version.metrics.items()})),
        ("params", each({k: str(v) for k, v in version.params.items()})),
        ("tags", each(version.tags)),
        ("parents", listed(map(str, version.parents)) or "none"),
        ("size", f"{number_format.size(version.size)}, {number_format.size(version.sent)} sent"),
        ("format", version.format),
        ("digest", version.digest),
    ]
    return [(key, one_line(value)) for key, value in pairs if value]


def version_html(version: Version) -> str:
    """Return a version with its message and its properties."""
    from html import escape

    from lmvp.core.html_tables import ROW, cell, safe

    rows = [(f"<b>{escape(fact)}</b>", escape(value)) for fact, value in version_facts(version)]
    body = "\n".join(f"<tr{ROW}>{cell(fact)}{cell(value, name=True)}</tr>" for fact, value in rows)
    return (
        f"<p><b>{escape(version.reference)}</b> {safe(version.message)}</p>\n<table><tbody>\n{body}\n</tbody></table>"
    )


class Comment(Struct, frozen=True, kw_only=True):
    """A comment on a contribution."""

    by: str
    at: datetime
    words: str


class Contribution(Struct, frozen=True, kw_only=True):
    """A version that a contributor proposes, and that a maintainer accepts or declines.

    Attributes
    ----------
    number : int
        The number in its revision: 12 in `digits/mlp@c12`.
    version : Version
        The proposed version.
    status : str
        `proposed`, `accepted`, `declined` or `withdrawn`.
    reason : str
        The reason of the decision.
    accepted : int
        Number of the version that it became; 0 if it was not accepted.
    decided_by : str
        Name of the account that decided.
    decided_at : datetime or None
        Time of the decision; None before it.
    comments : tuple of Comment
        The comments, oldest first.
    until : datetime or None
        For a declined or withdrawn contribution: the time until which its files are stored.
    deleted_at : datetime or None
        The time at which its files were deleted. Its record stays.
    """

    number: int
    version: Version
    status: str
    reason: str = ""
    accepted: int = 0
    decided_by: str = ""
    decided_at: datetime | None = None
    comments: tuple[Comment, ...] = ()
    until: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def reference(self) -> str:
        """The full reference of the contribution, `project/model@c12`."""
        return self.version.reference

    def __repr__(self) -> str:
        from lmvp.core.sanitize import one_line

        became = f" as v{self.accepted}" if self.accepted else ""
        return one_line(f"<Contribution {self.reference} {self.status}{became}>")


class Move(Struct, frozen=True, kw_only=True):
    """A move of an alias: the number of the new version (0 if the alias was removed), the time and the account."""

    number: int
    at: datetime
    by: str = ""


class Alias(Struct, frozen=True, kw_only=True):
    """A movable name that points at a version.

    Attributes
    ----------
    project, model, name : str
        Names of the project, the model and the alias, as in `project/model@name`.
    number : int
        Number of the version that the alias points at; 0 if the alias was removed.
    moved_at : datetime
        Time of the last move.
    moved_by : str
        Name of the account that moved it last.
    protected : bool
        Whether only maintainers can move it.
    moves : tuple of Move
        All moves, oldest first. Only the response for a single alias contains them.
    """

    project: str
    model: str
    name: str
    number: int
    moved_at: datetime
    moved_by: str = ""
    protected: bool = False
    moves: tuple[Move, ...] = ()

    def check_move(self, number: int, target: str, hint: str) -> None:
        """Raise an error if the alias is protected and the move was not confirmed.

        Parameters
        ----------
        number : int
            The version to point the alias at; 0 if it does not exist yet.
        target : str
            The action, for the message: `moved to v5` or `removed`.
        hint : str
            The way to confirm it, for the error.

        Raises
        ------
        ProtectedAlias
            If the alias is protected and points at another version.
        """
        if self.protected and self.number and self.number != number:
            place = f"{self.project}/{self.model}@{self.name}"
            message = f"the protected alias {place} points at v{self.number}; it would be {target}"
            raise ProtectedAlias(message, hint=hint)

    def __repr__(self) -> str:
        from lmvp.core.sanitize import one_line, printable

        place = f"{self.project}/{self.model}@{self.name}"
        before = self.moves[-2].number if len(self.moves) > 1 else 0
        if before and self.number:
            return printable(one_line(f"<Alias {place}: v{before} → v{self.number}>"))
        return printable(one_line(f"<Alias {place} at {f'v{self.number}' if self.number else 'no version'}>"))


class Push(Struct, frozen=True, kw_only=True):
    """An open push: the chunks that the server lacks, and the time at which the push expires.

    Attributes
    ----------
    push : str
        Id of the push, chosen by the client.
    missing : tuple of str
        Ids of the chunks that the server lacks.
    expires : datetime
        Time until which the push stays open.
    base : str, optional
        Digest of the version whose chunks can be delta bases in this push.
    """

    push: str
    missing: tuple[str, ...]
    expires: datetime
    base: str | None = None


class Child(Struct, frozen=True, kw_only=True):
    """A child of a version: a version of any model of the project that has it as a parent."""

    model: str
    number: int
    message: str = ""

    def __str__(self) -> str:
        return f"{self.model}@v{self.number}"


# -- requests; unknown fields are an error


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


class ImportedMetadata(Request, frozen=True, kw_only=True):
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
    recorded : ImportedMetadata, optional
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
    recorded: ImportedMetadata | None = None
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
