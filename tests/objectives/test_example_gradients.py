"""Gradients of single samples against one backward pass for each, for all kinds of layers; and their noise."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import blobs, crossentropy, dense_net, stateful_net

import trainloop as tl

RNG = np.random.default_rng(0)
N = 7


def net(shape, *layers):
    seed_generators()
    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])


L = keras.layers
NETWORKS = {
    "convolutions": (
        lambda: net((9, 8, 2), L.Conv2D(3, (3, 2), strides=2, padding="same", activation="tanh"), L.Conv2D(2, 2)),
        (9, 8, 2),
    ),
    "regularized": (lambda: net((6, 6, 1), L.Conv2D(2, 3, kernel_regularizer="l2", activation="relu")), (6, 6, 1)),
    "dense": (lambda: net((6,), L.Dense(5, "tanh"), L.LayerNormalization()), (6,)),
    "dilated": (
        lambda: net((9, 8, 2), L.Conv2D(3, (2, 3), dilation_rate=2), L.Conv2D(2, 2, padding="same")),
        (9, 8, 2),
    ),
    "one kernel twice": (lambda: _shared(), (6, 6, 2)),
    "attention": (lambda: _attention(), (5, 4)),
    "averages at rest": (lambda: net((6,), L.Dense(5, "tanh"), L.BatchNormalization(trainable=False)), (6,)),
    "conv1d": (lambda: net((9, 3), L.Conv1D(4, 3, activation="tanh"), L.Conv1D(2, 2)), (9, 3)),
}


def _shared():
    convolution = L.Conv2D(2, 3, padding="same", activation="tanh")
    return net((6, 6, 2), convolution, convolution)


def _attention():
    seed_generators()
    x = keras.Input((5, 4))
    return keras.Model(x, L.Dense(2)(L.Flatten()(L.MultiHeadAttention(2, 2)(x, x))))


def one_by_one(model, loss, batch):
    """Rows by an ordinary tape on batches of one sample."""
    rows = []
    for i in range(len(batch[0])):
        alone = [array[i : i + 1] for array in batch]
        with tf.GradientTape() as tape:
            f = loss(alone[1], model(alone[0], training=True), sample_weight=alone[2] if len(alone) > 2 else None)
            f += sum(model.losses)
        gradients = tape.gradient(f, [v.value for v in model.trainable_variables])
        rows.append(np.concatenate([np.ravel(g) for g in gradients]))
    return np.array(rows)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.thorough_after(3)
def test_rows_are_the_gradients_of_single_samples(name):
    make, shape = NETWORKS[name]
    model, loss = make(), keras.losses.MeanSquaredError()
    batch = RNG.normal(size=(N, *shape)), RNG.normal(size=(N, 2)), RNG.uniform(size=N)
    objective = tl.ModelObjective(model, loss, batch)
    x = objective.vector.read()
    E = objective.example_gradients(x).numpy()
    np.testing.assert_allclose(E, one_by_one(model, loss, batch), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(E.mean(0), objective.value_and_grad(x)[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(objective.example_gradient_norms(x), np.linalg.norm(E, axis=1), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_the_mean_is_the_gradient_for_every_reduction(reduction):
    model, loss = dense_net(), keras.losses.MeanSquaredError(reduction=reduction)
    batch = RNG.normal(size=(N, 6)), RNG.normal(size=(N, 3)), RNG.uniform(size=N)
    objective = tl.ModelObjective(model, loss, batch)
    x = objective.vector.read() + 0.1
    np.testing.assert_allclose(
        tf.reduce_mean(objective.example_gradients(x), 0), objective.value_and_grad(x)[1], rtol=1e-9
    )


def points_loss(model, batch):
    return tf.reduce_mean(tf.math.log(tf.cosh(model(batch["p"])[:, 0] - batch["q"])))


@pytest.mark.parametrize("kind", ["loss_fn", "residuals"])
@pytest.mark.thorough_after(1)
def test_other_losses_in_chunks(kind):
    batch = {"p": RNG.normal(size=(N, 6)), "q": RNG.normal(size=N)}
    given = {"loss_fn": points_loss}
    if kind == "residuals":
        batch, given = RNG.normal(size=(N, 6)), {"residuals": lambda model, p: model(p) - 1}
    objective = tl.ModelObjective(dense_net(), batch=batch, **given)
    x = objective.vector.read()
    whole = objective.example_gradients(x)
    objective.rows_bytes = 4 * 8 * x.shape[0] * 3  # three samples at a time
    np.testing.assert_allclose(objective.example_gradients(x), whole, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(tf.reduce_mean(whole, 0), objective.value_and_grad(x)[1], rtol=1e-11, atol=1e-15)
    compiled = tf.function(objective.example_gradient_norms, autograph=False)(x)
    np.testing.assert_allclose(compiled, np.linalg.norm(whole, axis=1), rtol=1e-12)


def coupled(model, batch):
    p = model(batch)
    return tf.reduce_mean((p - tf.reduce_mean(p, 0)) ** 2)


def no_mean(model, batch):
    return tf.reduce_sum(model(batch) ** 2)


def as_python(model, batch):
    return tf.reduce_mean(model(batch) ** 2) * float(np.asarray(tf.reduce_mean(batch)) * 0 + 1)


@pytest.mark.parametrize(
    ("loss_fn", "said"),
    [
        (coupled, "couples samples"),
        (no_mean, "couples samples: the mean of their gradients is not the gradient of their batch"),
        (as_python, "runs only as Python"),
    ],
)
def test_coupled_samples_raise(loss_fn, said):
    objective = tl.ModelObjective(dense_net(), loss_fn=loss_fn, batch=RNG.normal(size=(N, 6)))
    for derive in (objective.example_gradients, objective.example_gradient_norms):
        with pytest.raises(ValueError, match=said):
            derive(objective.vector.read())


def test_layers_that_couple_samples_raise():
    x, y = blobs(8)
    objective = tl.ModelObjective(stateful_net(), crossentropy(), (x, y))
    with pytest.raises(ValueError, match=r"writes variables or draws random numbers, so samples have no gradients of"):
        objective.example_gradients(objective.vector.read())
    dice = tl.ModelObjective(dense_net(), keras.losses.Dice(), (x, np.eye(3)[y]))
    with pytest.raises(ValueError, match="cannot be taken for single samples"):
        dice.example_gradients(dice.vector.read())


def test_norms_at_the_edges_of_float32():
    model = keras.Sequential([keras.Input((1,), dtype="float32"), L.Dense(1, use_bias=False, dtype="float32")])
    inputs = np.array([[1e-22], [1e15], [1.0]], "float32")
    objective = tl.ModelObjective(model, loss_fn=lambda model, p: tf.reduce_mean(1e5 * model(p)), batch=inputs)
    np.testing.assert_allclose(objective.example_gradient_norms(objective.vector.read()), 1e5 * inputs[:, 0], rtol=1e-6)


# --- The noise of the gradient ---------------------------------------------------------------------------


def linear(weights):
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False)])
    model.set_weights([np.reshape(weights, (2, 1))])
    return model


def test_the_noise_scale_of_linear_least_squares():
    """f = E (a'w - b)^2 with a ~ N(0, I), b = a'w* + s z: e = 2 a (a'd - s z), d = w - w*.

    E e = 2 d, and E |e|^2 = 4 ((n + 2) |d|^2 + n s^2), so tr(Sigma) = 4 ((n + 1) |d|^2 + n s^2).
    """
    rng, N, s, d = np.random.default_rng(1), 40_000, 0.5, np.array([1.0, -0.5])
    a = rng.normal(size=(N, 2))
    hook = tl.hooks.GradientNoise(1, samples=(a, (a @ -d + s * rng.normal(size=N))[:, None]))
    history = (
        tl.TrainLoop(linear([0.0, 0.0]), tl.SimpleGD(1e-12), "mse", hooks=[hook])
        .run((a[:5], a[:5, :1]), steps=1)
        .history
    )
    square = d @ d
    trace, squared_norm = 4 * (3 * square + 2 * s**2), 4 * square
    expected = {"trace": trace, "squared_norm": squared_norm, "scale": trace / squared_norm}
    for name, value in expected.items():
        np.testing.assert_allclose(history[f"gradient_noise/{name}"][0], value, rtol=0.04)


@pytest.mark.thorough
def test_both_estimates_are_unbiased():
    """Over all ordered draws of two out of three samples, their mean is exactly that of the set."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(3, 1))
    model = linear([0.3, -0.2])
    e = 2 * a * (a @ [[0.3], [-0.2]] - b)
    g = e.mean(0)
    loop, mean = tl.TrainLoop(model, tl.Adam(), "mse"), 0
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        hook = tl.hooks.GradientNoise(1, samples=(a[[i, j]], b[[i, j]]))
        hook.on_start(loop)
        measured = hook.measure(model)
        found = np.array([measured[f"gradient_noise/{name}"] for name in ("trace", "squared_norm")])
        mean += found * (1 if i == j else 2) / 9
    np.testing.assert_allclose(mean, [np.sum(np.var(e, axis=0)), g @ g], rtol=1e-10)


def test_no_scale_where_the_mean_is_lost_in_noise():
    a = np.array([[1.0, 0.0], [-1.0, 0.0]])
    hook = tl.hooks.GradientNoise(1, samples=(a, np.ones([2, 1])))
    model = linear([0.0, 0.0])
    hook.on_start(tl.TrainLoop(model, tl.Adam(), "mse"))
    measured = hook.measure(model)
    assert np.isnan(measured["gradient_noise/scale"])
    np.testing.assert_allclose(measured["gradient_noise/trace"], 8.0)
    np.testing.assert_allclose(measured["gradient_noise/squared_norm"], -4.0)


def test_one_sample_shows_no_noise():
    with pytest.raises(ValueError, match="GradientNoise needs at least 2 samples to see noise, received 1"):
        tl.hooks.GradientNoise(1, samples=(np.ones([1, 2]), np.ones([1, 1])))
