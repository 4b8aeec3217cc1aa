"""Imports go one way: lmvp_jupyter → lmvp_server → lmvp; in the server handlers → services → stores."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODECS = Path("lmvp/core/codecs")
COLUMNAR = (
    "lmvp/core/columns.py", "lmvp/core/downsample.py", "lmvp/core/frame_parsing.py",
    "lmvp/tracking/feed.py",
)  # fmt: skip
"""Modules that need numpy; other modules import them in functions, so that `import lmvp` stays light."""


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
        or str(path.relative_to(ROOT)) in COLUMNAR
    )


CLIENT_OF_THE_PROVIDER = {
    ("lmvp_server/web/openid_client.py", "requests"),
    ("lmvp_server/web/openid_client.py", "requests.adapters"),
    ("lmvp_server/web/openid_client.py", "requests.adapters.HTTPAdapter"),
}
"""Authlib's client is a session of requests; the module is loaded only where a provider is configured."""


def wrong(folder, forbidden, allowed=()):
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, _ in imports(path)
        if below(name, forbidden) and (str(path.relative_to(ROOT)), name) not in allowed
    ]


LAYERS = {
    "lmvp.hints": (),
    "lmvp.errors": ("lmvp.hints",),
    "lmvp.core": ("lmvp.errors",),
    "lmvp.config": ("lmvp.core", "lmvp.errors"),
    "lmvp.local": ("lmvp.config", "lmvp.core", "lmvp.errors"),
    "lmvp.local_session": ("lmvp.local",),
    "lmvp.connection": ("lmvp.local", "lmvp.local_session", "lmvp.core", "lmvp.errors", "lmvp.hints"),
    "lmvp.formats": ("lmvp.core", "lmvp.errors"),
    "lmvp.views": ("lmvp.core", "lmvp.errors", "lmvp.hints"),
    "lmvp.transfer": ("lmvp.formats", "lmvp.connection", "lmvp.config", "lmvp.core", "lmvp.errors"),
    "lmvp.archive": ("lmvp.transfer", "lmvp.formats", "lmvp.connection", "lmvp.core", "lmvp.errors"),
    # An active run is a `Run` to which a process logs.
    "lmvp.tracking": (
        "lmvp.views.runs", "lmvp.connection", "lmvp.config", "lmvp.core", "lmvp.errors", "lmvp.hints",
    ),
    "lmvp.client": (
        "lmvp.transfer", "lmvp.tracking", "lmvp.archive", "lmvp.formats", "lmvp.views", "lmvp.connection", "lmvp.local",
        "lmvp.config", "lmvp.core", "lmvp.errors", "lmvp.hints",
    ),
    "lmvp_server.stores": ("lmvp_server.process.cancellation", "lmvp.core", "lmvp.archive", "lmvp.errors"),
    "lmvp_server.services": (
        "lmvp_server.stores", "lmvp_server.process.cancellation", "lmvp.core", "lmvp.archive", "lmvp.errors",
    ),
}  # fmt: skip
"""The modules of LMVP that each package may import, besides its own."""

SERVER_SHARES = ("lmvp.core", "lmvp.views", "lmvp.errors", "lmvp.hints", "lmvp.archive")
"""Packages that the server shares with the client."""


