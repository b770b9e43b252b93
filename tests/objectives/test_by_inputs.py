"""Derivatives by the inputs, against closed forms and against central differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

from trainloop import derivatives

P = tf.constant(np.random.default_rng(0).uniform(0.5, 1.5, size=(6, 3)))


def polynomial(p):
    """u_0 = x^3 y z^2, u_1 = sin(x) y."""
    x, y, z = tf.unstack(p, axis=1)
    return tf.stack([x**3 * y * z**2, tf.sin(x) * y], 1)


def test_all_derivatives_to_fourth_order_of_a_closed_form():
    u, du, d2u, d3u, d4u = derivatives(polynomial, P, 4)
    x, y, z = P.numpy().T
    assert [t.shape[1:] for t in (u, du, d2u, d3u, d4u)] == [(2, *[3] * k) for k in range(5)]
    np.testing.assert_allclose(u, np.stack([x**3 * y * z**2, np.sin(x) * y], 1), rtol=1e-13)
    np.testing.assert_allclose(du[:, 0], np.stack([3 * x**2 * y * z**2, x**3 * z**2, 2 * x**3 * y * z], 1), rtol=1e-13)
    np.testing.assert_allclose(d2u[:, 0, 0, 2], 6 * x**2 * y * z, rtol=1e-13)
    np.testing.assert_allclose(d2u[:, 1, 1, 0], np.cos(x), rtol=1e-13)
    np.testing.assert_allclose(d3u[:, 0, 2, 0, 2], 6 * x**2 * y, rtol=1e-13)
    np.testing.assert_allclose(d4u[:, 0, 0, 1, 2, 0], 12 * x * z, rtol=1e-13)
    np.testing.assert_allclose(d4u[:, 1, 0, 0, 0, 0], np.sin(x) * y, rtol=1e-13)
    np.testing.assert_array_equal(d4u[:, 1, 2], 0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_network_against_differences(compiled):
    seed_generators()
    layers = [keras.layers.Dense(k, "tanh", dtype="float64") for k in (5, 2)]
    model = keras.Sequential([keras.Input((3,), dtype="float64"), *layers])
    call = (
        tf.function(lambda p: derivatives(model, p, 2), autograph=False)
        if compiled
        else lambda p: derivatives(model, p, 2)
    )
    u, du, d2u = call(P)
    np.testing.assert_array_equal(u, model(P))
    h = 1e-5
    for j in range(3):
        e = h * tf.one_hot(j, 3, dtype=tf.float64)
        np.testing.assert_allclose(du[:, :, j], (model(P + e) - model(P - e)) / (2 * h), rtol=1e-7, atol=1e-9)
        there, back = call(P + e)[1], call(P - e)[1]
        np.testing.assert_allclose(d2u[..., j], (there - back) / (2 * h), rtol=1e-6, atol=1e-8)


def test_named_derivatives_of_a_closed_form_in_the_order_in_which_they_are_named():
    u, xxz, y, xyz, xx = derivatives(polynomial, P, [(0, 2, 0), (1,), (2, 1, 0), (0, 0)])
    a, b, c = P.numpy().T
    np.testing.assert_allclose(u, np.stack([a**3 * b * c**2, np.sin(a) * b], 1), rtol=1e-13)
    np.testing.assert_allclose(xxz, np.stack([12 * a * b * c, 0 * a], 1), rtol=1e-13)
    np.testing.assert_allclose(y, np.stack([a**3 * c**2, np.sin(a)], 1), rtol=1e-13)
    np.testing.assert_allclose(xyz, np.stack([6 * a**2 * c, 0 * a], 1), rtol=1e-13)
    np.testing.assert_allclose(xx, np.stack([6 * a * b * c**2, -np.sin(a) * b], 1), rtol=1e-13)


def test_what_is_not_named_is_not_computed():
    def backward_passes(order):
        compiled = tf.function(lambda p: derivatives(lambda q: tf.tanh(q @ q), p, order), autograph=False)
        graph = compiled.get_concrete_function(tf.ones([3, 3])).graph
        return sum(op.type == "MatMul" for op in graph.get_operations())

    assert backward_passes([(1,), (0, 0)]) < backward_passes(2)


def test_lines_have_second_derivatives_of_zero():
    _, du, d2u = derivatives(lambda p: 2 * p[:, :1], P, 2)
    np.testing.assert_array_equal(du[:, 0], np.tile([2.0, 0.0, 0.0], (6, 1)))
    np.testing.assert_array_equal(d2u, 0)


def normalised():
    layers = [keras.layers.LayerNormalization(dtype="float64"), keras.layers.Dense(1, dtype="float64")]
    return keras.Sequential([keras.Input((3,), dtype="float64"), *layers])


@pytest.mark.parametrize(
    ("model", "points", "order", "words"),
    [
        (polynomial, P, 0, "order must be an integer of at least 1"),
        (polynomial, P, 5, "order must be at most 4, received 5"),
        (polynomial, P[0], 1, r"points must be a floating tensor \[N, d\]"),
        (polynomial, tf.ones([2, 3], tf.int32), 1, "received int32"),
        (lambda p: p[:, 0], P, 1, r"must return values \[N, k\]"),
        (lambda p: tf.ones([6, 1], tf.float64), P, 1, "do not depend on the points"),
        (polynomial, P, [(0, 3)], r"points have 3 inputs, counted from 0; received the multi-index \(0, 3\)"),
        (polynomial, P, [0], "a multi-index is a tuple of one to 4 inputs.*received 0"),
        (polynomial, P, [()], "a multi-index is a tuple"),
        (polynomial, P, [(0.5,)], "an input in a multi-index must be an integer"),
        (normalised(), P, [(0, 0)], "first derivatives only.*StopGradient"),
        (normalised(), P, 2, "first derivatives only.*StopGradient"),
    ],
)
def test_what_cannot_be_derived(model, points, order, words):
    with pytest.raises(ValueError, match=words):
        derivatives(model, points, order)
