"""Find phrases that the style rules in CONTRIBUTING.md forbid.

The check reads docstrings, comments, messages, templates and Markdown. It ignores code, inline code and doctests. Run
`python tools/prose.py` for all findings, or `python tools/prose.py PATH ... --baseline FILE` to allow the number of
findings that the baseline states for each file. A file without an entry must have none.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATHS = ("lmvp", "lmvp_server", "lmvp_jupyter", "tests", "tools", "benchmarks", "examples", "docs", ".github",
         "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "setup.cfg",
         "pyproject.toml", ".pre-commit-config.yaml")  # fmt: skip
SKIPPED = {"vendor", "golden", "vectors", "reference", "__pycache__", ".ipynb_checkpoints"}
"""Folders with third-party text and recorded output."""

SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".ipynb", ".cfg", ".toml", ".yml", ".yaml", ".sh"}

TEXT_KEYWORDS = {"hint", "help", "description", "epilog", "note", "told"}
"""Keyword arguments whose strings users read, in any call."""

_SPEAKING = {"debug", "info", "warning", "error", "exception", "critical", "warn", "print"}
"""Functions and methods that show strings to users: of loggers, `warnings.warn` and `print`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A forbidden phrase, with advice for the author."""

    pattern: re.Pattern[str]
    advice: str


def _rule(pattern: str, advice: str, *, case: bool = False) -> Rule:
    spaced = pattern.replace(" ", r"\s+")  # a phrase may continue on the next line
    return Rule(re.compile(rf"\b(?:{spaced})\b", 0 if case else re.IGNORECASE), advice)


RULES = (
    _rule(r"(?:stand|stands|stood|standing) at", "an alias points at a version"),
    _rule(r"(?:lean|leans|leaned|leant|leaning) on", "use `depends on`"),
    _rule("anew", "use `again`, or name the action: re-encode, rewrite, restart"),
    _rule(r"(?:is|are|was|were) none", "state what is missing or invalid", case=True),
    _rule(r"no \w+ that", "state what is missing or invalid"),
    _rule(r"of (?:its|their|his) own accord", "use `automatically`"),
    _rule(r"by (?:itself|themselves)", "use `automatically` or `alone`"),
    _rule(r"whoever|whomever|whosoever", "name the person: the caller, the user, the operator"),
    _rule(r"what is said|what was said", "name the object: the request, the record, the message"),
    _rule(r"vouch(?:es|ed)?(?: for)?", "a class is trusted or not trusted"),
    _rule(r"as (?:it was|they were)", "use `unchanged`"),
    _rule(r"(?:is|are|was|were) gone", "use `not found`, `removed` or `deleted`"),
    _rule("for good", "use `permanently`"),
    _rule(r"(?:go|goes|went|gone|going) on with", "use `continue`"),
    _rule("out of sight", "use `in the background` or `hidden`"),
    _rule(r"(?:take|takes|taken|took|taking) (?:\w+ ){0,2}away", "use `remove`"),
    _rule(r"(?:lay|lays|laid) down", "use `write`"),
    _rule(r"held against", "use `compared with`"),
    _rule(r"(?:look|looks|looked|looking) after", "name the action: manage, keep, delete, update"),
    _rule(r"give(?:s|n)? room|room back", "use `free space`"),
    _rule(r"reckon\w*", "use `compute` or `count`"),
    _rule(r"of late|lately", "use `recent` or `recently`"),
    _rule(r"keeping house|the house", "use `maintenance` or `repository layout`"),
    _rule(r"tell|tells|told|telling", "use `report`, `state`, `show` or `return`"),
)
"""Phrases that are forbidden anywhere."""

_SUBJECT = re.compile(r"(?P<before>\A|[.!?:;)]\s+|\n)(?P<lead>[\s>#*|\"'(-]*)(?P<word>What|Who|Whoever|Whatever)\b")
_MESSAGE_SUBJECT = re.compile(_SUBJECT.pattern, re.IGNORECASE)
_END = re.compile(r"[.!?](?:[\s\"'”)]|\Z)|\n\s*\n|\Z")
_SUBJECT_ADVICE = "begin the sentence with the noun that it is about"


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and the line of its first character; `message` if a program prints it."""

    line: int
    text: str
    message: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A forbidden phrase at a line of a file."""

    path: str
    line: int
    phrase: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r}: {self.advice}"


# -- rules


def findings_in(passage: Passage, path: str = "") -> Iterator[Finding]:
    r"""Return the forbidden phrases of a passage.

    Examples
    --------
    >>> [str(found) for found in findings_in(Passage(3, "An alias\nstands at v3. Why does it? What is left goes."))]
    [":4: 'stands at': an alias points at a version", ":4: 'What': begin the sentence with the noun that it is about"]
    >>> list(findings_in(Passage(1, "What does a push send? `what` is a parameter.")))
    []
    """
    text = _without_code(passage.text)
    found = [(match.start(), match[0], rule.advice) for rule in RULES for match in rule.pattern.finditer(text)]
    for match in (_MESSAGE_SUBJECT if passage.message else _SUBJECT).finditer(text):
        end = _END.search(text, match.end())
        if end is None or not end[0].startswith("?"):
            found.append((match.start("word"), match["word"], _SUBJECT_ADVICE))
    for start, phrase, advice in sorted(found):
        yield Finding(path, passage.line + text.count("\n", 0, start), " ".join(phrase.split()), advice)


def _without_code(text: str) -> str:
    """Replace inline code by a placeholder that matches no rule; line numbers do not change."""
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: "`" + "\n" * code[0].count("\n"), text, flags=re.DOTALL)


# -- texts of files


def passages(path: Path) -> Iterator[Passage]:
    """Return the prose of a file, according to its suffix."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        yield from _python(text)
    elif path.suffix == ".md":
        yield Passage(1, _markdown(text))
    elif path.suffix == ".ipynb":
        for cell in json.loads(text)["cells"]:
            if cell["cell_type"] == "markdown":
                yield Passage(1, _markdown("".join(cell["source"])))
    elif path.suffix == ".html":
        yield from _html(text)
    elif path.suffix in {".js", ".css"}:
        yield from _script(text)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith("#"):
                yield Passage(number, line.lstrip())


