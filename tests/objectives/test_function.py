"""Objectives made of functions, against closed forms in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from trainloop import FunctionObjective, LeastSquares

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

A = np.array([[4.0, 1, 0.5], [1, 3, -1], [0.5, -1, 2]])
X, V = np.array([0.3, -0.7, 1.1]), np.array([1.0, 2, -0.5])


def f_numpy(x):
    """x'A x / 2 + sum x^4."""
    return x @ A @ x / 2 + (x**4).sum()


def g_numpy(x):
    return A @ x + 4 * x**3


def hessian(x):
    return A + np.diag(12 * x**2)


def f_tensorflow(x):
    return tf.tensordot(x, tf.linalg.matvec(A, x), 1) / 2 + tf.reduce_sum(x**4)


def f_and_g_tensorflow(x):
    return f_tensorflow(x), tf.linalg.matvec(A, x) + 4 * x**3


def f_and_g_of_numpy(x):
    return tuple(tf.numpy_function(lambda x: (f_numpy(x), g_numpy(x)), [x], [tf.float64, tf.float64]))


def f_and_g_in_part_of_numpy(x):
    """A simulation and a penalty: TensorFlow knows how to differentiate one half of g."""
    f, g = tf.numpy_function(lambda x: (x @ A @ x / 2, A @ x), [x], [tf.float64, tf.float64])
    return f + tf.reduce_sum(x**4), g + 4 * x**3


def f_and_g_behind_a_stop(x):
    f, g = f_and_g_tensorflow(x)
    return f, tf.stop_gradient(g)


def f_of_nested_functions(x):
    inner = tf.function(lambda x: tf.linalg.matvec(A, x), autograph=False)
    quartic = tf.cond(x[0] > -100, lambda: tf.reduce_sum(x**4), lambda: tf.zeros([], x.dtype))
    return tf.tensordot(x, inner(x), 1) / 2 + quartic


@tf.custom_gradient
def f_with_its_own_gradient(x):
    return f_tensorflow(x), lambda upstream: upstream * (tf.linalg.matvec(A, x) + 4 * x**3)


FUNCTIONS = [
    f_tensorflow,
    f_and_g_tensorflow,
    f_and_g_of_numpy,
    f_and_g_in_part_of_numpy,
    f_and_g_behind_a_stop,
    f_of_nested_functions,
    f_with_its_own_gradient,
]
every_function = pytest.mark.parametrize("fun", FUNCTIONS)
compiled_or_not = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def called(method, *arguments, compiled):
    function = tf.function(method, autograph=False) if compiled else method
    return function(*(tf.constant(a) for a in arguments))


@compiled_or_not
@every_function
def test_values_gradients_and_hessian_products_are_those_of_numpy(fun, compiled):
    objective = FunctionObjective(fun)
    f, g = called(objective.value_and_grad, X, compiled=compiled)
    assert float(f) == pytest.approx(f_numpy(X), rel=1e-14)
    assert float(called(objective.value, X, compiled=compiled)) == float(f)
    np.testing.assert_allclose(g, g_numpy(X), rtol=1e-13)
    product = called(objective.hvp, X, V, compiled=compiled)
    np.testing.assert_allclose(product, hessian(X) @ V, rtol=1e-8)
    assert g.shape == product.shape == (3,)


def variance(x):
    return tf.nn.moments(x, 0)[1]


@compiled_or_not
def test_hessian_products_are_right_where_a_function_stops_gradients(compiled):
    """The Hessian of a variance is 2/n (I - 1/n); autodiff through `tf.nn.moments` would lose the second term."""
    product = called(FunctionObjective(variance).hvp, X, V, compiled=compiled)
    np.testing.assert_allclose(product, 2 / 3 * (V - V.mean()), rtol=1e-8)


def test_a_linear_function_has_no_curvature():
    for fun in (lambda x: tf.reduce_sum(x), lambda x: (tf.reduce_sum(x), tf.ones_like(x))):
        np.testing.assert_allclose(FunctionObjective(fun).hvp(tf.constant(X), tf.constant(V)), np.zeros(3), atol=1e-9)


def test_the_backward_pass_follows_from_f():
    """So it cannot begin before f is known, and no part of it is a constant as long as x."""
    objective = FunctionObjective(lambda x: tf.reduce_sum(tf.square(x)))
    traced = tf.function(objective.value_and_grad, autograph=False).get_concrete_function(tf.TensorSpec([3], "float64"))
    f, g = traced.graph.outputs
    reached, found = {g.op.name: g.op}, [g.op]
    while found:
        new = {tensor.op.name: tensor.op for tensor in found.pop().inputs if tensor.op.name not in reached}
        reached |= new
        found += new.values()
    assert f.op.inputs[0].op.name in reached
    x = tf.constant(X)
    np.testing.assert_array_equal(objective.value_and_grad(x)[1], 2 * X)
    np.testing.assert_array_equal(
        FunctionObjective(lambda x: np.nan * tf.reduce_sum(x)).value_and_grad(x)[1], [np.nan] * 3
    )


def test_values_in_float32_stay_in_float32():
    objective = FunctionObjective(lambda x: tf.reduce_sum(x**4))
    x = tf.constant([1.0, 2.0])
    assert objective.value(x).dtype == objective.value_and_grad(x)[1].dtype == objective.hvp(x, x).dtype == tf.float32
    np.testing.assert_allclose(objective.hvp(x, x), [12, 96], rtol=1e-6)


