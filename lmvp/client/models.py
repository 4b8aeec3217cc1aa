"""`Client`, the Python API for one server over HTTP.

The functions of `lmvp` create a client of the current server for each call. A `Client` that the user creates keeps its
server, token and project.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload
from urllib.parse import quote

import msgspec

from lmvp import config, hints
from lmvp.client import _lineage
from lmvp.client._base import model_path
from lmvp.client._lineage import Origin
from lmvp.client.archive import Archives
from lmvp.client.contributions import Contributing
from lmvp.client.details import Looking
from lmvp.client.runs import Tracking
from lmvp.client.team import Team
from lmvp.core import validation
from lmvp.core.environment import user
from lmvp.core.references import (
    Reference,
)
from lmvp.core.schemas import (
    Amendment,
    Layers,
    Model,
    NewPush,
    Version,
)
from lmvp.core.validation import Params
from lmvp.errors import InvalidArgument, NotFound
from lmvp.transfer.progress import Progress
from lmvp.views.history import History, check_metric

if TYPE_CHECKING:
    from lmvp.client.console import ConsolePage
    from lmvp.tracking.active_run import ActiveRun
    from lmvp.views.bisection import Bisection
    from lmvp.views.curves import Curves
    from lmvp.views.run_comparison import Comparison
    from lmvp.views.runs import Run

T = TypeVar("T")
PAGE = 1000


class Client(Archives, Contributing, Looking, Team, Tracking):
    """All operations of LMVP on one server.

    Parameters
    ----------
    url : str, optional
        The URL of the server. Default: `LMVP_URL`, then the server of the last `lmvp.login`, then the server of this
        machine, which starts automatically.
    token : str, optional
        The token for the server. Default: `LMVP_TOKEN`, then the token that `lmvp.login` stored.
    project : str, optional
        The project of references that contain no project. Default: the current project.

    Examples
    --------
    >>> client = lmvp.Client("https://models.example.org", project="digits")  # doctest: +SKIP
    >>> model = client.pull("mlp@production")  # doctest: +SKIP
    """

    # -- push and pull

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
        """Push a model as a new version.

        Parameters
        ----------
        name : str
            `[project/]model`. A missing model or project is created.
        obj : object
            A torch Module or state dict, a dict of arrays, a scikit-learn estimator, a Keras 3 or ONNX model, or the
            path of a file or a folder.
        message : str, optional
            A description of the change.
        metrics : mapping of str to float, optional
            Metrics of the version, for example `{"val_acc": 0.97}`. NaN and infinity are allowed.
        params : mapping, dataclass or Namespace, optional
            The configuration that the version was trained with. Nested params are flattened (`optimizer/lr`).
        tags : mapping of str to str, optional
            Labels of the version.
        alias : str or sequence of str, optional
            Aliases to move to the new version. Missing aliases are created.
        parent : str, optional
            The revision that the new version was derived from. Default: the version that this process pulled the object
            from or last pushed it to. If the origin is unknown, the latest version.
        expect_parent : str, optional
            A revision that must be the latest version of the model; otherwise the push fails.
        run : str, optional
            The id of the run that produced the version. Default: the active run of this process, if it belongs to the
            same project.
        capture : bool, optional
            Also store the code, with secrets redacted: the executed cells of the notebook, or the script. Default: True
            on the server of this machine, False on other servers.
        create : bool, default False
            Also create a missing project or model on a shared server.
        propose : bool, default False
            Create a contribution, for example `digits/mlp@c12`, instead of a version. A maintainer accepts or declines
            it.
        progress : bool or callable, optional
            False shows no progress bar. A callable is called with the bytes done and the total bytes.
        yes : bool, default False
            Confirm that a protected alias in `alias` moves from another version to the new one.

        Returns
        -------
        Version
            The new version. If the latest version has the same content and the same record, no version is created, and
            the latest version is returned.

        Raises
        ------
        UnknownFormat
            If no format can store the object.
        InvalidArgument
            If a metric is not a number, or `progress` is neither a bool nor a callable.
        Conflict
            If `expect_parent` is not the latest version.
        ProtectedAlias
            If a protected alias would move and `yes` is False. Nothing is sent in this case.

        Examples
        --------
        >>> client.push("digits/mlp", model, message="first try", metrics={"val_acc": 0.97})  # doctest: +SKIP
        """
        from lmvp import formats
        from lmvp.tracking.active_run import active_in
        from lmvp.tracking.provenance import gathering
        from lmvp.transfer import progress as progress_
        from lmvp.transfer.model_cache import Held
        from lmvp.transfer.upload import push

        progress_.check(progress)
        validation.check_order(name, obj)
        place = self._place(name)
        fields = validation.fields(message, metrics, params, tags)
        aliases = validation.aliases(alias)
        if not yes:
            self.check_push(name, aliases)
        # Start to collect the environment before the object is packed: the git and package queries run meanwhile.
        made_by = gathering(capture=config.server_url(self.fixed_url) is None if capture is None else capture)
        package = formats.pack(obj)
        body = NewPush(
            push=secrets.token_hex(16),  # lets the server recognise a repeated request, so a retry is safe
            manifest=msgspec.Raw(b"{}"),
            parent=self._digest(place, parent) if parent else _lineage.recall(obj, self.url, _key(place)),
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
        if not propose:  # a contribution is not a version that a later push can have as its parent
            _lineage.remember(obj, Origin(self.url, _key(place), version.digest))
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
        """Start a run.

        The call returns immediately and does not wait for the server. Data that cannot be sent is stored in a journal
        on this machine.

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
        system_metrics : bool or float, default True
            Record the load of the machine every 15 seconds. A number is the interval in seconds. False disables it.
        capture : bool, optional
            Store the code that started the run: the cells of the notebook, or the script. Default: True on the server
            of this machine, False on other servers.
        all_ranks : bool, default False
            Log in every process of a distributed training. By default, only the first process logs, and the others get
            a run that stores nothing.
        create : bool, default False
            Also create a missing project on a shared server.
        plot : bool, default True
            Draw curves below the cell, in a notebook with the extension.

        Returns
        -------
        ActiveRun
            The run. It is finished by the end of its `with` block, by `finish`, or by the exit of the process.

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
        from lmvp.tracking.start import start_run

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
        """Pull a version as a new object, into an existing object, or as files.

        Parameters
        ----------
        name : str
            `[project/]model[@revision]`. Without a revision, the latest version.
        into : object, optional
            A Module, or a dict of arrays or tensors. Its weights are replaced in place.
        to : path, optional
            The folder to write the files to. They are byte-identical to the pushed files.
        trust : sequence of str or type, optional
            Classes that can be instantiated, as types or as import paths (`"my_pkg.Net"`).
        progress : bool or callable, optional
            False shows no progress bar. A callable is called with the bytes done and the total bytes.

        Returns
        -------
        object or list of Path
            The new object; with `into`, the same object; with `to`, the paths of the files.

        Raises
        ------
        NotFound
            If the version does not exist. The hint suggests a similar name.
        Untrusted
            If the object needs a class that is neither on the list of safe classes nor in `trust`.
        InvalidArgument
            If an element of `trust` is neither an import path nor a class, or if both `into` and `to` are given.
        Mismatch
            If `into` has other names, shapes or dtypes. It is unchanged in this case.
        IntegrityError
            If bytes do not match their digest. These bytes are not written to `into`, but other chunks of the version
            (up to 4 MiB each) can already be in it. Pull a valid version into it before you use it.

        Examples
        --------
        >>> model = client.pull("digits/mlp@v3", trust=["net.CNN"])  # doctest: +SKIP
        >>> client.pull("digits/mlp@production", to="weights/")  # doctest: +SKIP
        """
        from lmvp import formats
        from lmvp.formats.trust import Trust
        from lmvp.transfer import progress as progress_
        from lmvp.transfer.download import VersionReader, pull_files
        from lmvp.transfer.model_cache import Held

        # Check all arguments before the first request, so that a mistake does not cost a download.
        progress_.check(progress)
        Trust.of(trust)
        if into is not None and to is not None:
            raise InvalidArgument("`--into` and `--to` exclude each other", hint="choose one: an object, or a folder")
        validation.check_folder(to)
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
        _lineage.remember(obj, Origin(self.url, _key(place), version.digest))
        return obj

    pull = download

    # -- read

    def best(self, name: str, metric: str, *, mode: Literal["min", "max"] | None = None, where: str = "") -> Version:
        """Return the version of a model with the best value of a metric.

        If several versions have the best value, the newest of them is returned.

        Parameters
        ----------
        name : str
            `[project/]model`.
        metric : str
            The metric to compare.
        mode : {"min", "max"}, optional
            Whether the lowest or the highest value is best. Default: derived from the name of the metric (`loss`: the
            lowest, `acc`: the highest).
        where : str, default ""
            A filter for the versions to compare; see docs/api.md, Filters.

        Returns
        -------
        Version
            The best version. `lmvp.alias(version.reference, "best")` points an alias at it.

        Raises
        ------
        InvalidArgument
            If `mode` is not given and cannot be derived from the name of the metric.
        NotFound
            If the metric is missing in all versions that match.

        Examples
        --------
        >>> client.best("digits/mlp", "val_acc").name  # doctest: +SKIP
        'v3'
        """
        from lmvp.core.number_format import better

        if mode not in ("min", "max", None):
            raise InvalidArgument(f"mode={mode!r}", hint='use "min" or "max"')
        way = {"min": -1, "max": 1}[mode] if mode else better(metric)
        if not way:
            hint = 'use mode="min" or mode="max"'
            raise InvalidArgument(f"the name {metric!r} does not tell whether less or more is better", hint=hint)
        # Quoted form: the name of a metric can contain spaces, slashes and operators of the filter language.
        field = f"metrics[{json.dumps(metric)}]"
        known = f"{field} is not None" + (f" and ({where})" if where else "")
        found = self.show_history(name, limit=1, where=known, order=f"-{field}" if way > 0 else field)
        if not found:
            condition = f" and matches {where!r}" if where else ""
            raise NotFound(f"no version of {found.title} has the metric {metric!r}{condition}")
        return found[0]

    def open(self, name: Any = None) -> ConsolePage:
        """Open a page of the console in the browser. A one-time link signs the browser in.

        The browser gets the permissions of this client's token until the token expires or is revoked. In a notebook,
        the page is shown as a button instead. A click on it requests the link.

        Parameters
        ----------
        name : str, Version or Run, optional
            The page: a project, `[project/]model[@revision]` or `[project/]run`. Default: the start page.

        Returns
        -------
        ConsolePage
            The page. Its `url` is the address without a secret.

        Raises
        ------
        NotFound
            If no project, model, version or run has this name.

        Examples
        --------
        >>> client.open("digits/mlp@v3")  # doctest: +SKIP
        """
        from lmvp.client.console import page_of

        page = page_of(self, name)
        if not hints.in_notebook():  # the browser of a notebook can be on another machine than this process
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
            A project (`digits/`), or `[project/]model`. A name without a slash is a project, or a model of the current
            project. Default: the current project.
        limit : int or None, default 200
            The maximum number of versions. None returns all versions.
        metric : str, optional
            The metric to show. Default: the metric that most of the versions have.
        where : str, default ""
            A filter, for example `"metrics.val_acc > 0.9 and params.lr < 0.01"` or `'"frozen" in message'`; see
            docs/api.md, Filters.
        order : str, default ""
            The field to sort by, for example `"metrics.val_loss"`. A leading minus sorts in descending order:
            `"-metrics.val_acc"`. Empty: newest first.

        Returns
        -------
        History
            The versions. Notebooks show it as a table with the layers that changed.

        Raises
        ------
        NotFound
            If neither a project nor a model has this name, or if the metric is missing in all of these versions.
        InvalidReference
            If both a project and a model have this name.

        Examples
        --------
        >>> client.history("digits/mlp", where="metrics.val_acc > 0.9")  # doctest: +SKIP
        """
        validation.check_limit(limit)
        if not isinstance(metric, str | None):
            raise InvalidArgument(f"metric= is {validation.shown(metric)}, not the name of a metric")
        project, model = self._project_or_model(f"{self.project}/" if name is None else name)
        if model is None:
            path, title, layers = f"/projects/{quote(project)}/versions", project, None
        else:
            base = model_path(Reference(project, model))
            path, title = f"{base}/versions", f"{project}/{model}"

            def layers(versions: Sequence[Version]) -> Layers:
                return self._layers(base, versions)

        # `first` is a position in the list. The server accepts positions as cursors only with an explicit order.
        # Without an order, a cursor is the key of a record.
        def pages(first: int, count: int, where: str, order: str) -> tuple[list[Version], int]:
            newest = ("-number" if model else "-created_at") if first else ""
            return self._versions(path, count, where=where, order=order or newest, cursor=first)

        versions, total = self._versions(path, limit, where=where, order=order)

        def protected(project: str, model: str) -> Sequence[str]:
            return self._connection.get(model_path(Reference(project, model)), Model).protected

        history = History(
            versions,
            title=title,
            total=total,
            layers=layers,
            metric=metric,
            pages=pages,
            client=self,
            protected=protected,
        )
        check_metric(history, metric)
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
        """Return the curves of runs, or the metrics of a model or a project. Notebooks draw them.

        Parameters
        ----------
        *names : str
            Runs, as `[project/]run`. A run without a project belongs to the project of the run before it. A single name
            can also be `[project/]model`, for its metrics over versions and the curves of the newest runs that produced
            them, or a project, for the curves of its newest runs.
        keys : str or iterable of str, default ()
            The metrics to draw. Empty: the first 24 metrics.
        smooth : int, default 0
            The number of points to smooth over, from 0 to 10,000. 0 disables smoothing.
        log : bool, default False
            Use a logarithmic Y axis.
        axis : str, default "step"
            The X axis: `step`, `time`, or a metric such as `epoch`.

        Returns
        -------
        Curves
            The curves. `to_pandas` returns them as a DataFrame.

        Raises
        ------
        NotFound
            If a run does not exist, or if none of the runs has the metrics in `keys`.
        InvalidArgument
            If the runs belong to several projects, or `smooth` is out of range.

        Examples
        --------
        >>> client.metrics("digits/quiet-wren-44", "bold-otter-7", keys="val_acc")  # doctest: +SKIP
        """
        from lmvp.views.curve_queries import metrics_of

        wanted = [keys] if isinstance(keys, str) else list(keys)
        return metrics_of(self, names, wanted, smooth=smooth, log=log, axis=axis)

    def compare(self, *names: str, every: bool = False) -> Comparison:
        """Compare the params, tags, summary and last metrics of runs.

        Parameters
        ----------
        *names : str
            Two or more runs, as `[project/]run`. A run without a project belongs to the project of the run before it.
        every : bool, default False
            Include the values that are equal in all runs.

        Returns
        -------
        Comparison
            A table with a column for each run.

        Raises
        ------
        InvalidArgument
            If fewer than two runs are given.
        NotFound
            If a run does not exist.

        Examples
        --------
        >>> client.compare("digits/quiet-wren-44", "bold-otter-7")  # doctest: +SKIP
        """
        from lmvp.views.curve_queries import compare_runs

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
        """Find the first bad version of a model by binary search, as `git bisect` does.

        The search follows the first parents from `bad` back to `good`, and pulls about log2(n) of the n versions.

        Parameters
        ----------
        name : str
            `[project/]model`.
        good : str
            The revision of a good version, an ancestor of `bad`.
        bad : str, default "latest"
            The revision of a bad version.
        test : callable
            A function of the pulled object. A version is bad if the test fails an `assert` or returns a false value
            other than None. It is skipped if the test returns `"skip"`. Otherwise it is good. All other exceptions stop
            the search.
        trust : sequence of str or type, optional
            Classes that can be instantiated; see `pull`.
        progress : bool or callable, default False
            The progress of each pull; see `pull`.

        Returns
        -------
        Bisection
            The first bad version, or several suspects if versions were skipped.

        Raises
        ------
        InvalidArgument
            If `good` is not an ancestor of `bad` by first parents.

        Examples
        --------
        >>> client.bisect("digits/mlp", good="v3", bad="v19", test=lambda net: accuracy(net) > 0.9)  # doctest: +SKIP
        """
        from lmvp.views.bisection import Verdict, bisect, verdict_of

        def judge(version: Version) -> tuple[Verdict, str]:
            obj = self.download(version.reference, trust=trust, progress=progress)
            return verdict_of(lambda: test(obj))

        return bisect(self, name, good, bad, judge)

    # -- change

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
        """Change the message, metrics, params or tags of a version.

        An argument that is None leaves the field unchanged. The content of a version never changes.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        message : str, optional
            The new message.
        metrics : mapping of str to float, optional
            The new metrics. They replace all metrics of the version. NaN and infinity are allowed.
        params : mapping, dataclass or Namespace, optional
            The new params. They replace all params of the version.
        tags : mapping of str to str, optional
            The new tags. They replace all tags of the version.
        forget_code : bool, default False
            Delete the captured code of the version permanently.

        Returns
        -------
        Version
            The version with the new values.

        Raises
        ------
        NotFound
            If the version does not exist.
        AccessDenied
            If the caller is not a maintainer.
        Conflict
            If the version is a contribution that is not accepted.

        Examples
        --------
        >>> client.amend("digits/mlp@v3", message="warm-up of 500 steps")  # doctest: +SKIP
        """
        place = self._reference(name)
        path = f"{model_path(place)}/versions/{quote(place.revision, safe='')}"
        return self._connection.send_json(
            "PATCH",
            path,
            Amendment(**validation.fields(message, metrics, params, tags), forget_code=forget_code),
            Version,
        )


def _key(place: Reference) -> str:
    return f"{place.project}/{place.model}".lower()


# Python names the class that defines a method in the message of a wrong call: "Contributing.fork() missing …".
for _base in Client.__mro__[1:-1]:
    for _name, _method in vars(_base).items():
        if isinstance(_method, FunctionType) and not _name.startswith("_"):
            _method.__qualname__ = f"Client.{_method.__name__}"
