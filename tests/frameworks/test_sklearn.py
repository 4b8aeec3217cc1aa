import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.memory_reader import content, push, round_trip

from lmvp import formats
from lmvp.errors import DamagedFile, InvalidArgument, MissingDependency, UnknownFormat, Untrusted

pytest.importorskip("sklearn")
pytest.importorskip("skops")
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

X, y = load_iris(return_X_y=True)
TEXT = np.array(["setosa", "versicolor", "virginica"])[y]
TREE = "sklearn.tree._tree.Tree"

MODELS = {
    "logistic": lambda: LogisticRegression(max_iter=500).fit(X, TEXT),
    "mlp": lambda: MLPClassifier((5,), max_iter=30, random_state=0, early_stopping=True).fit(X, y),
    "pipeline": lambda: Pipeline([("scale", StandardScaler()), ("svc", SVC())]).fit(X, y),
    "columns": lambda: make_pipeline(
        ColumnTransformer(
            [("hot", OneHotEncoder(handle_unknown="ignore"), [0]), ("rest", StandardScaler(), [1, 2, 3])]
        ),
        LogisticRegression(max_iter=500),
    ).fit(X.round(), y),
    "sparse": lambda: SGDClassifier(penalty="l1", alpha=0.1, random_state=0).fit(X, y).sparsify(),
    "not fitted": lambda: MLPClassifier(hidden_layer_sizes=(3, 4)),
    "function": lambda: make_pipeline(FunctionTransformer(np.log1p), StandardScaler()).fit(X),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def forest():
    return RandomForestClassifier(5, random_state=0).fit(X, y)


class Mine(ClassifierMixin, BaseEstimator):
    """An estimator that skops does not know."""

    def __init__(self, threshold=0.5):
        self.threshold = threshold

    def fit(self, data, labels):
        self.classes_, self.mean_ = np.unique(labels), data.mean(axis=0)
        return self

    def predict(self, data):
        return self.classes_[(data > self.mean_).sum(axis=1) % len(self.classes_)]


def outputs(model):
    data = X.round() if "columntransformer" in getattr(model, "named_steps", {}) else X
    if hasattr(model, "predict_proba"):
        return model.predict_proba(data), model.predict(data)
    return (model.predict(data),) if hasattr(model, "predict") else (model.transform(data),)


@pytest.mark.parametrize("name", MODELS)
def test_an_estimator_comes_back_as_it_was(name):
    model = MODELS[name]()
    back = round_trip(model)
    assert type(back) is type(model)
    assert repr(back) == repr(model)
    if name != "not fitted":
        assert all(map(np.array_equal, outputs(model), outputs(back)))


@pytest.mark.parametrize("name", MODELS)
def test_equal_estimators_have_equal_content(name):
    model = MODELS[name]()
    assert content(model) == content(MODELS[name]())
    assert content(round_trip(model)) == content(model)


def test_trees_need_trust_because_skops_says_so():
    model = forest()
    reader = push(model)
    with pytest.raises(Untrusted) as error:
        formats.unpack(reader)
    assert TREE in str(error.value)
    assert f"trust=['{TREE}']" in str(error.value)
    back = formats.unpack(reader, trust=[TREE])
    assert all(map(np.array_equal, outputs(model), outputs(back)))
    assert content(back) == content(model) == content(forest())


def test_arrays_are_tensors_with_readable_names():
    names = {t.name: (t.dtype, t.shape) for t in push(MODELS["pipeline"]()).manifest.tensors}
    assert names["steps.scale.mean_"] == ("F64", (4,))
    assert names["steps.svc.support_vectors_"][0] == "F64"
    names = {t.name: (t.dtype, t.shape) for t in push(MODELS["mlp"]()).manifest.tensors}
    assert names["coefs_.0"] == ("F64", (4, 5))
    names = {t.name: (t.dtype, t.shape) for t in push(forest()).manifest.tensors}
    assert names["estimators_.3.tree_.nodes.threshold"][0] == "F64"


def test_texts_and_sparse_matrices_are_tensors_too():
    names = {t.name: (t.dtype, t.shape) for t in push(MODELS["logistic"]()).manifest.tensors}
    assert names["classes_"] == ("U32", (3, 10))
    reader = push(MODELS["sparse"]())
    assert {t.name for t in reader.manifest.tensors} >= {"coef_.data", "coef_.indices", "coef_.indptr"}
    assert set(reader.files) == {"weights.safetensors", "estimator.json"}


def test_a_change_in_one_step_changes_only_its_tensors():
    one, two = MODELS["pipeline"](), MODELS["pipeline"]()
    two.named_steps["svc"].set_params(C=5.0).fit(one.named_steps["scale"].transform(X), y)
    digests = [{t.name: t.digest for t in push(model).manifest.tensors} for model in (one, two)]
    changed = {name for name in digests[0] if digests[0][name] != digests[1].get(name)}
    assert changed
    assert all(name.startswith("steps.svc.") for name in changed)


def test_ones_own_class_needs_trust():
    model = Mine().fit(X, y)
    reader = push(model)
    name = f"{__name__}.Mine"
    with pytest.raises(Untrusted, match="code that nobody vouched for") as error:
        formats.unpack(reader)
    assert f"trust=['{name}']" in str(error.value)
    for trust in ([Mine], [name], [f"{__name__}.*"]):
        back = formats.unpack(reader, trust=trust)
        assert np.array_equal(back.predict(X), model.predict(X))


def test_a_shared_part_stays_shared():
    model = Mine()
    model.one = model.two = StandardScaler().fit(X)
    model.array = model.same = np.arange(3.0)
    reader = push(model)
    assert sum(t.name.endswith("mean_") for t in reader.manifest.tensors) == 1
    back = formats.unpack(reader, trust=[Mine])
    assert back.one is back.two
    assert np.array_equal(back.same, model.array)


def test_odd_arrays_survive():
    model = Mine()
    model.columns = np.array(["a", None, 3], dtype=object)
    model.fortran = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    model.record = np.array([(1, 2.5)], dtype=[("x", "i4"), ("y", "f8")])
    model.padded = np.zeros(
        2, np.dtype({"names": ["x", "y"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 16})
    )
    model.nested = np.zeros(2, dtype=[("x", "i4", (2,))])
    model.raw = b"\0\1"
    model.words = np.array([["ä", "bc"]])
    model.big = np.arange(3, dtype=">i4")
    model.rng = np.random.RandomState(0)
    model.some = {"z", "a", "m", 3}
    model.scalar = np.float32(1.5)
    reader = push(model)
    back = formats.unpack(reader, trust=[Mine])
    for name in ("columns", "fortran", "record", "padded", "nested", "words", "big"):
        assert getattr(back, name).dtype == getattr(model, name).dtype, name
        assert np.array_equal(getattr(back, name), getattr(model, name)), name
    assert back.fortran.flags.f_contiguous
    assert (back.raw, back.some) == (model.raw, model.some)
    assert type(back.scalar) is np.float32
    assert back.rng.rand() == np.random.RandomState(0).rand()


def test_into_is_for_tensors():
    with pytest.raises(InvalidArgument, match="not estimators"):
        formats.unpack(push(MODELS["logistic"]()), into=LogisticRegression())


def test_what_skops_cannot_keep_is_told():
    model = Mine(threshold=lambda: 1)
    model.generator = (i for i in range(3))
    with pytest.raises(UnknownFormat, match="skops cannot keep this Mine"):
        formats.pack(model)


def test_a_lambda_is_told_of_before_it_is_too_late():
    with pytest.raises(UnknownFormat, match="this Pipeline has a lambda in it") as error:
        formats.pack(make_pipeline(FunctionTransformer(lambda x: x), StandardScaler()).fit(X))
    assert "write it as a function" in str(error.value)
    model = Mine()
    model.words = '"__class__":"<lambda>"'
    assert formats.unpack(push(model), trust=[Mine]).words == model.words


def test_a_missing_skops_is_told(monkeypatch):
    reader = push(MODELS["logistic"]())
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(MissingDependency, match="skops") as error:
        formats.pack(LogisticRegression())
    assert "pip install skops" in str(error.value)
    with pytest.raises(MissingDependency):
        formats.unpack(reader)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"protocol": 0}',
        b'{"a":' * 5000,
        b'{"__loader__": "NdArrayNode", "tensor": "nothing", "protocol": 0}',
        b'{"__loader__": "NdArrayNode", "tensor": "coef_", "text": "|O", "protocol": 0}',
        b'{"__loader__": "NdArrayNode", "tensor": {"x": "coef_"}, "fields": [["x", "|O"]], "protocol": 0}',
        b'{"__loader__": "NdArrayNode", "tensor": {}, "fields": [], "protocol": 0}',
        b'{"__loader__": "X", "blob": 3, "protocol": 0}',
        b'{"__loader__": "X", "file": "0.npy", "protocol": 0}',
        b'{"__loader__": "SparseMatrixNode", "blob": "estimator.json", "type": "scipy", "protocol": 0}',
        b'{"__loader__": "X", "__class__": "a", "__module__": "b", "protocol": 99}',
        b'{"__loader__": "X", "__class__": "a", "__module__": "b", "protocol": 0}',
    ],
)
def test_a_damaged_estimator_is_told(text):
    reader = push(MODELS["logistic"]())
    reader.files["estimator.json"] = text
    with pytest.raises(DamagedFile):
        formats.unpack(reader)


