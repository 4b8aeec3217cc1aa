"""What crosses the wire, as frozen structs: the server answers with them, the client hands them to the user.

JSON has no NaN or infinity, so metrics travel as numbers or as one of the strings `"NaN"`, `"Infinity"`, `"-Infinity"`;
`Version.metrics` always holds floats.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

Scalar: TypeAlias = str | int | float | bool | None
"""What a param may be."""

WireFloat: TypeAlias = float | str
"""A float on the wire: a number, or the name of a value that JSON lacks."""

_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_float(value: float) -> WireFloat:
    """Give the JSON form of a float.

    Examples
    --------
    >>> encode_float(0.5), encode_float(float("nan")), encode_float(float("-inf"))
    (0.5, 'NaN', '-Infinity')
    """
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def decode_float(value: WireFloat) -> float:
    """Give the float that `encode_float` wrote; the inverse of it."""
    return _NAMES[value] if isinstance(value, str) else float(value)


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The base of all records: immutable; a client ignores fields that a newer server adds."""


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


class User(Struct, frozen=True, kw_only=True):
    """An account.

    Attributes
    ----------
    service : bool
        Has no password: acts by tokens alone.
    """

    name: str
    admin: bool = False
    disabled: bool = False
    service: bool = False
    created_at: datetime | None = None


class Member(Struct, frozen=True, kw_only=True):
    """A person, or a group (`@vision`), and its role in a project."""

    name: str
    role: str
    disabled: bool = False


class Invitation(Struct, frozen=True, kw_only=True):
    """A link by which somebody makes an account of their own, once, and has a role in a project then.

    Attributes
    ----------
    secret : str
        Only where it was just made.
    by : str
        Who invites.
    """

    project: str
    role: str
    expires_at: datetime
    secret: str = ""
    by: str = ""
    url: str = ""


class Group(Struct, frozen=True, kw_only=True):
    """People who have roles together."""

    name: str
    users: tuple[str, ...] = ()


class Model(Struct, frozen=True, kw_only=True):
    """A named line of versions in a project."""

    id: str
    project: str
    name: str
    created_at: datetime
    description: str = ""
    latest: int = 0
    """Number of the newest version; 0 while there is none."""
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


class Parent(Struct, frozen=True, kw_only=True):
    """A version that another one grew from."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"v{self.number}"


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
        for key, value in self.metrics.items():
            if not isinstance(value, float):
                self.metrics[key] = decode_float(value)

    @property
    def name(self) -> str:
        """The version as users write it: `v3`; a contribution: `c3`."""
        return f"{'c' if self.status else 'v'}{self.number}"

    @property
    def reference(self) -> str:
        """What names this version from anywhere: `project/model@v3`."""
        return f"{self.project}/{self.model}@{self.name}"

    def __repr__(self) -> str:
        return f"<Version {self.reference} {self.digest[:10]}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from lmvp.render.text import version_text

        alone = len(printer.stack) == 1 and not cycle
        printer.text(version_text(self) if alone else repr(self))

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
    """

    number: int
    version: Version
    status: str
    reason: str = ""
    accepted: int = 0
    decided_by: str = ""
    decided_at: datetime | None = None
    comments: tuple[Comment, ...] = ()

    @property
    def reference(self) -> str:
        """What names it from anywhere: `project/model@c12`."""
        return self.version.reference

    def __repr__(self) -> str:
        became = f" as v{self.accepted}" if self.accepted else ""
        return f"<Contribution {self.reference} {self.status}{became}>"


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

    def __repr__(self) -> str:
        where = f"v{self.number}" if self.number else "no version"
        return f"<Alias {self.project}/{self.model}@{self.name} at {where}>"


class Layer(Struct, frozen=True, kw_only=True):
    """One layer on the shared axis of strips: a module, or a lone tensor.

    Attributes
    ----------
    path : str
        The tensors' names up to the last dot: `blocks.0.attn.qkv`.
    group : str
        The path up to its block index: `blocks.0`; strips leave a wider gap between groups.
    size : int
        How many numbers it holds, the largest over the versions.
    """

    path: str
    group: str
    size: int


