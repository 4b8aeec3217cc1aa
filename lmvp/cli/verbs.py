"""Verbs for models and versions, and the interface of the hosts that run verbs.

A verb is a function that takes the parsed options and a `Host`, and returns a value. The host, a shell or a notebook,
prints or displays the value.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lmvp import config
from lmvp.cli.tables import Line, Status, Table
from lmvp.client.models import Client
from lmvp.core import validation
from lmvp.core.references import Reference
from lmvp.core.schemas import Alias, Version
from lmvp.errors import InvalidArgument, NotFound, ProtectedAlias

T = TypeVar("T")
# Examples in the hint of an option that is not KEY=VALUE.
_EXAMPLES = {"metric": "val_acc=0.97", "param": "lr=0.001", "tag": "by=ada"}


class Host(Protocol):
    """The environment in which a verb runs: `ShellHost` or `NotebookHost`."""

    def find(self, name: str) -> Any:
        """Return the object with this name that `push` uploads: a variable or a path.

        Raises
        ------
        NotFound
            If a notebook has neither a variable nor a file of this name.
        """
        ...

    def value(self, text: str, *, bare: bool = False) -> tuple[Any] | None:
        """Return the value of `{expression}` or `$name`, in a tuple, since the value can be None.

        Parameters
        ----------
        text : str
            The text of the option.
        bare : bool
            Whether `text` is the name of a variable, without braces or a dollar sign. False by default.

        Returns
        -------
        tuple or None
            None if `text` is not an expression, or the host has no variables.

        Raises
        ------
        InvalidArgument
            If the expression raises an error.
        """
        ...

    def keep(self, name: str, value: Any) -> None:
        """Assign a pulled object to a variable."""
        ...

    def ask_token(self, url: str) -> str:
        """Prompt the user for a token, without echo."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question. Return False if the host cannot ask."""
        ...

    def tell(self, message: str) -> None:
        """Show a message beside the result of the verb."""
        ...

    @property
    def pipes(self) -> bool:
        """Whether standard input is not a terminal: a token can be read from it, and no question can be answered."""
        ...

    def push_later(
        self, name: str, obj: Any, fields: Mapping[str, Any], moves: Callable[[Version], Sequence[str]]
    ) -> Any:
        """Push in the background, for `--no-wait` in a notebook.

        Parameters
        ----------
        name : str
            `[project/]model`.
        obj : object
            The object to push; the host copies it.
        fields : mapping
            Keyword arguments of `Client.update`.
        moves : callable
            Returns a line for each alias that the new version moved.

        Returns
        -------
        PendingPush
        """
        ...

    @property
    def is_saved(self) -> bool:
        """Whether the output is saved with a document, as that of a cell is."""
        ...

    @property
    def pulls_files(self) -> bool:
        """Whether a pull without a folder writes files; otherwise it returns the object."""
        ...


def push(options: Namespace, host: Host) -> Any:
    """Publish a new version of a model."""
    fields = {
        "message": options.message,
        **_given(options, host),
        "alias": tuple(options.alias),
        "parent": options.parent,
        "create": options.create,
        "propose": options.propose,
    }
    obj = host.find(options.object)
    client, aliases = Client(), validation.aliases(fields["alias"])
    # Ask before the upload, which can take long. The server rejects a proposal with aliases.
    if aliases and not options.propose:
        confirmed(lambda yes: None if yes else client.check_push(options.model, aliases), host, yes=options.yes)
    before = _targets(client, options.model) if aliases else {}

    def moves(version: Version) -> list[str]:
        place = f"{version.project}/{version.model}"
        moved = () if version.status else aliases  # only a contribution has a status
        return [str(moved_line(f"{place}@{name}", before.get(name.lower(), 0), version.number)) for name in moved]

    if getattr(options, "no_wait", False):
        return host.push_later(options.model, obj, {**fields, "yes": True}, moves)
    progress = False if options.no_progress else None
    version = client.update(options.model, obj, **fields, progress=progress, yes=True)
    for line in moves(version):
        host.tell(line)
    return version


