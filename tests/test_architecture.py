"""Imports go one way: lmvp_jupyter → lmvp_server → lmvp; in the server handlers → services → stores."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def imports(path):
    """Yield (module, at the top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        node
        for each in ast.walk(tree)
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(each)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield name, node not in inside


def below(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def wrong(folder, forbidden, allowed=()):
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, _ in imports(path)
        if below(name, forbidden) and (str(path.relative_to(ROOT)), name) not in allowed
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("lmvp_server", ["lmvp_jupyter", "IPython", "ipywidgets", "anywidget", "numpy", "torch", "requests"]),
        ("lmvp_server/services", ["tornado", "lmvp_server.handlers", "lmvp_server.routes", "lmvp_server.app"]),
        ("lmvp_server/stores", ["tornado", "lmvp_server.handlers", "lmvp_server.services", "lmvp_server.app"]),
        ("lmvp_server/handlers", ["lmvp_server.stores", "tinydb"]),
        ("lmvp/storage", ["os", "pathlib", "io", "socket", "requests", "numpy", "lmvp.transfer", "lmvp.formats"]),
        ("lmvp/formats", ["lmvp.client", "lmvp.transfer", "lmvp.connection"]),
        ("lmvp/render", ["lmvp.client", "lmvp.connection", "IPython"]),
        ("lmvp_jupyter", ["lmvp_server.stores", "lmvp_server.services", "lmvp_server.handlers", "lmvp_server.app"]),
    ],
)
def test_rooms_do_not_reach_where_they_must_not(folder, forbidden):
    assert wrong(folder, forbidden) == []


def test_the_client_knows_no_server_but_to_start_one():
    allowed = {
        ("lmvp/commands/shell.py", "lmvp_server.__main__"),
        ("lmvp/commands/shell.py", "lmvp_server.__main__.main"),
    }
    assert wrong("lmvp", ["lmvp_server", "lmvp_jupyter"], allowed) == []


@pytest.mark.parametrize("module", ["requests", "numpy", "torch", "tornado", "IPython", "sklearn", "tqdm"])
def test_heavy_modules_are_imported_in_functions(module):
    top = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "lmvp").rglob("*.py"))
        for name, at_top in imports(path)
        if below(name, [module]) and at_top and not path.is_relative_to(ROOT / "lmvp" / "formats")
    ]
    top = [line for line in top if "TYPE_CHECKING" not in (ROOT / line.split()[0]).read_text()]
    assert top == []