def modules_of(package):
    """Return the path of each module of a package, by its name."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_imports_follow_the_layers():
    ours = {**modules_of("lmvp"), **modules_of("lmvp_server")}
    against = set()
    for layer, allowed in LAYERS.items():
        for module in ours:
            if below(module, [layer]):
                targets = {target for target in targets_of(ours, module) if not below(target, [layer, *allowed])}
                against |= {f"{module} -> {target}" for target in targets}
    for module in modules_of("lmvp_server"):
        shared = {target for target in targets_of(ours, module) if below(target, ["lmvp"]) and target != "lmvp"}
        against |= {f"{module} -> {target}" for target in shared if not below(target, SERVER_SHARES)}
    assert against == set()


def test_no_modules_import_each_other():
    """No module imports itself through others, also not inside functions or for types only."""
    ours = {**modules_of("lmvp"), **modules_of("lmvp_server"), **modules_of("lmvp_jupyter")}
    imported = {module: imported_by(ours, module) for module in ours}
    # Remove modules that import no remaining module, until only those of cycles and their importers are left.
    left = set(imported)
    while done := {module for module in left if not imported[module] & left}:
        left -= done
    assert {module: imported[module] & left for module in left} == {}


def imported_by(ours, module):
    """Return the modules that a module names in its imports: `from package import name` names one of the two."""
    found = set()
    for node in ast.walk(ast.parse(ours[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in ours else node.module for name in names}
    return found & set(ours) - {module}


def targets_of(ours, module):
    """Return the modules of LMVP that a module imports, also inside functions and for types."""
    found = set()
    for name, _ in imports(ours[module]):
        while name and name not in ours:
            name = name.rpartition(".")[0]
        found |= {name} if name and name != module and name != "lmvp" else set()
    # `from package import module` also names the package, which the module's own name implies.
    return {name for name in found if not any(other.startswith(name + ".") for other in found)}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("lmvp_server", ["lmvp_jupyter", "IPython", "ipywidgets", "anywidget", "torch", "requests"]),
        ("lmvp_server/services", ["tornado"]),
        ("lmvp_server/stores", ["tornado"]),
        ("lmvp_server/api", ["lmvp_server.stores", "lmvp_server.web", "tinydb"]),
        ("lmvp_server/web", ["lmvp_server.stores", "tinydb"]),
        ("lmvp/core", ["socketserver", "requests", "tornado"]),
        ("lmvp/views", ["IPython", "requests"]),
        ("lmvp_jupyter", ["lmvp_server.stores", "lmvp_server.services", "lmvp_server.api", "lmvp_server.app"]),
    ],
)
def test_packages_do_not_import_what_they_must_not_know(folder, forbidden):
    assert wrong(folder, forbidden, CLIENT_OF_THE_PROVIDER) == []


def test_of_the_server_only_the_series_reckon_with_numpy():
    found = {line.split()[0] for line in wrong("lmvp_server", ["numpy", "pcodec"])}
    assert {path for path in found if not path.startswith("lmvp_server/stores/local/series/")} == set()


def test_core_needs_numpy_in_few_modules():
    found = {line.split()[0] for line in wrong("lmvp/core", ["numpy", "zstandard", "compression"])}
    lazy = {*COLUMNAR, "lmvp/core/tensor_change.py", "lmvp/core/tensor_values.py"}
    assert {path for path in found if Path(path).parent != CODECS} <= lazy


def test_what_needs_numpy_is_loaded_by_the_first_call_that_needs_it():
    modules = [f"lmvp.core.codecs.{path.stem}" for path in (ROOT / CODECS).glob("*.py")]
    modules += [name.removesuffix(".py").replace("/", ".") for name in COLUMNAR]
    outside = [path for path in (ROOT / "lmvp").rglob("*.py") if not in_lazy_room(path)]
    outside = [path for path in outside if "TYPE_CHECKING" not in path.read_text()]
    assert [(path, name) for path in outside for name, at_top in imports(path) if below(name, modules) and at_top] == []


def test_the_client_knows_no_server_but_to_start_one():
    allowed = {
        ("lmvp/cli/shell.py", "lmvp_server.__main__"),
        ("lmvp/cli/shell.py", "lmvp_server.__main__.main"),
        ("lmvp/cli/shell.py", "lmvp_server.restore"),
        ("lmvp/cli/shell.py", "lmvp_server.restore.main"),
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
    assert ROOT / "lmvp/core/containers/pickled.py" in files
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
        names = re.findall(r'\bsize\("([A-Z]+)", \d+\)', text) if "from support.soak import size" in text else []
        if names:
            assert "mark.soak" in text, path
        sizes.update(dict.fromkeys(names, path.name))
    assert len(sizes) >= 6
    assert {name for name in sizes if f"LMVP_{name}=" not in recipe} == set()


GROUPS = {"unit", "api", "process", "browser", "frameworks"}
"""The folders of tests, by what their tests need; see CONTRIBUTING.md."""


def test_each_test_is_in_a_group():
    """Tests of the repository itself, for example of its pages, are in tests/."""
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders - {"."} == GROUPS


def test_unit_tests_start_no_server():
    starts = re.compile(
        r"^from support\.(?:in_process|local_server|real_server) import|\bfind_or_start\(", re.MULTILINE
    )
    wrong = [
        path.name for path in (ROOT / "tests" / "unit").glob("test_*.py") if starts.search(path.read_text("utf-8"))
    ]
    assert wrong == []


def test_moved_tests_are_where_the_table_says():
    lines = (ROOT / "tests/golden/moved_tests.tsv").read_text("utf-8").splitlines()
    paths = [line.split("\t") for line in lines if not line.startswith("#")]
    assert len(paths) > 180
    assert [new for _, new in paths if not (ROOT / new).is_file()] == []