def test_sparse_gradients_become_dense():
    objective = FunctionObjective(lambda x: tf.reduce_sum(tf.gather(x, [0, 2, 2]) ** 2))
    _, g = objective.value_and_grad(tf.constant(X))
    np.testing.assert_allclose(g, [2 * X[0], 0, 4 * X[2]], rtol=1e-14)
    np.testing.assert_allclose(objective.hvp(tf.constant(X), tf.constant(V)), [2 * V[0], 0, 4 * V[2]], rtol=1e-9)


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (lambda x: x, r"f as a scalar.*received shape \(3,\)"),
        (lambda x: (tf.reduce_sum(x), x[:2]), r"g as a vector.*\(3,\).*received shape \(2,\)"),
        (lambda x: (tf.reduce_sum(x), x[:, None]), r"g as a vector.*received shape \(3, 1\)"),
        (lambda x: tf.cast(tf.reduce_sum(x), tf.float32), "f in the dtype of x, float64; received float32"),
        (lambda x: (tf.reduce_sum(x), tf.cast(x, tf.float32)), "g in the dtype of x, float64; received float32"),
        (lambda x: (tf.reduce_sum(x), x, x), "received 3 values"),
        (lambda x: tf.numpy_function(f_numpy, [x], tf.float64), r"no gradient.*tf.numpy_function.*return \(f, g\)"),
        (lambda x: tf.constant(1.0, tf.float64), "no gradient"),
    ],
)
def test_what_a_function_must_not_return_is_named(fun, words):
    with pytest.raises(ValueError, match=words):
        FunctionObjective(fun).value_and_grad(tf.constant(X))


@pytest.mark.parametrize("kind", [FunctionObjective, LeastSquares])
def test_what_cannot_be_called_is_refused(kind):
    with pytest.raises(ValueError, match=r"must be a function of x.*received 3"):
        kind(3)


def test_gauss_newton_products_of_a_function_are_refused():
    with pytest.raises(ValueError, match=r"FunctionObjective has no Gauss-Newton products.*LeastSquares"):
        FunctionObjective(f_tensorflow).ggnvp(tf.constant(X), tf.constant(V))


# --- Least squares ----------------------------------------------------------------------------------------


def residuals(x):
    """More residuals than unknowns: [x1 x2 - 1, exp x3, x1 - x3^2, 2 x2]."""
    return tf.stack([x[0] * x[1] - 1, tf.exp(x[2]), x[0] - x[2] ** 2, 2 * x[1]])


def residuals_numpy(x):
    return np.array([x[0] * x[1] - 1, np.exp(x[2]), x[0] - x[2] ** 2, 2 * x[1]])


def jacobian(x):
    return np.array([[x[1], x[0], 0], [0, 0, np.exp(x[2])], [1, 0, -2 * x[2]], [0, 2, 0]])


def hessians_of_residuals(x):
    H = np.zeros((4, 3, 3))
    H[0, 0, 1] = H[0, 1, 0] = 1
    H[1, 2, 2] = np.exp(x[2])
    H[2, 2, 2] = -2
    return H


@compiled_or_not
def test_least_squares_are_those_of_numpy(compiled):
    objective, r, J = LeastSquares(residuals), residuals_numpy(X), jacobian(X)
    f, g = called(objective.value_and_grad, X, compiled=compiled)
    assert float(f) == pytest.approx(r @ r, rel=1e-14)
    assert float(called(objective.value, X, compiled=compiled)) == float(f)
    np.testing.assert_allclose(g, 2 * J.T @ r, rtol=1e-13)
    H = 2 * J.T @ J + 2 * np.einsum("i,ijk->jk", r, hessians_of_residuals(X))
    np.testing.assert_allclose(called(objective.hvp, X, V, compiled=compiled), H @ V, rtol=1e-12)
    np.testing.assert_allclose(called(objective.ggnvp, X, V, compiled=compiled), 2 * J.T @ J @ V, rtol=1e-12)
    G = called(objective.ggn, X, compiled=compiled).numpy()
    np.testing.assert_allclose(G, 2 * J.T @ J, rtol=1e-12)
    np.testing.assert_array_equal(G, G.T)


def test_fewer_residuals_than_unknowns_are_fine():
    objective = LeastSquares(lambda x: x[:1] ** 2)
    np.testing.assert_allclose(objective.ggn(tf.constant(X)), np.diag([8 * X[0] ** 2, 0, 0]), rtol=1e-12)


def test_residuals_that_stop_gradients_have_the_right_hessian():
    objective = LeastSquares(lambda x: tf.stack([variance(x)]))
    centred = X - X.mean()
    H = 2 * np.outer(2 / 3 * centred, 2 / 3 * centred) + 2 * X.var() * 2 / 3 * (np.eye(3) - 1 / 3)
    np.testing.assert_allclose(objective.hvp(tf.constant(X), tf.constant(V)), H @ V, rtol=1e-7)


def test_constant_residuals_have_no_curvature():
    objective = LeastSquares(lambda x: tf.ones([2], x.dtype))
    np.testing.assert_array_equal(objective.ggnvp(tf.constant(X), tf.constant(V)), np.zeros(3))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda x: tf.reduce_sum(x), r"a vector \[m\].*received shape \(\)"),
        (lambda x: x[:, None], r"a vector \[m\].*received shape \(3, 1\)"),
        (lambda x: tf.cast(x, tf.float32), "dtype float64.*float32"),
    ],
)
@pytest.mark.parametrize("method", ["value", "value_and_grad", "ggnvp", "ggn"])
def test_residuals_of_another_rank_or_dtype_are_named(bad, words, method):
    arguments = (tf.constant(X),) * (2 if method == "ggnvp" else 1)
    with pytest.raises(ValueError, match=words):
        getattr(LeastSquares(bad), method)(*arguments)
