"""Data, model, loss and metrics that fit together, and what is said where they do not."""

import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

from trainloop import DataSplit, SimpleGD, TrainLoop, assemble
from trainloop.objectives.losses import choose

MINE = """
import keras
import numpy as np
import tensorflow as tf
from trainloop import DataSplit

def dense(input_shape, units):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(units)])

def build(input_shape, outputs):
    return dense(input_shape, outputs)

def wide(input_shape, outputs):
    return dense(input_shape, outputs + 2)

def images(input_shape, outputs):
    model = dense(input_shape, 6)
    model.add(keras.layers.Reshape(input_shape))
    return model

def two(input_shape, outputs):
    x = keras.Input(input_shape)
    return keras.Model(x, [keras.layers.Dense(outputs)(x)] * 2)

class Late(keras.Model):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.last = keras.layers.Dense(outputs)
    def call(self, x):
        return self.last(x)

def mistaken(targets, predictions):
    return undefined

def first_of_wide(targets, predictions):
    return tf.square(targets - predictions[:, :1])

def squares(model, batch):
    return tf.reduce_mean(not_reduced(model, batch))

def not_reduced(model, batch):
    return tf.square(model(batch[0]) - tf.cast(batch[1], keras.config.floatx()))
"""

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(8, 4)).astype("float32")
LABELS = np.arange(8, dtype="int32") % 3
TOKENS = RNG.integers(0, 5, (8, 6)).astype("int32")
IMAGES = RNG.random((8, 3, 2, 1)).astype("float32")


def split(x, y, classes=None):
    return DataSplit(x, y, x[:4], y[:4], classes, "mine")


REGRESSION, CLASSES = split(ROWS, ROWS[:, :1]), split(ROWS, LABELS, 3)
SEQUENCES, PICTURES = split(TOKENS, TOKENS[:, ::-1].copy(), 5), split(IMAGES, LABELS, 3)


@pytest.fixture(autouse=True)
def _mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)


def predictions(parts):
    return np.asarray(parts.model(parts.train[0]), float)


def loss_of(parts):
    """As the loop computes it."""
    batch = tuple(map(tf.convert_to_tensor, parts.train))
    return float(choose(parts.loss, parts.loss_fn)(parts.model, batch, training=False)[0])


def crossentropy(logits, labels):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(logs, labels[..., None], axis=-1).mean()


def test_classes():
    parts = assemble(CLASSES, "mlp")
    assert loss_of(parts) == pytest.approx(crossentropy(predictions(parts), LABELS), rel=1e-6)
    assert parts.metrics == ["accuracy"]
    assert parts.loss_fn is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (split(RNG.random((8, 28, 28, 1)).astype("float32"), LABELS, 3), "lenet5"),
        (CLASSES, "mlp"),
        (REGRESSION, "mlp"),
        (SEQUENCES, "transformer"),
    ],
)
def test_a_model_that_fits_the_data_is_taken_where_none_is_asked_for(data, name):
    assert assemble(data).model.name == name


def test_tokens_are_classes_at_every_position():
    parts = assemble(SEQUENCES, "lstm")
    assert predictions(parts).shape == (8, 6, 5)
    assert loss_of(parts) == pytest.approx(crossentropy(predictions(parts), SEQUENCES.y_train), rel=1e-6)
    measured = TrainLoop(parts.model, SimpleGD(), parts.loss, metrics=parts.metrics).evaluate(parts.train)
    right = predictions(parts).argmax(axis=-1) == SEQUENCES.y_train
    assert measured["accuracy"] == pytest.approx(right.mean())


