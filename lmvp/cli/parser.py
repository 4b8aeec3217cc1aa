"""The table of all verbs with their arguments and options, and the parsers for the shell and for notebooks.

The table also drives the completion. `lmvp.hints` translates options to Python arguments, and has a list of the flags
and numbers among them, which a new option must be added to. argparse formats help texts with `%`: `%(default)s` inserts
the default, and a literal percent sign is written `%%`.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.cli import access, contributing, maintenance, team, tracking, verbs
from lmvp.cli.maintenance import audit, backup, export, import_
from lmvp.cli.team import webhooks
from lmvp.core.references import suggest
from lmvp.errors import InvalidArgument

SHELL, NOTEBOOK = "shell", "notebook"
"""The hosts of verbs: the `lmvp` command and the `%lmvp` magic."""

_HELP_WIDTH, _HELP_INDENT = 80, 16
"""Width of the overview, and the column in which the text of each verb begins."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument or option of a verb.

    Attributes
    ----------
    flags : tuple of str
        Names as for `ArgumentParser.add_argument`: `("-m", "--message")`, or one name without dashes.
    settings : dict
        Keyword arguments of `ArgumentParser.add_argument`.
    only : str or None
        The host that supports it, `SHELL` or `NOTEBOOK`; None: both.
    of : tuple of str
        The values of the argument `what` that it applies to; empty: all values.
    excludes : tuple of str
        Arguments and options that cannot be combined with it.
    """

    flags: tuple[str, ...]
    settings: dict[str, Any]
    only: str | None = None
    of: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def is_given(self, options: argparse.Namespace) -> bool:
        """Return whether its value differs from the default."""
        name = self.settings.get("dest") or self.flags[-1].lstrip("-").replace("-", "_")
        value = getattr(options, name, None)
        return value not in (None, False, []) and value != self.settings.get("default")


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb.

    Attributes
    ----------
    act : callable
        The function that runs the verb with the options and a `Host`. Its name is the name of the verb, and the first
        line of its docstring is the help text.
    arguments : tuple of Argument
    only : str or None
        The host that supports it, `SHELL` or `NOTEBOOK`; None: both.
    """

    act: Callable[..., Any]
    arguments: tuple[Argument, ...] = ()
    only: str | None = None

    @property
    def name(self) -> str:
        """The name as it is typed."""
        # Functions such as `import_` and `open_` have a trailing underscore because of Python's own names.
        return self.act.__name__.rstrip("_")

    @property
    def help(self) -> str:
        """The help text: one line."""
        return (self.act.__doc__ or "").partition("\n")[0]


def _arg(
    *flags: str, only: str | None = None, of: Sequence[str] = (), excludes: Sequence[str] = (), **settings: Any
) -> Argument:
    return Argument(flags, settings, only, tuple(of), tuple(excludes))


def _many(*flags: str, **settings: Any) -> Argument:
    """Return an option that can be repeated; its value is a list."""
    return _arg(*flags, action="append", default=[], **settings)


_OPEN = (
    _arg("name", nargs="?", help="project, [project/]model[@revision] or [project/]run (default: the first page)"),
    _arg("--print", action="store_true", only=SHELL, help="print the link, and do not start a browser"),
)
_YES = _arg("--yes", action="store_true", help="move a protected alias without confirmation; required in scripts")
_QUIET = _arg("--no-progress", action="store_true", help="show no progress bar")

