"""Which version was the first bad one: halving the line of first parents, as `git bisect` does over commits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lmvp.base_client import accepted
from lmvp.errors import InvalidArgument
from lmvp.records import Version
from lmvp.references import Reference

if TYPE_CHECKING:
    from lmvp.client import Client

Verdict = Literal["good", "bad", "skip"]
_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Trial:
    """A version that was tried, what came of it, and why, where the test said so."""

    version: Version
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True)
class Bisection:
    """What a search for the first bad version found.

    Attributes
    ----------
    name : str
        The model.
    trials : tuple of Trial
        In the order in which they were made.
    suspects : tuple of Version
        The first bad version, alone; several where those between could not be judged.
    between : int
        How many versions lay between the good one and the bad one.
    """

    name: str
    good: Version
    bad: Version
    trials: tuple[Trial, ...]
    suspects: tuple[Version, ...]
    between: int

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row for each trial, in the order of the trials: version, verdict and reason.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        """
        from lmvp.tracking.reading import pandas_module

        rows = [(trial.version.name, trial.verdict, trial.why) for trial in self.trials]
        return pandas_module().DataFrame(rows, columns=["version", "verdict", "reason"])

    @property
    def first_bad(self) -> Version | None:
        """The first bad version; None where it is one of several suspects."""
        return self.suspects[0] if len(self.suspects) == 1 else None

    def __repr__(self) -> str:
        from lmvp.render.bisection import bisection_text
        from lmvp.render.words import printable

        return printable(bisection_text(self))

    def _repr_html_(self) -> str:
        from lmvp.render.bisection import bisection_html

        return bisection_html(self)


def search(count: int, judge: Callable[[int], Verdict]) -> list[int]:
    """Return the first bad of so many things in a row, of which the first is good and the last is bad.

    Returns
    -------
    list of int
        Its index alone, or those of all that it can be, where some could not be judged.

    Examples
    --------
    >>> search(100, lambda i: "bad" if i >= 70 else "good")
    [70]
    >>> search(5, lambda i: "skip")
    [1, 2, 3, 4]
    """
    return answered(_halving(count), judge)


def _halving(count: int) -> Generator[int, Verdict, list[int]]:
    """Yield the indices to judge, and take the verdict of each."""
    good, bad = 0, count - 1
    skipped: set[int] = set()
    while left := [i for i in range(good + 1, bad) if i not in skipped]:
        middle = min(left, key=lambda i: abs(2 * i - good - bad))
        verdict = yield middle
        if verdict == "skip":
            skipped.add(middle)
        elif verdict == "good":
            good = middle
        else:
            bad = middle
    return list(range(good + 1, bad + 1))


def bisect(
    client: Client, name: str, good: str, bad: str, judge: Callable[[Version], tuple[Verdict, str]]
) -> Bisection:
    """Search the versions between a good one and a bad one; see `Client.bisect`."""
    return answered(trying(client, name, good, bad), judge)


def trying(client: Client, name: str, good: str, bad: str) -> Generator[Version, tuple[Verdict, str], Bisection]:
    """Yield the versions to try, and take the verdict of each with its reason."""
    line = line_between(client, name, good, bad)
    trials: list[Trial] = []
    halving = _halving(len(line))
    place = following(halving)
    while isinstance(place, int):
        verdict, why = yield line[place]
        trials.append(Trial(line[place], verdict, why))
        place = following(halving, verdict)
    model = f"{line[0].project}/{line[0].model}"
    return Bisection(model, line[0], line[-1], tuple(trials), tuple(line[at] for at in place), len(line) - 2)


def answered(search: Generator[_Question, _Answer, _Result], answer: Callable[[_Question], _Answer]) -> _Result:
    """Answer each question of a search; return its result."""
    asked: Any = None
    given: _Answer | None = None
    while True:
        try:
            asked = search.send(given)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        given = answer(asked)


def following(search: Generator[_Question, Any, _Result], answer: object = None) -> _Question | _Result:
    """Answer the last question of a search; return the next question, or the result."""
    try:
        return search.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def line_between(client: Client, name: str, good: str, bad: str) -> list[Version]:
    """Return the versions along first parents from the good one to the bad one, both included.

    Raises
    ------
    InvalidArgument
        If the bad one did not grow from the good one.
    """
    place = Reference.parse(name, project=client.project)
    model = f"{place.project}/{place.model}"
    first, last = (
        client.version(f"{model}@{good.removeprefix('@')}"),
        client.version(f"{model}@{bad.removeprefix('@')}"),
    )
    accepted(first), accepted(last)
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
    """Run a test and say what it found.

    Bad is what fails an `assert`, or gives something false: `False`, `0`. `"skip"` says that this one cannot be judged.
    All else is good, also None: a test of assertions gives nothing. Other exceptions are the caller's.
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
