"""Write the reference pages of the docs site from the code: Python, shell, HTTP API, errors and server options.

`docs/conf.py` calls `write` before each build. The pages are generated, so they cannot differ from the code.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lmvp
from lmvp.cli.parser import (
    GROUPS,
    NOTEBOOK,
    OWN,
    SHELL,
    Argument,
    Verb,
    verbs_of,
)
from lmvp_server.__main__ import _parser
from lmvp_server.openapi import document
from lmvp_server.routes import API, ROUTES

_SECTIONS = (
    ("Client", ("Client",)),
    ("Models and versions", ("Version", "Alias", "History", "Diff")),
    ("Runs", ("Run", "ActiveRun", "Runs")),
    ("Contributions", ("Contribution",)),
)
"""Classes of the Python reference by heading."""

ROOT = Path(__file__).resolve().parent.parent
TOP_PAGES = {
    "README.md": "getting_started",
    "SECURITY.md": "security_policy",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
}
"""Pages in the top folder of the repository, with their names on the site."""

_METHODS = ("get", "post", "put", "patch", "delete", "head")


def write(folder: Path) -> None:
    """Write the pages into a folder; unchanged pages keep their modification time."""
    pages = {
        "python": python_page(),
        "shell": shell_page(),
        "http": http_page(document(ROUTES, API)),
        "errors": errors_page(),
        "server": server_page(),
    }
    pages |= {name: top_page(ROOT / file) for file, name in TOP_PAGES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in pages.items():
        path, text = folder / f"{name}.md", "\n".join(lines) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(head)
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def top_page(path: Path) -> Iterator[str]:
    """Yield a page of the top folder with links that work on the site."""
    text = path.read_text("utf-8").replace("](docs/", "](../")
    for file, name in TOP_PAGES.items():
        text = text.replace(f"]({file})", f"]({name}.md)")
    yield from text.splitlines()


# -- Python


def python_page() -> Iterator[str]:
    """Yield the page of the functions and classes of `lmvp`."""
    yield from ("# Python API", "", "The functions of the module `lmvp` use the server and project that are set.", "")
    yield from ("## Functions", "")
    aliases: dict[int, list[str]] = {}
    for name in lmvp.__all__:
        value = getattr(lmvp, name)
        if not isinstance(value, type):
            aliases.setdefault(id(value), []).append(name)
    for names in aliases.values():
        first = min(names, key=lambda name: (name != getattr(getattr(lmvp, name), "__name__", name), name))
        yield from _directive("autofunction", f"lmvp.{first}")
        if others := [f"`lmvp.{name}`" for name in names if name != first]:
            yield from (f"Other names: {', '.join(others)}.", "")
    for heading, classes in _SECTIONS:
        yield from (f"## {heading}", "")
        for name in classes:
            yield from _directive("autoclass", f"lmvp.{name}", ":members:", ":inherited-members: Struct, Sequence")


def _directive(name: str, target: str, *options: str) -> Iterator[str]:
    yield from ("```{eval-rst}", f".. {name}:: {target}")
    yield from (f"   {option}" for option in options)
    yield from ("```", "")


# -- shell


def shell_page() -> Iterator[str]:
    """Yield the page of the verbs of `lmvp` and `%lmvp`."""
    yield from ("# Verbs", "", "Each verb is a command of the shell, `lmvp VERB`.", "")
    yield from ("`%lmvp VERB` does the same in a notebook, where a verb does not say otherwise.", "")
    shell, notebook = ({verb.name: verb for verb in verbs_of(host)} for host in (SHELL, NOTEBOOK))
    for title, names in GROUPS.items():
        yield from (f"## {title}", "")
        for name in names:
            if name in OWN:
                yield from (f"### {name}", "", OWN[name], "", "Shell only.", "")
            elif verb := shell.get(name) or notebook.get(name):
                yield from _verb(verb, name in shell, name in notebook)


def _verb(verb: Verb, in_shell: bool, in_notebook: bool) -> Iterator[str]:
    yield from (f"### {verb.name}", "", *inspect.cleandoc(verb.act.__doc__ or "").splitlines(), "")
    if not (in_shell and in_notebook):
        yield from ("Shell only." if in_shell else "Notebook only.", "")
    if verb.arguments:
        rows = ((_flags(one), str(one.settings.get("help", "")) % _values(one), _place(one)) for one in verb.arguments)
        yield from _table(("argument", "meaning", "where"), rows)


def _values(argument: Argument) -> dict[str, Any]:
    choices = argument.settings.get("choices") or ()
    return {"default": argument.settings.get("default"), "choices": ", ".join(map(str, choices))}


def _flags(argument: Argument) -> str:
    value = argument.settings.get("metavar", "VALUE" if argument.settings.get("action") in (None, "append") else "")
    named = argument.flags[0].startswith("-")
    return ", ".join(f"`{flag}{f' {value}' if named and value else ''}`" for flag in argument.flags)


def _place(argument: Argument) -> str:
    return argument.only or "both"


# -- server


def server_page() -> Iterator[str]:
    """Yield the page of the options of `lmvp server`."""
    yield from ("# Server options", "", "The options of `lmvp server`.", "")
    shown = [one for one in _parser()._actions if one.help != argparse.SUPPRESS and one.option_strings]  # noqa: SLF001
    rows = ((f"`{one.option_strings[-1]}`", (one.help or "") % {"default": one.default}) for one in shown)
    yield from _table(("option", "meaning"), rows)


# -- errors


def errors_page() -> Iterator[str]:
    """Yield the page of the exceptions and their codes."""
    yield from ("# Errors", "", "Every exception is a subclass of `lmvp.LmvpError`.", "")
    yield "`code` is the name in the HTTP API, and the exit code is that of the shell command."
    yield ""
    found = (getattr(lmvp, name) for name in lmvp.__all__)
    errors = [one for one in found if isinstance(one, type) and issubclass(one, lmvp.LmvpError)]
    rows = (
        (f"`{one.__name__}`", f"`{one.code}`", str(one.http_status), str(one.exit_code), _summary(one))
        for one in errors
    )
    yield from _table(("exception", "code", "HTTP status", "exit code", "meaning"), rows)


def _summary(value: Any) -> str:
    return (value.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")


# -- HTTP API


def http_page(api: dict[str, Any]) -> Iterator[str]:
    """Yield the page of the routes, from the OpenAPI document."""
    yield from (
        "# HTTP API",
        "",
        "The server answers the OpenAPI document of these routes at `/api/v1/openapi.json`.",
        "",
    )
    for path, item in api["paths"].items():
        yield from (f"## `{path}`", "")
        for method in _METHODS:
            if operation := item.get(method):
                yield from _operation(method, operation, item.get("parameters", []))
    yield from ("## Schemas", "")
    for name, schema in sorted(api["components"]["schemas"].items()):
        yield from _schema(name, schema)


def _operation(method: str, operation: dict[str, Any], shared: list[dict[str, Any]]) -> Iterator[str]:
    yield from (f"### {method.upper()}", "", operation.get("summary") or "", "")
    if parameters := [*shared, *operation.get("parameters", [])]:
        rows = (
            (f"`{one['name']}`", one["in"], _type(one.get("schema", {})), one.get("description", ""))
            for one in parameters
        )
        yield from _table(("parameter", "in", "type", "meaning"), rows)
    if body := operation.get("requestBody"):
        yield from (f"Body: {_content(body['content'])}.", "")
    for status, answer in operation["responses"].items():
        content = _content(answer["content"]) if "content" in answer else "no body"
        yield f"- {status}: {content}"
    yield ""


def _content(content: dict[str, Any]) -> str:
    return ", ".join(f"{_type(one.get('schema', {}))} (`{kind}`)" for kind, one in content.items())


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#schema-{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and "items" in schema.get("properties", {}):
        return f"page of {_type(schema['properties']['items']['items'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield from (f"(schema-{name.lower()})=", f"### {name}", "", _summary_text(schema), "")
    required = set(schema.get("required", ()))
    if properties := schema.get("properties"):
        rows = (
            (f"`{key}`", _type(one), "yes" if key in required else "", str(one.get("description", "")))
            for key, one in properties.items()
        )
        yield from _table(("field", "type", "required", "meaning"), rows)


def _summary_text(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n\n")[0].replace("\n", " ")