def confirmed(act: Callable[[bool], T], host: Host, *, yes: bool) -> T:
    """Run a request that can move a protected alias, and ask the user for confirmation if it does.

    Parameters
    ----------
    act : callable
        Sends the request. It takes whether the move is confirmed, and raises `ProtectedAlias` if it must be.
    host : Host
        Asks the user.
    yes : bool
        Whether `--yes` was given: the user is not asked.

    Returns
    -------
    object
        The result of `act`.

    Raises
    ------
    ProtectedAlias
        If the user declines, or the host cannot ask.
    """
    try:
        return act(yes)
    except ProtectedAlias as error:
        if not host.confirm(f"{error.message}. Continue?"):
            raise ProtectedAlias(error.message, hint="`--yes` does it without a question") from None
    return act(True)


def _targets(client: Client, model: str) -> dict[str, int]:
    """Return the version number of each alias of a model, by the name of the alias in lower case."""
    try:
        return {alias.name.lower(): alias.number for alias in client.aliases(model)}
    except NotFound:  # the push creates the model
        return {}


def pull(options: Namespace, host: Host) -> Any:
    """Download a version as an object or as files."""
    progress = False if options.no_progress else None
    into, variable = getattr(options, "into", None), getattr(options, "variable", None)
    if host.pulls_files and options.trust:
        hint = "in Python: lmvp.pull(name, trust=[…])"
        raise InvalidArgument("`--trust` has no effect in a shell, which pulls files and builds no object", hint=hint)
    folder = options.to if options.to is not None or not host.pulls_files else _new_folder(options.version)
    value = Client().download(
        options.version,
        into=host.find(into) if into else None,
        to=folder,
        trust=tuple(options.trust),
        progress=progress,
    )
    # A notebook would display the value of the line, so a pull into a variable or an object returns nothing.
    if variable:
        host.keep(variable, value)
        return None
    return None if into else value


def history(options: Namespace, _host: Host) -> Any:
    """Show the versions of a model or a project."""
    how = {"limit": options.limit, "metric": options.metric, "where": options.where, "order": options.order}
    return Client().show_history(options.name, **how)


def alias(options: Namespace, host: Host) -> Any:
    """Show, move, protect or remove an alias."""
    client, name = Client(), options.alias
    _check_alias_options(options)
    if options.remove:
        confirmed(lambda yes: client.remove_alias(options.version, name, yes=yes), host, yes=options.yes)
        return Line(f"the alias {name} of {options.version} is removed")
    if options.history:
        return _moves(client, options)
    if options.protect or options.unprotect:
        client.protect(f"{options.version}@{name}", on=options.protect)
        return _aliases(client.aliases(options.version))
    records = client.aliases(options.version)
    if not name:
        return _aliases(records)
    now = next((each for each in records if each.name.lower() == name.lower()), None)
    if "@" not in options.version:  # without a revision, the verb only shows the alias
        if now is None:
            hint = f"`lmvp alias {options.version}@latest {name}` makes it"
            raise NotFound(f"{options.version} has no alias {name!r}", hint=hint)
        return _aliases([now])
    target = client.version(options.version)
    done = confirmed(lambda yes: client.alias(target.reference, name, yes=yes), host, yes=options.yes)
    return moved_line(f"{done.project}/{done.model}@{done.name}", now.number if now else 0, done.number, done)


def _check_alias_options(options: Namespace) -> None:
    """Check that the options of `alias` have an effect in this combination.

    Raises
    ------
    InvalidArgument
        If an option lacks the name of an alias, a model is expected instead of a version, or nothing needs `--yes`.
    """
    modes = [mode for mode in ("remove", "history", "protect", "unprotect") if getattr(options, mode)]
    flag = f"--{modes[0]}" if modes else ""
    model, at, _ = options.version.partition("@")
    example = " ".join(["lmvp", "alias", model, options.alias or "production", flag])
    if modes and not options.alias:
        raise InvalidArgument(f"`{flag}` needs the name of an alias", hint=f"`{example}`")
    if modes and at:
        hint = f"`{example}`"
        raise InvalidArgument(f"`{flag}` takes a model, and {options.version!r} names a version", hint=hint)
    if options.yes and (modes not in ([], ["remove"]) or (not modes and not (at and options.alias))):
        hint = f"`lmvp alias {model}@latest {options.alias or 'production'} --yes`"
        raise InvalidArgument("`--yes` confirms the move of an alias, and nothing would move", hint=hint)


