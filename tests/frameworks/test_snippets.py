"""Each snippet that pulls a version works as it is shown: on the console, in `lmvp show`, in widgets and magics."""

import html
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import requests

import lmvp
from lmvp import hints
from lmvp.cli.shell import main
from lmvp.core.schemas import Version
from lmvp.views.snippets import pull_code


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """Return a module whose classes and functions models need, importable as `own_code`."""
    (tmp_path / "own_code.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = torch.nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        return self.a(x)\n"
        "class Local(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = torch.nn.Linear(3, 2)\n"
        "        self.hook = lambda x: x\n"
        "def double(x):\n"
        "    return 2 * x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    import own_code

    yield own_code
    sys.modules.pop("own_code")


def torch_state(_):
    torch = pytest.importorskip("torch")
    return {"w": torch.arange(3.0)}, None, "model = lmvp.pull({0!r})"


def torch_plain_module(_):
    torch = pytest.importorskip("torch")
    return torch.nn.Linear(2, 2), None, "model = lmvp.pull({0!r})"


def torch_own_module(own):
    return own.Net(), None, "model = lmvp.pull({0!r}, trust=['own_code.Net'])"


def torch_unpicklable_module(own):
    return own.Local(), own.Local(), "lmvp.pull({0!r}, into=model)"


def sklearn_safe(_):
    linear = pytest.importorskip("sklearn.linear_model")
    return linear.Ridge().fit([[0.0], [1.0]], [0.0, 1.0]), None, "model = lmvp.pull({0!r})"


def sklearn_trusted(own):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    return preprocessing.FunctionTransformer(own.double), None, "model = lmvp.pull({0!r}, trust=['own_code.double'])"


def keras_model(_):
    keras = pytest.importorskip("keras")
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), None, "model = lmvp.pull({0!r})"


def keras_with_lambda(_):
    keras = pytest.importorskip("keras")

    def make():
        return keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(2)])

    return make(), make(), "lmvp.pull({0!r}, into=model)"


def numpy_arrays(_):
    return {"w": np.arange(4.0), "b": [np.zeros(2)]}, None, "model = lmvp.pull({0!r})"


def jax_arrays(_):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    return {"w": jax.numpy.arange(3.0)}, None, "model = lmvp.pull({0!r})"


def onnx_model(_):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    return onnx.helper.make_model(graph), None, "model = lmvp.pull({0!r})"


def folder(_):
    place = Path("sent")
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "vocab.txt").write_text("a b")
    return place, None, "paths = lmvp.pull({0!r}, to='m/')"


def one_file(_):
    Path("notes.txt").write_text("words")
    return Path("notes.txt"), None, "paths = lmvp.pull({0!r}, to='m/')"


def safetensors_file(_):
    from safetensors.numpy import save_file

    save_file({"w": np.arange(3.0)}, "w.safetensors")
    return Path("w.safetensors"), None, "model = lmvp.pull({0!r})"


FORMATS = [
    torch_state, torch_plain_module, torch_own_module, torch_unpicklable_module, sklearn_safe, sklearn_trusted,
    keras_model, keras_with_lambda, numpy_arrays, jax_arrays, onnx_model, folder, one_file, safetensors_file,
]  # fmt: skip