VERBS = (
    Verb(verbs.push, (
        _arg("model", help="[project/]model"),
        _arg("object", help="path, or in a notebook a variable"),
        _arg("-m", "--message", help="message that describes the changes"),
        _many("--metric", metavar="KEY=NUMBER", help="metric of the version; can be repeated"),
        _many("--param", metavar="KEY=VALUE", help="setting that the version was made with; can be repeated"),
        _many("--tag", metavar="KEY=TEXT", help="tag of the version; can be repeated"),
        _many("--alias", metavar="NAME", help="alias to point at the version; can be repeated"),
        _arg("--parent", metavar="REVISION",
             help="parent version (default: the version that the object was pulled from, otherwise the latest)"),
        _arg("--create", action="store_true", help="create the project and the model on a shared server"),
        _arg("--propose", action="store_true", help="propose a contribution, which a maintainer accepts or declines"),
        _YES,
        _arg("--no-wait", action="store_true", only=NOTEBOOK,
             help="push a copy of the weights in the background, while other cells run"),
        _QUIET,
    )),
    Verb(verbs.amend, (
        _arg("version", help="[project/]model[@revision]"),
        _arg("-m", "--message", help="new message"),
        _many("--metric", metavar="KEY=NUMBER", help="metric to set; can be repeated"),
        _many("--param", metavar="KEY=VALUE", help="param to set; can be repeated"),
        _many("--tag", metavar="KEY=TEXT", help="tag to set; can be repeated"),
        _arg("--forget-code", action="store_true", help="permanently delete the code that is stored with the version"),
    )),
    Verb(verbs.pull, (
        _arg("version", help="[project/]model[@revision]"),
        _arg("variable", nargs="?", only=NOTEBOOK, help="variable to assign the object to"),
        _arg("--into", metavar="VARIABLE", only=NOTEBOOK, excludes=("variable", "--to"),
             help="object whose weights are replaced in place"),
        _arg("--to", metavar="FOLDER", help="folder to write the original files to"),
        _many("--trust", metavar="CLASS", excludes=("--to",),
              help="class that the download can build, for example my_pkg.Net; can be repeated"),
        _QUIET,
    )),
    Verb(verbs.history, (
        _arg("name", nargs="?", help="project or [project/]model (default: the current project)"),
        _arg("--metric", metavar="KEY", help="metric to show (default: the most common one)"),
        _arg("--where", metavar="FILTER", default="",
             help='filter, for example "metrics.val_acc > 0.9" or "\'frozen\' in message"'),
        _arg("--order", metavar="FIELD", default="",
             help="field to sort by, for example metrics.val_loss, or -metrics.val_acc for the greatest first "
             "(default: newest first)"),
        _arg("--limit", type=int, default=200, help="maximum number of versions (default: %(default)s)"),
    )),
    Verb(verbs.alias, (
        _arg("version", help="[project/]model[@revision]"),
        _arg("alias", nargs="?", help="alias; it is moved if the version has a revision, otherwise shown"),
        _arg("--remove", action="store_true", excludes=("--history", "--protect", "--unprotect"),
             help="remove the alias"),
        _arg("--history", action="store_true", excludes=("--protect", "--unprotect"),
             help="show the moves of the alias, with time and account"),
        _arg("--protect", action="store_true", excludes=("--unprotect",), help="allow only maintainers to move it"),
        _arg("--unprotect", action="store_true", help="allow contributors to move it, too"),
        _YES,
    )),
    Verb(verbs.show, (_arg("version", help="[project/]model[@revision]"),)),
    Verb(verbs.diff, (
        _arg("before", help="[project/]model[@revision]"),
        _arg("after", help="[project/]model[@revision], or @revision of the same model"),
    )),
    Verb(contributing.contributions, (
        _arg("project", nargs="?", help="project (default: the current project)"),
        _arg("--all", action="store_true", help="include accepted, declined and withdrawn contributions"),
    )),
    Verb(contributing.fork, (
        _arg("model", help="[project/]model"),
        _arg("to", help="project/model of the copy"),
    )),
    Verb(contributing.contribute, (
        _arg("version", help="[project/]model[@revision] of a fork"),
        _arg("-m", "--message", help="message of the contribution (default: the message of the version)"),
    )),
    Verb(contributing.accept, (_arg("contribution", help="[project/]model@c12"),)),
    Verb(contributing.decline, (
        _arg("contribution", help="[project/]model@c12"),
        _arg("-m", "--message", metavar="REASON", help="reason; required"),
    )),
    Verb(contributing.withdraw, (_arg("contribution", help="[project/]model@c12"),)),
    Verb(contributing.comment, (
        _arg("contribution", help="[project/]model@c12"),
        _arg("-m", "--message", metavar="WORDS", help="comment to add; without it, the comments are shown"),
    )),
    Verb(contributing.require, (
        _arg("model", help="[project/]model"),
        _arg("rule", nargs="?", help='rule, for example "val/acc >= @production" or '
             '"metrics.val/loss < 0.2 and params.lr < 0.01"; without it, the rule is shown'),
        _arg("--nothing", action="store_true", excludes=("rule",), help="remove the rule"),
    )),
    Verb(contributing.rollback, (_arg("alias", help="[project/]model@alias"), _YES)),
    Verb(tracking.runs, (
        _arg("project", nargs="?",
             help="project, or project/model for the runs that made its versions (default: the current project)"),
        _arg("--where", metavar="FILTER",
             help='filter, for example "metrics.val_acc > 0.9 and params.lr < 0.01"'),
        _arg("--order", metavar="FIELD",
             help="field to sort by, for example metrics.val_loss, or -metrics.val_acc for the greatest first "
             "(default: newest first)"),
        _arg("--limit", type=int, default=200, help="maximum number of runs (default: %(default)s)"),
    )),
    Verb(tracking.annotate, (
        _arg("run", help="[project/]run, by its name or id"),
        _arg("--name", help="new name"),
        _many("--tag", metavar="KEY=TEXT", help="tag to set; can be repeated"),
        _many("--untag", metavar="KEY", help="tag to remove; can be repeated"),
        _many("--param", metavar="KEY=VALUE", help="param to set; can be repeated"),
        _arg("--notes", metavar="TEXT", help="notes, which replace the previous ones"),
    )),
    Verb(tracking.metrics, (
        _arg("names", nargs="+", metavar="NAME", help="one or more [project/]run, one [project/]model, or a project"),
        _many("--key", metavar="KEY", help="metric to plot; can be repeated (default: all metrics)"),
        _arg("--smooth", type=int, default=0, metavar="N",
             help="number of points to smooth over, 0 to 10,000 (default: %(default)s, no smoothing)"),
        _arg("--log", action="store_true", help="use a logarithmic Y axis"),
        _arg("--x", default="step", metavar="AXIS",
             help="X axis: step, time, or a metric such as epoch (default: %(default)s)"),
    )),
    Verb(tracking.compare, (
        _arg("runs", nargs="+", metavar="RUN", help="two or more [project/]run"),
        _arg("--all", action="store_true", help="include equal values"),
    )),
    Verb(tracking.sync, (
        _arg("--dry-run", action="store_true", help="only list the runs with unsent data"),
        _arg("--force", action="store_true", help="include runs of other machines that can still be running"),
        _arg("--discard", metavar="RUN", excludes=("--dry-run", "--force"),
             help="delete the unsent data of a run, and send nothing"),
    )),
    Verb(maintenance.du, (
        _arg("name", nargs="?",
             help="project/ for its models, or [project/]model for its versions (default: all projects)"),
    )),
    Verb(maintenance.rm, (
        _arg("name", help="[project/]model@revision, [project/]model, project/, or project/runs/run"),
        _arg("--yes", action="store_true", help="remove without a question; scripts need it for a model or project"),
        _arg("--now", action="store_true", help="delete permanently and free the disk space; no restore is possible"),
    )),
    Verb(maintenance.undelete, (
        _arg("name", nargs="?", help="[project/]model@v3, [project/]model, project/ or project/runs/run to restore; "
             "without it, the removed objects are listed"),
    )),
    Verb(maintenance.prune, (
        _arg("model", help="[project/]model"),
        _arg("--keep", metavar="RULE", help='versions to keep, for example "best:val_acc:3,last:5" (default: the rule '
             "of the model); the newest version, versions with an alias and their first parents are always kept"),
        _arg("--dry-run", action="store_true", help="only list the versions that would be deleted, and their size"),
        _arg("--save", action="store_true", help="save the rule in the model; the server then applies it regularly"),
        _arg("--forget", action="store_true", excludes=("--keep", "--save", "--dry-run"),
             help="remove the rule of the model"),
    )),
    Verb(maintenance.gc, (
        _arg("--removed", action="store_true",
             help="also delete removed objects and files of decided contributions, which can then not be restored"),
    )),
    Verb(maintenance.compact),
    Verb(maintenance.fsck, (
        _arg("--head", metavar="FILE",
             help="output of an earlier `lmvp audit head`: verify that no earlier entry has changed since"),
        _arg("--repair", action="store_true", help="set damaged frames aside, so that a push can replace them"),
        _QUIET,
    )),
    Verb(export, (
        _arg("model", help="[project/]model"),
        _arg("to", metavar="FOLDER_OR_TAR",
             help="folder, or file that ends in .tar; an interrupted export to a folder is continued"),
        _arg("--versions", metavar="LIST", help="versions to export, for example 3,5-9,production (default: all)"),
        _arg("--force", action="store_true", help="replace an existing file, or an export of another model"),
        _QUIET,
    )),
    Verb(import_, (
        _arg("source", metavar="FOLDER_OR_TAR", help="output of `lmvp export`"),
        _arg("model", nargs="?", help="[project/]model to import into (default: the names in the export)"),
        _YES,
        _QUIET,
    )),
    Verb(backup, (
        _arg("to", metavar="FOLDER", help="new folder, or folder of an earlier backup to update"),
        _arg("--quick", action="store_true",
             help="check only that the chunks of an earlier backup exist, and do not verify their digests again"),
        _QUIET,
    )),
    Verb(maintenance.cache, (_arg("--clear", action="store_true", help="delete all cached data"),)),
    Verb(verbs.ls, (_arg("project", nargs="?", help="project whose models are listed (default: list the projects)"),)),
    Verb(verbs.project, (_arg("name", nargs="?", help="project to use as the current one"),), NOTEBOOK),
    Verb(access.login, (
        _arg("url", help="URL of the server, for example https://models.example.org"),
        _arg("--with-token", action="store_true", excludes=("--scope",),
             help="prompt for a token, or read it from a pipe, instead of showing a device code"),
        _arg("--scope", choices=("read", "write", "admin"), default="",
             help="get a new token of this scope (default: use the stored token, or get one of scope write)"),
    )),
    Verb(access.tokens, (
        _arg("what", nargs="?", choices=("list", "create", "revoke"), default="list",
             help="action: %(choices)s (default: %(default)s)"),
        _arg("name", nargs="?", of=("create", "revoke"), help="create: name of the token; revoke: id of the token"),
        _arg("--days", type=int, metavar="N", of=("create",),
             help="create: days until the token expires, 1 to 3,650 (default: it does not expire)"),
        _arg("--scope", choices=("read", "write", "admin"), default="read", of=("create",),
             help="create: scope, which limits the rights of the account (default: %(default)s)"),
        _arg("--project", metavar="NAME", default="", of=("create",),
             help="create: limit the token to this project (default: all projects of the account)"),
        _arg("--user", metavar="NAME", default="", of=("create",),
             help="create: service account of the token, for admins (default: your account)"),
    )),
    Verb(access.identities, (
        _arg("what", nargs="?", choices=("list", "disconnect"), default="list",
             help="action: %(choices)s (default: %(default)s)"),
        _arg("id", nargs="?", of=("disconnect",), help="disconnect: id of the identity"),
        _arg("--user", metavar="NAME", default="", of=("list",),
             help="list: only identities of this account (default: all that you can see)"),
    )),
    Verb(audit, (
        _arg("what", nargs="?", choices=("list", "head"), default="list",
             help="action: %(choices)s (default: %(default)s)"),
        _arg("project", nargs="?", of=("list",), help="project (default: the log of the server itself)"),
        _arg("--who", metavar="NAME", default="", of=("list",), help="only events of this account"),
        _arg("--action", metavar="WORD", default="", of=("list",),
             help="only actions that begin with this text, for example alias. or version.create"),
        _arg("--target", metavar="NAME", default="", of=("list",),
             help="only objects that begin with this text, for example digits/mlp@"),
        _arg("--since", metavar="TIME", default="", of=("list",),
             help="only events from this time (UTC) on: 2026-11-26 or 2026-11-26T12:00"),
        _arg("--until", metavar="TIME", default="", of=("list",), help="only events before this time (UTC)"),
        _arg("--limit", type=int, default=100, of=("list",), help="maximum number of entries (default: %(default)s)"),
        _arg("--json", dest="json_lines", action="store_true", of=("list",),
             help="print complete entries as JSON, one per line"),
    )),
    Verb(team.users, (
        _arg("what", nargs="?", choices=("list", "add", "disable", "enable", "passwd"), default="list",
             help="action: %(choices)s (default: %(default)s)"),
        _arg("name", nargs="?", of=("add", "disable", "enable", "passwd"), help="name of the account"),
        _arg("--admin", action="store_true", of=("add",), help="add: create an admin, who has every right"),
        _arg("--service", action="store_true", of=("add",),
             help="add: create a service account, which has tokens and no password"),
        _arg("--keep-tokens", action="store_true", of=("passwd",),
             help="passwd: do not revoke the tokens and invitations of the account"),
        _arg("--keep-identities", action="store_true", of=("passwd",),
             help="passwd: do not disconnect the OpenID identities of the account"),
    )),
    Verb(team.groups, (
        _arg("what", nargs="?", choices=("list", "add", "remove"), default="list",
             help="action: %(choices)s (default: %(default)s)"),
        _arg("name", nargs="?", of=("add", "remove"), help="name of the group"),
        _arg("users", nargs="*", of=("add",), help="add: accounts to add to the group"),
    )),
    Verb(team.members, (
        _arg("project", nargs="?", help="project (default: the current project)"),
        _arg("what", nargs="?", choices=("list", "add", "remove", "invite", "invitations", "everyone", "public"),
             default="list", help="action: %(choices)s (default: %(default)s)"),
        _arg("name", nargs="?", of=("add", "remove"), help="add, remove: account, or group such as @vision"),
        _arg("--role", choices=("viewer", "contributor", "maintainer", "owner"), of=("add", "invite", "everyone"),
             help="role in the project (default: viewer; everyone: no role)"),
        _arg("--days", type=int, default=7, metavar="N", of=("invite",),
             help="invite: days until the link expires (default: %(default)s)"),
        _arg("--revoke", metavar="ID", of=("invitations",), help="invitations: revoke this invitation"),
        _arg("--off", action="store_true", of=("public",), help="public: make the project private again"),
    )),
    Verb(webhooks, (
        _arg("project", nargs="?", help="project (default: the current project)"),
        _arg("what", nargs="?", choices=("list", "add", "remove", "test", "enable"), default="list",
             help="action: %(choices)s (default: %(default)s)"),
        _arg("target", nargs="?", of=("add", "remove", "test", "enable"),
             help="add: URL; remove, test, enable: id of the webhook"),
        _many("--event", metavar="WORD", of=("add",),
              help="add: send only actions that begin with this text; can be repeated (default: all actions)"),
    )),
    Verb(access.devices, (
        _arg("what", choices=("approve", "deny"), help="action: %(choices)s"),
        _arg("code", help="device code that the client shows"),
        _arg("--scope", choices=("read", "write", "admin"), default="", of=("approve",),
             help="approve: scope of the token (default: the requested scope; admin must be stated)"),
    )),
    Verb(access.logout, (_arg("url", nargs="?", help="URL of the server (default: the current server)"),)),
    Verb(verbs.open_, _OPEN),
    Verb(verbs.ui, _OPEN),
    Verb(verbs.status),
    Verb(verbs.stop),
)  # fmt: skip
"""All verbs except those in `OWN`."""

