"""The client: every verb, over HTTP, to one server.

The functions of `lmvp` itself are the methods of a client of the server in use; a `Client` made by hand speaks to the
server that it is given.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from lmvp import config, local, origins
from lmvp.archive.client import Archives
from lmvp.compare import Diff
from lmvp.connection import Address, Connection
from lmvp.environment import environment, user
from lmvp.errors import InvalidArgument, InvalidReference, NotFound
from lmvp.history import History
from lmvp.housekeeping import Housekeeping
from lmvp.origins import Origin
from lmvp.records import (
    Alias,
    Amendment,
    Changes,
    Health,
    Layers,
    Model,
    MoveAlias,
    NewPush,
    Project,
    Struct,
    Version,
    WireFloat,
    encode_float,
)
from lmvp.references import Reference, Revision, check_alias, check_name, suggest
from lmvp.storage import manifest as manifests
from lmvp.storage.check import check_manifest
from lmvp.storage.manifest import Manifest
from lmvp.transfer.progress import Progress

if TYPE_CHECKING:
    from lmvp.transfer.held import Held

T = TypeVar("T")
PAGE = 1000
NAME_HINT = "`project/model` names one"


class Page(Struct, frozen=True, kw_only=True):
    """A part of a list, as the API sends it."""

    items: list[msgspec.Raw]
    next: str | None = None
    total: int = 0


class Client(Archives, Housekeeping):
    """Everything that LMVP does, on one server.

    Parameters
    ----------
    url : str, optional
        The server; without it `LMVP_URL`, the server of the last `lmvp.login`, or that of this machine, which is
        started if it does not run.
    token : str, optional
        The token for it; without it `LMVP_TOKEN`, or what `lmvp.login` kept.
    project : str, optional
        The project of references that name none.
    """

    def __init__(self, url: str | None = None, token: str | None = None, project: str | None = None) -> None:
        self._project = check_name(project, "project name") if project else None
        fixed = config.server_url(url)
        self._connection = _connect(Address(fixed, config.token_for(fixed, token)) if fixed else None)

    def __repr__(self) -> str:
        return f"<lmvp.Client project={self.project!r}>"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._connection.url

    @property
    def project(self) -> str:
        """The project of references that name none."""
        return config.current_project(self._project)

    # -- publish and fetch

    def update(
        self,
        name: str,
        obj: Any,
        *,
        message: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        alias: str | Sequence[str] = (),
        parent: str | None = None,
        expect_parent: str | None = None,
        create: bool = False,
        progress: Progress = None,
    ) -> Version:
        """Publish a model, or a new version of it.

        Parameters
        ----------
        name : str
            `[project/]model`; both are made if they are not there.
        obj : object
            A torch Module or state dict, a dict of arrays, a scikit-learn estimator, a Keras 3 or ONNX
            model, or a path to a file or a folder.
        message : str, optional
            What is new.
        metrics : mapping of str to float, optional
            NaN and infinities are values.
        params, tags : mapping, optional
            What it was made with; what it is called.
        alias : str or sequence of str, optional
            Aliases that move to this version.
        parent : str, optional
            Revision that it grew from; without it, the version that the object was downloaded from or pushed to last,
            else the latest.
        expect_parent : str, optional
            Revision that must still be the latest one.
        create : bool
            Make project and model on a shared server too.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes done and bytes in all.

        Returns
        -------
        Version
            The new version; the latest one, if it has this content and says the same.

        Raises
        ------
        UnknownFormat
            If no format keeps such an object.
        InvalidArgument
            If a metric is not a number, or `progress` none of these.
        Conflict
            If `expect_parent` is not the latest version any more.
        """
        from lmvp import formats
        from lmvp.transfer import progress as progress_
        from lmvp.transfer.held import Held
        from lmvp.transfer.push import push

        progress_.check(progress)
        _check_order(name, obj)
        place = self._place(name)
        fields = _fields(message, metrics, params, tags)
        aliases = _aliases(alias)
        package = formats.pack(obj)
        body = NewPush(
            push=secrets.token_hex(16),
            manifest=msgspec.Raw(b"{}"),
            parent=self._digest(place, parent) if parent else origins.recall(obj, self.url, _key(place)),
            expect_parent=self._digest(place, expect_parent) if expect_parent else None,
            aliases=aliases,
            environment=environment(),
            author=user(),
            create=create,
            **fields,
        )
        held = Held.of(self._connection, _key(place))
        version = push(self._connection, _path(place), package, body, progress, held)
        origins.remember(obj, Origin(self.url, _key(place), version.digest))
        return version

    def download(
        self,
        name: str,
        *,
        into: Any = None,
        to: str | Path | None = None,
        trust: Sequence[str | type] = (),
        progress: Progress = None,
    ) -> Any:
        """Fetch a version: as the object it was, into an object, or as files.

        Parameters
        ----------
        name : str
            `[project/]model[@revision]`.
        into : object, optional
            A Module, or a dict of arrays or tensors, whose weights are replaced in place.
        to : path, optional
            A folder for the files, byte-identical.
        trust : sequence of str or type, optional
            Classes that may be built, by path (`"my_pkg.Net"`) or themselves.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes done and bytes in all.

        Returns
        -------
        object or list of Path
            The object; `into` itself; with `to`, where the files are.

        Raises
        ------
        NotFound
            If there is no such version; the hint names the nearest.
        Untrusted
            If a class is needed that is neither safe by itself nor trusted.
        InvalidArgument
            If `trust` holds something that is no name and no class, or `progress` is none of these.
        Mismatch
            If `into` has other names, shapes or dtypes; it is untouched then.
        IntegrityError
            If bytes do not match their digest.
        """
        from lmvp import formats
        from lmvp.formats.trust import Trust
        from lmvp.transfer import progress as progress_
        from lmvp.transfer.folder import pull_files
        from lmvp.transfer.held import Held
        from lmvp.transfer.pull import VersionReader

        progress_.check(progress)
        Trust.of(trust)
        if into is not None and to is not None:
            raise InvalidArgument("into= and to= at once", hint="choose one: an object, or a folder")
        _check_folder(to)
        place = self._reference(name)
        version = self.version(name)
        at = f"{_path(place)}/versions/{version.number}"
        held = Held.of(self._connection, _key(place))
        manifest = self._manifest(version, held)
        reader = VersionReader(self._connection, at, manifest, progress, held, lambda: held.base(version, manifest))
        if to is not None:
            paths = pull_files(reader, Path(to).expanduser())
            held.note(version.digest)
            return paths
        obj = formats.unpack(reader, into=into, trust=trust)
        held.note(version.digest)
        origins.remember(obj, Origin(self.url, _key(place), version.digest))
        return obj

    # -- look

    def show_history(self, name: str | None = None, *, limit: int | None = 200, metric: str | None = None) -> History:
        """Return the versions of a model, or of all models of a project, newest first.

        Parameters
        ----------
        name : str, optional
            A project, or `[project/]model`; the current project by default. A bare name is the project if there is
            one, else a model of the current project.
        limit : int, optional
            At most so many; None: all.
        metric : str, optional
            The metric to show; without it, the one that most of them have.

        Raises
        ------
        NotFound
            If there is neither a project nor a model of that name, or if none of these versions has that metric.
        InvalidReference
            If there are both.
        """
        _check_limit(limit)
        if not isinstance(metric, str | None):
            raise InvalidArgument(f"metric= is {_shown(metric)}, not the name of a metric")
        project, model = self._project_or_model(f"{self.project}/" if name is None else name)
        if model is None:
            path, title, layers = f"/projects/{quote(project)}/versions", project, None
        else:
            base = _path(Reference(project, model))
            path, title = f"{base}/versions", f"{project}/{model}"

            def layers(versions: Sequence[Version]) -> Layers:
                return self._layers(base, versions)

        versions, total = self._versions(path, limit)
        history = History(versions, title=title, total=total, layers=layers, metric=metric)
        _check_metric(history, metric)
        return history

    def version(self, name: str) -> Version:
        """Return one version of a model, by reference."""
        place = self._reference(name)
        return self._connection.get(f"{_path(place)}/versions/{quote(place.revision, safe='')}", Version)

    def diff(self, before: str, after: str) -> Diff:
        """Return what changed between two versions: files, tensors, metrics, params.

        Parameters
        ----------
        before, after : str
            References; `after` may be a bare `@revision` of the same model.
        """
        first = self.version(before)
        second = self.version(f"{first.project}/{first.model}{after}" if str(after).startswith("@") else after)
        old, new = self._manifest(first), self._manifest(second)
        return Diff.between(first, second, old, new, self._changes(first, second))

    def projects(self) -> list[Project]:
        """Return all projects."""
        return self._list("/projects", Project)

    def models(self, project: str | None = None) -> list[Model]:
        """Return the models of a project."""
        name = check_name(project, "project name") if project else self.project
        return self._list(f"/projects/{quote(name)}/models", Model)

    def aliases(self, name: str) -> list[Alias]:
        """Return the aliases of a model, by name."""
        return self._list(f"{_path(self._reference(name))}/aliases", Alias)

    def health(self) -> Health:
        """Return what the server says of itself."""
        return self._connection.get("/health", Health)

    # -- change

    def alias(self, name: str, alias: str) -> Alias:
        """Let an alias stand at a version; make it if it is new.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        alias : str
            The name to give it.
        """
        place = self._reference(name)
        path = f"{_path(place)}/aliases/{quote(check_alias(alias), safe='')}"
        return self._connection.send_json("PUT", path, MoveAlias(revision=place.revision), Alias)

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away from a model; its history stays."""
        place = self._reference(name)
        self._connection.send("DELETE", f"{_path(place)}/aliases/{quote(check_name(alias, 'alias'), safe='')}")

    def amend(
        self,
        name: str,
        *,
        message: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Change what is said of a version; what is not given stays. The content of a version never changes."""
        place = self._reference(name)
        path = f"{_path(place)}/versions/{quote(place.revision, safe='')}"
        return self._connection.send_json("PATCH", path, Amendment(**_fields(message, metrics, params, tags)), Version)

    # -- steps

    def _reference(self, name: str) -> Reference:
        place = Reference.parse(name, project=self.project)
        if place.server and place.server.casefold() != urlsplit(self.url).netloc.casefold():
            raise InvalidReference(
                f"{name!r} is on another server than {self.url}", hint="lmvp.Client(url) speaks to it"
            )
        return place

    def _place(self, name: str) -> Reference:
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(
                f"{name!r} names a version; an update makes a new one", hint=f"update {name.partition('@')[0]!r}"
            )
        return place

    def _digest(self, place: Reference, revision: str) -> str:
        Revision.parse(revision)
        path = f"{_path(place)}/versions/{quote(revision, safe='')}"
        return self._connection.get(path, Version).digest

    def _manifest(self, version: Version, held: Held | None = None) -> Manifest:
        known = held.manifest(version.digest) if held else None
        if known is not None:
            return known
        place = Reference(version.project, version.model)
        data = self._connection.send("GET", f"{_path(place)}/versions/{version.number}/manifest").content
        manifest = manifests.decode(data)
        check_manifest(manifest)
        if held:
            held.keep_manifest(version.digest, data)
        return manifest

    def _changes(self, before: Version, after: Version) -> Changes | None:
        """Return how much the tensors changed; two projects have nothing to compare by."""
        if before.project != after.project or before.content == after.content:
            return None
        path = f"{_path(Reference(after.project, after.model))}/versions/{after.number}/changes"
        return self._connection.get(path, Changes, against=f"{before.model}@{before.number}")

    def _layers(self, base: str, versions: Sequence[Version]) -> Layers:
        numbers = ",".join(str(version.number) for version in versions)
        return self._connection.get(f"{base}/layers", Layers, versions=numbers)

    def _versions(self, path: str, limit: int | None) -> tuple[list[Version], int]:
        """Return the newest versions, and how many there are in all."""
        pages = list(self._pages(path, limit))
        decode = msgspec.json.Decoder(Version).decode
        return [decode(item) for page in pages for item in page.items], pages[0].total if pages else 0

    def _list(self, path: str, type_: type[T]) -> list[T]:
        """Return all of a list."""
        decode = msgspec.json.Decoder(type_).decode
        return [decode(item) for page in self._pages(path, None) for item in page.items]

    def _pages(self, path: str, limit: int | None) -> Iterator[Page]:
        """Walk over a list, a page at a time."""
        cursor: str | None = None
        left = math.inf if limit is None else limit
        while left > 0:
            page = self._connection.get(path, Page, limit=int(min(left, PAGE)), cursor=cursor)
            yield page
            left -= len(page.items)
            cursor = page.next
            if cursor is None:
                return

    def _project_or_model(self, name: str) -> tuple[str, str | None]:
        """Tell what a name means: a project (None), or a model of one."""
        if isinstance(name, str) and name.endswith("/"):
            return check_name(name[:-1], "project name"), None
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(
                f"{name!r} names a version; a history is of all of a model", hint=f"look at {name.partition('@')[0]!r}"
            )
        if "/" in name:
            return place.project or "", place.model
        is_project = self._exists(f"/projects/{quote(name)}", Project)
        is_model = self._exists(_path(place), Model)
        if is_project and is_model:
            raise InvalidReference(
                f"{name!r} is a project and a model", hint=f"say {name + '/'!r} or {f'{place.project}/{name}'!r}"
            )
        if not is_project and not is_model:
            near = self._nearest(name, place.project or "")
            raise NotFound(
                f"no project {name!r}, and no model {name!r} in project {place.project!r}",
                hint=f"did you mean {near!r}?" if near else NAME_HINT,
            )
        return (name, None) if is_project else (place.project or "", name)

    def _nearest(self, name: str, project: str) -> str | None:
        """Return the project, or the model of a project, that was probably meant."""
        known = [each.name for each in self.projects()]
        if project.casefold() in map(str.casefold, known):
            known += [each.name for each in self.models(project)]
        return suggest(name, known)

    def _exists(self, path: str, type_: type[Any]) -> bool:
        try:
            self._connection.get(path, type_)
        except NotFound:
            return False
        return True


_connections: dict[tuple[int, Address | Path], Connection] = {}


def _connect(address: Address | None) -> Connection:
    """Return this process's connection to a server (None: that of this machine); clients share it and its sockets."""
    key = os.getpid(), address or config.data_home()
    if key not in _connections:
        embedded = _Embedded()
        _connections[key] = (
            Connection(lambda: address) if address else Connection(embedded.find, embedded.lost, local=True)
        )
    return _connections[key]


class _Embedded:
    """The server of this machine: found anew when it was lost."""

    def __init__(self) -> None:
        self._local: local.Local | None = None

    def find(self) -> Address:
        self._local = local.connection()
        return Address(self._local.url, self._local.token)

    def lost(self) -> None:
        if self._local is not None:
            local.forget(self._local)


def _path(place: Reference) -> str:
    return f"/projects/{quote(place.project or '', safe='')}/models/{quote(place.model, safe='')}"


def _key(place: Reference) -> str:
    return f"{place.project}/{place.model}".lower()


def _fields(
    message: str | None,
    metrics: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return what is said of a version, as it goes over the wire; what is not given is left out."""
    if not isinstance(message, str | None):
        raise InvalidArgument(f"message= is {_shown(message)}, not a text")
    given = {
        "message": message,
        "metrics": _read("metrics", metrics, _metric),
        "params": _read("params", params, _param),
        "tags": _read("tags", tags, lambda _, value: str(value)),
    }
    return {key: value for key, value in given.items() if value is not None}


def _read(what: str, given: Any, read: Callable[[str, Any], T]) -> dict[str, T] | None:
    """Read each value of a mapping; None where none was given."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"{what}= is {_shown(given)}, not a mapping", hint=f'write {what}={{"name": value}}')
    return {str(key): read(key, value) for key, value in given.items()}


def _aliases(given: Any) -> tuple[str, ...]:
    """Return the aliases that were given as one text or several."""
    if not isinstance(given, (str, Sequence)):
        raise InvalidArgument(f"alias= is {_shown(given)}, not a text or a list of texts")
    return tuple(check_alias(one) for one in ([given] if isinstance(given, str) else given))


def _check_order(name: Any, obj: Any) -> None:
    """Refuse a call that has the object first: those who come from elsewhere write it so."""
    if isinstance(obj, str) and not isinstance(name, str):
        raise InvalidArgument(
            f"the name comes first, and then the {type(name).__name__}", hint=f"write lmvp.update({obj[:80]!r}, model)"
        )


def _check_folder(to: Any) -> None:
    if to is not None and (not isinstance(to, (str, os.PathLike)) or to == ""):
        raise InvalidArgument(f"to= is {_shown(to)}, not a folder", hint='to="." is the current one')


def _check_limit(limit: Any) -> None:
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidArgument(f"limit= is {_shown(limit)}", hint="give a whole number above 0, or None for all")


def _check_metric(history: History, metric: str | None) -> None:
    """Refuse a metric that none of these versions has: another one in its place would be taken for it."""
    if metric is None or not history or metric in history.metrics:
        return
    part = f"the newest {len(history):,} versions" if history.older else "the versions"
    near = suggest(metric, history.metrics)
    known = ", ".join(map(repr, history.metrics[:8])) or "none"
    raise NotFound(
        f"none of {part} of {history.title} has the metric {metric!r}",
        hint=f"did you mean {near!r}?" if near else f"they have: {known}",
    )


def _metric(key: str, value: Any) -> WireFloat:
    """Return a metric as a float; numbers of numpy and torch count as numbers, texts do not."""
    if not isinstance(value, (str, bytes)):
        try:
            return encode_float(float(value))
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    raise InvalidArgument(
        f"the metric {key!r} is {_shown(value)}, not a number",
        hint="metrics are numbers; texts go into params= or tags=",
    )


def _param(key: str, value: Any) -> Any:
    """Return a param as plain JSON; a number of numpy or torch becomes Python's, anything else its text."""
    if isinstance(value, float):
        return encode_float(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    item = getattr(value, "item", None)
    if callable(item):
        try:
            return _param(key, item())
        except (TypeError, ValueError, RuntimeError):
            pass
    return str(value)


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]
