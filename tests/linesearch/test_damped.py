"""Damped least-squares systems: every way of solving gives the step of the normal equations."""

import numpy as np
import pytest
import tensorflow as tf

import trainloop as tl
from trainloop.linesearch import damped

RNG = np.random.default_rng(0)


def problem(m, n):
    A, y, x = RNG.normal(size=(m, n)), RNG.normal(size=m), RNG.normal(size=n)
    return (
        A * np.cos(x),
        A @ np.sin(x) - y,
        tl.LeastSquares(lambda z: tf.linalg.matvec(A, tf.sin(z)) - y),
        tf.constant(x),
    )


@pytest.mark.parametrize("begun", [False, True], ids=["from zero", "from a step"])
@pytest.mark.parametrize("solver", ["auto", "qr", "cholesky", "sample", "cg"])
@pytest.mark.parametrize(("m", "n"), [(30, 8), (8, 40)], ids=["tall", "wide"])
def test_all_solvers_give_the_same_step(m, n, solver, begun):
    J, r, objective, x = problem(m, n)
    M, v = RNG.uniform(0.1, 1, size=n), RNG.normal(size=n) * begun
    f, g = objective.value_and_grad(x)
    system = damped.system(objective, x, g, solver, 400)
    h = system.solve(tf.constant(M), tf.constant(v) if begun else None).numpy()
    expected = -np.linalg.solve(J.T @ J + np.diag(M), J.T @ (r + J @ v))
    if solver == "cg":  # inexact: a tenth of the residual
        left = (J.T @ J + np.diag(M)) @ h + J.T @ (r + J @ v)
        assert np.linalg.norm(left) < 0.5 * np.linalg.norm(J.T @ (r + J @ v))
        return
    np.testing.assert_allclose(h, expected, rtol=1e-9, atol=1e-12)
    if not begun:
        model = f.numpy() - np.sum((r + J @ h) ** 2)
        assert float(system.promised(tf.constant(h), tf.constant(M))) == pytest.approx(float(model), rel=1e-9)


def test_qr_keeps_the_digits_that_normal_equations_lose():
    t = np.linspace(0, 1, 30)
    J = np.vander(t, 10)
    y = J @ np.ones(10)
    objective = tl.LeastSquares(lambda x: tf.linalg.matvec(J, x) - y)
    x = tf.zeros([10], tf.float64)
    _, g = objective.value_and_grad(x)
    M = tf.fill([10], tf.constant(1e-20, tf.float64))
    errors = {
        solver: np.abs(damped.system(objective, x, g, solver, 10).solve(M).numpy() - 1).max()
        for solver in ("qr", "cholesky")
    }
    assert errors["qr"] < 1e-8 < errors["cholesky"]


def test_solvers_that_need_residuals_say_so():
    bowl = tl.FunctionObjective(lambda x: tf.reduce_sum(x**2))
    x = tf.ones([2], tf.float64)
    with pytest.raises(ValueError, match=r"solver='qr' needs residuals \(LeastSquares"):
        damped.system(bowl, x, x, "qr", 10)
