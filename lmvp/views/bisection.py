"""Binary search for the first bad version of a model along first parents, as `git bisect` does for commits.

The search is a generator that yields the versions to test. Callers that test in the same thread, in a notebook event
loop or in the command line therefore share one implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, Protocol, TypeVar

from lmvp.core import html_tables, number_format
from lmvp.core.optional import pandas_module
from lmvp.core.references import Reference
from lmvp.core.sanitize import clean, printable
from lmvp.core.schemas import Version
from lmvp.core.validation import accepted
from lmvp.errors import InvalidArgument
from lmvp.views import _text
from lmvp.views._text import Column, terminal_width

Verdict = Literal["good", "bad", "skip"]
_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")
# A shape and a word beside it: the verdict must not depend on color.
_SIGNS = {"good": "● good", "bad": "◆ bad", "skip": "□ skipped"}


@dataclass(frozen=True)
class Trial:
    """A tested version, its verdict, and the reason if the test gave one."""

    version: Version
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True)
class Bisection:
    """The result of a search for the first bad version.

    Attributes
    ----------
    name : str
        The model, `project/model`.
    good, bad : Version
        The versions between which the search took place.
    trials : tuple of Trial
        The tested versions, in the order of the tests.
    suspects : tuple of Version
        The first bad version. If versions were skipped, all versions that can be the first bad one.
    between : int
        The number of versions between `good` and `bad`, both excluded.
    """

    name: str
    good: Version
    bad: Version
    trials: tuple[Trial, ...]
    suspects: tuple[Version, ...]
    between: int

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each trial, in the order of the trials: version, verdict and reason.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        rows = [(trial.version.name, trial.verdict, trial.why) for trial in self.trials]
        return pandas_module().DataFrame(rows, columns=["version", "verdict", "reason"])

    @property
    def first_bad(self) -> Version | None:
        """The first bad version; None if there are several suspects."""
        return self.suspects[0] if len(self.suspects) == 1 else None

    def __repr__(self) -> str:
        return printable(bisection_text(self))

    def _repr_html_(self) -> str:
        return bisection_html(self)


def search(count: int, judge: Callable[[int], Verdict]) -> list[int]:
    """Return the index of the first bad item of a sequence whose first item is good and whose last item is bad.

    Parameters
    ----------
    count : int
        The length of the sequence.
    judge : callable
        Returns the verdict for an index.

    Returns
    -------
    list of int
        The index of the first bad item. If items were skipped, the indices of all items that can be the first bad one.

    Examples
    --------
    >>> search(100, lambda i: "bad" if i >= 70 else "good")
    [70]
    >>> search(5, lambda i: "skip")
    [1, 2, 3, 4]
    """
    return answered(_halving(count), judge)


def _halving(count: int) -> Generator[int, Verdict, list[int]]:
    """Yield the indices to test, receive the verdict of each, and return the indices of the suspects."""
    good, bad = 0, count - 1
    skipped: set[int] = set()
    while left := [i for i in range(good + 1, bad) if i not in skipped]:
        # The nearest to the middle that was not skipped; twice the distance, to stay with integers.
        middle = min(left, key=lambda i: abs(2 * i - good - bad))
        verdict = yield middle
        if verdict == "skip":
            skipped.add(middle)
        elif verdict == "good":
            good = middle
        else:
            bad = middle
    return list(range(good + 1, bad + 1))


class LineSource(Protocol):
    """The methods of a client that a search calls."""

    @property
    def project(self) -> str:
        """The project of names that contain no project."""

    def version(self, name: str, /) -> Version:
        """Return a version."""

    def show_history(self, name: str, /, *, limit: int | None) -> Iterable[Version]:
        """Return the versions of a model."""


def bisect(
    client: LineSource, name: str, good: str, bad: str, judge: Callable[[Version], tuple[Verdict, str]]
) -> Bisection:
    """Search the versions between a good and a bad version; see `Client.bisect`."""
    return answered(trying(client, name, good, bad), judge)


def trying(client: LineSource, name: str, good: str, bad: str) -> Generator[Version, tuple[Verdict, str], Bisection]:
    """Yield the versions to test, receive the verdict and the reason of each, and return the result."""
    line = line_between(client, name, good, bad)
    trials: list[Trial] = []
    halving = _halving(len(line))
    place = following(halving)
    while isinstance(place, int):  # the last value is the list of suspects
        verdict, why = yield line[place]
        trials.append(Trial(line[place], verdict, why))
        place = following(halving, verdict)
    model = f"{line[0].project}/{line[0].model}"
    return Bisection(model, line[0], line[-1], tuple(trials), tuple(line[at] for at in place), len(line) - 2)


def answered(search: Generator[_Question, _Answer, _Result], answer: Callable[[_Question], _Answer]) -> _Result:
    """Run a search to its end with a function that answers its questions; return the result."""
    asked: Any = None
    given: _Answer | None = None
    while True:
        try:
            asked = search.send(given)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        given = answer(asked)


def following(search: Generator[_Question, Any, _Result], answer: object = None) -> _Question | _Result:
    """Send the answer to the last question to a search; return the next question, or the result."""
    try:
        return search.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def line_between(client: LineSource, name: str, good: str, bad: str) -> list[Version]:
    """Return the versions from the good to the bad version along first parents, both included.

    Raises
    ------
    InvalidArgument
        If the good version is not an ancestor of the bad version by first parents, or if both are the same.
    """
    place = Reference.parse(name, project=client.project)
    model = f"{place.project}/{place.model}"
    first, last = (
        client.version(f"{model}@{good.removeprefix('@')}"),
        client.version(f"{model}@{bad.removeprefix('@')}"),
    )
    accepted(first), accepted(last)
    # One list instead of a request for each parent: the line can have thousands of versions.
    known = {version.number: version for version in client.show_history(model, limit=None)}
    line = [last]
    while line[-1].number != first.number:
        parents = line[-1].parents
        before = known.get(parents[0].number) if parents else None
        if before is None:
            hint = "`--good` names an ancestor of `--bad` by first parents"
            raise InvalidArgument(f"{last.name} of {model} did not grow from {first.name}", hint=hint)
        line.append(before)
    if len(line) < 2:
        raise InvalidArgument(f"{first.name} of {model} cannot be both good and bad")
    return line[::-1]


def verdict_of(test: Callable[[], Any]) -> tuple[Verdict, str]:
    """Run a test and return its verdict and the reason.

    The verdict is "bad" if the test fails an `assert` or returns a false value such as `False` or `0`, and "skip" if it
    returns `"skip"`. Otherwise it is "good". None is "good" too, because a test with assertions returns nothing. Other
    exceptions are raised to the caller.
    """
    try:
        return _verdict(test())
    except AssertionError as error:
        return _failed(error)


async def verdict_of_awaited(test: Awaitable[Any]) -> tuple[Verdict, str]:
    """Await a test and return its verdict; see `verdict_of`."""
    try:
        return _verdict(await test)
    except AssertionError as error:
        return _failed(error)


def _failed(error: AssertionError) -> tuple[Verdict, str]:
    return "bad", (str(error).strip().splitlines() or ["an assertion failed"])[0]


def _verdict(value: Any) -> tuple[Verdict, str]:
    if isinstance(value, str) and value == "skip":
        return "skip", ""
    return ("good", "") if value is None or bool(value) else ("bad", "")


def found(bisection: Bisection) -> str:
    """Return the result in one line: the first bad version, or the suspects if trials were skipped."""
    trials = number_format.plural(len(bisection.trials), "trial")
    tried = f"{trials} of {number_format.plural(bisection.between, 'version')} between"
    first = bisection.first_bad
    if first is not None:
        return f"{first.reference} is the first bad version  {clean(first.message)}".rstrip() + f"  ({tried})"
    names = ", ".join(version.name for version in bisection.suspects)
    return f"the first bad version of {clean(bisection.name)} is one of {names}: the others were skipped  ({tried})"


def _rows(bisection: Bisection) -> list[tuple[str, str, str, str]]:
    """Return version, message, verdict and reason of the two given versions and of each trial, oldest first."""
    ends = [(bisection.good, "● good", "given"), (bisection.bad, "◆ bad", "given")]
    tried = [(trial.version, _SIGNS[trial.verdict], clean(trial.why)) for trial in bisection.trials]
    rows = sorted([*ends, *tried], key=lambda row: row[0].number)
    return [(version.name, clean(version.message), sign, why) for version, sign, why in rows]


def bisection_text(bisection: Bisection) -> str:
    """Return the result and a table of the trials, oldest first, as text."""
    heads = ("Version", "Message", "Verdict", "Why")
    rows = _rows(bisection)
    columns = [Column(head, [row[i] for row in rows], flexible=i in (1, 3)) for i, head in enumerate(heads)]
    return "\n".join([found(bisection), *_text.table(columns, terminal_width())])


def bisection_html(bisection: Bisection) -> str:
    """Return the result and a table of the trials, oldest first, as HTML."""
    rows = [[escape(word) for word in row] for row in _rows(bisection)]
    table = html_tables.table(("Version", "Message", "Verdict", "Why"), rows, names=[1])
    return f"<p><b>{escape(found(bisection))}</b></p>\n{table}"