IDENTICAL, CHANGED, NEW, ABSENT = "0", "x", "+", "."
"""One character a layer in `Layers.strips`: byte-identical to the parent; changed by an unknown amount; new or
reshaped; not in this version. `1` to `5` are changed by less than 0.1 %, 1 %, 5 %, 20 %, and more."""


class Layers(Struct, frozen=True, kw_only=True):
    """What changed, layer by layer, in some versions of a model; all on one axis.

    Attributes
    ----------
    axis : tuple of Layer
        The union of the layers of the versions, in model order.
    strips : dict
        By version number (a str, as JSON wants it): one character per layer of the axis, see `IDENTICAL`.
    """

    axis: tuple[Layer, ...] = ()
    strips: dict[str, str] = msgspec.field(default_factory=dict)


class Amount(Struct, frozen=True, kw_only=True):
    """How much the numbers of a tensor changed. Amounts of tensors add up to that of their layer.

    Attributes
    ----------
    count, changed : int
        How many numbers there are, and how many of them are other ones.
    squares, base_squares : float
        Sums of the squares of the differences, and of the numbers before; without those that are not finite.
    largest : float
        The largest difference, without sign.
    after_squares : float, optional
        Sum of the squares of the numbers after; what was measured by an early server lacks it.

    Examples
    --------
    >>> weight = Amount(count=4, changed=2, squares=0.5, base_squares=1.5, largest=0.5)
    >>> both = weight + Amount(count=1, changed=0, squares=0.0, base_squares=0.5, largest=0.0)
    >>> both.share, both.relative
    (0.4, 0.5)
    """

    count: int
    changed: int
    squares: WireFloat
    base_squares: WireFloat
    largest: WireFloat
    after_squares: WireFloat | None = None

    @property
    def share(self) -> float:
        """The share of the numbers that changed, 0 to 1."""
        return self.changed / self.count if self.count else 0.0

    @property
    def relative(self) -> float:
        """‖w − w₀‖ / ‖w₀‖, in the Euclidean norm; infinite where all was zero before."""
        squares, base = decode_float(self.squares), decode_float(self.base_squares)
        if not squares:
            return 0.0
        return math.sqrt(squares / base) if base else math.inf

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between the numbers before and after, -1 to 1; None if either is all zero."""
        if self.after_squares is None:
            return None
        squares, base, after = (decode_float(x) for x in (self.squares, self.base_squares, self.after_squares))
        if not base or not after:
            return None
        return max(-1.0, min(1.0, (base + after - squares) / (2 * math.sqrt(base) * math.sqrt(after))))

    def __add__(self, other: Amount) -> Amount:
        known = self.after_squares is not None and other.after_squares is not None
        return Amount(
            count=self.count + other.count,
            changed=self.changed + other.changed,
            squares=encode_float(decode_float(self.squares) + decode_float(other.squares)),
            base_squares=encode_float(decode_float(self.base_squares) + decode_float(other.base_squares)),
            largest=encode_float(max(decode_float(self.largest), decode_float(other.largest))),
            after_squares=encode_float(decode_float(self.after_squares) + decode_float(other.after_squares))  # type: ignore[arg-type]
            if known
            else None,
        )


class Changes(Struct, frozen=True, kw_only=True):
    """How much a version changed since another one.

    Attributes
    ----------
    against : str
        Digest of the other one.
    tensors : dict of str to Amount
        By name: all tensors of the layers that changed, as far as they kept their shape and dtype.
    """

    against: str
    tensors: dict[str, Amount] = msgspec.field(default_factory=dict)


class Event(Struct, frozen=True, kw_only=True):
    """An entry of the append-only log: who did what to what.

    Attributes
    ----------
    chain : str
        BLAKE3 over the entry before and this one: a removed or altered entry breaks all that follow.
    """

    seq: int
    at: datetime
    who: str
    action: str
    what: str
    before: Any = None
    after: Any = None
    chain: str = ""


class Head(Struct, frozen=True, kw_only=True):
    """The newest entry of a log of events: it stands for all that is before it.

    Attributes
    ----------
    space : str
        The id of a project, or `server`.
    name : str
        What the project was called; empty for the server.
    """

    space: str
    seq: int
    chain: str
    name: str = ""


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


class Health(Struct, frozen=True, kw_only=True):
    """What a server says of itself to anybody.

    Attributes
    ----------
    proof : str
        HMAC-SHA256 of the caller's nonce under the server's token: shows that this is the server of `server.json`.
    """

    status: str
    version: str
    api: int
    instance: str
    proof: str = ""


class Removed(Struct, frozen=True, kw_only=True):
    """What was taken away: how many versions, and the bytes that came back."""

    versions: int
    bytes: int


class Pruned(Struct, frozen=True, kw_only=True):
    """What pruning took away, or would take away.

    Attributes
    ----------
    versions : tuple of int
        Their numbers, newest first.
    bytes : int
        Bytes that came back, or would.
    keep : str
        The rule that was applied.
    """

    versions: tuple[int, ...]
    bytes: int
    dry_run: bool = False
    keep: str = ""


class Collected(Struct, frozen=True, kw_only=True):
    """What a collection of garbage deleted: chunks that nothing needed, and bytes in all."""

    chunks: int
    bytes: int


class Compacted(Struct, frozen=True, kw_only=True):
    """What was encoded anew: versions, chunks, and the bytes of these chunks before and after."""

    versions: int
    chunks: int
    before: int
    after: int


class UsageRow(Struct, frozen=True, kw_only=True):
    """What a project, a model or a version takes, in bytes: as it is, and as it is kept.

    Attributes
    ----------
    stored : int
        Bytes of its chunks on the disk; one that several versions share counts for the oldest of them.
    """

    name: str
    versions: int
    logical: int
    stored: int


class Usage(Struct, frozen=True, kw_only=True):
    """What takes how much room on the disk of the server, in bytes.

    Attributes
    ----------
    name : str
        The project or model that was asked for; empty for the whole server.
    rows : tuple of UsageRow
        Its parts.
    logical, stored : int
        The sums over the rows.
    disk : dict of str to int
        All files of the server or the project, by kind: `chunks`, `manifests`, `notes`, `records`, `staging`,
        `damaged`.
    total : int
        The sum of `disk`.
    """

    name: str
    rows: tuple[UsageRow, ...]
    logical: int
    stored: int
    disk: dict[str, int]
    total: int


class Problem(Struct, frozen=True, kw_only=True):
    """Something that `fsck` found: what it is, and the way out.

    Attributes
    ----------
    kind : str
        `records`, `events`, `manifest`, `chunk` or `series`.
    """

    kind: str
    what: str
    hint: str = ""


class Checked(Struct, frozen=True, kw_only=True):
    """What `fsck` proved, and what it could not.

    Attributes
    ----------
    versions, chunks, bytes : int
        What was looked at; bytes as they are when decoded.
    repaired : bool
        Whether damaged frames were set aside.
    """

    versions: int
    chunks: int
    bytes: int
    repaired: bool = False
    problems: tuple[Problem, ...] = ()


class BackupSpace(Struct, frozen=True, kw_only=True):
    """A space in a backup: `server`, or a project by its id and name; how many records and events it had."""

    space: str
    name: str
    records: int
    events: int


class Backup(Struct, frozen=True, kw_only=True):
    """A backup under way: all spaces as they were at `created_at`. It ends five minutes after its last sign of life.

    Attributes
    ----------
    server : str
        The version of LMVP that the server runs.
    """

    id: str
    created_at: datetime
    server: str
    spaces: tuple[BackupSpace, ...]


class ErrorBody(Struct, frozen=True, kw_only=True):
    """The inside of `{"error": …}`, in every answer from 400 upwards."""

    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what clients send: unknown fields are mistakes."""


