import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.memory_reader import content, push, round_trip

from lmvp import formats
from lmvp.errors import DamagedFile, InvalidArgument, Mismatch, MissingDependency, UnknownFormat, Untrusted

pytest.importorskip("torch")
keras = pytest.importorskip("keras")
layers = keras.layers

# Keras' variables have an `__array__` from before numpy 2, which numpy tells whenever one is made an array
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

rng = np.random.default_rng(0)


def mlp(width=4):
    return keras.Sequential([keras.Input((8,)), layers.Dense(width, "relu"), layers.Dense(2)])


def convolutional():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x) + layers.Conv2D(4, 1)(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def recurrent():
    inputs = keras.Input((5, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    x = layers.GRU(3, return_sequences=True)(x)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(x, x))


def nested():
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(3)(mlp()(mlp(5)(keras.ops.pad(inputs, [[0, 0], [0, 0]]))[:, :1] * inputs)))


def several():
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    shared = layers.Dense(3, name="shared")
    return keras.Model([one, two], {"a": shared(one) + shared(two), "b": layers.Embedding(4, 2)(two)})


ZOO = {
    "mlp": (mlp, (8,)),
    "convolutional": (convolutional, (8, 8, 3)),
    "recurrent": (recurrent, (5, 3)),
    "nested": (nested, (8,)),
}


def settled(model):
    """Give every weight a value of its own, those that are not trained too."""
    for variable in model.weights:
        variable.assign(rng.random(variable.shape).astype("f4"))
    return model


def outcome(model, shape):
    return model.predict(np.linspace(0, 1, 2 * int(np.prod(shape)), dtype="f4").reshape(2, *shape), verbose=0)


@pytest.mark.parametrize("kind", ZOO)
def test_a_model_comes_back_and_predicts_the_same(kind):
    make, shape = ZOO[kind]
    model = settled(make())
    back = round_trip(model)
    assert type(back) is type(model)
    assert np.array_equal(outcome(back, shape), outcome(model, shape))
    assert content(back) == content(model)


def test_a_model_of_several_ends():
    model = settled(several())
    back = round_trip(model)
    given = [np.ones((1, 3), "f4"), np.array([[0, 1, 3]])]
    assert [np.array_equal(back(given)[key].detach(), model(given)[key].detach()) for key in "ab"] == [True, True]


def test_files_and_names():
    reader = push(convolutional())
    assert (reader.manifest.format, list(reader.files)) == ("keras", ["weights.safetensors", "model.json"])
    assert [tensor.name for tensor in reader.manifest.tensors] == [
        "conv2d/kernel",
        "conv2d/bias",
        "batch_normalization/gamma",
        "batch_normalization/beta",
        "batch_normalization/moving_mean",
        "batch_normalization/moving_variance",
        "conv2d_1/kernel",
        "conv2d_1/bias",
        "dense/kernel",
        "dense/bias",
    ]


def test_names_do_not_tell_how_many_layers_were_made_before():
    first, second = push(recurrent()), push(recurrent())
    names = [tensor.name for tensor in first.manifest.tensors]
    assert names == [tensor.name for tensor in second.manifest.tensors]
    assert "bidirectional/forward_lstm/lstm_cell/kernel" in names
    assert {"sequential/dense/kernel", "sequential_1/dense_1/bias", "dense/kernel"} <= {
        tensor.name for tensor in push(nested()).manifest.tensors
    }


def test_names_that_were_given_stay():
    stack = [keras.Input((3,)), layers.Dense(3, name="dense"), layers.Dense(3), layers.Dense(2, name="head_2")]
    assert [tensor.name for tensor in push(keras.Sequential(stack)).manifest.tensors][::2] == [
        "dense/kernel",
        "dense_1/kernel",
        "head_2/kernel",
    ]


def test_how_it_was_compiled_comes_back_and_the_state_of_training_does_not():
    model = mlp()
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    model.compile(keras.optimizers.Adam(schedule), "mse", metrics=["mae", keras.metrics.MeanSquaredError(name="m")])
    model.fit(rng.random((16, 8)), rng.random((16, 2)), verbose=0)
    reader = push(model)
    assert all(tensor.name.startswith("dense") for tensor in reader.manifest.tensors)
    back = formats.unpack(reader)
    assert type(back.optimizer).__name__ == "Adam"
    assert back.optimizer.iterations.numpy() == 0
    assert back.get_compile_config()["loss"] == "mse"
    back.fit(rng.random((16, 8)), rng.random((16, 2)), verbose=0)


def test_a_text_about_a_model_names_no_backend():
    model = mlp()
    model.compile("adam", "mse")
    assert b"torch" not in push(model).files["model.json"]


def test_half_floats_and_mixed_policies():
    stack = [
        keras.Input((3,)),
        layers.Dense(3, dtype="bfloat16"),
        layers.Dense(3, dtype="float16"),
        layers.Dense(2, dtype="mixed_bfloat16"),
        layers.Dense(2, dtype="float64"),
    ]
    model = keras.Sequential(stack)
    reader = push(model)
    assert [tensor.dtype for tensor in reader.manifest.tensors][::2] == ["BF16", "F16", "F32", "F64"]
    back = formats.unpack(reader)
    for one, two in zip(model.weights, back.weights, strict=True):
        assert one.dtype == two.dtype
        assert keras.ops.convert_to_numpy(one).tobytes() == keras.ops.convert_to_numpy(two).tobytes()


def test_quantised_layers():
    model = settled(mlp())
    with pytest.warns(UserWarning, match="InputLayer does not have a `quantize`"):
        model.quantize("int8")
    back = round_trip(model)
    assert {variable.dtype for variable in back.weights} == {"int8", "float32"}
    assert np.array_equal(outcome(back, (8,)), outcome(model, (8,)))


def test_what_a_layer_works_out_from_its_weights():
    scale = layers.Normalization()
    scale.adapt(np.arange(12.0).reshape(4, 3))
    model = keras.Sequential([keras.Input((3,)), scale, layers.Discretization([0.0, 0.5])])
    assert np.array_equal(outcome(round_trip(model), (3,)), outcome(model, (3,)))


# into=


def test_into_fills_a_model_in_place():
    model, other = settled(convolutional()), settled(convolutional())
    places = [variable.value.data_ptr() for variable in other.weights]
    assert round_trip(model, into=other) is other
    assert [variable.value.data_ptr() for variable in other.weights] == places
    assert np.array_equal(outcome(other, (8, 8, 3)), outcome(model, (8, 8, 3)))


def test_into_of_another_shape_changes_nothing():
    other = mlp(5)
    before = [variable.numpy().copy() for variable in other.weights]
    with pytest.raises(Mismatch, match=r"'dense/kernel' is F32 \(8, 4\) in the version, F32 \(8, 5\)"):
        round_trip(mlp(), into=other)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, other.weights, strict=True))


