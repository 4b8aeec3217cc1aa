"""Names, references and revisions: validation and parsing.

A reference names a version of a model::

    reference   [project/]model[@revision]      lmvp://host[:port]/project/model[@revision]
    revision    latest | 3 | v3 | c12 | alias | 6 or more hex digits of a digest; then any number of ~n (n parents back)
    alias       can be followed by @{n} (n moves ago) or @2026-01-31 (the version that it pointed at on that day)

An alias must not look like one of the other kinds, so the kind of a revision follows from its text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, time, timezone
from itertools import islice
from typing import Literal, TypeAlias

from lmvp.errors import InvalidName, InvalidReference

NAME_LIMIT = 96
NAME_RULE = f"1 to {NAME_LIMIT} of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or a digit"
REFERENCE_RULE = "write [project/]model[@revision]: digits/mlp, digits/mlp@v3, digits/mlp@production"
REVISION_RULE = (
    "a revision is latest, v3, an alias, a contribution as c12, or 6 or more digits of a digest; "
    "~2 behind it goes two parents back"
)
SCHEME = "lmvp://"

Kind: TypeAlias = Literal["latest", "number", "alias", "digest", "contribution"]

_TEXT_LIMIT = 1000
"""Maximum number of characters of a reference or a revision."""
_SUGGEST_LENGTH, _SUGGEST_READ, _SUGGEST_SORTED, _SUGGEST_COMPARED = 128, 10_000, 1000, 5
"""Limits of `suggest`: characters of a name; candidates that are read, that are sorted, that are compared in full."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# At most 15 digits: `int` rejects texts of more than 4,300 digits, and no model has that many versions.
_NUMBER = re.compile(r"v?([0-9]{1,15})", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{6,}", re.IGNORECASE)
_CONTRIBUTION = re.compile(r"c[0-9]+", re.IGNORECASE)
_REVISION = re.compile(r"(?P<base>[^@~]*)(?:@(?P<at>[^~]*))?(?P<back>(?:~[0-9]{0,9})*)")
_MOVES_AGO = re.compile(r"\{([0-9]{1,9})\}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    _DATE.pattern + r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{3}|\.[0-9]{6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_ALIKE = ("CYRILLIC", "GREEK", "ARMENIAN", "FULLWIDTH", "MATHEMATICAL")
"""Prefixes of the Unicode names of letters that look like ASCII letters."""
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


def check_name(name: object, what: str = "name") -> str:
    """Return the name if it is valid.

    Parameters
    ----------
    name : str
        The name of a project, a model or an alias.
    what : str, default "name"
        The description of the name in the error, for example "project name".

    Raises
    ------
    InvalidName
        If the name breaks the rule. The message contains the position of the invalid character.

    Examples
    --------
    >>> check_name("resnet-18.v2")
    'resnet-18.v2'
    >>> check_name("a b", "model name")
    Traceback (most recent call last):
    lmvp.errors.InvalidName: the model name 'a b' has a space at position 2
      hint: 1 to 96 of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or a digit
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise InvalidName(f"the {what} {_fault(name)}", hint=NAME_RULE)


def check_alias(name: object) -> str:
    """Return the alias if it is a valid name and does not look like another kind of revision.

    Raises
    ------
    InvalidName
        If the alias is not a valid name, or is reserved.

    Examples
    --------
    >>> check_alias("production")
    'production'
    >>> check_alias("v3")
    Traceback (most recent call last):
    lmvp.errors.InvalidName: the alias 'v3' is reserved: it reads as the number of a version
      hint: reserved are latest, v3 and 3, c12, and 6 or more hex digits
    """
    alias = check_name(name, "alias")
    reserved = _reserved(alias)
    if reserved:
        hint = "reserved are latest, v3 and 3, c12, and 6 or more hex digits"
        raise InvalidName(f"the alias '{alias}' is reserved: it reads as {reserved}", hint=hint)
    return alias


def suggest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that is most similar to a name, for a hint "did you mean"; None if none is similar.

    Only a few candidates are compared in full, because `SequenceMatcher.ratio` takes cubic time for hostile names.

    Examples
    --------
    >>> suggest("prodution", ["production", "best"])
    'production'
    >>> suggest("MLP", ["mlp", "cnn"])
    'mlp'
    """
    from difflib import SequenceMatcher

    if len(name) > _SUGGEST_LENGTH:
        return None
    shortest, longest = len(name) * 3 / 7, min(len(name) * 7 / 3, _SUGGEST_LENGTH)  # others have a ratio < 0.6
    near = (each for each in islice(candidates, _SUGGEST_READ) if shortest <= len(each) <= longest)
    folded = {each.casefold(): each for each in islice(near, _SUGGEST_SORTED)}
    matcher = SequenceMatcher(b=name.casefold())

    def likeness(word: str, *, exact: bool) -> float:
        matcher.set_seq1(word)
        return matcher.ratio() if exact else matcher.quick_ratio()

    # `quick_ratio` is an upper bound of `ratio` and much faster, so it selects the candidates for the exact comparison.
    first = sorted(folded, key=lambda word: likeness(word, exact=False), reverse=True)[:_SUGGEST_COMPARED]
    close = [(score, word) for word in first if (score := likeness(word, exact=True)) >= 0.6]
    return folded[max(close)[1]] if close else None


@dataclass(frozen=True, slots=True)
class Revision:
    """A parsed revision, the part of a reference that selects a version of a model.

    Attributes
    ----------
    kind : str
        `latest`, `number`, `alias`, `digest` or `contribution`.
    value : str
        The alias as written, the number without `v`, the digest in lower case, the contribution as `c12`, or `latest`.
    back : int
        The number of first parents to go back from this version.
    at : int or datetime, optional
        For an alias: the number of moves to go back, or a time in UTC. A date without a time is the end of that day.
    """

    kind: Kind
    value: str
    back: int = 0
    at: int | datetime | None = None

    @property
    def number(self) -> int:
        """The number of the version; only for the kind `number`."""
        return int(self.value)

    @classmethod
    def parse(cls, text: object) -> Revision:
        """Parse a revision.

        Raises
        ------
        InvalidReference
            If the text is not a valid revision.

        Examples
        --------
        >>> Revision.parse("v12~1~2")
        Revision(kind='number', value='12', back=3, at=None)
        >>> Revision.parse("production@{1}")
        Revision(kind='alias', value='production', back=0, at=1)
        """
        checked = _checked_text(text, "revision", REVISION_RULE)
        match = _REVISION.fullmatch(checked)
        if match is None or not match["base"]:
            raise InvalidReference(f"{_shown(checked)} is no revision", hint=REVISION_RULE)
        revision = replace(_parse_base(match["base"]), back=_count_back(match["back"]))
        return revision if match["at"] is None else replace(revision, at=_parse_at(revision, match["at"]))

    def __str__(self) -> str:
        base = f"v{self.value}" if self.kind == "number" else self.value
        moment = "" if self.at is None else f"@{{{self.at}}}" if isinstance(self.at, int) else f"@{self.at.isoformat()}"
        return base + moment + (f"~{self.back}" if self.back else "")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference to a version of a model. `str` returns the text that `parse` accepts.

    Attributes
    ----------
    project : str or None
        The project; None stands for the current project.
    model : str
        The model.
    revision : str
        The revision as written; `Revision.parse` parses it.
    server : str or None
        `host` or `host:port` if the text is an `lmvp://` URL.
    """

    project: str | None
    model: str
    revision: str = "latest"
    server: str | None = None

    @classmethod
    def parse(cls, text: object, *, project: str | None = None) -> Reference:
        """Parse a reference.

        Parameters
        ----------
        text : str
            `[project/]model[@revision]`, or an `lmvp://` URL.
        project : str, optional
            The project of a text without a project.

        Raises
        ------
        InvalidReference
            If the text does not have this form, or its revision is invalid.
        InvalidName
            If the project or the model breaks the rule for names.

        Examples
        --------
        >>> Reference.parse("digits/mlp@v3")
        Reference(project='digits', model='mlp', revision='v3', server=None)
        >>> str(Reference.parse("lmvp://models.example.org/digits/mlp@best"))
        'lmvp://models.example.org/digits/mlp@best'
        """
        checked = _checked_text(text, "reference", REFERENCE_RULE)
        if checked[: len(SCHEME)].lower() == SCHEME:
            server, path = _split_server(checked)
            return replace(_parse_path(path, None), server=server)
        if "://" in checked:
            raise InvalidReference(f"{_shown(checked)} is no reference", hint=f"URLs of models begin with {SCHEME}")
        return _parse_path(checked, project)

    def __str__(self) -> str:
        server = f"{SCHEME}{self.server}/" if self.server else ""
        project = f"{self.project}/" if self.project else ""
        revision = "" if self.revision == "latest" else f"@{self.revision}"
        return server + project + self.model + revision


def _parse_path(text: str, project: str | None) -> Reference:
    place, separator, revision = text.partition("@")
    names = place.split("/")
    if len(names) > 2 or (len(names) == 2 and not all(names)):
        raise InvalidReference(f"{_shown(text)} is no reference", hint=REFERENCE_RULE)
    if separator:
        Revision.parse(revision)  # only to check it; the reference stores the text
    elif "~" in place:
        model, _, back = place.partition("~")
        hint = f"behind a revision it can: {_shown(f'{model}@latest~{back}')}"
        raise InvalidReference(f"{_shown(text)} has '~' behind a model", hint=hint)
    owner = check_name(names[0], "project name") if len(names) == 2 else project
    return Reference(owner, check_name(names[-1], "model name"), revision if separator else "latest")


def _split_server(text: str) -> tuple[str, str]:
    server, _, path = text[len(SCHEME) :].partition("/")
    if "@" in server:  # the message must not show the text, because it can contain a password
        raise InvalidReference(
            f"an {SCHEME} URL holds no user or password", hint="`lmvp login URL` stores a token for it"
        )
    match = _HOST.fullmatch(server)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise InvalidReference(f"{_shown(server)} is no host[:port]", hint=f"write {SCHEME}host/project/model@revision")
    if "/" not in path.partition("@")[0]:
        raise InvalidReference(
            f"{_shown(text)} lacks the project or the model", hint=f"write {SCHEME}host/project/model@revision"
        )
    return server.lower(), path


def _parse_base(text: str) -> Revision:
    number = _NUMBER.fullmatch(text)
    if text.lower() == "latest":
        return Revision("latest", "latest")
    if number:
        return Revision("number", str(int(number[1])))
    if _CONTRIBUTION.fullmatch(text) and len(text) < 100 and int(text[1:]) < 10**9:  # int() rejects > 4300 digits
        return Revision("contribution", f"c{int(text[1:])}")
    if _DIGEST.fullmatch(text):
        if len(text) > 64:
            raise InvalidReference(f"a digest has 64 hex digits, not {len(text)}", hint=REVISION_RULE)
        return Revision("digest", text.lower())
    if not _NAME.fullmatch(text):
        raise InvalidReference(f"the revision {_fault(text)}", hint=REVISION_RULE)
    return Revision("alias", text)


def _count_back(text: str) -> int:
    return sum(int(steps or 1) for steps in text.split("~")[1:])


def _parse_at(revision: Revision, text: str) -> int | datetime:
    if revision.kind != "alias":
        hint = f"only aliases move; {revision}~1 is the version before"
        raise InvalidReference(f"'@{text[:40]}' stands behind '{revision}', which is no alias", hint=hint)
    moves = _MOVES_AGO.fullmatch(text)
    if moves:
        return int(moves[1])
    moment = _parse_moment(text)
    if moment is None:
        hint = "behind an alias: @{1} for one move ago, or @2026-01-31, or @2026-01-31T12:00"
        raise InvalidReference(f"{_shown(text)} is neither a number of moves nor a time", hint=hint)
    return moment


def _parse_moment(text: str) -> datetime | None:
    try:
        if _DATE.fullmatch(text):  # the end of the day, so that today's date selects the current version
            return datetime.combine(datetime.fromisoformat(text), time.max, timezone.utc)
        if not _TIME.fullmatch(text):
            return None
        moment = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
        return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _reserved(alias: str) -> str | None:
    if alias.lower() == "latest":
        return "the newest version"
    if re.fullmatch(r"v?[0-9]+", alias, re.IGNORECASE):
        return "the number of a version"
    if _CONTRIBUTION.fullmatch(alias):
        return "a contribution"
    return "a digest" if _DIGEST.fullmatch(alias) else None


def _checked_text(text: object, what: str, rule: str) -> str:
    if not isinstance(text, str):
        raise InvalidReference(f"a {what} is a text, not {type(text).__name__}", hint=rule)
    if not text:
        raise InvalidReference(f"the {what} is empty", hint=rule)
    if len(text) > _TEXT_LIMIT:
        raise InvalidReference(f"a {what} of {len(text):,} characters", hint=rule)
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _fault(name: object) -> str:
    if not isinstance(name, str):
        return f"is a text, not {type(name).__name__}"
    if not name:
        return "is empty"
    wrong = re.search(r"[^A-Za-z0-9._-]", name)
    if wrong:
        return f"{_shown(name)} has {_character(wrong[0])} at position {wrong.start() + 1}"
    if len(name) > NAME_LIMIT:
        return f"{_shown(name)} has {len(name)} characters; the limit is {NAME_LIMIT}"
    return f"{_shown(name)} begins with {name[0]!r}"


def _character(char: str) -> str:
    import unicodedata

    if char == " ":
        return "a space"
    if char.isascii():
        return repr(char)
    named = unicodedata.name(char, "a character without a name")
    alike = "; it only looks like a plain letter" if char.isalpha() and named.startswith(_ALIKE) else ""
    return f"{char!r} (U+{ord(char):04X}, {named}{alike})"
