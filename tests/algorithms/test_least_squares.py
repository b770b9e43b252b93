"""Levenberg-Marquardt and natural gradients: NIST's regressions, a differential equation, and single steps by hand."""

import keras
import nist
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from environment import seed_generators

import trainloop as tl

RNG = np.random.default_rng(0)


# --- NIST's regression sets ---

# Start 1 of BoxBOD leads to a plain at infinity, that of MGH10 down a valley for thousands of steps.
UNSOLVED = {("BoxBOD", 0), ("MGH10", 0)}


def digits(name, start):
    regression = nist.load(name)
    found = tl.minimize(tl.LeastSquares(regression.residuals), regression.starts[start], tl.LevenbergMarquardt())
    return regression.digits(found.x), found


@pytest.mark.parametrize("name", ["Misra1a", "Nelson"])
@pytest.mark.thorough_after(1)
def test_six_digits_of_certified_parameters(name):
    right, found = digits(name, 1)
    assert right > 6
    assert found.f == pytest.approx(nist.load(name).squares, rel=1e-8)


@pytest.mark.thorough
@pytest.mark.parametrize("name", nist.MODELS)
def test_six_digits_from_both_starts(name):
    reached = {(name, start): digits(name, start)[0] for start in (0, 1)}
    assert {key for key, right in reached.items() if right < 6} <= UNSOLVED


@pytest.mark.thorough
def test_units_of_parameters_and_of_f_change_no_step():
    t = np.linspace(0, 1, 20)
    y = 2 * np.exp(-3 * t)

    def squares(units, factor):
        return tl.LeastSquares(lambda p: factor * (p[0] * units[0] * tf.exp(-p[1] * units[1] * t) - y))

    units, start = np.array([1e4, 1e-3]), np.array([1.0, 1.0])
    plain = tl.minimize(squares([1, 1], 1.0), start, tl.LevenbergMarquardt(), max_steps=4)
    scaled = tl.minimize(squares(units, 2.0**20), start / units, tl.LevenbergMarquardt(), max_steps=4)
    np.testing.assert_allclose(scaled.x * units, plain.x, rtol=1e-9)


# --- A step by hand ---


def linear(m=12, n=4):
    A, y = RNG.normal(size=(m, n)), RNG.normal(size=m)
    return A, y, tl.LeastSquares(lambda x: tf.linalg.matvec(A, x) - y), np.zeros(n)


@pytest.mark.parametrize(("solver", "m"), [("qr", 9), ("cholesky", 9), ("sample", 3), ("sample", 9)])
def test_a_bent_step_by_hand(solver, m):
    """Of residuals that are quadratic a second difference is exact."""
    A, Q, y, x = RNG.normal(size=(m, 4)), 0.1 * RNG.normal(size=(m, 4, 4)), RNG.normal(size=m), RNG.normal(size=4)
    Q = Q + Q.transpose(0, 2, 1)
    objective = tl.LeastSquares(lambda x: tf.linalg.matvec(A, x) + tf.einsum("mij,i,j->m", Q, x, x) / 2 - y)
    optimizer = tl.LevenbergMarquardt(tau=1.0, solver=solver, scaling=1.0, acceleration=0.75)
    found = tl.minimize(objective, x, optimizer, max_steps=1)
    J, r = A + Q @ x, A @ x + np.einsum("mij,i,j->m", Q, x, x) / 2 - y
    M = np.diag(np.diag(J.T @ J))
    h = -np.linalg.solve(J.T @ J + M, J.T @ r)
    a = -np.linalg.solve(J.T @ J + M, J.T @ np.einsum("mij,i,j->m", Q, h, h))
    assert 2 * np.sqrt(a @ M @ a) < 0.75 * np.sqrt(h @ M @ h)
    np.testing.assert_allclose(found.x, x + h + a / 2, rtol=1e-9)
    assert found.evaluations == {"f": 5, "gradient": 2 + (solver != "sample"), "Hv": 0, "Gv": 0, "J": 1}


@pytest.mark.parametrize("optimizer", [tl.LevenbergMarquardt(solver="sample"), tl.NaturalGradient(solver="sample")])
def test_one_unknown_in_sample_space(optimizer):
    """The root of e^x (e^x - 2) + x = 1/2, where the gradient vanishes."""
    objective = tl.LeastSquares(lambda x: tf.stack([tf.exp(x[0]) - 2, x[0] - 0.5]))
    root = scipy.optimize.brentq(lambda x: np.exp(x) * (np.exp(x) - 2) + x - 0.5, 0, 3, xtol=1e-14)
    np.testing.assert_allclose(tl.minimize(objective, [3.0], optimizer).x, [root], rtol=1e-6)


def test_a_step_that_would_bend_too_far_is_straight():
    rosenbrock = tl.LeastSquares(lambda x: tf.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]))
    straight, bent = (
        tl.minimize(rosenbrock, [-1.2, 1.0], tl.LevenbergMarquardt(acceleration=a), max_steps=3) for a in (0.0, 1e-6)
    )
    np.testing.assert_array_equal(bent.x, straight.x)


def test_a_curved_valley_takes_a_fraction_of_the_steps():
    bennett5 = nist.load("Bennett5")
    steps = {}
    for a in (0.0, 0.75):
        optimizer = tl.LevenbergMarquardt(acceleration=a)
        found = tl.minimize(tl.LeastSquares(bennett5.residuals), bennett5.starts[0], optimizer)
        assert bennett5.digits(found.x) > 6
        steps[a] = found.steps
    assert 4 * steps[0.75] < steps[0.0]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.thorough_after(1)
