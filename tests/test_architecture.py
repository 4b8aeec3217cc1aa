"""Imports go one way: lmvp_jupyter → lmvp_server → lmvp; in the server handlers → services → stores."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODECS = Path("lmvp/storage/codecs")
COLUMNAR = ("batches", "columns", "feed", "outline", "parsing")
"""Modules of `lmvp/tracking` that reckon with numpy."""


@cache
def imports(path):
    """Return (module, at the top level) of every import in a file."""
    return list(found_in(ast.parse(path.read_text("utf-8"))))


def found_in(tree):
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


def in_lazy_room(path):
    """Whether a module is itself imported only inside functions."""
    formats, codecs = ROOT / "lmvp" / "formats", ROOT / CODECS
    return (
        path.is_relative_to(formats)
        or (path.parent == codecs and path.name != "__init__.py")
        or (path.parent == ROOT / "lmvp/tracking" and path.stem in COLUMNAR)
    )


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
        ("lmvp_server", ["lmvp_jupyter", "IPython", "ipywidgets", "anywidget", "torch", "requests"]),
        ("lmvp_server/services", ["tornado", "lmvp_server.handlers", "lmvp_server.routes", "lmvp_server.app"]),
        ("lmvp_server/stores", ["tornado", "lmvp_server.handlers", "lmvp_server.services", "lmvp_server.app"]),
        ("lmvp_server/handlers", ["lmvp_server.stores", "tinydb"]),
        ("lmvp/storage", ["os", "pathlib", "io", "socket", "requests", "lmvp.transfer", "lmvp.formats"]),
        ("lmvp/formats", ["lmvp.client", "lmvp.transfer", "lmvp.connection"]),
        ("lmvp/render", ["lmvp.client", "lmvp.connection", "IPython"]),
        ("lmvp_jupyter", ["lmvp_server.stores", "lmvp_server.services", "lmvp_server.handlers", "lmvp_server.app"]),
    ],
)
def test_rooms_do_not_reach_where_they_must_not(folder, forbidden):
    assert wrong(folder, forbidden) == []


def test_of_the_server_only_the_series_reckon_with_numpy():
    found = {line.split()[0] for line in wrong("lmvp_server", ["numpy", "pcodec"])}
    assert {path for path in found if not path.startswith("lmvp_server/stores/series/")} == set()


def test_storage_reckons_with_numpy_in_few_places():
    found = {line.split()[0] for line in wrong("lmvp/storage", ["numpy", "zstandard", "compression"])}
    assert {path for path in found if Path(path).parent != CODECS} <= {
        "lmvp/storage/change.py",
        "lmvp/storage/values.py",
    }


def test_what_needs_numpy_is_loaded_by_the_first_call_that_needs_it():
    modules = [f"lmvp.storage.codecs.{path.stem}" for path in (ROOT / CODECS).glob("*.py")]
    modules += [f"lmvp.tracking.{name}" for name in COLUMNAR]
    outside = [path for path in (ROOT / "lmvp").rglob("*.py") if not in_lazy_room(path)]
    outside = [path for path in outside if "TYPE_CHECKING" not in path.read_text()]
    assert [(path, name) for path in outside for name, at_top in imports(path) if below(name, modules) and at_top] == []


def test_the_client_knows_no_server_but_to_start_one():
    allowed = {
        ("lmvp/commands/shell.py", "lmvp_server.__main__"),
        ("lmvp/commands/shell.py", "lmvp_server.__main__.main"),
        ("lmvp/commands/shell.py", "lmvp_server.restoring"),
        ("lmvp/commands/shell.py", "lmvp_server.restoring.main"),
    }
    assert wrong("lmvp", ["lmvp_server", "lmvp_jupyter"], allowed) == []


@pytest.mark.parametrize(
    "module", ["requests", "numpy", "torch", "tornado", "IPython", "sklearn", "keras", "onnx", "tqdm", "zstandard"]
)
def test_heavy_modules_are_imported_in_functions(module):
    top = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "lmvp").rglob("*.py"))
        for name, at_top in imports(path)
        if below(name, [module]) and at_top and not in_lazy_room(path)
    ]
    top = [line for line in top if "TYPE_CHECKING" not in (ROOT / line.split()[0]).read_text()]
    assert top == []
