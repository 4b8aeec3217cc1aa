"""What each verb does: one call of the client, with what the host (a shell or a notebook) adds.

A verb gets its options and a `Host`, and returns a value; how that is shown is the host's affair.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lmvp import config
from lmvp.client import Client
from lmvp.commands.tables import Line, Status, Table
from lmvp.errors import InvalidArgument, NotFound
from lmvp.records import Alias
from lmvp.references import Reference

_EXAMPLES = {"metric": "val_acc=0.97", "param": "lr=0.001", "tag": "by=ada"}


class Host(Protocol):
    """Where a verb was typed."""

    def find(self, name: str) -> Any:
        """Return what `push` publishes: a variable, or a path."""
        ...

    def value(self, text: str, *, bare: bool = False) -> tuple[Any] | None:
        """Return the value that `{expression}` or `$name` stands for (`bare`: a name), in a tuple; None for a text."""
        ...

    def keep(self, name: str, value: Any) -> None:
        """Keep a pulled object under a name."""
        ...

    def ask_token(self, url: str) -> str:
        """Ask the user for a token, unseen."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask a question that is answered by yes or no; no where nobody can be asked."""
        ...

    @property
    def pipes(self) -> bool:
        """Whether a token may come through a pipe, since nobody sits at a terminal."""
        ...

    def push_later(self, name: str, obj: Any, fields: Mapping[str, Any]) -> Any:
        """Push while other things are done; only a notebook does that."""
        ...

    @property
    def pulls_files(self) -> bool:
        """Whether a pull without a folder gives files; else it gives the object."""
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
    if getattr(options, "no_wait", False):
        return host.push_later(options.model, obj, fields)
    return Client().update(options.model, obj, **fields, progress=False if options.no_progress else None)


def pull(options: Namespace, host: Host) -> Any:
    """Fetch a version as an object or as files."""
    progress = False if options.no_progress else None
    into, variable = getattr(options, "into", None), getattr(options, "variable", None)
    folder = options.to if options.to is not None or not host.pulls_files else _new_folder(options.version)
    value = Client().download(
        options.version,
        into=host.find(into) if into else None,
        to=folder,
        trust=tuple(options.trust),
        progress=progress,
    )
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
    if options.remove:
        if not name:
            raise InvalidArgument("`--remove` needs the alias to remove")
        ask_to_move(client, host, options.version, name, "removed", yes=options.yes)
        client.remove_alias(options.version, name)
        return Line(f"the alias {name} of {options.version} is removed")
    if options.history:
        return _moves(client, options)
    if options.protect or options.unprotect:
        if not name:
            raise InvalidArgument("which alias?", hint=f"`lmvp alias {options.version} production --protect`")
        client.protect(f"{options.version}@{name}", on=options.protect)
        return _aliases(client.aliases(options.version))
    found = client.aliases(options.version)
    if not name:
        return _aliases(found)
    now = next((one for one in found if one.name.lower() == name.lower()), None)
    if "@" not in options.version:  # typed to look at it: nothing moves
        if now is None:
            hint = f"`lmvp alias {options.version}@latest {name}` makes it"
            raise NotFound(f"{options.version} has no alias {name!r}", hint=hint)
        return _aliases([now])
    target = client.version(options.version)
    if now is not None and now.number != target.number:
        ask_to_move(client, host, options.version, name, f"moved to v{target.number}", yes=options.yes)
    return moved_line(client.alias(target.reference, name), now.number if now else 0)


def _aliases(found: Sequence[Alias]) -> Table:
    rows = [
        (one.name, f"v{one.number}", f"{one.moved_at:%Y-%m-%d %H:%M}", one.moved_by, "yes" if one.protected else "")
        for one in found
    ]
    return Table(("Alias", "Version", "Moved (UTC)", "By", "Protected"), rows, empty="no aliases yet", data=found)


def ask_to_move(client: Client, host: Host, model: str, name: str, what: str, *, yes: bool) -> None:
    """Ask before a protected alias changes, unless the user said yes.

    Raises
    ------
    InvalidArgument
        If the user says no, or there is nobody to ask.
    """
    now = next((one for one in client.aliases(model) if one.name.lower() == name.lower()), None)
    if yes or now is None or not now.protected:
        return
    said = f"the protected alias {now.project}/{now.model}@{now.name} points at v{now.number}"
    if not host.confirm(f"{said}; it will be {what}. Continue?"):
        raise InvalidArgument(f"{said} and was not {what}", hint="`--yes` does it without a question")


def moved_line(alias: Alias, before: int) -> Line:
    """Return the line that tells where an alias points now, and where it pointed before."""
    place = f"{alias.project}/{alias.model}@{alias.name}"
    if before == alias.number:
        return Line(f"{place}: v{alias.number}, as before", alias)
    return Line(f"{place}: v{before} → v{alias.number}" if before else f"{place}: v{alias.number}, new", alias)