GROUPS = {
    "Models": ("push", "pull", "history", "show", "diff", "alias", "rollback", "amend", "ls", "project"),
    "Runs": ("runs", "metrics", "compare", "annotate", "sync"),
    "Contributions": (
        "fork", "contribute", "contributions", "accept", "decline", "withdraw", "comment", "require",
    ),
    "Maintenance": (
        "du", "rm", "undelete", "prune", "gc", "compact", "fsck", "export", "import", "backup", "cache",
    ),
    "Team": ("users", "groups", "members", "webhooks", "tokens", "identities", "devices", "audit"),
    "Server": ("open", "ui", "login", "logout", "status", "stop", "server", "restore", "completion"),
}  # fmt: skip
"""The headings of `lmvp --help` with their verbs."""

OWN = {
    "server": "Run a server for a team.",
    "restore": "Make a data folder from a backup.",
    "completion": "Print a script that completes verbs, options and names in a shell.",
}
"""Verbs of the shell that parse their own options, with their help texts. They run without a client."""

_OUTPUT = (
    _arg("--json", action="store_true", help="print the result as JSON"),
    _arg("-q", "--quiet", action="store_true", help="print no messages and no progress bar, only data"),
)
"""Options of every verb in the shell."""


def verbs_of(host: str) -> list[Verb]:
    """Return the verbs that a host supports."""
    return [verb for verb in VERBS if verb.only in (None, host)]