def _aliases(aliases: Sequence[Alias]) -> Table:
    """Format aliases as a table."""
    rows = [
        (
            alias.name,
            f"v{alias.number}",
            f"{alias.moved_at:%Y-%m-%d %H:%M}",
            alias.moved_by,
            "yes" if alias.protected else "",
        )
        for alias in aliases
    ]
    return Table(("Alias", "Version", "Moved (UTC)", "By", "Protected"), rows, empty="no aliases yet", data=aliases)


def moved_line(alias: str, before: int, after: int, data: object = None) -> Line:
    """Return the line that names the versions before and after the move of an alias."""
    if before == after:
        return Line(f"{alias}: v{after}, as before", data)
    return Line(f"{alias}: v{before} → v{after}" if before else f"{alias}: v{after}, new", data)


def _moves(client: Client, options: Namespace) -> Any:
    """Return the versions that an alias pointed at, newest first, with their revisions: `@production@{1}`."""
    moves = client.alias_history(f"{options.version}@{options.alias}").moves
    rows = [
        (f"@{options.alias}" + (f"@{{{back}}}" if back else ""), f"v{move.number}" if move.number else "nowhere",
         f"{move.at:%Y-%m-%d %H:%M}", move.by)
        for back, move in enumerate(reversed(moves))
    ]  # fmt: skip
    return Table(("Name", "Version", "Since (UTC)", "By"), rows, empty="it was never moved", data=moves)


def diff(options: Namespace, _host: Host) -> Any:
    """Show the changes between two versions."""
    return Client().diff(options.before, options.after)


def show(options: Namespace, _host: Host) -> Any:
    """Show the tensors, metrics, params and origin of a version."""
    return Client().show(options.version)


def amend(options: Namespace, host: Host) -> Any:
    """Change the message, metrics, params or tags of a version."""
    if options.message is None and not options.forget_code and not (options.metric or options.param or options.tag):
        raise InvalidArgument("nothing to change", hint=f"`lmvp amend {options.version} -m 'trained for longer'`")
    version = Client().version(options.version)
    # The API replaces all metrics, params or tags, so the given ones are merged into those of the version.
    merged = {key: {**getattr(version, key), **more} for key, more in _given(options, host).items() if more}
    return Client().amend(version.reference, message=options.message, forget_code=options.forget_code, **merged)


def ls(options: Namespace, _host: Host) -> Any:
    """List projects, or the models of a project."""
    if options.project is None:
        projects = Client().projects()
        rows = [(each.name, str(each.models)) for each in projects]
        return Table(("Project", "Models"), rows, empty="no projects yet", data=projects)
    name = options.project.rstrip("/")
    if "/" in name:
        raise InvalidArgument(f"{name!r} is a model, not a project", hint=f"`lmvp history {name}` lists its versions")
    models = Client().models(name)
    rows = [(each.name, f"v{each.latest}" if each.latest else "none") for each in models]
    return Table(("Model", "Latest"), rows, empty=f"no models in {options.project} yet", data=models)


def project(options: Namespace, _host: Host) -> Any:
    """Show or set the current project."""
    if options.name is not None:
        config.set_project(options.name)
    return Table(("Current project",), [(config.current_project(),)], empty="")


def status(_options: Namespace, _host: Host) -> Any:
    """Show the current server, user, project and run."""
    return Status.now()


def open_(options: Namespace, _host: Host) -> Any:
    """Open the console, or the page of a project, model, version or run, in the browser."""
    from lmvp.client.console import page_of

    prints = getattr(options, "print", None)
    if prints is None:  # a notebook saves its output, and the link contains a secret
        return Client().open(options.name)
    page = page_of(Client(), options.name)
    if not prints and page.open():
        return Line(repr(page), {"url": page.url, "opened": True})
    why = "" if prints else "there is no browser here; open this in one:\n"
    link = page.signed_in_url()
    once = "\n(signs in once, within 5 minutes; keep it to yourself)" if link != page.url else ""
    return Line(f"{why}{link}{once}", {"url": page.url, "link": link, "opened": False}, essential=True)


