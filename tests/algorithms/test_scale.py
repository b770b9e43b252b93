"""The unit of f: f times a constant has the same minimisers, and optimizers find the same one; f without a minimum.

Scales are 1e30 and 1e-30 in float64, 1e12 and 1e-12 in float32. What is found at default settings is compared with
the minimiser in closed form. Functions that fall to -inf end a run with `Status.UNBOUNDED`, at a finite point.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import trainloop as tl
from trainloop import Status
from trainloop.loop.termination import StoppingRule

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

A = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]])
b = np.array([1.0, 2.0, 3.0])
TIMES = np.linspace(0.0, 1.0, 20)
EXPONENT = {"float64": 30, "float32": 12}
# How far from the minimiser a run at default settings may end.
# In float32 it is gtol over the least curvature of the problems (5e-3 / 0.4), in several directions.
TOLERANCE = {"float64": 1e-6, "float32": 2e-2}


def quadratic(x):
    return tf.tensordot(x, tf.linalg.matvec(tf.constant(A, x.dtype), x) / 2 - tf.constant(b, x.dtype), 1)


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def kinks(x):
    return tf.abs(x[0] - 1) + 3 * tf.abs(x[1] - x[0]) + 2


def decay(x):
    t = tf.constant(TIMES, x.dtype)
    return x[0] * tf.exp(-x[1] * t) - 2 * tf.exp(-3 * t)


# name: (f, or the residuals of least squares; x0; the minimiser)
PROBLEMS = {
    "quadratic": (quadratic, [3.0, -2.0, 1.0], np.linalg.solve(A, b)),
    "rosenbrock": (rosenbrock, [-1.2, 1.0], [1.0, 1.0]),
    "kinks": (kinks, [3.0, -1.0], [1.0, 1.0]),
    "decay": (decay, [1.0, 1.0], [2.0, 3.0]),
}


def scaled(name, scale, dtype):
    """(the objective times the scale, x0, the minimiser). A variable as scale may change without a new trace."""
    function, x0, minimiser = PROBLEMS[name]
    if name == "decay":
        objective = tl.LeastSquares(lambda x: tf.cast(tf.sqrt(scale), x.dtype) * function(x))
        return objective, np.array(x0, dtype), minimiser
    return (lambda x: tf.cast(scale, x.dtype) * function(x)), np.array(x0, dtype), minimiser


OPTIMIZERS = {
    "lbfgs": tl.LBFGS,
    "lbfgs-hager_zhang": lambda: tl.LBFGS(line_search="hager_zhang"),
    "lbfgs-armijo": lambda: tl.LBFGS(line_search="armijo"),
    "bfgs": tl.BFGS,
    "bfgs-hager_zhang": lambda: tl.BFGS(line_search="hager_zhang"),
    "bfgs-armijo": lambda: tl.BFGS(line_search="armijo"),
    "bfgs-scaled": lambda: tl.BFGS(initial_scaling=True),
    "ss_bfgs": tl.SSBFGS,
    "ss_broyden": tl.SSBroyden,
    "sr1": tl.SR1,
    "nonlinear_cg": tl.NonlinearCG,
    "nonlinear_cg-hager_zhang": lambda: tl.NonlinearCG("hager_zhang", "hager_zhang"),
    "newton_cg-hessian": lambda: tl.NewtonCG("hessian"),
    "newton_cg-gauss_newton": tl.NewtonCG,
    "levenberg_marquardt": tl.LevenbergMarquardt,
    "levenberg_marquardt-cg": lambda: tl.LevenbergMarquardt(solver="cg"),
    "shor_r": tl.ShorR,
    "ellipsoid": lambda: tl.Ellipsoid(rad=6.0),
    "cmaes": tl.CMAES,
}

_BY_DEFAULT = ("quadratic", "rosenbrock", "decay")
_SOLVES = {
    "newton_cg-gauss_newton": ("decay",),
    "levenberg_marquardt": ("decay",),
    "levenberg_marquardt-cg": ("decay",),
    "shor_r": (*_BY_DEFAULT, "kinks"),
    "cmaes": (*_BY_DEFAULT, "kinks"),
    "ellipsoid": ("quadratic", "kinks"),
}

# The default run has these, the thorough one the others.
_QUICK = {
    ("lbfgs", "rosenbrock", "float64"),
    ("sr1", "rosenbrock", "float32"),
    ("bfgs-armijo", "quadratic", "float32"),
    ("nonlinear_cg", "quadratic", "float64"),
    ("newton_cg-hessian", "quadratic", "float64"),
    ("levenberg_marquardt", "decay", "float64"),
    ("ellipsoid", "kinks", "float64"),
}


def cases():
    """Parameters of every optimizer on the problems that it solves, each in one dtype, like the colours of a board."""
    for i, optimizer in enumerate(OPTIMIZERS):
        for j, problem in enumerate(_SOLVES.get(optimizer, _BY_DEFAULT)):
            for dtype in EXPONENT:
                quick = (optimizer, problem, dtype) in _QUICK
                if quick or dtype == list(EXPONENT)[(i + j) % 2]:
                    marks = () if quick else pytest.mark.thorough
                    yield pytest.param(optimizer, problem, dtype, marks=marks, id=f"{optimizer}-{problem}-{dtype}")


@pytest.mark.parametrize(("optimizer", "problem", "dtype"), list(cases()))
@pytest.mark.thorough_after(4)
def test_the_minimiser_does_not_depend_on_the_unit_of_f(optimizer, problem, dtype):
    scale = tf.Variable(1.0, dtype="float64", trainable=False)
    fun, x0, minimiser = scaled(problem, scale, dtype)
    for power in (-EXPONENT[dtype], EXPONENT[dtype]):
        scale.assign(10.0**power)
        result = tl.minimize(fun, x0, OPTIMIZERS[optimizer]())
        assert not result.status.failed
        # A certificate bounds f, and x by the root of that only.
        slack = 4 if result.status == Status.CERTIFIED else 1
        assert np.abs(result.x - minimiser).max() <= slack * TOLERANCE[dtype], (power, result)


# --- the default gtol -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EXPONENT)
@pytest.mark.parametrize("way", ["f", "g"])
def test_the_default_gtol_is_fixed_in_the_middle_and_relative_outside(dtype, way):
    eps = float(np.finfo(dtype).eps)

    def default_at(unit):
        f, g = (unit, 0.0) if way == "f" else (0.0, unit)
        f, g = tf.constant(-f, dtype), tf.constant([-g, g / 2], dtype)
        return StoppingRule.default_gtol(f, g)

    for unit in (1.01 * eps ** (1 / 6), 1.0, 0.99 * eps ** (-5 / 6)):
        assert default_at(unit) == eps ** (1 / 3)
    for unit in (1e-30, 0.99 * eps ** (1 / 6), 1.01 * eps ** (-5 / 6), 1e30):
        np.testing.assert_allclose(default_at(unit), eps ** (2 / 3) * unit, rtol=1e-6)


@pytest.mark.parametrize("gtol", [1e-6, 1e-33])
@pytest.mark.thorough_after(1)
def test_a_gtol_that_is_given_is_in_the_unit_of_f(gtol):
    fun, x0, _ = scaled("quadratic", 1e-30, "float64")
    result = tl.minimize(fun, x0, tl.LBFGS(), gtol=gtol)
    assert result.status == Status.GRADIENT_TOLERANCE
    assert (result.steps == 0) == (gtol == 1e-6)
    assert np.abs(1e-30 * (A @ result.x - b)).max() <= gtol


def test_a_gap_that_is_given_is_in_the_unit_of_f():
    fun, x0, _ = scaled("kinks", 1e-30, "float64")
    assert tl.minimize(fun, x0, tl.Ellipsoid(rad=6.0, gap=1e-10)).steps == 1


# --- f without a lower bound ----------------------------------------------------------------------------


def cliff(x):
    """A bowl around (1, 0), of which the half with x_0 > 1/2 lies at -inf."""
    return tf.where(x[0] > 0.5, tf.constant(-np.inf, x.dtype), (x[0] - 1) ** 2 + x[1] ** 2)


def logarithm(x):
    return tf.reduce_sum(tf.math.log(tf.maximum(x, 0)))


FALLS = {
    "cliff": (cliff, [0.0, 1.0]),
    "logarithm": (logarithm, [1.0, 2.0]),
    "exponential": (lambda x: -tf.reduce_sum(tf.exp(x)), [1.0, 2.0]),
}
SEARCHING = [name for name in OPTIMIZERS if name not in ("newton_cg-gauss_newton",) and "levenberg" not in name]
_NOT_UNBOUNDED = {
    ("ellipsoid", "exponential"): "not convex: ends with CONTRADICTION",
    ("lbfgs-armijo", "exponential"): "steps do not grow: ends next to the largest number, where 1 / |g| is no number",
    ("bfgs-armijo", "exponential"): "as lbfgs-armijo",
}


_QUICK_FALLS = [(o, "cliff") for o in ("lbfgs", "sr1", "shor_r", "cmaes")] + [("bfgs", "exponential")]


def falling():
    """Parameters of every optimizer that searches on every function that falls to -inf."""
    for optimizer in SEARCHING:
        for name in FALLS:
            if (optimizer, name) not in _NOT_UNBOUNDED:
                marks = () if (optimizer, name) in _QUICK_FALLS else pytest.mark.thorough
                yield pytest.param(optimizer, name, marks=marks, id=f"{optimizer}-{name}")


@pytest.mark.parametrize(("optimizer", "name"), list(falling()))
@pytest.mark.thorough_after(1)
def test_a_trial_at_minus_infinity_ends_the_run_as_unbounded(optimizer, name):
    fun, x0 = FALLS[name]
    result = tl.minimize(fun, x0, OPTIMIZERS[optimizer]())
    assert result.status == Status.UNBOUNDED
    assert result.message == Status.UNBOUNDED.message
    assert np.isfinite([*result.x, result.f, result.grad_norm if optimizer != "cmaes" else 0.0]).all()
    assert result.f == fun(tf.constant(result.x)).numpy()
    assert result.f <= fun(tf.constant(x0, "float64")).numpy()


@pytest.mark.parametrize("optimizer", ["levenberg_marquardt", "newton_cg-gauss_newton"])
@pytest.mark.thorough_after(1)
def test_minus_infinity_ends_a_gauss_newton_step_too(optimizer):
    class Cliff(tl.LeastSquares):
        def value_and_grad(self, x):
            f, g = super().value_and_grad(x)
            return tf.where(x[0] > 0.5, tf.constant(-np.inf, x.dtype), f), g

    result = tl.minimize(Cliff(lambda x: x - 1), [0.0, 0.0], OPTIMIZERS[optimizer]())
    assert (result.status, result.f) == (Status.UNBOUNDED, 2.0)
    np.testing.assert_array_equal(result.x, 0)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "optimizer", [pytest.param(o, marks=() if o == "bfgs" else pytest.mark.thorough) for o in SEARCHING]
)
def test_a_line_that_falls_for_ever_leaves_a_finite_point(optimizer):
    """No trial is at -inf as long as x is in the range of the dtype, so the run may also spend its steps or stall."""
    result = tl.minimize(lambda x: -tf.reduce_sum(x), [1.0, 2.0], OPTIMIZERS[optimizer]())
    assert result.status in (Status.UNBOUNDED, Status.FINISHED, Status.STALLED, Status.CONTRADICTION)
    assert np.isfinite([*result.x, result.f]).all()
    assert result.f < -10


def test_an_optimizer_without_a_search_is_put_back_to_the_last_finite_point():
    result = tl.minimize(cliff, [0.0, 1.0], tl.SimpleGD(0.1))
    assert result.status == Status.UNBOUNDED
    np.testing.assert_allclose(result.x, [1 - 0.8**3, 0.8**3], rtol=1e-14)  # one step more is beyond 1/2
    assert result.f == cliff(tf.constant(result.x)).numpy()


@pytest.mark.thorough
@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("optimizer", ["bfgs", "sr1", "shor_r", "cmaes"])
def test_other_numbers_that_are_not_finite_shorten_the_step_as_before(optimizer, value):
    def wall(x):
        return tf.where(x[0] > 0.5, tf.constant(value, x.dtype), (x[0] - 0.25) ** 2 + x[1] ** 2)

    result = tl.minimize(wall, [-3.0, 1.0], OPTIMIZERS[optimizer]())
    assert not result.status.failed
    np.testing.assert_allclose(result.x, [0.25, 0], atol=1e-4)