def _python(text: str) -> Iterator[Passage]:
    lines, tree = text.splitlines(), ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and _is_text(node.value):
            raw = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            yield Passage(node.lineno, _without_doctests(re.sub(r"\A\s*[rRuU]?(?=[\"'])", "", raw)))
    yield from _messages(tree)
    yield from _comments(text)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _without_doctests(text: str) -> str:
    """Blank the examples of a docstring, and lines of the form `name : type`."""
    kept, example = [], False
    for line in text.split("\n"):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        kept.append("" if example or re.match(r"\s*[\w*, ]+ : \S", line) else line)
    return "\n".join(kept)


def _messages(tree: ast.AST) -> Iterator[Passage]:
    """Return the strings that a module passes to exceptions, loggers and command options."""
    errors = _error_names()
    seen: set[ast.AST] = set()
    for node in ast.walk(tree):
        given: list[ast.AST] = []
        if isinstance(node, ast.Raise) and node.exc is not None:
            given = [node.exc]
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in errors or name in _SPEAKING or re.search(r"(Error|Warning|Exception)$", name):
                given = list(node.args)
            given += [keyword.value for keyword in node.keywords if keyword.arg in TEXT_KEYWORDS]
        for top in given:
            for part in ast.walk(top):
                if part not in seen and _is_text(part):
                    seen.add(part)
                    yield Passage(part.lineno, part.value, message=True)  # type: ignore[attr-defined]


def _error_names() -> set[str]:
    """Return the names of the errors that `lmvp.errors` defines."""
    path = ROOT / "lmvp" / "errors.py"
    if not path.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)}


def _comments(text: str) -> Iterator[Passage]:
    """Return the comments of a module; those of consecutive lines are one passage."""
    found: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if found and (token.start[0] != found[-1][0] + 1 or token.line.strip() != token.string):
                yield _joined(found)
                found = []
            found.append((token.start[0], token.string.lstrip("#! ")))
    if found:
        yield _joined(found)


def _joined(comments: list[tuple[int, str]]) -> Passage:
    return Passage(comments[0][0], "\n".join(text for _, text in comments))


def _markdown(text: str) -> str:
    """Blank code blocks, comments and link targets; line numbers do not change."""
    text = _blank(r"^ *(```+|~~~+)[^\n]*\n.*?^ *\1", text)
    text = _blank("<!--.*?-->", text)
    return re.sub(r"\]\([^)\n]*\)", "]", text)