def test_fixed_steps_of_the_natural_gradient(momentum):
    A, y, objective, x0 = linear()
    optimizer = tl.NaturalGradient(0.3, momentum=momentum, damping=0.1, max_length=0.5)
    found = tl.minimize(objective, x0, optimizer, max_steps=3)
    x, p = x0, np.zeros(4)
    G = A.T @ A
    M = 0.1 * np.mean(np.diag(G)) * np.eye(4)
    for _ in range(3):
        zeta = A @ x - y + momentum * A @ p
        p = momentum * p - np.linalg.solve(G + M, A.T @ zeta)
        x = x + min(0.3, 0.5 / np.linalg.norm(p)) * p
    np.testing.assert_allclose(found.x, x, rtol=1e-10)


def test_spring_in_sample_space_as_its_authors_write_it():
    J, r0 = RNG.normal(size=(5, 20)), RNG.normal(size=5)
    objective = tl.LeastSquares(lambda x: tf.linalg.matvec(J, x) + r0)
    mean = np.mean(np.sum(J**2, 0))
    found = tl.minimize(
        objective, np.zeros(20), tl.NaturalGradient(0.1, momentum=0.9, damping=0.01, solver="sample"), max_steps=4
    )
    x, d = np.zeros(20), np.zeros(20)
    for _ in range(4):  # d is what is subtracted: zeta = r - eta J d, d <- J'(J J' + mu I)^-1 zeta + eta d
        zeta = J @ x + r0 - 0.9 * J @ d
        d = J.T @ np.linalg.solve(J @ J.T + 0.01 * mean * np.eye(5), zeta) + 0.9 * d
        x = x - 0.1 * d
    np.testing.assert_allclose(found.x, x, rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"line_search": "strong_wolfe"}, {"solver": "sample"}])
@pytest.mark.thorough_after(1)
def test_natural_gradients_descend_at_every_step(options):
    t = np.linspace(0, 1, 20)
    objective = tl.LeastSquares(lambda p: p[0] * tf.exp(-p[1] * t) + p[2] * t - 2 * np.exp(-3 * t) - t)
    found = tl.minimize(objective, [1.0, 1.0, -5.0], tl.NaturalGradient(**options))
    assert np.all(np.diff(found.history["f"]) <= 0)
    np.testing.assert_allclose(found.x, [2, 3, 1], rtol=1e-6)


def test_the_best_power_of_one_half():
    wall = tl.FunctionObjective(lambda x: tf.reduce_sum((x - 0.2) ** 2))
    x = tf.zeros([1], tf.float64)
    f, g = wall.value_and_grad(x)
    found = tl.linesearch.halving(wall, x, f, g, tf.ones([1], tf.float64))
    assert (float(found.t), bool(found.success), int(found.evaluations)) == (0.25, True, 6)
    assert float(found.f) == pytest.approx(0.0025)
    uphill = tl.linesearch.halving(wall, x, f, g, -tf.ones([1], tf.float64))
    assert (float(uphill.t), bool(uphill.success)) == (0.0, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0.1, "line_search": "halving"}, "give learning_rate or line_search, received both"),
        ({"max_length": 1.0}, "max_length limits steps of a learning_rate"),
        ({"momentum": 1.0}, "momentum must be a finite number at least 0 and below 1"),
        ({"damping": 0.0}, "damping must be a finite number above 0"),
        ({"line_search": "halfing"}, "did you mean 'halving'"),
        ({"solver": "lu"}, "solver must be one of auto, qr, cholesky, sample, cg"),
    ],
)
def test_arguments_of_natural_gradients(options, words):
    with pytest.raises(ValueError, match=words):
        tl.NaturalGradient(**options)


# --- A differential equation ---


def poisson_net():
    seed_generators()
    layers = [keras.layers.Dense(k, a, dtype="float64") for k, a in ((12, "tanh"), (1, None))]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


def laplace(model, p):
    _, _, d2u = tl.derivatives(model, p, 2)
    source = 2 * np.pi**2 * tf.sin(np.pi * p[:, 0]) * tf.sin(np.pi * p[:, 1])
    return d2u[:, 0, 0, 0] + d2u[:, 0, 1, 1] + source


def square():
    inside = np.stack(np.meshgrid(*[np.arange(1, 8) / 8] * 2), -1).reshape(-1, 2)
    side = np.linspace(0, 1, 8)
    edges = [
        np.stack(pair, 1) for pair in ((side, 0 * side), (side, 1 + 0 * side), (0 * side, side), (1 + 0 * side, side))
    ]
    return {"pde": inside, "edge": np.concatenate(edges)}


@pytest.mark.parametrize(
    "optimizer", [tl.LevenbergMarquardt, tl.NaturalGradient], ids=["levenberg_marquardt", "natural_gradient"]
)
@pytest.mark.thorough_after(1)
def test_poisson_on_the_unit_square(optimizer):
    model = poisson_net()
    residuals = {"pde": laplace, "edge": lambda model, p: model(p)}
    loop = tl.TrainLoop(model, optimizer(), residuals=residuals, loss_weights={"edge": 4.0})
    result = loop.run(square(), steps=60)
    assert result.history["loss"][-1] < 1e-4 * result.history["loss"][0]
    terms = result.history["term/pde"] + 4 * result.history["term/edge"]
    np.testing.assert_allclose(terms, result.history["loss"], rtol=1e-12)
    p = RNG.uniform(size=(200, 2))
    exact = np.sin(np.pi * p[:, 0]) * np.sin(np.pi * p[:, 1])
    assert np.linalg.norm(model(p)[:, 0] - exact) < 0.03 * np.linalg.norm(exact)
