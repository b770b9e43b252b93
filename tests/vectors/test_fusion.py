"""Tests of trainloop.vectors.fusion: what is compiled, what is left alone, and that neither changes a result."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop import Adam, GlobalVectorOptimizer, Momentum
from trainloop.vectors import fusion
from trainloop.vectors.linalg import VERY_LONG

N = VERY_LONG + 3


def arithmetic(x, g):
    return x - 0.1 * g / (tf.sqrt(tf.reduce_sum(tf.square(g))) + 1e-7), {"g": tf.where(g > 0, g, 0.0)}


def printing(x, g):
    tf.print("nothing XLA could compile for CPUs", output_stream="file:///dev/null")
    return x - g, {"g": g}


def branching_into_python(x, g):
    moved = tf.cond(g[0] > 0, lambda: tf.numpy_function(lambda a: -a, [g], g.dtype), lambda: g)
    return x - tf.ensure_shape(moved, g.shape), {"g": g}


def branching(x, g):
    return tf.cond(g[0] > 0, lambda: x - g, lambda: x + g), {"g": g}


@pytest.mark.parametrize(
    ("function", "compiled"),
    [(arithmetic, True), (branching, True), (printing, False), (branching_into_python, False)],
)
def test_only_plain_arithmetic_is_compiled_and_everything_gives_the_same(function, compiled):
    rng = np.random.default_rng(0)
    x, g = tf.constant(rng.normal(size=50)), tf.constant(rng.normal(size=50))
    traces = []

    def counted(x, g):
        traces.append(1)
        return function(x, g)

    outer = tf.function(lambda: fusion.fused(counted, x, g), autograph=False)
    found, expected = outer(), function(x, g)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-14)
    np.testing.assert_allclose(found[1]["g"], expected[1]["g"], rtol=1e-14)
    assert len(traces) == 1
    library = outer.get_concrete_function().graph.as_graph_def().library.function
    assert any(f.attr["_XlaMustCompile"].b for f in library) == compiled


@pytest.mark.parametrize(("n", "worth_it"), [(VERY_LONG - 1, False), (VERY_LONG, True)])
def test_it_is_worth_it_for_very_long_vectors_in_compiled_code_only(n, worth_it):
    seen = []
    tf.function(lambda x: seen.append(fusion.is_worth_it(x)), autograph=False)(tf.zeros([n]))
    assert seen == [worth_it]
    assert not fusion.is_worth_it(tf.zeros([n]))


def steps_of(optimizer, gradients):
    """Where a method leads from zero, by its door for gradients, in a compiled function."""
    v = tf.Variable(tf.zeros([N], gradients.dtype))
    optimizer.build([v])

    @tf.function(autograph=False)
    def run():
        for g in tf.unstack(gradients):
            optimizer.apply([g])

    run()
    return v.numpy()


def test_adam_on_a_very_long_vector_is_the_textbook_one(float32):
    gradients = np.random.default_rng(0).normal(size=(3, N)).astype("float32")
    found = steps_of(Adam(0.01), tf.constant(gradients))
    x, m, v = np.zeros(N), np.zeros(N), np.zeros(N)
    for k, g in enumerate(gradients.astype(float), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x -= 0.01 * np.sqrt(1 - 0.999**k) / (1 - 0.9**k) * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-7)


def test_a_schedule_reaches_a_compiled_update():
    gradients = np.ones((3, N))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.5, 0.25, 0.125])
    found = steps_of(Momentum(schedule, momentum=0.0), tf.constant(gradients))
    np.testing.assert_allclose(found, -(0.5 + 0.25 + 0.125), rtol=1e-6)


class Failing(GlobalVectorOptimizer):
    """Steps of -g, but for one that is infinite in its last entry."""

    def init_state(self, x):
        return {"sum": tf.zeros_like(x)}

    def update(self, x, g, state):
        wall = tf.where(g[0] > 10, tf.constant(np.inf, x.dtype), 0.0)
        return x - g + tf.where(tf.range(N) == N - 1, wall, 0.0), {"sum": state["sum"] + g}


def test_a_failed_step_on_a_very_long_vector_writes_nothing():
    gradients = tf.constant([1.0, 20.0, 2.0], tf.float64)[:, None] * tf.ones([1, N], tf.float64)
    optimizer = Failing()
    np.testing.assert_array_equal(steps_of(optimizer, gradients), np.full(N, -3.0))
    np.testing.assert_array_equal(optimizer.state["sum"], np.full(N, 3.0))
    assert optimizer.skipped_steps == 1


class Plain(GlobalVectorOptimizer):
    """Returns Python numbers where the state has a float64 and an int64."""

    def init_state(self, x):
        return {"age": 0.0, "count": tf.constant(0, tf.int64)}

    def update(self, x, g, state):
        return x - g, {"age": 1.5, "count": 7}


class Misnamed(Plain):
    def update(self, x, g, state):
        return x - g, {"age": 1.5}


def test_plain_numbers_in_the_state_of_a_very_long_vector():
    optimizer = Plain()
    steps_of(optimizer, tf.ones([1, N], tf.float64))
    assert {name: float(leaf) for name, leaf in optimizer.state.items()} == {"age": 1.5, "count": 7}


def test_mistakes_are_named_on_a_very_long_vector_too():
    with pytest.raises(ValueError, match=r"Misnamed.update must return the keys .* expected \['age', 'count'\]"):
        steps_of(Misnamed(), tf.ones([1, N], tf.float64))