def test_arrays_fill_a_model_and_a_model_fills_arrays():
    model = settled(mlp())
    arrays = {"dense/kernel": (8, 4), "dense/bias": (4,), "dense_1/kernel": (4, 2), "dense_1/bias": (2,)}
    arrays = {name: np.zeros(shape, "f4") for name, shape in arrays.items()}
    round_trip(model, into=arrays)
    assert np.array_equal(arrays["dense/kernel"], model.layers[0].kernel.numpy())
    other = round_trip(arrays, into=settled(mlp()))
    assert np.array_equal(other.layers[1].bias.numpy(), model.layers[1].bias.numpy())


# Code


class Net(keras.Model):
    """A class of one's own: not trusted by itself."""

    def __init__(self, width=3, **options):
        super().__init__(**options)
        self.width = width
        self.first = layers.Dense(width)
        self.blocks = [layers.Dense(width) for _ in range(2)]
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x * self.scale

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("ada")
class Registered(layers.Layer):
    def call(self, x):
        return x + 1


def distance(one, two):
    return keras.ops.mean((one - two) ** 2)


def built(model, width=3):
    model(np.ones((1, width), "f4"))
    return model


def test_a_class_of_ones_own_must_be_trusted():
    model = settled(built(Net()))
    reader = push(model)
    assert [tensor.name for tensor in reader.manifest.tensors][:4] == [
        "variable",
        "dense/kernel",
        "dense/bias",
        "dense_1/kernel",
    ]
    with pytest.raises(Untrusted, match=r"nobody vouched for: test_keras\.Net") as error:
        formats.unpack(reader)
    assert "trust=['test_keras.Net']" in str(error.value)
    for trust in (["test_keras.Net"], ["test_keras.*"], [Net], Net, "test_keras.Net"):
        back = formats.unpack(reader, trust=trust)
        assert type(back) is Net
        assert np.array_equal(outcome(back, (3,)), outcome(model, (3,)))