def make_parser(host: str, prog: str, parser_class: type[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Build the parser of a host.

    Parameters
    ----------
    host : str
        `SHELL` or `NOTEBOOK`.
    prog : str
        The name of the program in messages: `lmvp` or `%lmvp`.
    parser_class : type
        The class of the parser and its subparsers. The notebook uses one that does not exit the process.
    """
    parser = parser_class(
        prog=prog,
        usage=f"{prog.replace('%', '%%')} VERB [OPTION ...]",  # argparse formats it with `%`
        description=overview(host, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # The description lists the verbs under their headings. Without SUPPRESS, argparse would list them a second time.
    made = parser.add_subparsers(
        dest="verb", metavar="VERB", parser_class=parser_class, prog=prog, help=argparse.SUPPRESS
    )
    for verb in verbs_of(host):
        own = {flag for argument in verb.arguments for flag in argument.flags}
        # `audit --json` prints one object per line and takes the place of the general `--json`.
        output = [one for one in _OUTPUT if own.isdisjoint(one.flags)] if host == SHELL else []
        _add(made.add_parser(verb.name, description=verb.help), (*verb.arguments, *output), host)
        made.choices[verb.name].set_defaults(act=verb.act)
    for name in OWN if host == SHELL else ():  # known to argparse for completion only; see `shell._run`
        made.add_parser(name, add_help=False)
    return parser


def overview(host: str, prog: str) -> str:
    """Return the list of all verbs of a host under their headings, with their help texts."""
    lines = ["Version neural networks: publish, fetch, compare and track them."]
    helps = {verb.name: verb.help for verb in verbs_of(host)} | (OWN if host == SHELL else {})
    for title, names in GROUPS.items():
        shown = [name for name in names if name in helps]
        lines += ["", f"{title}:"] if shown else []
        for name in shown:
            first, *rest = textwrap.wrap(helps[name], _HELP_WIDTH - _HELP_INDENT)
            lines += [f"  {name:<{_HELP_INDENT - 2}}{first}", *(" " * _HELP_INDENT + more for more in rest)]
    return "\n".join([*lines, "", f"`{prog} help VERB` shows the options of a verb."])


def read(parser: argparse.ArgumentParser, words: Sequence[str], host: str) -> argparse.Namespace:
    """Parse the words of a command line.

    Raises
    ------
    InvalidArgument
        If the verb or an option is unknown, with the most similar name as the hint, or if options exclude each other.
    """
    verbs = {verb.name: verb for verb in verbs_of(host)}
    names = [*verbs, *(OWN if host == SHELL else ())]
    first = next(iter(words), "-")
    if not first.startswith("-") and first not in names:
        raise _unknown(f"{parser.prog} has no verb {first!r}", first, names, parser.prog)
    options, left = parser.parse_known_args(words)  # `parse_args` would exit, without proposing a similar option
    if left:
        command = f"{parser.prog} {options.verb or ''}".rstrip()
        taken = (*verbs[options.verb].arguments, *(_OUTPUT if host == SHELL else ())) if options.verb in verbs else ()
        flags = [flag for argument in taken if argument.only in (None, host) for flag in argument.flags]
        if left[0] in flags:  # argparse takes options of a verb only after the verb
            hint = f"`{command} … {left[0]}`: options come after the verb"
            raise InvalidArgument(f"`{parser.prog}` does not take {left[0]!r} before the verb", hint=hint)
        raise _unknown(f"`{command}` does not take {left[0]!r}", left[0].partition("=")[0], flags, command)
    if options.verb in verbs:
        _check_effects(verbs[options.verb], options, parser.prog)
    return options


def _check_effects(verb: Verb, options: argparse.Namespace, prog: str) -> None:
    """Check that each given argument and option has an effect.

    Raises
    ------
    InvalidArgument
        If one is ignored in this combination. The user would otherwise expect that it was applied.
    """
    given = [argument for argument in verb.arguments if argument.is_given(options)]
    for argument in given:
        flag = argument.flags[-1]
        shown = flag if flag.startswith("-") else repr(getattr(options, flag))
        if argument.of and options.what not in argument.of:
            hint = f"it is for {' and '.join(f'`{prog} {verb.name} … {what}`' for what in argument.of)}"
            raise InvalidArgument(f"{shown} has no effect on `{prog} {verb.name} … {options.what}`", hint=hint)
        for other in given:
            if other.flags[-1] in argument.excludes:
                named = other.flags[-1]
                named = named if named.startswith("-") else repr(getattr(options, named))
                raise InvalidArgument(f"{shown} and {named} exclude each other", hint="choose one of them")


def _unknown(message: str, word: str, names: Sequence[str], command: str) -> InvalidArgument:
    """Return the error for an unknown verb or option, with the most similar known name as the hint."""
    if word in OWN:
        return InvalidArgument(message, hint=f"`lmvp {word}` is for the shell")
    near = suggest(word, names)
    return InvalidArgument(
        message, hint=f"did you mean {near!r}?" if near else f"`{command} --help` tells what there is"
    )


def _add(parser: argparse.ArgumentParser, arguments: Sequence[Argument], host: str) -> None:
    """Add the arguments that a host supports to a parser."""
    for argument in arguments:
        if argument.only in (None, host):
            parser.add_argument(*argument.flags, **argument.settings)