def _moves(client: Client, options: Namespace) -> Any:
    """Return where an alias stood, the newest first, and how each place is named."""
    if not options.alias:
        raise InvalidArgument(
            "`--history` needs the alias", hint=f"`lmvp alias {options.version} production --history`"
        )
    moves = client.alias_history(f"{options.version}@{options.alias}").moves
    rows = [
        (f"@{options.alias}" + (f"@{{{back}}}" if back else ""), f"v{one.number}" if one.number else "nowhere",
         f"{one.at:%Y-%m-%d %H:%M}", one.by)
        for back, one in enumerate(reversed(moves))
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
    version = Client().version(options.version)
    merged = {key: {**getattr(version, key), **more} for key, more in _given(options, host).items() if more}
    return Client().amend(version.reference, message=options.message, forget_code=options.forget_code, **merged)


def ls(options: Namespace, _host: Host) -> Any:
    """List projects, or the models of a project."""
    if options.project is None:
        projects = Client().projects()
        rows = [(one.name, str(one.models)) for one in projects]
        return Table(("Project", "Models"), rows, empty="no projects yet", data=projects)
    name = options.project.rstrip("/")
    if "/" in name:
        raise InvalidArgument(f"{name!r} is a model, not a project", hint=f"`lmvp history {name}` lists its versions")
    models = Client().models(name)
    rows = [(one.name, f"v{one.latest}" if one.latest else "none") for one in models]
    return Table(("Model", "Latest"), rows, empty=f"no models in {options.project} yet", data=models)


def project(options: Namespace, _host: Host) -> Any:
    """Show or set the current project."""
    if options.name is not None:
        config.set_project(options.name)
    return Table(("Current project",), [(config.current_project(),)], empty="")


def status(_options: Namespace, _host: Host) -> Any:
    """Show the server, the user and the project in use."""
    return Status.now()


def open_(options: Namespace, _host: Host) -> Any:
    """Open the console in the browser, signed in; with a name, the page of that project, model, version or run."""
    from lmvp.console import page_of

    prints = getattr(options, "print", None)
    if prints is None:  # in a notebook, whose output is saved, a link is never printed
        return Client().open(options.name)
    page = page_of(Client(), options.name)
    if not prints and page.open():
        return Line(repr(page), {"url": page.url, "opened": True})
    why = "" if prints else "there is no browser here; open this in one:\n"
    link = page.signed_in_url()
    once = "\n(signs in once, within 5 minutes; keep it to yourself)" if link != page.url else ""
    return Line(f"{why}{link}{once}", {"url": page.url, "link": link, "opened": False}, essential=True)


def ui(options: Namespace, host: Host) -> Any:
    """Open the console, as `open` does."""
    return open_(options, host)


def stop(_options: Namespace, _host: Host) -> Any:
    """Stop the server of this machine."""
    from lmvp import local

    return Line(f"the server of this machine {'has ended' if local.stop() else 'was not running'}")


def _new_folder(version: str) -> str:
    """Return the folder for a pull that names none: called like the model, and never one that holds something."""
    name = Reference.parse(version).model
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidArgument(
            f"{name!r} is there already, and a pull replaces files", hint="name another folder: `--to FOLDER`"
        )
    return name


def _given(options: Namespace, host: Host) -> dict[str, dict[str, Any] | None]:
    """Read the metrics, params and tags of a verb."""
    return {
        "metrics": pairs("metric", options.metric, _number, host),
        "params": pairs("param", options.param, param_value, host),
        "tags": pairs("tag", options.tag, str, host),
    }


def pairs(what: str, given: Sequence[str], read: Any, host: Host | None = None) -> dict[str, Any] | None:
    """Read `KEY=VALUE` options; None where there is none.

    Parameters
    ----------
    host : Host, optional
        Gives the value of a variable, where it has variables.
    """
    pairs = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            hint = f"write --{what} {_EXAMPLES[what]}"
            raise InvalidArgument(f"--{what} {text[:60]!r} is not KEY=VALUE", hint=hint)
        found = host.value(value) if host is not None else None
        if found is not None:
            pairs[key] = _VALUES[what](key, found[0])
        elif read is str:
            pairs[key] = value
        else:
            pairs[key] = _read(what, key, value, read, host)
    return pairs or None


def _read(what: str, key: str, text: str, read: Any, host: Host | None) -> Any:
    """Read a number, or any param; a bare name that is neither may be that of a variable."""
    try:
        value = read(key, text)
    except InvalidArgument:
        if host is None or (found := host.value(text, bare=True)) is None:
            raise
        return _VALUES[what](key, found[0])
    if what == "param" and value is text and host is not None and (found := host.value(text, bare=True)) is not None:
        plain = _plain(found[0])
        return plain if plain is None or isinstance(plain, (bool, int, float, str)) else value
    return value


def _plain(value: Any) -> Any:
    """Return the Python value of a numpy or torch scalar; any other value as it is."""
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
            hint="in a notebook, {name} and $name stand for the value of a variable",
        ) from None


def param_value(_key: str, text: str) -> Any:
    """Read a param as JSON reads a number, true, false or null, else as the text it is."""
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return text
    plain = value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else text


def shown_path(path: Path) -> str:
    """Return a path as a shell shows it: relative to the current folder where it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