def test_a_registered_layer_must_be_trusted_too():
    model = keras.Sequential([keras.Input((3,)), Registered(), layers.Dense(2)])
    with pytest.raises(Untrusted, match=r"test_keras\.Registered"):
        round_trip(model)
    assert type(round_trip(model, trust=Registered).layers[0]) is Registered
    assert type(round_trip(model, trust="test_keras.Registered").layers[0]) is Registered


def test_a_function_of_ones_own_must_be_given():
    model = mlp()
    model.compile("sgd", distance)
    with pytest.raises(Untrusted, match="nobody vouched for: distance") as error:
        round_trip(model)
    assert "trust=[distance]" in error.value.hint
    with pytest.raises(MissingDependency, match="only the name is known") as error:
        round_trip(model, trust=["distance"])
    assert "trust=[distance]" in error.value.hint
    assert round_trip(model, trust=[distance]).loss is distance


def test_a_trusted_class_that_is_not_here():
    reader = push(built(Net()))
    text = reader.files["model.json"].replace(b"test_keras", b"gone_pkg").replace(b'"Net"', b'"Gone"')
    with pytest.raises(MissingDependency, match=r"this model needs gone_pkg\.Gone") as error:
        formats.unpack(push(built(Net()), tampered={"model.json": text}), trust=["gone_pkg.Gone"])
    assert "install" in error.value.hint


def test_a_lambda_keeps_its_weights_and_is_refused_by_name():
    def make():
        stack = [keras.Input((3,)), layers.Lambda(lambda x: x * 2, name="double"), layers.Dense(2)]
        return settled(keras.Sequential(stack))

    model = make()
    reader = push(model)
    assert list(reader.files) == ["weights.safetensors"]
    with pytest.raises(InvalidArgument, match="the layer 'double' has a lambda in it, which is code") as error:
        formats.unpack(reader)
    assert "into=" in str(error.value)
    assert "as a class" in error.value.hint
    other = formats.unpack(reader, into=make())
    assert np.array_equal(outcome(other, (3,)), outcome(model, (3,)))


def test_a_lambda_as_an_activation_is_told_by_the_layer():
    stack = [keras.Input((3,)), layers.Dense(2, activation=lambda x: x * 2, name="odd")]
    assert "the layer 'odd' has a lambda" in push(keras.Sequential(stack)).manifest.meta["not_data"]


def tampered(change):
    """A pushed model whose text was altered by an enemy."""
    text = json.loads(push(mlp()).files["model.json"])
    change(text)
    return push(mlp(), tampered={"model.json": json.dumps(text).encode()})


def dense(text):
    return text["config"]["layers"][1]


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: dense(text)["config"].update(activation=LAMBDA), "has a lambda in it"),
        (
            lambda text: dense(text)["config"].update(activation={"value": ["4wEAAAA=", None, None]}),
            "has a lambda in it",
        ),
        (lambda text: dense(text).update(module="os", class_name="system"), "os.system"),
        (lambda text: dense(text).update(module="keras.utils", class_name="get_file"), "keras.utils.get_file"),
        (lambda text: dense(text).update(module="keras.src.utils.python_utils", class_name="func_load"), "func_load"),
        (lambda text: dense(text).update(registered_name="ada>Registered"), "keras.layers.Dense"),
        (lambda text: dense(text).update(class_name="TorchModuleWrapper"), "keras.layers.TorchModuleWrapper"),
        (lambda text: dense(text).update(class_name="TFSMLayer"), "keras.layers.TFSMLayer"),
        (lambda text: dense(text).update(module="keras/../evil", class_name="Dense"), "keras/../evil.Dense"),
        (lambda text: dense(text).update(module=None), "__main__.Dense"),
        (lambda text: dense(text)["config"].update(vocabulary="/etc/passwd"), "keras.layers.Dense"),
        (
            lambda text: dense(text)["config"].update(
                activation={"module": "keras.saving", "class_name": "function", "config": "load_model"}
            ),
            "keras.saving.load_model",
        ),
        (
            lambda text: dense(text)["config"].update(
                activation={"module": "builtins", "class_name": "function", "config": "eval"}
            ),
            "eval",
        ),
        (lambda text: text.update(compile_config={"loss": {**LAMBDA}}), "the model has a lambda"),
        (
            lambda text: dense(text)["config"].update(
                activation={"module": "keras.losses", "class_name": "function", "config": "deserialize"}
            ),
            "keras.losses.deserialize",
        ),
        (lambda text: text.update(class_name="__typespec__", spec_name="x"), "__typespec__"),
    ],
)
def test_what_an_enemy_wrote_runs_nothing(change, named):
    with pytest.raises(Untrusted) as error:
        formats.unpack(tampered(change))
    assert named in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"class_name": 5, "module": "antigravity", "config": {}}',
        b"",
        b"{",
        b"[]",
        b"null",
        b'"relu"',
        b"[" * 100_000,
        json.dumps({"a": 1}).encode(),
        b'{"class_name": "Dense"}',
    ],
)
def test_a_damaged_text_is_told(text):
    with pytest.raises((DamagedFile, InvalidArgument, Untrusted)):
        formats.unpack(push(mlp(), tampered={"model.json": text}))


