"""Imports go one way: lmvp_jupyter → lmvp_server → lmvp; in the server handlers → services → stores."""

import ast
import re
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


CLIENT_OF_THE_PROVIDER = {
    ("lmvp_server/openid.py", "requests"),
    ("lmvp_server/openid.py", "requests.adapters"),
    ("lmvp_server/openid.py", "requests.adapters.HTTPAdapter"),
}
"""Authlib's client is a session of requests; the module is loaded only where a provider is configured."""


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
    assert wrong(folder, forbidden, CLIENT_OF_THE_PROVIDER) == []


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


UNPICKLERS = ["_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"]


def reached_from(package):
    """Return the files of every module that a package imports, directly or not, also inside functions."""
    files, waiting = set(), sorted((ROOT / package).rglob("*.py"))
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files.add(path)
        for name, _ in imports(path):
            module = ROOT / name.replace(".", "/")
            waiting += [found for found in (module.with_suffix(".py"), module / "__init__.py") if found.is_file()]
    return files


def test_server_imports_no_unpickler():
    files = reached_from("lmvp_server")
    assert ROOT / "lmvp/storage/containers/pickled.py" in files
    found = {path: name for path in files for name, _ in imports(path) if below(name, UNPICKLERS)}
    assert found == {}


def test_packages_unpickle_nothing_but_weights():
    """torch.load reads only data and trusted classes with weights_only=True; numpy.load reads no pickles by default."""
    found, safe = [], 0
    for path in [
        path for package in ("lmvp", "lmvp_server", "lmvp_jupyter") for path in (ROOT / package).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in UNPICKLERS:
                found += [f"{path}: {ast.unparse(node)}"] if node.attr in {"load", "loads", "Unpickler"} else []
            if isinstance(node, ast.Call):
                options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                called = ast.unparse(node.func)
                safe += called == "torch.load" and options.get("weights_only") == "True"
                found += (
                    [f"{path}: {called}"] if called == "torch.load" and options.get("weights_only") != "True" else []
                )
                found += [f"{path}: {called}"] if options.get("allow_pickle") == "True" else []
    assert found == []
    assert safe, "torch modules are loaded by torch.load"


def test_packages_name_no_other_host():
    """LMVP sends requests to its server only: no telemetry, no search for updates, no fonts or scripts of others."""
    known = re.compile(r"(localhost|127\.0\.0\.1|host|www\.w3\.org|\S*\bexample(\.\w+)?)\b")
    found = []
    for package in ("lmvp", "lmvp_server", "lmvp_jupyter"):
        for path in (ROOT / package).rglob("*"):
            if path.suffix == ".py":
                texts = string_constants(ast.parse(path.read_text("utf-8")))
            elif path.suffix in {".html", ".js", ".css"} and "vendor" not in path.parts:
                texts = [path.read_text("utf-8")]
            else:
                continue
            hosts = [host for text in texts for host in re.findall(r"(?:https?|wss?)://([\w.-]+)", text)]
            found += [f"{path.relative_to(ROOT)}: {host}" for host in hosts if not known.fullmatch(host)]
    assert found == []


def string_constants(tree):
    """Return the strings of a module that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented) or hasattr(node, "body")]
    bare = {
        statement.value
        for body in bodies
        if isinstance(body, list)
        for statement in body
        if isinstance(statement, ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bare
    ]


def test_soak_sets_every_size():
    """`make soak` sets each variable that a test reads with `soak.size`, and runs each file that reads one."""
    recipe = re.search(r"^soak:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1]
    sizes = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text("utf-8")
        names = re.findall(r'\bsize\("([A-Z]+)", \d+\)', text) if "from soak import size" in text else []
        if names:
            assert "mark.soak" in text, path
        sizes.update(dict.fromkeys(names, path.name))
    assert len(sizes) >= 6
    assert {name for name in sizes if f"LMVP_{name}=" not in recipe} == set()
