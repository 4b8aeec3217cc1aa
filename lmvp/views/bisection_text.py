"""Text and HTML forms of the result of a bisection."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from lmvp.core import number_format
from lmvp.core.sanitize import clean

if TYPE_CHECKING:
    from lmvp.views.bisection import Bisection

# A shape and a word beside it: the verdict must not depend on color.
_SIGNS = {"good": "● good", "bad": "◆ bad", "skip": "□ skipped"}


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
    from lmvp.views._text import Column, table, terminal_width

    heads = ("Version", "Message", "Verdict", "Why")
    rows = _rows(bisection)
    columns = [Column(head, [row[i] for row in rows], flexible=i in (1, 3)) for i, head in enumerate(heads)]
    return "\n".join([found(bisection), *table(columns, terminal_width())])


def bisection_html(bisection: Bisection) -> str:
    """Return the result and a table of the trials, oldest first, as HTML."""
    from lmvp.core.html_tables import table

    rows = [[escape(word) for word in row] for row in _rows(bisection)]
    return (
        f"<p><b>{escape(found(bisection))}</b></p>\n{table(('Version', 'Message', 'Verdict', 'Why'), rows, names=[1])}"
    )