def test_a_layer_of_a_wrong_shape_is_told():
    with pytest.raises((Mismatch, DamagedFile)):
        formats.unpack(tampered(lambda text: dense(text)["config"].update(units=7)))
    with pytest.raises(DamagedFile, match="cannot be built again") as error:
        formats.unpack(tampered(lambda text: dense(text)["config"].update(units="many")))
    assert "into=" in str(error.value)


# What cannot be kept


def test_a_model_without_weights_is_refused():
    with pytest.raises(UnknownFormat, match="has no weights yet") as error:
        push(keras.Sequential([layers.Dense(2)]))
    assert "call it once" in error.value.hint


class Vocabulary(layers.Layer):
    """Keeps more than weights, as text layers do."""

    def save_assets(self, folder):
        (Path(folder) / "words.txt").write_text("a b")

    def call(self, x):
        return x


def test_a_layer_with_a_vocabulary_is_refused():
    with pytest.raises(UnknownFormat, match="the layer 'words' keeps more than weights") as error:
        push(keras.Sequential([keras.Input((3,)), Vocabulary(name="words")]))
    assert "push that file" in error.value.hint


def test_a_model_that_cannot_tell_its_config_comes_back_with_into():
    class Odd(keras.Model):
        def __init__(self, folder):
            super().__init__()
            self.folder, self.body = folder, layers.Dense(2)

        def call(self, x):
            return self.body(x)

    model = settled(built(Odd(object())))
    reader = push(model)
    with pytest.raises(InvalidArgument, match="could not be kept: Keras cannot write it down"):
        formats.unpack(reader)
    other = formats.unpack(reader, into=built(Odd(None)))
    assert np.array_equal(outcome(other, (3,)), outcome(model, (3,)))


# Other backends


OTHER = """
import sys, numpy, keras
sys.path[:0] = sys.argv[1:]
from support.memory_reader import content, round_trip
inputs = keras.Input((4, 3))
x = keras.layers.Dense(2, dtype="bfloat16")(keras.layers.BatchNormalization()(keras.layers.LSTM(4)(inputs)))
model = keras.Model(inputs, x)
for variable in model.weights:
    variable.assign(numpy.random.default_rng(0).random(variable.shape).astype("f4"))
kept = content(model)  # before it is compiled: whether it is just in time, Keras decides by backend
model.compile("adam", "mse")
given = numpy.ones((1, 4, 3), "f4")
for back in (round_trip(model), round_trip(model, into=keras.models.clone_model(model))):
    assert numpy.array_equal(back.predict(given, verbose=0), model.predict(given, verbose=0))
print(kept)
"""


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_another_backend_keeps_the_same(backend):
    pytest.importorskip(backend, reason=f"no {backend} here")
    here = Path(__file__).parent.parent
    contents = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", OTHER, str(here), str(here.parent)],
            env={**os.environ, "KERAS_BACKEND": name},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for name in (backend, "torch")
    }
    assert len(contents) == 1
