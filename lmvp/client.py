"""The client: every verb, over HTTP, to one server.

The functions of `lmvp` itself are the methods of a client of the server in use; a `Client` made by hand speaks to the
server that it is given.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload
from urllib.parse import quote

import msgspec

from lmvp import arguments, config, origins
from lmvp.archive.client import Archives
from lmvp.arguments import Params
from lmvp.base_client import model_path
from lmvp.contributing import Contributing
from lmvp.environment import user
from lmvp.errors import InvalidArgument, InvalidReference, NotFound
from lmvp.looking import Looking
from lmvp.origins import Origin
from lmvp.records import (
    Alias,
    Amendment,
    Event,
    Health,
    Layers,
    Model,
    MoveAlias,
    NewPush,
    Project,
    Version,
)
from lmvp.references import Reference, Revision, check_alias, check_name, suggest
from lmvp.team import Team
from lmvp.tracking.active_runs import active_in
from lmvp.tracking.reading import Tracking
from lmvp.transfer.progress import Progress
from lmvp.views.history import History

if TYPE_CHECKING:
    from lmvp.bisection import Bisection
    from lmvp.console import ConsolePage
    from lmvp.curves import Curves
    from lmvp.render.compare_runs import Comparison
    from lmvp.tracking.active import ActiveRun
    from lmvp.tracking.reading import Run

T = TypeVar("T")
PAGE = 1000
NAME_HINT = "`project/model` names one"


class Client(Archives, Contributing, Looking, Team, Tracking):
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

    # -- publish and fetch

    def update(
        self,
        name: str,
        obj: Any,
        *,
        message: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        params: Params | None = None,
        tags: Mapping[str, str] | None = None,
        alias: str | Sequence[str] = (),
        parent: str | None = None,
        expect_parent: str | None = None,
        run: str | None = None,
        capture: bool | None = None,
        create: bool = False,
        propose: bool = False,
        progress: Progress = None,
        yes: bool = False,
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
        params : mapping, dataclass or Namespace, optional
            The configuration that made the version. Nested params are flattened (`optimizer/lr`).
        tags : mapping of str to str, optional
            Labels of the version.
        alias : str or sequence of str, optional
            Aliases that move to this version.
        parent : str, optional
            Revision that it grew from; without it, the version that the object was downloaded from or pushed to last,
            else the latest.
        expect_parent : str, optional
            Revision that must still be the latest one.
        run : str, optional
            Id of the run that made it; without it, the active run of this process, if that is of this project.
        capture : bool, optional
            Keep the code too, secrets blotted out: the cells that the notebook has executed, or the script. By default
            on the server of this machine only.
        create : bool
            Make project and model on a shared server too.
        propose : bool
            Propose it, as a contribution that a maintainer accepts or declines: `digits/mlp@c12`, and no version yet.
        progress : bool or callable, optional
            `False` for no bar; a callable gets bytes done and bytes in all.
        yes : bool
            Confirm that a protected alias of `alias` moves from another version to this one.

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
        ProtectedAlias
            If a protected alias would move, without `yes`. Nothing is sent then.
        """
        from lmvp import formats
        from lmvp.tracking.provenance import gathering
        from lmvp.transfer import progress as progress_
        from lmvp.transfer.held import Held
        from lmvp.transfer.push import push

        progress_.check(progress)
        arguments.check_order(name, obj)
        place = self._place(name)
        fields = arguments.fields(message, metrics, params, tags)
        aliases = arguments.aliases(alias)
        if not yes:
            self.check_push(name, aliases)
        made_by = gathering(capture=config.server_url(self.fixed_url) is None if capture is None else capture)
        package = formats.pack(obj)
        body = NewPush(
            push=secrets.token_hex(16),
            manifest=msgspec.Raw(b"{}"),
            parent=self._digest(place, parent) if parent else origins.recall(obj, self.url, _key(place)),
            expect_parent=self._digest(place, expect_parent) if expect_parent else None,
            aliases=aliases,
            environment={**made_by(), "pull": package.pull},
            author=user(),
            run=run or active_in(place.project or self.project, self.url),
            create=create,
            propose=propose,
            **fields,
        )
        held = Held.of(self._connection, _key(place))
        version = push(self._connection, model_path(place), package, body, progress, held)
        if not propose:
            origins.remember(obj, Origin(self.url, _key(place), version.digest))
        return version

    push = update

    def start_run(
        self,
        project: str | None = None,
        *,
        name: str | None = None,
        params: Params | None = None,
        tags: Mapping[str, str] | None = None,
        resume: str | Run | None = None,
        system_metrics: bool | float = True,
        capture: bool | None = None,
        all_ranks: bool = False,
        create: bool = False,
        plot: bool = True,
    ) -> ActiveRun:
        """Start a run. The call returns at once, and neither the start nor the run needs a server that answers.

        Parameters
        ----------
        project : str, optional
            The project; it is created if it does not exist. Default: the current project.
        name : str, optional
            The name of the run. Default: a generated name such as `quiet-wren-44`.
        params : mapping, dataclass or Namespace, optional
            The configuration of the run: numbers and texts. Nested params are flattened (`optimizer/lr`). Secrets are
            redacted.
        tags : mapping of str to str, optional
            Labels of the run.
        resume : str or Run, optional
            A run to continue: the run, its id, or its name. See `ActiveRun.rewind`.
        system_metrics : bool or float
            Measure the machine every 15 seconds, or every so many seconds; False: never.
        capture : bool, optional
            Store the code that started the run: the cells of the notebook, or the script. Default: only on the server
            of this machine.
        all_ranks : bool
            Log in every process of a distributed training. Default: only the first process logs, and the others get a
            run that stores nothing.
        create : bool
            Create the project on a shared server too.
        plot : bool
            Draw curves below the cell, in a notebook with the extension.

        Returns
        -------
        ActiveRun
            The run. It ends with its `with` block, with `finish`, or with the process.

        Raises
        ------
        InvalidArgument
            If a name or a param is invalid.
        NotFound
            If the run to resume does not exist.

        Examples
        --------
        >>> with client.start_run("digits", params={"lr": 1e-3}) as run:  # doctest: +SKIP
        ...     run.log({"train/loss": 0.5}, step=0)
        """
        from lmvp.tracking.starting import start_run

        return start_run(
            self,
            project,
            name=name,
            params=params,
            tags=tags,
            resume=resume,
            system_metrics=system_metrics,
            capture=capture,
            all_ranks=all_ranks,
            create=create,
            plot=plot,
        )

    @overload
    def download(
        self,
        name: str,
        *,
        into: T,
        to: None = None,
        trust: Sequence[str | type] = (),
        progress: Progress = None,
    ) -> T: ...
    @overload
    def download(
        self,
        name: str,
        *,
        into: None = None,
        to: str | Path,
        trust: Sequence[str | type] = (),
        progress: Progress = None,
    ) -> list[Path]: ...
    @overload
    def download(
        self,
        name: str,
        *,
        into: None = None,
        to: None = None,
        trust: Sequence[str | type] = (),
        progress: Progress = None,
    ) -> Any: ...
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
            If bytes do not match their digest. No such byte reaches `into`. Other chunks of the version, 4 MiB or
            less each, may be in it already, so load a sound version into it before using it.
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
            raise InvalidArgument("`--into` and `--to` exclude each other", hint="choose one: an object, or a folder")
        arguments.check_folder(to)
        place = self._reference(name)
        version = self.version(name)
        at = f"{model_path(place)}/versions/{version.name}"
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

    pull = download

    # -- look

    def best(self, name: str, metric: str, *, mode: Literal["min", "max"] | None = None, where: str = "") -> Version:
        """Return the version of a model with the best value of a metric; of equal ones, the newest.

        Parameters
        ----------
        name : str
            `[project/]model`.
        metric : str
            The metric to compare.
        mode : {"min", "max"}, optional
            Whether the least or the greatest value is best. Default: by the name of the metric (`loss` is best at its
            minimum, `acc` at its maximum).
        where : str
            Consider only the versions that match this filter; see docs/api.md, Filters.

        Returns
        -------
        Version
            The best version. `lmvp.alias(version.reference, "best")` keeps it under a name.

        Raises
        ------
        InvalidArgument
            If the name of the metric does not tell which value is best, and `mode` is not given.
        NotFound
            If no version has the metric.

        Examples
        --------
        >>> client.best("digits/mlp", "val_acc").name  # doctest: +SKIP
        'v3'
        """
        from lmvp.render.numbers import better

        if mode not in ("min", "max", None):
            raise InvalidArgument(f"mode={mode!r}", hint='use "min" or "max"')
        way = {"min": -1, "max": 1}[mode] if mode else better(metric)
        if not way:
            hint = 'use mode="min" or mode="max"'
            raise InvalidArgument(f"the name {metric!r} does not tell whether less or more is better", hint=hint)
        field = f"metrics[{json.dumps(metric)}]"  # as a filter and an order write a metric with any name
        known = f"{field} is not None" + (f" and ({where})" if where else "")
        found = self.show_history(name, limit=1, where=known, order=f"-{field}" if way > 0 else field)
        if not found:
            condition = f" and matches {where!r}" if where else ""
            raise NotFound(f"no version of {found.title} has the metric {metric!r}{condition}")
        return found[0]

    def open(self, name: Any = None) -> ConsolePage:
        """Open the console in the browser, signed in by a one-time link.

        The link is made by this client's token: the browser gets the rights of the token, until the token ends. In a
        notebook the page shows as a button, which asks for the link when it is clicked.

        Parameters
        ----------
        name : str, Version or Run, optional
            A project, `[project/]model[@revision]` or `[project/]run`, whose page to open; the first page by default.

        Returns
        -------
        ConsolePage
            The page; `url` is its address, without a secret.

        Raises
        ------
        NotFound
            If there is nothing of that name.
        """
        from lmvp.console import in_notebook, page_of

        page = page_of(self, name)
        if not in_notebook():
            page.open()
        return page

    def show_history(
        self,
        name: str | None = None,
        *,
        limit: int | None = 200,
        metric: str | None = None,
        where: str = "",
        order: str = "",
    ) -> History:
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
        where : str
            A filter: `"metrics.val_acc > 0.9 and params.lr < 0.01"`, `'"frozen" in message'`; docs/api.md, Filters.
        order : str
            What to sort by, instead of newest first: `"metrics.val_loss"`; `"-metrics.val_acc"` has the greatest first.

        Raises
        ------
        NotFound
            If there is neither a project nor a model of that name, or if none of these versions has that metric.
        InvalidReference
            If there are both.
        """
        arguments.check_limit(limit)
        if not isinstance(metric, str | None):
            raise InvalidArgument(f"metric= is {arguments.shown(metric)}, not the name of a metric")
        project, model = self._project_or_model(f"{self.project}/" if name is None else name)
        if model is None:
            path, title, layers = f"/projects/{quote(project)}/versions", project, None
        else:
            base = model_path(Reference(project, model))
            path, title = f"{base}/versions", f"{project}/{model}"

            def layers(versions: Sequence[Version]) -> Layers:
                return self._layers(base, versions)

        def pages(first: int, count: int, where: str, order: str) -> tuple[list[Version], int]:
            newest = ("-number" if model else "-created_at") if first else ""
            return self._versions(path, count, where=where, order=order or newest, cursor=first)

        versions, total = self._versions(path, limit, where=where, order=order)
        history = History(versions, title=title, total=total, layers=layers, metric=metric, pages=pages, client=self)
        arguments.check_metric(history, metric)
        return history

    history = show_history

    def metrics(
        self,
        *names: str,
        keys: Iterable[str] | str = (),
        smooth: int = 0,
        log: bool = False,
        axis: str = "step",
    ) -> Curves:
        """Return the curves of runs, or the metrics of a model or a project. In a notebook they are drawn.

        Parameters
        ----------
        *names : str
            `[project/]run`; a run without a project is in the project of the run before it. One name may also be
            `[project/]model`, for its metrics over versions and the curves of the newest runs that made them, or a
            project, for the curves of its newest runs.
        keys : str or iterable of str
            Metrics. Default: all of them, up to a limit.
        smooth : int
            Points to smooth over.
        log : bool
            Use a logarithmic axis for the values.
        axis : str
            `step`, `time`, or a metric such as `epoch`.

        Examples
        --------
        >>> client.metrics("digits/quiet-wren-44", "bold-otter-7", keys="val_acc")  # doctest: +SKIP
        """
        from lmvp.curves import metrics_of

        wanted = [keys] if isinstance(keys, str) else list(keys)
        return metrics_of(self, names, wanted, smooth=smooth, log=log, axis=axis)

    def compare(self, *names: str, every: bool = False) -> Comparison:
        """Compare the params, tags, summary and last metrics of runs.

        Parameters
        ----------
        *names : str
            `[project/]run`, two or more.
        every : bool
            Include the values that all runs share.

        Examples
        --------
        >>> client.compare("digits/quiet-wren-44", "bold-otter-7")  # doctest: +SKIP
        """
        from lmvp.curves import compare_runs

        return compare_runs(self, names, every=every)

    def bisect(
        self,
        name: str,
        *,
        good: str,
        bad: str = "latest",
        test: Callable[[Any], Any],
        trust: Sequence[str | type] = (),
        progress: Progress = False,
    ) -> Bisection:
        """Find the first bad version of a model: its test is run on few of the versions between a good and a bad one.

        Parameters
        ----------
        name : str
            `[project/]model`.
        good, bad : str
            Revisions; the bad one grew from the good one.
        test : callable
            Gets the object of a version. Bad is what fails an `assert`, or gives something false; `"skip"` says that a
            version cannot be judged; all else, also None, is good. Other exceptions end the search.
        trust : sequence of str or type, optional
            Classes that may be built; see `download`.

        Raises
        ------
        InvalidArgument
            If the bad version did not grow from the good one.

        Examples
        --------
        >>> client.bisect("digits/mlp", good="v3", bad="v19", test=lambda net: accuracy(net) > 0.9)  # doctest: +SKIP
        """
        from lmvp.bisection import Verdict, bisect, verdict_of

        def judge(version: Version) -> tuple[Verdict, str]:
            obj = self.download(version.reference, trust=trust, progress=progress)
            return verdict_of(lambda: test(obj))

        return bisect(self, name, good, bad, judge)

    def projects(self) -> list[Project]:
        """Return all projects."""
        return self._list("/projects", Project)

    def models(self, project: str | None = None) -> list[Model]:
        """Return the models of a project."""
        name = check_name(project, "project name") if project else self.project
        return self._list(f"/projects/{quote(name)}/models", Model)

    def ls(self, project: str | None = None) -> list[Project] | list[Model]:
        """Return all projects, or the models of one.

        Examples
        --------
        >>> [model.name for model in client.ls("digits")]  # doctest: +SKIP
        ['mlp']
        """
        return self.projects() if project is None else self.models(project.rstrip("/"))

    def aliases(self, name: str) -> list[Alias]:
        """Return the aliases of a model, by name."""
        return self._list(f"{model_path(self._reference(name))}/aliases", Alias)

    def last_event(self, project: str) -> str:
        """Return what stands for the last event of a project: it is another after each."""
        events, _ = self._some(f"/projects/{quote(project)}/events", Event, 1)
        return events[0].chain if events else ""

    def health(self) -> Health:
        """Return what the server says of itself."""
        return self._connection.get("/health", Health)

    # -- change

    def alias(self, name: str, alias: str, *, yes: bool = False) -> Alias:
        """Point an alias at a version; create the alias if it does not exist.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        alias : str
            The name of the alias.
        yes : bool
            Confirm the move of a protected alias, such as `production`, from another version.

        Returns
        -------
        Alias
            The alias, with its `moves`.

        Raises
        ------
        ProtectedAlias
            If the alias is protected and points at another version, without `yes`.

        Examples
        --------
        >>> client.alias("digits/mlp@v5", "production", yes=True)  # doctest: +SKIP
        <Alias digits/mlp@production: v4 → v5>
        """
        place = self._reference(name)
        check_alias(alias)
        now = None if yes else self._protected(place, alias)
        if now is not None:
            target = self.version(name)
            hint = f"`lmvp alias {target.reference} {alias} --yes` moves it"
            now.check_move(target.number, f"moved to {target.name}", hint)
        path = f"{model_path(place)}/aliases/{quote(alias, safe='')}"
        return self._connection.send_json("PUT", path, MoveAlias(revision=place.revision), Alias)

    def remove_alias(self, name: str, alias: str, *, yes: bool = False) -> None:
        """Remove an alias of a model; its history stays.

        Parameters
        ----------
        name : str
            `[project/]model`.
        alias : str
            The name of the alias.
        yes : bool
            Confirm the removal of a protected alias.

        Raises
        ------
        ProtectedAlias
            If the alias is protected, without `yes`.
        """
        place = self._reference(name)
        path = f"{model_path(place)}/aliases/{quote(check_name(alias, 'alias'), safe='')}"
        now = None if yes else self._protected(place, alias)
        if now is not None:
            now.check_move(0, "removed", f"`lmvp alias {name} {alias} --remove --yes` removes it")
        self._connection.send("DELETE", path)

    def check_push(self, name: str, aliases: Sequence[str]) -> None:
        """Check that a push with these aliases would move no protected one from another version.

        Parameters
        ----------
        name : str
            `[project/]model`, which need not exist.
        aliases : sequence of str
            The aliases that the push would point at the new version.

        Raises
        ------
        ProtectedAlias
            If it would.
        """
        place = self._place(name)
        for alias in aliases:
            now = self._protected(place, alias)
            if now is not None:
                following = self._connection.get(model_path(place), Model).following
                hint = f"`lmvp push {name} FILE --alias {alias} --yes` moves it"
                now.check_move(0, f"moved to the new version v{following}", hint)

    def amend(
        self,
        name: str,
        *,
        message: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        params: Params | None = None,
        tags: Mapping[str, str] | None = None,
        forget_code: bool = False,
    ) -> Version:
        """Change what is said of a version; what is not given stays. The content of a version never changes.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        forget_code : bool
            Erase the code that was kept with it, for good.
        """
        place = self._reference(name)
        path = f"{model_path(place)}/versions/{quote(place.revision, safe='')}"
        return self._connection.send_json(
            "PATCH",
            path,
            Amendment(**arguments.fields(message, metrics, params, tags), forget_code=forget_code),
            Version,
        )

    # -- steps

    def _protected(self, place: Reference, name: str) -> Alias | None:
        """Return an alias that is protected; None if it is not, or does not exist."""
        path = f"{model_path(place)}/aliases/{quote(name, safe='')}"
        try:
            found = self._connection.get(path, Alias)
        except NotFound:
            return None
        return found if found.protected else None

    def _place(self, name: str) -> Reference:
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(
                f"{name!r} names a version; an update makes a new one", hint=f"update {name.partition('@')[0]!r}"
            )
        return place

    def _digest(self, place: Reference, revision: str) -> str:
        Revision.parse(revision)
        path = f"{model_path(place)}/versions/{quote(revision, safe='')}"
        return self._connection.get(path, Version).digest

    def _versions(self, path: str, limit: int | None, **query: Any) -> tuple[list[Version], int]:
        """Return the first versions of a list, and how many there are in all."""
        pages = list(self._pages(path, limit, **{key: value for key, value in query.items() if value}))
        decode = self._item_decoder(Version)
        return [decode(item) for page in pages for item in page.items], pages[0].total if pages else 0

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
        is_model = self._exists(model_path(place), Model)
        if is_project and is_model:
            raise InvalidReference(
                f"{name!r} is a project and a model", hint=f"say {name + '/'!r} or {f'{place.project}/{name}'!r}"
            )
        if not is_project and not is_model:
            near = self._nearest(name, place.project or "")
            raise NotFound(
                f"no project {name!r}, and no model {name!r} in project {place.project!r}",
                hint=f"did you mean {near!r}?" if near else self._elsewhere(place) or NAME_HINT,
            )
        return (name, None) if is_project else (place.project or "", name)

    def _nearest(self, name: str, project: str) -> str | None:
        """Return the project, or the model of a project, that was probably meant."""
        known = [each.name for each in self.projects()]
        if project.casefold() in map(str.casefold, known):
            known += [each.name for each in self.models(project)]
        return suggest(name, known)

    def _elsewhere(self, place: Reference) -> str | None:
        """Return the server's hint where another project has a model of this name."""
        try:
            self._connection.get(model_path(place), Model)
        except NotFound as error:
            return error.hint if error.hint and error.hint.startswith("did you mean") else None
        return None

    def _exists(self, path: str, type_: type[Any]) -> bool:
        try:
            self._connection.get(path, type_)
        except NotFound:
            return False
        return True


def _key(place: Reference) -> str:
    return f"{place.project}/{place.model}".lower()