def test_regression():
    parts = assemble(REGRESSION, "mine.py:build")
    errors = predictions(parts) - ROWS[:, :1]
    assert loss_of(parts) == pytest.approx((errors**2).mean(), rel=1e-6)
    measured = TrainLoop(parts.model, SimpleGD(), parts.loss, metrics=parts.metrics).evaluate(parts.train)
    assert measured["mean_absolute_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)


def test_a_model_that_puts_out_images_reconstructs_them():
    parts = assemble(PICTURES, "mine.py:images")
    assert parts.train[1] is parts.train[0]
    np.testing.assert_array_equal(parts.train[0], PICTURES.x_train)
    z, x = predictions(parts), IMAGES.astype(float)
    expected = np.mean(np.log1p(np.exp(z)) - x * z)
    assert loss_of(parts) == pytest.approx(expected, rel=1e-5)
    measured = TrainLoop(parts.model, SimpleGD(), parts.loss, metrics=parts.metrics).evaluate(parts.test)
    errors = ((1 / (1 + np.exp(-z[:4])) - x[:4]) ** 2).sum(axis=(1, 2, 3))
    assert measured["reconstruction_error"] == pytest.approx(errors.mean(), rel=1e-5)


def test_losses_of_keras_take_logits():
    for name in ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"):
        parts = assemble(CLASSES, "mlp", name)
        assert loss_of(parts) == pytest.approx(crossentropy(predictions(parts), LABELS), rel=1e-6)
        assert parts.metrics == ["accuracy"]


def test_a_loss_of_targets_and_predictions_may_want_other_outputs():
    parts = assemble(REGRESSION, "mine.py:wide", "mine.py:first_of_wide")
    assert loss_of(parts) == pytest.approx(((predictions(parts)[:, :1] - ROWS[:, :1]) ** 2).mean(), rel=1e-6)
    assert parts.metrics == []


def test_a_loss_of_model_and_batch():
    parts = assemble(REGRESSION, "mine.py:build", "mine.py:squares")
    assert parts.loss is None
    assert parts.metrics == []
    assert loss_of(parts) == pytest.approx(((predictions(parts) - ROWS[:, :1]) ** 2).mean(), rel=1e-6)


def test_a_model_without_an_input_layer_is_built():
    parts = assemble(CLASSES, "mine.py:Late")
    assert [tuple(v.shape) for v in parts.model.trainable_variables] == [(4, 3), (3,)]


def test_weights_depend_on_the_seed_alone():
    first, again, other = (assemble(CLASSES, "mlp", seed=seed).model.get_weights()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    seed_generators(1)
    from trainloop import mlp

    np.testing.assert_array_equal(first, mlp((4,), 3).get_weights()[0])


@pytest.mark.parametrize(
    ("data", "model", "loss", "words"),
    [
        (REGRESSION, "mine.py:wide", None, r"one number for every target, \[N, 1\], received \[N, 3\]; build it"),
        (CLASSES, "mine.py:wide", "hinge", r"one number for every class, \[N, 3\], received \[N, 5\]"),
        (SEQUENCES, "mlp", None, r"mlp on mine: .* \[N, 6, 5\], received \[N, 5\]; choose another"),
        (CLASSES, "lenet5", None, r"input_shape of lenet5 must be \(height, width, channels\), received \(4,\)"),
        (CLASSES, "mine.py:two", None, "must put out one tensor, received list"),
        (CLASSES, "mlp", "categorical_crossentropy", "categorical_crossentropy of mlp on mine"),
        (CLASSES, "mlp", "mine.py:mistaken", r"mine\.py:mistaken of .* at .*mine\.py:33 in mistaken: NameError"),
        (REGRESSION, "mine.py:build", "mine.py:not_reduced", "must be a scalar, received shape"),
    ],
)
def test_what_does_not_fit_is_one_line(data, model, loss, words):
    with pytest.raises(ValueError, match=words) as caught:
        assemble(data, model, loss)
    assert "\n" not in str(caught.value)


def test_points_have_the_precision_of_the_model(tmp_path):
    (tmp_path / "ours.py").write_text(
        "import numpy as np\nimport tensorflow as tf\nimport trainloop as tl\n"
        "def points():\n    return {'a': np.ones([3, 2], 'float32'), 'b': (np.zeros([4, 1]), np.arange(4))}\n"
        "def box():\n    return tl.Points({'a': tl.Box([0, 0], [1, 1], 30)}, batch_size={'a': 5}, seed=4)\n"
        "of_a = {'a': lambda model, p: model(p)}\n"
        "residuals = {'a': lambda model, p: model(p), 'b': lambda m, p: p[0] + tf.cast(p[1], p[0].dtype)[:, None]}\n"
    )
    parts = assemble("ours.py:points", "mine.py:build", residuals="ours.py:residuals", loss_weights={"a": 2.0}, seed=7)
    assert [t.dtype.name for t in tf.nest.flatten(parts.train.values)] == ["float64", "float64", "int64"]
    assert (parts.test, parts.loss, parts.loss_fn, parts.metrics, parts.train.seed) == (None, None, None, [], 7)
    assert (parts.model.input_shape, parts.model.output_shape) == ((None, 2), (None, 1))
    loop = TrainLoop(parts.model, SimpleGD(), residuals=parts.residuals, loss_weights=parts.loss_weights)
    measured = loop.evaluate(parts.train)
    assert measured["loss"] == pytest.approx(2 * measured["term/a"] + measured["term/b"], rel=1e-12)
    drawn = assemble("ours.py:box", "mine.py:build", residuals="ours.py:of_a", seed=7).train
    assert (drawn.seed, drawn.batch_sizes, drawn.size, repr(drawn)) == (4, {"a": 5}, 30, "Points(a: 5 of 30)")


def test_samples_have_the_precision_of_the_model():
    assert {a.dtype.name for a in (*assemble(REGRESSION, "mlp").train, *assemble(REGRESSION, "mlp").test)} == {
        "float64"
    }
    assert [a.dtype.name for a in assemble(CLASSES, "mlp").train] == ["float64", "int32"]