def snippets_of_page(path):
    """Return the code blocks of a page of the console, as a reader copies them."""
    client = lmvp.Client()
    token = client._connection._reach().token
    page = requests.get(f"{client.url}/{path}", timeout=30, headers={"Authorization": f"Bearer {token}"}).text
    return [
        html.unescape(re.sub(r"<[^>]+>", "", block)) for block in re.findall(r"<code>(.*?)</code>", page, re.DOTALL)
    ]


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_snippet_works_as_it_is_shown(make, home, classes, capsys):
    obj, empty, expected = make(classes)
    version = lmvp.push("snippets/m", obj, progress=False)
    expected = expected.format("snippets/m@v1").replace("'", '"')

    assert f"pull       {expected}" in repr(lmvp.show("snippets/m"))
    assert expected in html.unescape(lmvp.show("snippets/m")._repr_html_())
    assert pull_code(lmvp.history("snippets/m")[0]) == expected

    names = {"lmvp": lmvp, "model": empty}
    exec(expected, names)
    made = names.get("paths") or names["model"]
    assert made is not None
    assert type(made) is (list if "paths" in expected else type(obj) if not isinstance(obj, Path) else dict)

    capsys.readouterr()
    with hints.using(hints.SHELL):
        assert f"pull       lmvp pull {version.reference} --to m/" in repr(lmvp.show("snippets/m"))
    assert main(["pull", version.reference, "--to", "shell/", "-q"]) == 0
    assert any(Path("shell").iterdir())


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_magic_snippet_works_as_it_is_shown(make, home, classes):
    from IPython.core.interactiveshell import InteractiveShell

    obj, empty, _ = make(classes)
    version = lmvp.push("snippets/m", obj, progress=False)
    shell = InteractiveShell()
    try:
        shell.run_line_magic("load_ext", "lmvp_jupyter")
        shell.user_ns["model"] = empty
        result = shell.run_cell(pull_code(version, hints.MAGIC))
        assert result.success
        assert shell.user_ns.get("paths") or shell.user_ns["model"] is not None
    finally:
        shell.run_line_magic("unload_ext", "lmvp_jupyter")
        InteractiveShell.clear_instance()


def test_console_shows_the_arguments_that_a_pull_needs(home, classes):
    lmvp.push("snippets/m", classes.Net(), progress=False)
    lmvp.push("snippets/local", classes.Local(), progress=False)
    python = 'lmvp.pull("snippets/m@v1", trust=["own_code.Net"])'
    assert f"model = {python}" in snippets_of_page("p/snippets/m@v1")
    (model,) = [block for block in snippets_of_page("p/snippets/m") if "# notebook" in block]
    assert "model = %lmvp pull snippets/m --trust own_code.Net\n" in model
    assert 'model = lmvp.pull("snippets/m", trust=["own_code.Net"])\n' in model
    (shown,) = [block for block in snippets_of_page("p/snippets/local@v1") if "into=" in block]
    assert shown == '# build the model first; the pull fills it\nlmvp.pull("snippets/local@v1", into=model)'


def test_snippet_holds_no_code_that_a_push_names(home):
    odd_names = ['a"]); import os; os.abort(); (["', "a.B\nimport os", "net.CNN", 3]
    version = version_of("torch.module", {"pull": {"trust": odd_names}})
    assert pull_code(version) == 'model = lmvp.pull("d/m@v1", trust=["net.CNN"])'
    assert pull_code(version, hints.MAGIC) == "model = %lmvp pull d/m@v1 --trust net.CNN"
    for odd in ({"pull": 3}, {"pull": {"trust": "a.B"}}, {"pull": None}):
        assert pull_code(version_of("torch.module", odd)) == 'model = lmvp.pull("d/m@v1")'


def test_snippet_of_a_version_of_an_older_client_is_the_plain_one():
    assert pull_code(version_of("numpy", {})) == 'model = lmvp.pull("d/m@v1")'
    assert pull_code(version_of("files", {})) == 'paths = lmvp.pull("d/m@v1", to="m/")'


def version_of(kind, environment):
    return Version(
        project="d",
        model="m",
        number=1,
        digest="x",
        content="y",
        format=kind,
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        environment=environment,
    )


def test_snippet_of_a_class_of_the_main_module_works_there(home, tmp_path):
    """A class of the notebook itself: the snippet runs in the same notebook."""
    script = tmp_path / "train.py"
    script.write_text(
        "import lmvp, torch\n"
        "from lmvp.views.snippets import pull_code\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = torch.nn.Linear(1, 1)\n"
        "exec(pull_code(lmvp.push('d/m', Own(), progress=False)))\n"
        "print(type(model).__name__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("Own\n", 0), done.stderr
