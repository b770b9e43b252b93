"""Closures over variables of any kind: minimised in place, against SciPy and against assigning by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize as scipy_minimize

import trainloop as tl

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(50, 1))
Y = np.sin(6 * X[:, 0]) + 0.1 * RNG.normal(size=50)


class GaussianProcess(tf.Module):
    """Squared exponential kernel, with noise in a Keras variable."""

    def __init__(self):
        super().__init__()
        self.length, self.size = (tf.Variable(0.0, dtype=tf.float64, name=name) for name in ("length", "size"))
        self.noise = keras.Variable(np.array([-1.0]), dtype="float64", name="noise")
        self.seen = tf.Variable(0, trainable=False)

    @tf.function
    def covariance(self):
        squares = tf.square(X - X.T) / tf.exp(2 * self.length)
        return tf.exp(2 * self.size - squares / 2) + tf.exp(2 * self.noise) * tf.eye(len(X), dtype=tf.float64)

    def negative_log_likelihood(self):
        self.seen.assign_add(1)
        L = tf.linalg.cholesky(self.covariance())
        a = tf.linalg.triangular_solve(L, Y[:, None])
        return tf.reduce_sum(a**2) / 2 + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(L)))

    @property
    def all(self):
        return [self.length, self.size, self.noise]


def by_numpy(v):
    """(f, g) of the likelihood: df = tr((1/K - a a') dK) / 2 with K a = y."""
    squares, noise = (X - X.T) ** 2 / np.exp(2 * v[0]), np.exp(2 * v[2]) * np.eye(len(X))
    signal = np.exp(2 * v[1] - squares / 2)
    inverse = np.linalg.inv(signal + noise)
    a = inverse @ Y
    f = Y @ a / 2 + np.linalg.slogdet(signal + noise)[1] / 2
    slopes = (signal * squares, 2 * signal, 2 * noise)
    return f, np.array([np.sum((inverse - np.outer(a, a)) * slope) / 2 for slope in slopes])


@pytest.mark.thorough
def test_a_gaussian_process_ends_where_scipy_does():
    process = GaussianProcess()
    found = tl.minimize(process.negative_log_likelihood, process.all, tl.LBFGS())
    options = {"ftol": 1e-15, "gtol": 1e-8}
    expected = scipy_minimize(by_numpy, [0.0, 0.0, -1.0], jac=True, method="L-BFGS-B", options=options)
    assert found.f == pytest.approx(expected.fun, rel=1e-6)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    held = [np.ravel(v.numpy()) for v in process.all]
    np.testing.assert_array_equal(np.concatenate(held), found.x)
    assert process.seen.numpy() == 0


def test_evaluations_put_everything_back():
    process = GaussianProcess()
    objective = tl.ClosureObjective(process.negative_log_likelihood, process.all)
    x = tf.constant([0.3, -0.2, -0.5], tf.float64)
    f, g = objective.value_and_grad(x)
    assert float(f) == pytest.approx(by_numpy(x.numpy())[0], rel=1e-11)
    np.testing.assert_allclose(g, by_numpy(x.numpy())[1], rtol=1e-10)
    np.testing.assert_array_equal(objective.vector.read(), [0, 0, -1])
    assert process.seen.numpy() == 0


def test_an_operation_that_fails_at_a_trial_leaves_the_variables_where_they_were():
    a, calls = tf.Variable([3.0], dtype=tf.float64), tf.Variable(0)

    @tf.function
    def inner():
        calls.assign_add(1)
        tf.debugging.assert_greater(a[0], tf.constant(-5.0, tf.float64))
        return tf.reduce_sum((a + 20) ** 2)

    with pytest.raises(tf.errors.InvalidArgumentError):
        tl.minimize(lambda: inner(), [a], tl.SimpleGD(0.4))
    assert (a.numpy().tolist(), int(calls)) == ([3.0], 0)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.thorough_after(1)
def test_residuals_of_a_closure(named):
    t = np.linspace(0, 1, 20)
    a, b = tf.Variable([1.0], dtype=tf.float64), tf.Variable(1.0, dtype=tf.float64)

    def first():
        return a[0] * tf.exp(-b * t[:8]) - 2 * np.exp(-3 * t[:8])

    def rest():
        return a * tf.exp(-b * t[8:]) - 2 * np.exp(-3 * t[8:])

    residuals = {"first": first, "rest": rest} if named else lambda: tf.concat([first(), rest()], 0)
    objective = tl.ClosureObjective(residuals=residuals, variables=[a, b])
    x = objective.vector.read()
    J = np.stack([np.exp(-t), -t * np.exp(-t)], 1)
    np.testing.assert_allclose(objective.jacobian(x), J, rtol=1e-12)
    np.testing.assert_allclose(objective.ggn(x), 2 * J.T @ J, rtol=1e-12)
    found = tl.minimize(objective, [a, b], tl.LevenbergMarquardt())
    np.testing.assert_allclose(found.x, [2, 3], rtol=1e-8)
    assert b.numpy() == found.x[1]


def test_terms_are_added_with_their_weights():
    a = tf.Variable(1.0, dtype=tf.float64)
    objective = tl.ClosureObjective(lambda: {"near": (a - 1) ** 2, "small": a**2}, [a], loss_weights={"small": 3.0})
    assert float(objective.value(tf.constant([3.0], tf.float64))) == 4 + 27
    assert tl.minimize(objective, [a], tl.BFGS()).x[0] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="no residuals; pass residuals"):
        objective.jacobian(tf.constant([3.0], tf.float64))


def test_one_keras_variable_is_a_list_of_one():
    a = keras.Variable(np.zeros(2), dtype="float64")
    tl.minimize(lambda: tf.reduce_sum((a.value - 3) ** 2), a, tl.LBFGS())
    np.testing.assert_allclose(a, 3, atol=1e-6)


A = tf.Variable(1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tl.ClosureObjective(None, [A]), "exactly one of closure .* and residuals"),
        (lambda: tl.ClosureObjective(3, [A]), "functions without arguments, received 3"),
        (lambda: tl.ClosureObjective(lambda: A**2, []), "at least one variable"),
        (lambda: tl.ClosureObjective(lambda: A**2, [A, 1.0]), "received 1.0"),
        (lambda: tl.ClosureObjective(lambda: A**2, [tf.Variable(1)]), "must be floating"),
        (lambda: tl.ClosureObjective(variables=[A], residuals=lambda: A, loss_weights={}), "leave loss_weights out"),
        (lambda: tl.minimize(lambda: A**2, [A, 2.0], tl.LBFGS()), "variables only or numbers only"),
        (lambda: tl.minimize(tl.FunctionObjective(lambda x: x[0]), [A], tl.LBFGS()), "not one of these variables"),
        (lambda: tf.function(lambda: tl.minimize(lambda: A**2, [A], tl.LBFGS()))(), "outside of tf.function"),
        (
            lambda: tf.function(lambda x: tl.minimize(lambda x: x[0] ** 2, x, tl.LBFGS()))(X[0]),
            "outside of tf.function",
        ),
        (lambda: tl.minimize(lambda: tf.constant(1.0), [A], tl.LBFGS()), "does not depend on"),
    ],
)
def test_what_is_no_closure(call, words):
    with pytest.raises(ValueError, match=words):
        call()
