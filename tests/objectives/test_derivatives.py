"""Products with derivatives, against closed forms; and the fact of the platform that they are built around."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop.objectives import derivatives

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

X, V = np.array([0.3, -0.7, 1.1]), np.array([1.0, 2, -0.5])


def outputs(x):
    """A matrix [2, 2] of three unknowns."""
    return tf.reshape(tf.stack([x[0] * x[1], tf.sin(x[2]), x[1] ** 3, tf.ones([], x.dtype)]), [2, 2])


def jacobian(x):
    rows = [[x[1], x[0], 0], [0, 0, np.cos(x[2])], [0, 3 * x[1] ** 2, 0], [0, 0, 0]]
    return np.array(rows).reshape(2, 2, 3)


def quartic(x):
    return tf.reduce_sum(x**4) + tf.reduce_prod(x)


def hessian(x):
    a, b, c = x
    return np.array([[12 * a**2, c, b], [c, 12 * b**2, a], [b, a, 12 * c**2]])


def compiled(function):
    return tf.function(function, autograph=False)


def test_products_with_a_jacobian_are_those_of_numpy():
    r = derivatives.Linearised(outputs, tf.constant(X))
    np.testing.assert_allclose(r.z, [[X[0] * X[1], np.sin(X[2])], [X[1] ** 3, 1]], rtol=1e-14)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        u, v = rng.normal(size=(2, 2)), rng.normal(size=3)
        np.testing.assert_allclose(r.vjp(tf.constant(u)), np.einsum("ij,ijk->k", u, jacobian(X)), rtol=1e-13)
        np.testing.assert_allclose(r.jvp(tf.constant(v)), jacobian(X) @ v, rtol=1e-13)
    assert r.extra is None


def test_a_linearised_function_may_give_something_else_beside():
    r = derivatives.Linearised(lambda x: (outputs(x), {"own": x[0]}), tf.constant(X))
    assert float(r.extra["own"]) == X[0]
    np.testing.assert_allclose(r.jvp(tf.constant(V)), jacobian(X) @ V, rtol=1e-13)


def test_a_constant_has_a_jacobian_of_zeros():
    r = derivatives.Linearised(lambda x: tf.ones([2], x.dtype), tf.constant(X))
    np.testing.assert_array_equal(r.vjp(tf.constant([1.0, 2], tf.float64)), np.zeros(3))
    np.testing.assert_array_equal(r.jvp(tf.constant(V)), np.zeros(2))


def test_products_with_a_jacobian_can_be_taken_in_a_loop():
    @compiled
    def columns(x):
        return tf.map_fn(derivatives.Linearised(outputs, x).jvp, tf.eye(3, dtype=x.dtype), fn_output_signature=x.dtype)

    np.testing.assert_allclose(columns(tf.constant(X)), np.moveaxis(jacobian(X), 2, 0), rtol=1e-13)


def test_products_with_a_jacobian_pass_through_loops():
    def power(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, z: (i + 1, z * x), [0, tf.ones_like(x)])[1]

    @compiled
    def both(x, v):
        r = derivatives.Linearised(power, x)
        return r.jvp(v), r.vjp(v)

    for product in both(tf.constant(X), tf.constant(V)):
        np.testing.assert_allclose(product, 3 * X**2 * V, rtol=1e-13)


def test_values_and_gradients_are_those_of_numpy():
    f, g = derivatives.value_and_grad(quartic, tf.constant(X))
    a, b, c = X
    assert float(f) == pytest.approx((X**4).sum() + a * b * c, rel=1e-14)
    np.testing.assert_allclose(g, 4 * X**3 + [b * c, a * c, a * b], rtol=1e-13)
    assert derivatives.value_and_grad(lambda x: tf.constant(1.0), tf.constant(X))[1] is None


@pytest.mark.parametrize("wrap", [lambda f: f, compiled], ids=["eager", "compiled"])
def test_hessian_products_are_those_of_numpy(wrap):
    product = wrap(lambda x, v: derivatives.hvp(quartic, x, v))(tf.constant(X), tf.constant(V))
    np.testing.assert_allclose(product, hessian(X) @ V, rtol=1e-13)


@pytest.mark.parametrize("flat", [lambda x: tf.reduce_sum(x), lambda x: tf.ones([], x.dtype)])
def test_flat_functions_have_no_curvature(flat):
    np.testing.assert_array_equal(derivatives.hvp(flat, tf.constant(X), tf.constant(V)), np.zeros(3))


def test_hessian_products_have_the_shape_of_x():
    x, v = np.arange(1.0, 5).reshape(2, 2), np.ones((2, 2))
    product = derivatives.hvp(lambda x: tf.reduce_sum(x**3), tf.constant(x), tf.constant(v))
    np.testing.assert_allclose(product, 6 * x, rtol=1e-14)


# --- Differences of gradients -----------------------------------------------------------------------------


def cubes(x):
    """The gradient of sum x^4 / 4."""
    return x**3


def differences(x, v, dtype="float64", gradient=cubes):
    return derivatives.difference_of_gradients(gradient, tf.constant(x, dtype), tf.constant(v, dtype)).numpy()


@pytest.mark.parametrize(("dtype", "digits"), [("float64", 1e-9), ("float32", 2e-3)])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_differences_of_gradients_have_the_digits_they_promise(size, dtype, digits):
    product = differences(size * X, V, dtype)
    expected = 3 * (size * X) ** 2 * V
    assert np.linalg.norm(product - expected) <= digits * max(np.linalg.norm(expected), 1)


@pytest.mark.parametrize(
    ("dtype", "scales"), [("float64", [1e-200, 1e-30, 1e30, 1e200]), ("float32", [1e-30, 1e-20, 1e10, 1e25])]
)
def test_differences_of_gradients_are_linear_in_v_whatever_its_length(dtype, scales):
    for scale in scales:
        product = differences(X, scale * V, dtype).astype(float) / scale
        np.testing.assert_allclose(product, 3 * X**2 * V, rtol=2e-3)


def test_differences_along_no_direction_are_zero():
    np.testing.assert_array_equal(differences(X, 0 * V), np.zeros(3))


def test_differences_trace_the_gradient_once():
    traces = []

    def gradient(x):
        traces.append(x)
        return cubes(x)

    function = compiled(lambda x, v: derivatives.difference_of_gradients(gradient, x, v))
    np.testing.assert_allclose(function(tf.constant(X), tf.constant(V)), 3 * X**2 * V, rtol=1e-8)
    assert len(traces) == 1


# --- Stopped gradients ------------------------------------------------------------------------------------


def normalised(x):
    """Four numbers, normalised by TensorFlow's moments."""
    mean, variance = tf.nn.moments(x, 0)
    return tf.reduce_sum(((x - mean) / tf.sqrt(variance + 0.1)) ** 3)