@pytest.mark.parametrize("index", [-1, 4, 1 << 30])
def test_a_sparse_matrix_that_points_out_of_itself_is_damaged(index):
    reader = push(MODELS["sparse"]())
    (tensor,) = [t for t in reader.manifest.tensors if t.name == "coef_.indices"]
    weights = bytearray(reader.files[tensor.path])
    weights[tensor.offset : tensor.offset + 4] = index.to_bytes(4, "little", signed=True)
    reader.files[tensor.path] = bytes(weights)
    with pytest.raises(DamagedFile, match="arrays are damaged"):
        formats.unpack(reader)


def test_nothing_runs_that_nobody_vouched_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = make_pipeline(FunctionTransformer(np.log1p)).fit(X)
    reader = push(model)
    for module, name in (("os", "system"), ("builtins", "eval"), ("my_pkg", "f")):
        text = reader.files["estimator.json"].decode()
        evil = text.replace('"__class__":"log1p"', f'"__class__":"{name}"')
        evil = evil.replace(
            '"__module__":"numpy","__loader__":"FunctionNode"', f'"__module__":"{module}","__loader__":"FunctionNode"'
        )
        assert evil != text
        copy = push(make_pipeline(FunctionTransformer(np.log1p)).fit(X), tampered={"estimator.json": evil.encode()})
        with pytest.raises(Untrusted, match=f"{module}.{name}"):
            formats.unpack(copy)
    assert not list(tmp_path.iterdir())


PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:]
from support.memory_reader import content
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
X, y = load_iris(return_X_y=True)
print(content(make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=1000, tol=0.1, random_state=0)).fit(X, y)))
model = RandomForestClassifier(3, random_state=0).fit(X, y)
model.words = {"a", "bb", "ccc", "d" + str(1)}
print(content(model))
"""


def test_equal_estimators_are_equal_bytes_in_any_process():
    root = Path(__file__)
    command = [sys.executable, "-c", PROGRAM, str(root.parent.parent), str(root.parents[2])]
    digests = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_schema_names_no_addresses():
    schema = json.loads(push(MODELS["pipeline"]()).files["estimator.json"])
    text = json.dumps(schema)
    assert ".npy" not in text
    assert "_skops_version" not in text


def test_what_is_assembled_is_a_skops_file():
    import skops.io

    from lmvp.formats.sklearn import _assemble

    data = _assemble(push(MODELS["pipeline"]()))
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    assert skops.io.get_untrusted_types(data=data) == []
