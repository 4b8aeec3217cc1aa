"""Projects, models and their versions, as the server answers with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from lmvp.errors import ProtectedAlias
from lmvp.records.frozen import copied, freeze_fields
from lmvp.records.values import Scalar, Struct, WireFloat, decode_float


class Project(Struct, frozen=True, kw_only=True):
    """A team's space for models and runs."""

    id: str
    name: str
    created_at: datetime
    description: str = ""
    models: int = 0
    public: bool = False
    """Whether it is read without an account."""
    everyone: str = ""
    """The role that every account has in it; empty: none."""


class Model(Struct, frozen=True, kw_only=True):
    """A named line of versions in a project."""

    id: str
    project: str
    name: str
    created_at: datetime
    description: str = ""
    latest: int = 0
    """Number of the newest version; 0 before the first push."""
    keep: str = ""
    """Its retention rule, as `lmvp.retention` reads it; empty: all versions stay."""
    protected: tuple[str, ...] = ("production",)
    """Aliases that only maintainers move."""
    require: str = ""
    """What a contribution must meet to be accepted, as `val_acc >= @production`; empty: nothing."""
    proposed: int = 0
    """How many contributions there were."""
    last: int = 0
    """The highest number that was ever used; above `latest` where the newest versions were removed."""
    origin: str = ""
    """The model that this one was forked from; empty without a fork, or if the caller cannot read it."""

    @property
    def following(self) -> int:
        """The number of the next version."""
        return max(self.latest, self.last) + 1


class Parent(Struct, frozen=True, kw_only=True):
    """A version that another one grew from."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"v{self.number}"


def _amended(field: str, reference: str) -> tuple[str, str | None]:
    if field == "environment":
        return copied(field, reference)
    hint = f"lmvp.amend({reference!r}, {field}={{**version.{field}, …}}) changes them on the server"
    return f"the {field} of {reference} cannot be changed here: this is a copy of the server's record", hint


class Version(Struct, frozen=True, kw_only=True):
    """One state of a model: immutable content (`digest`) and a record about it.

    Attributes
    ----------
    digest : str
        BLAKE3 of the manifest, 64 hex digits; it covers files, tensors and parents.
    content : str
        BLAKE3 of the manifest without its parents: equal for equal models.
    size : int
        Bytes of all files.
    stored : int
        Bytes that this version added to the store.
    sent : int
        Bytes of chunks that had to travel, as they travelled: when it was made, or in the answer to a push that made
        nothing new, in that push.
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
    """Id of the run that made it."""
    revised: int = 0
    """How often the record was amended."""
    status: str = ""
    """Of a contribution: `proposed`, `accepted`, `declined` or `withdrawn`; empty for a version."""

    def __post_init__(self) -> None:
        metrics = self.metrics
        if any(not isinstance(value, float) for value in metrics.values()):
            metrics = {key: decode_float(value) for key, value in metrics.items()}
            msgspec.structs.force_setattr(self, "metrics", metrics)
        freeze_fields(self, ("metrics", "params", "tags", "environment"), _amended, self.reference)

    @property
    def name(self) -> str:
        """The version as users write it: `v3`; a contribution: `c3`."""
        return f"{'c' if self.status else 'v'}{self.number}"

    @property
    def reference(self) -> str:
        """The full reference of this version: `project/model@v3`."""
        return f"{self.project}/{self.model}@{self.name}"

    def __repr__(self) -> str:
        from lmvp.render.words import one_line

        return one_line(f"<Version {self.reference} {self.digest[:10]}>")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from lmvp.render.text import version_text
        from lmvp.render.words import printable

        alone = len(printer.stack) == 1 and not cycle
        printer.text(printable(version_text(self)) if alone else repr(self))

    def _repr_html_(self) -> str:
        from lmvp.render.html import version_html

        return version_html(self)


class Comment(Struct, frozen=True, kw_only=True):
    """What somebody said about a contribution."""

    by: str
    at: datetime
    words: str


class Contribution(Struct, frozen=True, kw_only=True):
    """A version that somebody proposes, and a maintainer accepts or declines.

    Attributes
    ----------
    number : int
        As in `digits/mlp@c12`, which names it wherever a version is named.
    version : Version
        What is proposed.
    status : str
        `proposed`, `accepted`, `declined` or `withdrawn`.
    accepted : int
        The number of the version that it became.
    until : datetime or None
        When it is declined or withdrawn: its files are kept until then.
    deleted_at : datetime or None
        When its files were deleted; its record stays.
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
        """What names it from anywhere: `project/model@c12`."""
        return self.version.reference

    def __repr__(self) -> str:
        from lmvp.render.words import one_line

        became = f" as v{self.accepted}" if self.accepted else ""
        return one_line(f"<Contribution {self.reference} {self.status}{became}>")


class Move(Struct, frozen=True, kw_only=True):
    """A move of an alias: where to (0: nowhere, it was taken away), when, and by whom."""

    number: int
    at: datetime
    by: str = ""


class Alias(Struct, frozen=True, kw_only=True):
    """A movable name for a version."""

    project: str
    model: str
    name: str
    number: int
    moved_at: datetime
    moved_by: str = ""
    protected: bool = False
    """Whether only maintainers move it."""
    moves: tuple[Move, ...] = ()
    """All its moves, oldest first; only where it was asked for by itself."""

    def check_move(self, number: int, target: str, hint: str) -> None:
        """Refuse a move that nobody has confirmed, if the alias is protected.

        Parameters
        ----------
        number : int
            The version to point the alias at; 0 for one that does not exist yet.
        target : str
            What would happen: `moved to v5`, `removed`.
        hint : str
            How to confirm it.

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
        from lmvp.render.words import one_line, printable

        place = f"{self.project}/{self.model}@{self.name}"
        before = self.moves[-2].number if len(self.moves) > 1 else 0
        if before and self.number:
            return printable(one_line(f"<Alias {place}: v{before} → v{self.number}>"))
        return printable(one_line(f"<Alias {place} at {f'v{self.number}' if self.number else 'no version'}>"))


class Push(Struct, frozen=True, kw_only=True):
    """An open push: which chunks the server still lacks, and until when it waits for them.

    Attributes
    ----------
    base : str, optional
        Digest of the version whose chunks the deltas of this push may lean on.
    """

    push: str
    missing: tuple[str, ...]
    expires: datetime
    base: str | None = None


class Child(Struct, frozen=True, kw_only=True):
    """A version that grew from another one: of the same model or of another one of the project."""

    model: str
    number: int
    message: str = ""

    def __str__(self) -> str:
        return f"{self.model}@v{self.number}"
