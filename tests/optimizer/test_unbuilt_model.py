"""Models that their first batch builds: their variables have no values when the optimizer meets them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import blobs, weights

from trainloop import Adam, GlobalVectorOptimizer, SharedMatrix, SimpleGD, TestGD

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


class Tethered(GlobalVectorOptimizer):
    """x <- x - t B (g + x - a),  a <- 0.9 a,  B <- 0.9 B;  a begins at x_0 + 1: its first state depends on x."""

    def __init__(self, learning_rate=0.1, name="tethered", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)

    def init_state(self, x):
        return {"anchor": x + 1, "B": SharedMatrix.identity(x.shape[0], dtype=x.dtype), "norm": tf.norm(x)}

    def update(self, x, g, state):
        d = state["B"] @ (g + x - state["anchor"])
        return x - self.learning_rate * d, {
            "anchor": 0.9 * state["anchor"],
            "B": state["B"].scale(0.9),
            "norm": state["norm"],
        }


def net(built, seed=1):
    """Two dense layers and averages, but no Input."""
    seed_generators(seed)
    model = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    if built:
        model.build((None, 6))
    return model


class Subclassed(keras.Model):
    """One dense layer that the first call builds."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def fitted(model, optimizer, **options):
    """All weights and the vectors of the state after two epochs."""
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    seed_generators(2)
    model.fit(*blobs(), batch_size=48, epochs=2, verbose=0)
    state = [leaf for leaf in optimizer.state.values() if tf.is_tensor(leaf)]
    return np.concatenate([weights(model), *(np.ravel(leaf) for leaf in state)])


GRAPH, XLA, EAGER = {"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        *((make, GRAPH) for make in (SimpleGD, Adam, TestGD, Tethered)),
        pytest.param(Tethered, XLA, marks=pytest.mark.thorough),
        (Tethered, EAGER),
        pytest.param(Tethered, GRAPH | {"steps_per_execution": 2}, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.thorough_after(1)
def test_fit_trains_as_with_a_model_that_is_built(make, mode):
    built, unbuilt = (fitted(net(built), make(), **mode) for built in (True, False))
    np.testing.assert_array_equal(unbuilt, built)


def test_the_first_state_is_computed_from_the_first_weights():
    """Against NumPy: a model with one dense layer and the mean of squares."""
    x, y = np.linspace(-1, 1, 24).reshape(8, 3), np.linspace(2, -1, 16).reshape(8, 2)
    start = np.arange(6.0).reshape(3, 2) / 5
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer=keras.initializers.Constant(start))
    model = keras.Sequential([dense])
    optimizer = Tethered()
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    w, anchor, scale = start, start + 1, 1.0
    for _ in range(3):
        g = 2 / y.size * x.T @ (x @ w - y)
        w, anchor, scale = w - 0.1 * scale * (g + w - anchor), 0.9 * anchor, 0.9 * scale
    np.testing.assert_allclose(dense.kernel, w, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state["anchor"], np.ravel(anchor), rtol=1e-12)
    np.testing.assert_allclose(optimizer.state["norm"], np.linalg.norm(start), rtol=1e-12)
    assert int(optimizer.iterations) == 3


@pytest.mark.thorough
def test_a_subclass_and_train_on_batch():
    x, y = blobs()
    results = []
    for built in (True, False):
        seed_generators(3)
        model = Subclassed()
        if built:
            model(x[:1])
        model.compile(Tethered(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        for _ in range(2):
            model.train_on_batch(x, y)
        results.append(weights(model))
    np.testing.assert_array_equal(*results)


def step_in_functions(model, optimizer, nested):
    """A train step of one's own; nested: the optimizer works in a function inside of it, which is traced once."""
    x, y = tf.constant(blobs()[0][:, :3]), tf.constant(blobs()[0][:, 3:5])

    def move(*gradients):
        optimizer.apply(gradients, model.trainable_variables)

    inner = tf.function(move) if nested else move

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        inner(*tape.gradient(loss, model.trainable_variables))
        return loss

    return step


@pytest.mark.thorough
@pytest.mark.parametrize("strategy", [tf.distribute.OneDeviceStrategy, lambda d: tf.distribute.MirroredStrategy([d])])
def test_fit_under_a_strategy_with_one_replica(strategy):
    """There Keras builds the model before the first trace."""
    results = []
    for built in (True, False):
        with strategy("/cpu:0").scope():
            results.append(fitted(net(built), Tethered(), **GRAPH))
    np.testing.assert_array_equal(*results)


@pytest.mark.thorough
@pytest.mark.parametrize("nested", [False, True])
def test_a_train_step_of_ones_own(nested):
    results = []
    for built in (True, False):
        seed_generators(4)
        model, optimizer = keras.Sequential([keras.layers.Dense(2)]), Tethered()
        if built:
            model.build((None, 3))
        step = step_in_functions(model, optimizer, nested)
        for _ in range(3):
            step()
        results.append(np.concatenate([weights(model), optimizer.state["anchor"]]))
    np.testing.assert_array_equal(*results)


@pytest.mark.thorough
def test_a_weight_that_begins_with_the_first_batch():
    """Its value is not known before the function runs, so the second trace does not know it either."""
    x, y, made, optimizer = blobs()[0][:40, :2], np.ones([40, 2]), [], Tethered()

    @tf.function
    def step(x):
        if not made:
            mean = tf.reduce_mean(x, axis=0)
            made.append(keras.Variable(lambda shape, dtype: mean, shape=(2,), dtype="float64"))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(x - made[0] - y))
        optimizer.apply(tape.gradient(loss, made), made)

    step(tf.constant(x))
    step(tf.constant(x))
    start = w = x.mean(axis=0)
    anchor, scale = start + 1, 1.0
    for _ in range(2):
        g = -2 / y.size * (x - w - y).sum(axis=0)
        w, anchor, scale = w - 0.1 * scale * (g + w - anchor), 0.9 * anchor, 0.9 * scale
    np.testing.assert_allclose(made[0], w, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state["norm"], np.linalg.norm(start), rtol=1e-12)


def test_a_first_step_that_fails_leaves_the_first_state():
    x, y = blobs()
    model, optimizer = net(built=False), Tethered()
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    with pytest.warns(UserWarning, match="1 steps were not taken"):
        model.fit(np.full_like(x, np.nan), y, batch_size=96, verbose=0)
    np.testing.assert_array_equal(optimizer.state["anchor"], optimizer._vector.read() + 1)
    assert np.all(np.isfinite(optimizer.state["anchor"]))


@pytest.mark.thorough
def test_a_state_that_was_loaded_is_kept():
    first, again = Tethered(), Tethered()
    fitted(net(built=True), first)
    store = {}
    first.save_own_variables(store)
    again.load_own_variables(store)
    model = net(built=False)
    model.compile(again, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(*blobs(), batch_size=96, epochs=1, verbose=0)
    assert int(again.iterations) == int(first.iterations) + 1
    np.testing.assert_array_equal(again.state["anchor"], 0.9 * first.state["anchor"])
    np.testing.assert_array_equal(again.state["norm"], first.state["norm"])
