"""The table of all verbs with their arguments and options, and the parsers for the shell and for notebooks.

The table also drives the completion, so a new option is added here only. Help texts are formatted by argparse with `%`:
`%(default)s` inserts the default, and a literal percent sign is written `%%`.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmvp.commands import access, archive, audit, contributing, housekeeping, team, tracking, verbs, webhooks
from lmvp.errors import InvalidArgument
from lmvp.references import suggest

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
    _arg("name", nargs="?", help="a project, [project/]model[@revision] or [project/]run; the first page"),
    _arg("--print", action="store_true", only=SHELL, help="print the link, and start no browser"),
)
_YES = _arg("--yes", action="store_true", help="move a protected alias without a question, as a script must")
_QUIET = _arg("--no-progress", action="store_true", help="show no bar")

VERBS = (
    Verb(verbs.push, (
        _arg("model", help="[project/]model"),
        _arg("object", help="a variable (in a notebook), or a path"),
        _arg("-m", "--message", help="what is new"),
        _many("--metric", metavar="KEY=NUMBER", help="a metric; may be given again"),
        _many("--param", metavar="KEY=VALUE", help="what it was made with; may be given again"),
        _many("--tag", metavar="KEY=TEXT", help="a tag; may be given again"),
        _many("--alias", metavar="NAME", help="an alias that moves to this version"),
        _arg("--parent", metavar="REVISION", help="the version that it grew from"),
        _arg("--create", action="store_true", help="make project and model on a shared server"),
        _arg("--propose", action="store_true", help="propose it, for a maintainer to accept"),
        _YES,
        _arg("--no-wait", action="store_true", only=NOTEBOOK, help="push a copy of the weights while other cells run"),
        _QUIET,
    )),
    Verb(verbs.amend, (
        _arg("version", help="[project/]model[@revision]"),
        _arg("-m", "--message", help="what is new in it"),
        _many("--metric", metavar="KEY=NUMBER", help="a metric to set; may be given again"),
        _many("--param", metavar="KEY=VALUE", help="a param to set; may be given again"),
        _many("--tag", metavar="KEY=TEXT", help="a tag to set; may be given again"),
        _arg("--forget-code", action="store_true", help="erase the code that was kept with it, for good"),
    )),
    Verb(verbs.pull, (
        _arg("version", help="[project/]model[@revision]"),
        _arg("variable", nargs="?", only=NOTEBOOK, help="the variable to keep the object in"),
        _arg("--into", metavar="VARIABLE", only=NOTEBOOK, excludes=("variable", "--to"),
             help="the object whose weights are replaced in place"),
        _arg("--to", metavar="FOLDER", help="the folder for the files, byte-identical"),
        _many("--trust", metavar="CLASS", excludes=("--to",), help="a class that may be built: my_pkg.Net"),
        _QUIET,
    )),
    Verb(verbs.history, (
        _arg("name", nargs="?", help="a project or [project/]model; the current project"),
        _arg("--metric", metavar="KEY", help="the metric to show"),
        _arg("--where", metavar="FILTER", default="", help='"metrics.val_acc > 0.9", "\'frozen\' in message"'),
        _arg("--order", metavar="FIELD", default="", help="metrics.val_loss; -metrics.val_acc: the greatest first"),
        _arg("--limit", type=int, default=200, help="at most so many versions (%(default)s)"),
    )),
    Verb(verbs.alias, (
        _arg("version", help="[project/]model[@revision]"),
        _arg("alias", nargs="?", help="the alias: moved to the revision, or shown where there is none"),
        _arg("--remove", action="store_true", excludes=("--history", "--protect", "--unprotect"),
             help="remove the alias"),
        _arg("--history", action="store_true", excludes=("--protect", "--unprotect"),
             help="show its moves, and who made them"),
        _arg("--protect", action="store_true", excludes=("--unprotect",), help="let only maintainers move it"),
        _arg("--unprotect", action="store_true", help="let contributors move it too"),
        _YES,
    )),
    Verb(verbs.show, (_arg("version", help="[project/]model[@revision]"),)),
    Verb(verbs.diff, (
        _arg("before", help="[project/]model[@revision]"),
        _arg("after", help="[project/]model[@revision], or @revision of the same model"),
    )),
    Verb(contributing.contributions, (
        _arg("project", nargs="?", help="the project; the current one"),
        _arg("--all", action="store_true", help="those that are decided too"),
    )),
    Verb(contributing.fork, (
        _arg("model", help="[project/]model"),
        _arg("to", help="project/model, for the copy"),
    )),
    Verb(contributing.contribute, (
        _arg("version", help="[project/]model[@revision] of a fork"),
        _arg("-m", "--message", help="what is new; without it, what the version says"),
    )),
    Verb(contributing.accept, (_arg("contribution", help="[project/]model@c12"),)),
    Verb(contributing.decline, (
        _arg("contribution", help="[project/]model@c12"),
        _arg("-m", "--message", metavar="REASON", help="why"),
    )),
    Verb(contributing.withdraw, (_arg("contribution", help="[project/]model@c12"),)),
    Verb(contributing.comment, (
        _arg("contribution", help="[project/]model@c12"),
        _arg("-m", "--message", metavar="WORDS", help="what to say; without it, show what was said"),
    )),
    Verb(contributing.require, (
        _arg("model", help="[project/]model"),
        _arg("rule", nargs="?", help='"val/acc >= @production", "metrics.val/loss < 0.2 and params.lr < 0.01"; '
             "without it, show the rule"),
        _arg("--nothing", action="store_true", excludes=("rule",), help="remove the rule"),
    )),
    Verb(contributing.rollback, (_arg("alias", help="[project/]model@alias"), _YES)),
    Verb(tracking.runs, (
        _arg("project", nargs="?", help="the project; the current one"),
        _arg("--where", metavar="FILTER", help='"metrics.val_acc > 0.9 and params.lr < 0.01"'),
        _arg("--order", metavar="FIELD", help="metrics.val_loss; -metrics.val_acc: the greatest first"),
        _arg("--limit", type=int, default=200, help="at most so many runs (%(default)s)"),
    )),
    Verb(tracking.annotate, (
        _arg("run", help="[project/]run: its name, or its id"),
        _arg("--name", help="a new name"),
        _many("--tag", metavar="KEY=TEXT", help="a tag to set; may be given again"),
        _many("--untag", metavar="KEY", help="a tag to remove; may be given again"),
        _many("--param", metavar="KEY=VALUE", help="a param to set; may be given again"),
        _arg("--notes", metavar="TEXT", help="free text about it, in the place of the old one"),
    )),
    Verb(tracking.metrics, (
        _arg("names", nargs="+", metavar="NAME", help="[project/]run, several of them, [project/]model, or a project"),
        _many("--key", metavar="KEY", help="a metric; may be given again; all of them"),
        _arg("--smooth", type=int, default=0, metavar="N", help="smooth over so many points"),
        _arg("--log", action="store_true", help="draw on a logarithmic axis"),
        _arg("--x", default="step", metavar="AXIS", help="step, time, or a metric such as epoch (%(default)s)"),
    )),
    Verb(tracking.compare, (
        _arg("runs", nargs="+", metavar="RUN", help="[project/]run, two or more"),
        _arg("--all", action="store_true", help="what is alike too"),
    )),
    Verb(tracking.sync, (
        _arg("--dry-run", action="store_true", help="only tell what is there"),
        _arg("--force", action="store_true", help="also runs of other machines that may still be running"),
        _arg("--discard", metavar="RUN", excludes=("--dry-run", "--force"),
             help="delete what was left of a run, undelivered"),
    )),
    Verb(housekeeping.du, (_arg("name", nargs="?", help="project/ for its models, [project/]model for its versions"),)),
    Verb(housekeeping.rm, (
        _arg("name", help="[project/]model@revision, [project/]model, project/, or project/runs/run"),
        _arg("--yes", action="store_true", help="remove a whole model or project"),
        _arg("--now", action="store_true", help="for good, and give the bytes back; nothing can be brought back then"),
    )),
    Verb(housekeeping.undelete, (
        _arg("name", nargs="?", help="[project/]model@v3, [project/]model, project/ or project/runs/run; none: a list"),
    )),
    Verb(housekeeping.prune, (
        _arg("model", help="[project/]model"),
        _arg("--keep", metavar="RULE", help='what stays, "best:val_acc:3,last:5", beside the newest, those with an '
             "alias and what these grew from; without it, the rule of the model"),
        _arg("--dry-run", action="store_true", help="only tell what would go, and how many bytes"),
        _arg("--save", action="store_true", help="make it the rule of the model, applied by the server itself"),
        _arg("--forget", action="store_true", excludes=("--keep", "--save", "--dry-run"),
             help="remove the rule of the model"),
    )),
    Verb(housekeeping.gc, (
        _arg("--removed", action="store_true", help="also what was removed and could still be brought back"),
    )),
    Verb(housekeeping.compact),
    Verb(housekeeping.fsck, (
        _arg("--head", metavar="FILE", help="what `lmvp audit head` printed: nothing before may have changed"),
        _arg("--repair", action="store_true", help="set damaged frames aside, so that a push can heal them"),
        _QUIET,
    )),
    Verb(archive.export, (
        _arg("model", help="[project/]model"),
        _arg("to", metavar="FOLDER_OR_TAR", help="a folder, gone on with if it is there, or a file that ends in .tar"),
        _arg("--versions", metavar="LIST", help="3,5-9,production; all of them"),
        _arg("--force", action="store_true", help="replace a file, or an export of another model"),
        _QUIET,
    )),
    Verb(archive.import_, (
        _arg("source", metavar="FOLDER_OR_TAR", help="what `lmvp export` wrote"),
        _arg("model", nargs="?", help="[project/]model to make of it; the names that it had"),
        _YES,
        _QUIET,
    )),
    Verb(archive.backup, (
        _arg("to", metavar="FOLDER", help="a new folder, or one of an earlier backup"),
        _arg("--quick", action="store_true", help="look only whether kept chunks are there; do not prove them again"),
        _QUIET,
    )),
    Verb(housekeeping.cache, (_arg("--clear", action="store_true", help="delete all that is in it"),)),
    Verb(verbs.ls, (_arg("project", nargs="?", help="the project to list the models of"),)),
    Verb(verbs.project, (_arg("name", nargs="?", help="the project to make the current one"),), NOTEBOOK),
    Verb(access.login, (
        _arg("url", help="https://models.example.org"),
        _arg("--with-token", action="store_true", excludes=("--scope",),
             help="type a token, or pipe it in, instead of approving a code"),
        _arg("--scope", choices=("read", "write", "admin"), default="",
             help="get a new token of this scope; without it, the stored token, or a new one of scope write"),
    )),
    Verb(access.tokens, (
        _arg("what", nargs="?", choices=("list", "create", "revoke"), default="list", help="%(choices)s (%(default)s)"),
        _arg("name", nargs="?", of=("create", "revoke"), help="what to call the new one; the id of the one to revoke"),
        _arg("--days", type=int, metavar="N", of=("create",), help="it expires after so many days"),
        _arg("--scope", choices=("read", "write", "admin"), default="read", of=("create",),
             help="the rights of its account that it passes on (%(default)s)"),
        _arg("--project", metavar="NAME", default="", of=("create",), help="the one project that it is for"),
        _arg("--user", metavar="NAME", default="", of=("create",),
             help="whose it is; an admin makes them for service accounts"),
    ), SHELL),
    Verb(access.identities, (
        _arg("what", nargs="?", choices=("list", "disconnect"), default="list", help="%(choices)s (%(default)s)"),
        _arg("id", nargs="?", of=("disconnect",), help="disconnect: the id of the identity"),
        _arg("--user", metavar="NAME", default="", of=("list",), help="list: only those of this account"),
    ), SHELL),
    Verb(audit.audit, (
        _arg("what", nargs="?", choices=("list", "head"), default="list", help="%(choices)s (%(default)s)"),
        _arg("project", nargs="?", of=("list",), help="a project; without it, the server itself"),
        _arg("--who", metavar="NAME", default="", of=("list",), help="only what this person did"),
        _arg("--action", metavar="WORD", default="", of=("list",), help="only what begins so: alias., version.create"),
        _arg("--target", metavar="NAME", default="", of=("list",),
             help="only what was done to this, or begins so: digits/mlp@"),
        _arg("--since", metavar="TIME", default="", of=("list",), help="2026-11-26, or 2026-11-26T12:00, in UTC"),
        _arg("--until", metavar="TIME", default="", of=("list",), help="before this time"),
        _arg("--limit", type=int, default=100, of=("list",), help="at most so many entries (%(default)s)"),
        _arg("--json", dest="json_lines", action="store_true", of=("list",),
             help="print whole entries as JSON, a line each"),
    ), SHELL),
    Verb(team.users, (
        _arg("what", nargs="?", choices=("list", "add", "disable", "enable", "passwd"), default="list",
             help="%(choices)s (%(default)s)"),
        _arg("name", nargs="?", of=("add", "disable", "enable", "passwd"), help="the account"),
        _arg("--admin", action="store_true", of=("add",), help="add: may do everything on the server"),
        _arg("--service", action="store_true", of=("add",), help="add: has no password, acts by tokens alone"),
        _arg("--keep-tokens", action="store_true", of=("passwd",),
             help="passwd: keep the account's tokens and invitations"),
        _arg("--keep-identities", action="store_true", of=("passwd",),
             help="passwd: keep the account's identities at a provider"),
    ), SHELL),
    Verb(team.groups, (
        _arg("what", nargs="?", choices=("list", "add", "remove"), default="list", help="%(choices)s (%(default)s)"),
        _arg("name", nargs="?", of=("add", "remove"), help="the group"),
        _arg("users", nargs="*", of=("add",), help="add: the people who join it"),
    ), SHELL),
    Verb(team.members, (
        _arg("project", nargs="?", help="the project; the current one"),
        _arg("what", nargs="?", choices=("list", "add", "remove", "invite", "invitations", "everyone", "public"),
             default="list", help="%(choices)s (%(default)s)"),
        _arg("name", nargs="?", of=("add", "remove"), help="a person, or a group as @vision"),
        _arg("--role", choices=("viewer", "contributor", "maintainer", "owner"), of=("add", "invite", "everyone"),
             help="the role to give"),
        _arg("--days", type=int, default=7, metavar="N", of=("invite",),
             help="invite: the link works so long (%(default)s)"),
        _arg("--revoke", metavar="ID", of=("invitations",), help="invitations: revoke this one"),
        _arg("--off", action="store_true", of=("public",), help="public: no more"),
    ), SHELL),
    Verb(webhooks.webhooks, (
        _arg("project", nargs="?", help="the project; the current one"),
        _arg("what", nargs="?", choices=("list", "add", "remove", "test", "enable"), default="list",
             help="%(choices)s (%(default)s)"),
        _arg("target", nargs="?", of=("add", "remove", "test", "enable"),
             help="add: the URL; else the id of a webhook"),
        _many("--event", metavar="WORD", of=("add",), help="add: only actions that begin so; may be given again"),
    ), SHELL),
    Verb(access.devices, (
        _arg("what", choices=("approve", "deny"), help="%(choices)s"),
        _arg("code", help="the code that the client shows"),
        _arg("--scope", choices=("read", "write", "admin"), default="", of=("approve",),
             help="approve: the scope of its token; the one that it asks for, but admin only if named"),
    ), SHELL),
    Verb(access.logout, (_arg("url", nargs="?", help="the server; the one in use"),)),
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
    _arg("-q", "--quiet", action="store_true", help="print no message and no progress bar; data is printed"),
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
    known = {verb.name: verb for verb in verbs_of(host)}
    names = [*known, *(OWN if host == SHELL else ())]
    first = next(iter(words), "-")
    if not first.startswith("-") and first not in names:
        raise _unknown(f"{parser.prog} has no verb {first!r}", first, names, parser.prog)
    options, left = parser.parse_known_args(words)  # `parse_args` would exit, without proposing a similar option
    if left:
        place = f"{parser.prog} {options.verb or ''}".rstrip()
        taken = (*known[options.verb].arguments, *(_OUTPUT if host == SHELL else ())) if options.verb in known else ()
        flags = [flag for one in taken for flag in one.flags]
        raise _unknown(f"`{place}` does not take {left[0]!r}", left[0].partition("=")[0], flags, place)
    if options.verb in known:
        _check_effects(known[options.verb], options, parser.prog)
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


def _unknown(message: str, word: str, known: Sequence[str], place: str) -> InvalidArgument:
    """Return the error for an unknown verb or option, with the most similar known name as the hint."""
    if word in OWN:
        return InvalidArgument(message, hint=f"`lmvp {word}` is for the shell")
    near = suggest(word, known)
    return InvalidArgument(message, hint=f"did you mean {near!r}?" if near else f"`{place} --help` tells what there is")


def _add(parser: argparse.ArgumentParser, arguments: Sequence[Argument], host: str) -> None:
    """Add the arguments that a host supports to a parser."""
    for argument in arguments:
        if argument.only in (None, host):
            parser.add_argument(*argument.flags, **argument.settings)