def ui(options: Namespace, host: Host) -> Any:
    """Open the console in the browser; the same as `open`."""
    return open_(options, host)


def stop(_options: Namespace, _host: Host) -> Any:
    """Stop the server on this machine."""
    from lmvp import local

    return Line(f"the server of this machine {'has ended' if local.stop() else 'was not running'}")


def _new_folder(version: str) -> str:
    """Return the folder of a pull without `--to`: the name of the model.

    Raises
    ------
    InvalidArgument
        If the folder exists and is not empty, since a pull would overwrite its files.
    """
    name = Reference.parse(version).model
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidArgument(
            f"{name!r} is there already, and a pull replaces files", hint="name another folder: `--to FOLDER`"
        )
    return name


def _given(options: Namespace, host: Host) -> dict[str, dict[str, Any] | None]:
    """Parse the metrics, params and tags of a verb."""
    return {
        "metrics": pairs("metric", options.metric, _number, host),
        "params": pairs("param", options.param, param_value, host),
        "tags": pairs("tag", options.tag, str, host),
    }


def pairs(what: str, given: Sequence[str], read: Any, host: Host | None = None) -> dict[str, Any] | None:
    """Parse the `KEY=VALUE` texts of an option.

    Parameters
    ----------
    what : str
        The option: `metric`, `param` or `tag`.
    given : sequence of str
        The texts.
    read : callable
        Parses the text of a value. `str` leaves it unchanged.
    host : Host, optional
        Returns the values of variables in a notebook.

    Returns
    -------
    dict or None
        None if `given` is empty, so that an amendment leaves the field unchanged.

    Raises
    ------
    InvalidArgument
        If a text is not `KEY=VALUE`, or a value cannot be parsed.
    """
    pairs = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            hint = f"write --{what} {_EXAMPLES[what]}"
            raise InvalidArgument(f"--{what} {text[:60]!r} is not KEY=VALUE", hint=hint)
        variable = host.value(value) if host is not None else None
        if variable is not None:
            pairs[key] = _VALUES[what](key, variable[0])
        elif read is str:
            pairs[key] = value
        else:
            pairs[key] = _read(what, key, value, read, host)
    return pairs or None


def _read(what: str, key: str, text: str, read: Any, host: Host | None) -> Any:
    """Parse a metric or a param. A value that is not a literal is looked up as the name of a variable."""
    try:
        value = read(key, text)
    except InvalidArgument as error:
        if host is None or (variable := host.value(text, bare=True)) is None:
            if host is not None and not host.pulls_files:
                error.hint = "in a notebook, {name} and $name stand for the value of a variable"
            raise
        return _VALUES[what](key, variable[0])
    # `param_value` returns the same string if the text is not JSON. A variable is used only if a param can store it.
    if what == "param" and value is text and host is not None and (variable := host.value(text, bare=True)) is not None:
        plain = _plain(variable[0])
        return plain if plain is None or isinstance(plain, (bool, int, float, str)) else value
    return value


def _plain(value: Any) -> Any:
    """Return the Python value of a NumPy or torch scalar; return other values unchanged."""
    lone = getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None))
    return value.item() if lone else value


def _metric_value(key: str, value: Any) -> float:
    plain = _plain(value)
    if isinstance(plain, (int, float)):
        return float(plain)
    raise InvalidArgument(f"the metric {key!r} is a {type(value).__name__}, not a number")


_VALUES: dict[str, Any] = {
    "metric": _metric_value,
    "param": lambda _, value: _plain(value),
    "tag": lambda _, value: str(_plain(value)),
}


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidArgument(
            f"the metric {key!r} is {text[:40]!r}, not a number",
            hint=f"`--metric {key}=0.97`",
        ) from None


def param_value(_key: str, text: str) -> Any:
    """Parse a param as a JSON number, boolean or null; any other text is the value itself."""
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return text
    plain = value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else text


def shown_path(path: Path) -> str:
    """Return a path relative to the current folder if it is below it; otherwise the path unchanged."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