class NewProject(Request, frozen=True, kw_only=True):
    """The body of `POST projects`."""

    name: str
    description: str = ""


class NewModel(Request, frozen=True, kw_only=True):
    """The body of `POST …/models`."""

    name: str
    description: str = ""


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


class DeviceCode(Struct, frozen=True, kw_only=True):
    """What a client that has no token shows and waits for; names and meaning as in RFC 8628, section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class DeviceToken(Struct, frozen=True, kw_only=True):
    """The token that a client got, and what it is called."""

    access_token: str
    name: str


class DeviceDecision(Struct, frozen=True, kw_only=True):
    """What was decided about a client."""

    client_name: str
    address: str
    approved: bool


class TokenRecord(Struct, frozen=True, kw_only=True):
    """What is known of a token; its secret is kept nowhere.

    Attributes
    ----------
    used_at : datetime, optional
        Its last use, to the hour or so.
    """

    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    used_at: datetime | None = None
    user: str = ""
    """Whose it is; empty: whoever runs the server."""
    scope: str = "admin"
    project: str = ""
    """The one project that it is for; empty: all."""


class NewToken(TokenRecord, frozen=True, kw_only=True):
    """A token that was just made, with its secret."""

    token: str = ""


class Child(Struct, frozen=True, kw_only=True):
    """A version that grew from another one: of the same model or of another one of the project."""

    model: str
    number: int
    message: str = ""

    def __str__(self) -> str:
        return f"{self.model}@v{self.number}"


class Histogram(Struct, frozen=True, kw_only=True):
    """How the numbers of a tensor are spread.

    Attributes
    ----------
    low, high : float
        The ends of the first and the last bin.
    counts : tuple of int
        How many numbers lie in each of the bins, which are equally wide.
    count, zeros, odd : int
        Numbers that were looked at, those that are zero, and those that are not finite.
    mean, deviation : float
        Of those that are finite; the standard deviation.
    sampled : bool
        Whether only a part was looked at, since there are so many.
    """

    low: WireFloat
    high: WireFloat
    counts: tuple[int, ...]
    count: int
    zeros: int
    odd: int
    mean: WireFloat
    deviation: WireFloat
    sampled: bool = False


class Histograms(Struct, frozen=True, kw_only=True):
    """Histograms by the names of tensors; `before` where another version was asked for too, on the same bins."""

    tensors: dict[str, Histogram]
    before: dict[str, Histogram] = msgspec.field(default_factory=dict)


class AskCode(Request, frozen=True, kw_only=True):
    """The body of `POST device/code`: what the client calls itself, `ada@laptop`."""

    client_name: str = ""


class AskToken(Request, frozen=True, kw_only=True):
    """The body of `POST device/token`."""

    device_code: str


class Decide(Request, frozen=True, kw_only=True):
    """The body of `POST device/decision`."""

    user_code: str
    approve: bool = True


class MakeToken(Request, frozen=True, kw_only=True):
    """The body of `POST tokens`; without days it never expires.

    Attributes
    ----------
    scope : str
        `read`, `write` or `admin`; empty: the most that whoever asks may pass on.
    project : str
        The one project that it is for; empty: all.
    user : str
        Whose it is; an admin makes them for others. Empty: the caller's own.
    """

    name: str
    expires_days: int | None = None
    scope: str = ""
    project: str = ""
    user: str = ""


class NewUser(Request, frozen=True, kw_only=True):
    """The body of `POST users`; without a password it acts by tokens alone."""

    name: str
    password: str = ""
    admin: bool = False


class UserChange(Request, frozen=True, kw_only=True):
    """The body of `PATCH users/{user}`: what is None stays as it is."""

    disabled: bool | None = None
    admin: bool | None = None
    password: str | None = None


class SetRole(Request, frozen=True, kw_only=True):
    """The body of `PUT …/members/{member}`: `viewer`, `contributor`, `maintainer` or `owner`."""

    role: str


class Invite(Request, frozen=True, kw_only=True):
    """The body of `POST invitations`."""

    project: str
    role: str = "viewer"
    days: int = 7


class Words(Request, frozen=True, kw_only=True):
    """What is said with a decision about a contribution, or about it."""

    words: str = ""


class SetGroup(Request, frozen=True, kw_only=True):
    """The body of `PUT groups/{group}`: who is in it from now on."""

    users: tuple[str, ...] = ()


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


class Received(Struct, frozen=True, kw_only=True):
    """The answer to frames: how many chunks the push still lacks."""

    missing_count: int