def normalised_without_moments(x):
    centred = x - tf.reduce_mean(x)
    return tf.reduce_sum((centred / tf.sqrt(tf.reduce_mean(centred**2) + 0.1)) ** 3)


def test_autodiff_is_wrong_through_the_moments_of_tensorflow_and_differences_are_right():
    x, v = tf.constant(X), tf.constant(V)
    right = derivatives.hvp(normalised_without_moments, x, v).numpy()
    f, g = derivatives.value_and_grad(normalised, x)
    f_right, g_right = derivatives.value_and_grad(normalised_without_moments, x)
    assert float(f) == pytest.approx(float(f_right), rel=1e-13)
    np.testing.assert_allclose(g, g_right, rtol=1e-12)  # first derivatives are right
    wrong = derivatives.hvp(normalised, x, v).numpy()
    assert np.linalg.norm(wrong - right) > 1e-3 * np.linalg.norm(right)
    product = derivatives.difference_of_gradients(lambda x: derivatives.value_and_grad(normalised, x)[1], x, v)
    assert np.linalg.norm(product - right) < 1e-8 * np.linalg.norm(right)


def in_a_branch(x):
    return tf.cond(x[0] > 0, lambda: tf.stop_gradient(x), lambda: x)


def in_a_loop(x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, z: (i + 1, tf.stop_gradient(z)), [0, x])[1]


def in_a_function(x):
    return tf.function(lambda x: tf.cond(x[0] > 0, lambda: tf.stop_gradient(x), lambda: x), autograph=False)(x)


@pytest.mark.parametrize("function", [normalised, in_a_branch, in_a_loop, in_a_function])
def test_stopped_gradients_are_found_wherever_they_are(function):
    assert derivatives.stops_gradients(function, tf.constant(X))


@pytest.mark.parametrize(
    ("layer", "stops"), [(keras.layers.LayerNormalization, True), (lambda: keras.layers.Dense(2), False)]
)
def test_stopped_gradients_are_found_in_layers(layer, stops):
    layer = layer()
    layer.build([1, 3])
    assert derivatives.stops_gradients(lambda x: layer(x[None, :]), tf.constant(X)) == stops


@pytest.mark.parametrize("function", [quartic, normalised_without_moments])
def test_functions_that_stop_nothing_are_told_from_those_that_do(function):
    assert not derivatives.stops_gradients(function, tf.constant(X))


def test_looking_for_stopped_gradients_runs_nothing():
    calls = tf.Variable(0)

    def counted(x):
        calls.assign_add(1)
        return tf.stop_gradient(x)

    assert derivatives.stops_gradients(counted, tf.constant(X))
    function = compiled(lambda x: tf.constant(derivatives.stops_gradients(counted, x)))
    assert bool(function(tf.constant(X)))
    assert int(calls) == 0