def _html(text: str) -> Iterator[Passage]:
    """Return the text of a template and the attributes that users read."""
    text = _blank(r"<(script|style|code|pre)\b.*?</\1>", text)
    text = _blank(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", text, by="x")
    for match in re.finditer(r'\b(?:title|aria-label|placeholder|alt)="([^"]*)"', text):
        yield Passage(1 + text.count("\n", 0, match.start(1)), match[1], message=True)
    for match in re.finditer(r">([^<]*[A-Za-z][^<]*)<", f">{text}<"):
        words = match[1]
        lead = len(words) - len(words.lstrip())
        yield Passage(1 + text.count("\n", 0, match.start(1) - 1 + lead), words.strip())


def _script(text: str) -> Iterator[Passage]:
    """Return the comments and the strings of a script or stylesheet."""
    comment = r"/\*(?P<block>.*?)\*/|(?<![:\w])//(?P<line>[^\n]*)"
    quoted = r"(?P<quote>[\"'`])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)"
    for match in re.finditer(f"{comment}|{quoted}", text, re.DOTALL):
        words = match["block"] or match["line"] or match["text"] or ""
        if " " in words.strip():
            line = 1 + text.count("\n", 0, match.start())
            yield Passage(line, words.strip("* \t"), message=match["text"] is not None)


def _blank(pattern: str, text: str, by: str = "") -> str:
    return re.sub(pattern, lambda match: by + "\n" * match[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


# -- the command


def files_below(paths: Iterable[str | Path]) -> list[Path]:
    """Return the files with prose in these files and folders."""
    found: set[Path] = set()
    for path in map(Path, paths):
        for each in path.rglob("*") if path.is_dir() else [path]:
            inside = each.relative_to(path).parts if path.is_dir() else each.parts
            named = each.suffix in SUFFIXES or each.name == "Makefile"
            if named and each.is_file() and not SKIPPED & set(inside):
                found.add(each.resolve())
    return sorted(found)


def check(paths: Iterable[str | Path]) -> dict[str, list[Finding]]:
    """Return the findings by path, for every file that was read in these files and folders."""
    found = {}
    for path in files_below(paths):
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()
        found[name] = sorted(finding for passage in passages(path) for finding in findings_in(passage, name))
    return found


def over(found: dict[str, list[Finding]], allowed: dict[str, int]) -> list[str]:
    """Return the names of the files that have more findings than the baseline allows."""
    return [name for name, findings in found.items() if len(findings) > allowed.get(name, 0)]


def lowered(found: dict[str, list[Finding]], allowed: dict[str, int]) -> dict[str, int]:
    """Return the baseline with the counts of these files; a count never increases.

    Examples
    --------
    >>> lowered({"a.py": [], "b.py": [Finding("b.py", 1, "anew", "")]}, {"a.py": 3, "b.py": 2, "c.py": 5})
    {'b.py': 1, 'c.py': 5}
    """
    counts = allowed | {name: min(len(findings), allowed.get(name, 0)) for name, findings in found.items()}
    return {name: count for name, count in sorted(counts.items()) if count}


def main(arguments: list[str] | None = None) -> int:
    """Run the check and return the exit status: 0 without findings, or with no more than the baseline allows."""
    parser = argparse.ArgumentParser(description="Find phrases that the style rules in CONTRIBUTING.md forbid.")
    parser.add_argument("paths", nargs="*", help="files and folders; the whole repository by default")
    parser.add_argument("--baseline", type=Path, help="JSON file with the number of findings that each file may have")
    parser.add_argument("--update", action="store_true", help="lower the numbers in the baseline, then check")
    parser.add_argument("--force", action="store_true", help="with --update: write all numbers, for files that moved")
    options = parser.parse_args(arguments)
    if options.update and options.baseline is None:
        parser.error("--update needs --baseline FILE")
    found = check(options.paths or [ROOT / path for path in PATHS if (ROOT / path).exists()])
    allowed: dict[str, int] = {}
    if options.baseline is not None and options.baseline.is_file():
        allowed = json.loads(options.baseline.read_text("utf-8"))
    if options.update:
        counted = {name: len(findings) for name, findings in sorted(found.items()) if findings}
        allowed = counted if options.force else lowered(found, allowed)
        if not options.paths:  # files that were deleted or moved
            allowed = {name: count for name, count in allowed.items() if name in found}
        options.baseline.write_text(json.dumps(allowed, indent=1) + "\n", "utf-8")
    failed = over(found, allowed)
    for name in failed:
        print(*found[name], sep="\n")
        if name in allowed:
            print(f"{name}: {len(found[name])} findings; the baseline allows {allowed[name]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
