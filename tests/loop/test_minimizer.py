"""Minimising a function without a network: against NumPy, a counter of its own, and every way to end."""

import copy
import functools
import gc
import logging
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop import (
    BFGS,
    LBFGS,
    BestSoFar,
    GlobalVectorOptimizer,
    Iterate,
    LeastSquares,
    LevenbergMarquardt,
    Momentum,
    NewtonCG,
    NonlinearCG,
    Objective,
    SimpleGD,
    Status,
    minimize,
)
from trainloop.testing import extended_rosenbrock

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

KINDS = ["f", "gradient", "Hv", "Gv", "J"]

# --- Functions, each in TensorFlow and in NumPy -----------------------------------------------------------

C = np.array([1.0, 3.0, 8.0])
X0 = np.array([2.0, -1.0, 0.5])


def quadratic(x):
    return tf.reduce_sum(tf.constant(C, x.dtype) * tf.square(x)) / 2


def quadratic_numpy(x):
    return np.sum(C.astype(x.dtype) * x**2) / 2, C.astype(x.dtype) * x


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def rosenbrock_numpy(x):
    valley = x[1] - x[0] ** 2
    return 100 * valley**2 + (1 - x[0]) ** 2, np.array([-400 * x[0] * valley - 2 * (1 - x[0]), 200 * valley])


def descent(x, rates):
    """Gradient descent on the quadratic: the points from x on."""
    trail = [x]
    for rate in rates:
        trail.append(trail[-1] - rate * C * trail[-1])
    return np.array(trail)


class FromNumpy:
    """(f, g) computed by NumPy, and counted where the code under test cannot see it."""

    def __init__(self, f_and_g):
        self.f_and_g, self.calls = f_and_g, 0

    def __call__(self, x):
        return tf.numpy_function(self._evaluate, [x], [x.dtype, x.dtype])

    def _evaluate(self, x):
        self.calls += 1
        return self.f_and_g(x)


# --- A result is consistent with NumPy and with itself ----------------------------------------------------

RUNS = {
    "line search": (rosenbrock_numpy, [-1.2, 1.0], LBFGS, {}),
    "one gradient": (quadratic_numpy, X0, lambda: Momentum(0.02, 0.8), {"max_steps": 120, "gtol": 0}),
}
each_run = pytest.mark.parametrize("name", RUNS)


@functools.cache
def plain(name):
    """(what was minimised, result, optimizer)."""
    f_and_g, x0, make, options = RUNS[name]
    fun, optimizer = FromNumpy(f_and_g), make()
    return fun, minimize(fun, x0, optimizer, **options), optimizer


@functools.cache
def watched(name):
    """(result, iterates) of the same run with a callback."""
    f_and_g, x0, make, options = RUNS[name]
    iterates = []
    return minimize(FromNumpy(f_and_g), x0, make(), callback=iterates.append, **options), iterates


def assert_same(one, other):
    """Two results agree bit for bit."""
    np.testing.assert_array_equal(one.x, other.x)
    assert one.history.keys() == other.history.keys()
    for key in one.history:
        np.testing.assert_array_equal(one.history[key], other.history[key])
    assert (one.f, one.grad_norm, one.status, one.steps, one.evaluations) == (
        other.f,
        other.grad_norm,
        other.status,
        other.steps,
        other.evaluations,
    )


@each_run
def test_value_and_gradient_of_a_result_are_those_of_numpy(name):
    fun, result, _ = plain(name)
    f, g = fun.f_and_g(result.x)
    assert result.f == f
    assert result.grad_norm == pytest.approx(np.linalg.norm(g), rel=1e-14)
    assert type(result.f) is type(result.grad_norm) is float
    assert result.message == result.status.message
    assert not result.status.failed


def test_a_narrow_valley_is_followed_to_its_end():
    _, result, _ = plain("line search")
    assert result.status == Status.GRADIENT_TOLERANCE
    np.testing.assert_allclose(result.x, [1, 1], atol=1e-6)
    assert result.evaluations["f"] < 60


@each_run
@pytest.mark.thorough_after(1)
def test_the_history_tells_of_every_step_and_of_the_point_before_it(name):
    fun, result, _ = plain(name)
    history, (_, iterates) = result.history, watched(name)
    assert {len(column) for column in history.values()} == {result.steps}
    np.testing.assert_array_equal(history["step"], 1 + np.arange(result.steps))
    points = [np.array(RUNS[name][1]), *(iterate.x for iterate in iterates)]
    values = [fun.f_and_g(x) for x in points]
    np.testing.assert_array_equal(history["f"], [f for f, _ in values[:-1]])
    np.testing.assert_allclose(history["grad_norm"], [np.linalg.norm(g) for _, g in values[:-1]], rtol=1e-14)
    np.testing.assert_array_equal(points[-1], result.x)


@each_run
def test_evaluations_are_counted_as_numpy_counts_them(name):
    fun, result, _ = plain(name)
    assert list(result.evaluations) == KINDS
    assert result.evaluations == {"f": fun.calls, "gradient": fun.calls, "Hv": 0, "Gv": 0, "J": 0}
    for kind in KINDS:
        column = result.history[f"evaluations/{kind}"]
        assert column.dtype == np.int64
        assert np.all(np.diff(column) >= (kind in ("f", "gradient")))
        assert column[-1] == result.evaluations[kind]


def test_a_method_of_one_gradient_takes_one_evaluation_per_step_and_one_at_the_start():
    _, result, _ = plain("one gradient")
    assert result.status == Status.FINISHED
    assert result.steps == 120
    np.testing.assert_array_equal(result.history["evaluations/f"], 2 + np.arange(120))


@each_run
def test_a_callback_sees_the_point_where_each_step_ended(name):
    result, iterates = watched(name)
    assert [iterate.step for iterate in iterates] == list(range(1, result.steps + 1))
    for iterate in iterates:
        assert isinstance(iterate, Iterate)
        f, g = RUNS[name][0](iterate.x)
        assert iterate.f == f
        assert iterate.grad_norm == pytest.approx(np.linalg.norm(g), rel=1e-14)


@each_run
def test_steps_do_not_depend_on_the_length_of_a_block(name):
    assert_same(plain(name)[1], watched(name)[0])


@each_run
def test_a_used_optimizer_minimises_afresh_and_keeps_its_own_state(name):
    fun, result, optimizer = plain(name)
    before = {}
    optimizer.save_own_variables(before)
    assert_same(minimize(fun, RUNS[name][1], optimizer, **RUNS[name][3]), result)
    after = {}
    optimizer.save_own_variables(after)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


def test_products_with_the_hessian_are_counted():
    result = minimize(rosenbrock, [-1.2, 1.0], NewtonCG(curvature="hessian"))
    assert result.status == Status.GRADIENT_TOLERANCE
    np.testing.assert_allclose(result.x, [1, 1], atol=1e-6)
    assert result.evaluations["Hv"] == np.sum(result.history["products"])
    assert result.evaluations["f"] == 1 + result.steps


# --- What can be minimised, from where, in which precision ------------------------------------------------

FUNS = {
    "compiled f": lambda x: tf.function(quadratic)(x),
    "f and g": lambda x: (quadratic(x), tf.constant(C) * x),
    "a list": lambda x: [quadratic(x), tf.constant(C) * x],
    "numpy": FromNumpy(quadratic_numpy),
    "objective": LeastSquares(lambda x: tf.constant(np.sqrt(C / 2)) * x),
}


@pytest.mark.parametrize("fun", FUNS.values(), ids=FUNS.keys())
def test_a_function_comes_in_many_forms(fun):
    result = minimize(fun, X0, SimpleGD(0.1), max_steps=2)
    trail = descent(X0, [0.1] * 2)
    np.testing.assert_allclose(result.x, trail[2], rtol=1e-14)
    np.testing.assert_allclose(result.history["f"], [quadratic_numpy(x)[0] for x in trail[:2]], rtol=1e-14)
    assert result.evaluations["f"] == 3


def test_sums_of_squares_have_gauss_newton_products():
    objective = LeastSquares(lambda x: tf.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]))
    result = minimize(objective, [-1.2, 1.0], LevenbergMarquardt(), gtol=1e-8)
    assert result.status == Status.GRADIENT_TOLERANCE
    np.testing.assert_allclose(result.x, [1, 1], atol=1e-5)
    assert result.evaluations["J"] == result.steps
    assert result.evaluations["Gv"] == 0
    assert result.evaluations["f"] > result.steps  # every step has a trial, some have several


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.thorough_after(1)
def test_damping_does_not_fall_below_its_bound(solver):
    """(c + mu) h = -c x. The model is exact, so that without the bound mu would fall to a third in every step."""
    c, mu, steps = 3.0, 0.25, 3
    objective = LeastSquares(lambda x: np.sqrt(c / 2) * x)
    result = minimize(objective, X0, LevenbergMarquardt(solver=solver, min_damping=mu), max_steps=steps)
    np.testing.assert_allclose(result.x, X0 * (mu / (c + mu)) ** steps, rtol=1e-13)


def test_one_unknown_is_a_vector_too():
    result = minimize(lambda x: tf.cosh(x[0] - 3), [1.0], LBFGS())
    assert result.status == Status.GRADIENT_TOLERANCE
    assert result.x.shape == (1,)
    np.testing.assert_allclose(result.x, [3], atol=1e-5)


@pytest.mark.parametrize(("dtype", "gtol"), [("float32", 2 ** (-23 / 3)), ("float64", 2 ** (-52 / 3))])
def test_the_dtype_of_the_start_is_that_of_the_result_and_sets_the_tolerance(dtype, gtol):
    seen = []
    result = minimize(quadratic, X0.astype(dtype), SimpleGD(0.2), callback=lambda i: seen.append(i.x))
    assert result.x.dtype == result.history["f"].dtype == result.history["grad_norm"].dtype == dtype
    assert {x.dtype for x in seen} == {np.dtype(dtype)}
    largest = [np.max(np.abs(C * x)) for x in (X0, *seen)]
    assert result.status == Status.GRADIENT_TOLERANCE
    assert largest[-1] <= gtol
    assert min(largest[:-1]) > gtol


@pytest.mark.thorough
def test_no_vector_is_held_outside_of_the_variables_while_steps_are_taken():
    """Not the start, nor g where a block began: of large vectors each would be missing elsewhere."""
    n, held = 7919, []

    def count(_iterate):
        objects = [a for a in gc.get_objects() if isinstance(a, tf.__internal__.EagerTensor)]
        held.append(sum(tensor.shape == [n] for tensor in objects))

    before = tf.ones([n])  # is found, so that one of the run would be
    minimize(lambda x: tf.reduce_sum(tf.square(x)), np.ones(n), LBFGS(), max_steps=2, callback=count)
    assert before.shape == [n]
    assert held == [1, 1]


def test_the_start_is_left_as_it_was():
    array = X0.copy()
    array.setflags(write=False)
    variable = tf.Variable(X0)
    for x0 in (array, variable):
        result = minimize(quadratic, x0, SimpleGD(0.1), max_steps=np.int64(1))
        np.testing.assert_array_equal(x0, X0)
        result.x[0] = 7.0  # the result belongs to the caller
    np.testing.assert_array_equal(array, X0)


def test_a_callback_cannot_change_the_run():
    def spoil(iterate):
        iterate.x[:] = np.nan

    result = minimize(quadratic, X0, SimpleGD(0.1), max_steps=3, callback=spoil)
    np.testing.assert_allclose(result.x, descent(X0, [0.1] * 3)[-1], rtol=1e-14)


@pytest.mark.parametrize("count", [100_000])
@pytest.mark.thorough
def test_hundred_thousand_unknowns_take_as_few_steps_as_two(count):
    """Measured: 46 and 47 evaluations; sums of so many numbers depend on the machine in their last digits."""
    problem = extended_rosenbrock(count)
    single = minimize(problem.fun, problem.x0.astype("float32"), LBFGS(), gtol=0, f_target=1e-6, max_steps=100)
    assert single.status == Status.TARGET_REACHED
    assert np.sum(residuals_numpy(single.x) ** 2) <= 2e-6
    assert single.evaluations["f"] <= 52
    double = minimize(problem.fun, problem.x0, LBFGS(), max_steps=100)
    assert double.status == Status.GRADIENT_TOLERANCE
    assert np.sum(residuals_numpy(double.x) ** 2) < 1e-6
    np.testing.assert_allclose(double.x, 1, atol=1e-6)
    assert double.evaluations["f"] <= 52


def residuals_numpy(x):
    x = x.astype(np.float64)
    return np.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


# --- Settings of the optimizer ----------------------------------------------------------------------------


def test_a_schedule_counts_the_steps_from_zero_in_every_run():
    rates = [0.1, 0.1, 0.01, 0.01, 0.001]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.01, 0.001])
    optimizer = SimpleGD(schedule)
    for _ in range(2):
        result = minimize(quadratic, X0, optimizer, max_steps=5)
        np.testing.assert_allclose(result.x, descent(X0, rates)[-1], rtol=1e-6)  # schedules compute in float32


def tenth():
    return 0.1


def test_a_learning_rate_may_be_a_function_in_every_run():
    optimizer = SimpleGD(tenth)
    for _ in range(2):
        result = minimize(quadratic, X0, optimizer, max_steps=2)
        np.testing.assert_allclose(result.x, descent(X0, [0.1] * 2)[-1], rtol=1e-14)


def test_the_best_point_of_a_diverging_run_is_returned():
    fun, iterates = FromNumpy(quadratic_numpy), []
    result = minimize(fun, X0, BestSoFar(SimpleGD(0.26)), max_steps=9, callback=iterates.append)
    values = [quadratic_numpy(x)[0] for x in descent(X0, [0.26] * 9)]
    best = int(np.argmin(values))
    assert 0 < best < 9
    assert [iterate.f for iterate in iterates] == pytest.approx(values[1:], rel=1e-12)
    np.testing.assert_array_equal(result.x, iterates[best - 1].x)
    f, g = quadratic_numpy(result.x)
    assert result.f == f
    assert result.grad_norm == pytest.approx(np.linalg.norm(g), rel=1e-14)
    assert result.evaluations["f"] == fun.calls


class Tally(GlobalVectorOptimizer):
    """A method that counts in tens."""

    def __init__(self, key, name="tally", **kwargs):
        super().__init__(name=name, **kwargs)
        self.key = key

    def init_state(self, x):
        return {self.key: tf.zeros([], x.dtype)}

    def update(self, x, g, state):
        return 0.9 * x, {self.key: state[self.key] + 10}


def test_every_scalar_of_the_state_has_its_column():
    history = minimize(quadratic, X0, Tally("mine"), max_steps=3).history
    np.testing.assert_array_equal(history["mine"], [10, 20, 30])


def test_a_scalar_of_the_state_that_would_hide_a_column_is_refused():
    with pytest.raises(ValueError, match="'f'"):
        minimize(quadratic, X0, Tally("f"), max_steps=3)


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.mark.thorough
def test_ten_minimisations_cause_no_warning_about_retracing():
    lines, logger = Lines(), logging.getLogger("tensorflow")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.WARNING)
    try:
        for n in range(1, 11):
            minimize(lambda x: tf.reduce_sum(tf.square(x)), np.ones(n), SimpleGD(0.1), max_steps=1)
        logger.warning("heard")
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    assert lines.lines == ["heard"]


# --- Reasons to stop --------------------------------------------------------------------------------------

# Each with a test in NumPy of two successive points and the number of the step.
REASONS = {
    "gtol": ({"gtol": 1e-2}, Status.GRADIENT_TOLERANCE, lambda x, x_new, k: np.max(np.abs(C * x_new)) <= 1e-2),
    "ftol": (
        {"ftol": 1e-3},
        Status.F_TOLERANCE,
        lambda x, x_new, k: abs(np.sum(C * (x**2 - x_new**2)) / 2) <= 1e-3 * max(1, np.sum(C * x**2) / 2),
    ),
    "xtol": (
        {"xtol": 1e-2},
        Status.X_TOLERANCE,
        lambda x, x_new, k: np.linalg.norm(x_new - x) <= 1e-2 * max(1, np.linalg.norm(x_new)),
    ),
    "f_target": ({"f_target": 0.5}, Status.TARGET_REACHED, lambda x, x_new, k: np.sum(C * x_new**2) / 2 <= 0.5),
    "max_evaluations": ({"max_evaluations": 8}, Status.EVALUATIONS_SPENT, lambda x, x_new, k: 1 + k >= 8),
    "max_steps": ({"max_steps": 12}, Status.FINISHED, lambda x, x_new, k: k >= 12),
    "callback": ({"callback": lambda i: np.bool_(i.step == 5)}, Status.STOPPED, lambda x, x_new, k: k >= 5),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_run_ends_at_the_first_point_that_gives_the_reason(reason):
    options, status, holds = REASONS[reason]
    trail = descent(X0, [0.05] * 200)
    last = next(k for k in range(1, 200) if holds(trail[k - 1], trail[k], k))
    result = minimize(quadratic, X0, SimpleGD(0.05), **options)
    assert result.status == status
    assert result.message == status.message
    assert result.steps == len(result.history["f"]) == last > 1
    np.testing.assert_allclose(result.x, trail[last], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "status"),
    [({"gtol": 0}, Status.GRADIENT_TOLERANCE), ({"f_target": 0}, Status.TARGET_REACHED)],
    ids=["gradient", "target"],
)
def test_a_start_that_is_a_minimum_takes_no_step(options, status):
    seen = []
    result = minimize(quadratic, np.zeros(3), SimpleGD(0.1), callback=seen.append, **options)
    assert result.status == status
    assert (result.steps, result.f, result.grad_norm, seen) == (0, 0, 0, [])
    assert result.evaluations == {"f": 1, "gradient": 1, "Hv": 0, "Gv": 0, "J": 0}
    assert {len(column) for column in result.history.values()} == {0}
    np.testing.assert_array_equal(result.x, np.zeros(3))


def test_a_reason_that_is_found_is_not_overruled_by_the_callback():
    result = minimize(quadratic, X0, SimpleGD(0.05), f_target=100, callback=lambda i: True)
    assert result.status == Status.TARGET_REACHED
    result = minimize(quadratic, X0, SimpleGD(0.05), max_steps=1, callback=lambda i: True)
    assert result.status in (Status.STOPPED, Status.FINISHED)
    assert result.steps == 1


def test_an_exception_of_the_callback_comes_through():
    def fail(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        minimize(quadratic, X0, SimpleGD(0.05), callback=fail)


# --- Failures on the way ----------------------------------------------------------------------------------


def on_the_right(outside):
    """A function that is the quadratic where x_0 > 1, and something else elsewhere."""

    def fun(x):
        f, g = quadratic(x), tf.constant(C) * x
        f_out, g_out = outside
        right = x[0] > 1
        return tf.where(right, f, f_out * tf.ones_like(f)), tf.where(right, g, g_out * tf.ones_like(g))

    return fun


STEPS_TO_1 = int(np.argmax(descent(X0, [0.1] * 20)[:, 0] <= 1))

FAILURES = {
    "f is NaN": (np.nan, 1.0, Status.NONFINITE_LOSS),
    "f is infinite": (np.inf, 1.0, Status.NONFINITE_LOSS),
    "g is NaN": (0.0, np.nan, Status.NONFINITE_GRADIENT),
    "g hides that f is NaN": (np.nan, 0.0, Status.NONFINITE_LOSS),
}


@pytest.mark.parametrize("outside", FAILURES.values(), ids=FAILURES.keys())
def test_a_function_that_is_lost_on_the_way_ends_the_run_as_a_failure(outside):
    *values, status = outside
    result = minimize(on_the_right(values), X0, SimpleGD(0.1), max_steps=50)
    assert result.status == status
    assert result.message == status.message
    assert np.all(np.isfinite(result.x))
    assert result.steps <= STEPS_TO_1
    np.testing.assert_allclose(result.x, descent(X0, [0.1] * result.steps)[-1], rtol=1e-12)
    assert len({len(column) for column in result.history.values()}) == 1
    assert np.all(np.isfinite(result.history["f"][: result.steps]))


@pytest.mark.parametrize(
    "options", [{"max_steps": STEPS_TO_1}, {"max_evaluations": STEPS_TO_1 + 1}, {"xtol": 0.115}], ids=str
)
def test_a_run_whose_last_step_loses_the_function_is_no_success(options):
    result = minimize(on_the_right((np.nan, 1.0)), X0, SimpleGD(0.1), **options)
    assert result.status == Status.NONFINITE_LOSS
    assert np.all(np.isfinite(result.x))


def test_a_step_out_of_the_floating_point_range_is_not_taken():
    result = minimize(lambda x: tf.reduce_sum(x) * 1e200, X0, SimpleGD(1e200), max_steps=9)
    assert result.status == Status.NONFINITE_STEP
    assert result.steps == 0
    np.testing.assert_array_equal(result.x, X0)
    assert result.f == pytest.approx(1.5e200)


def test_a_line_search_stays_on_the_side_where_the_function_is_finite():
    result = minimize(on_the_right((np.nan, np.nan)), X0, LBFGS(), max_steps=100)
    assert result.x[0] > 1
    assert result.f == pytest.approx(quadratic_numpy(result.x)[0], rel=1e-14)
    assert result.f < quadratic_numpy(X0)[0] / 2
    assert result.status != Status.RUNNING


class WrongSquares(LeastSquares):
    """A sum of squares whose gradient points downhill and is called the gradient."""

    def value_and_grad(self, x):
        f, g = super().value_and_grad(x)
        return f, -g


def wrong(x):
    return quadratic(x), -tf.constant(C) * x


@pytest.mark.parametrize(
    ("fun", "optimizer", "status"),
    [
        (wrong, LBFGS, Status.STALLED),
        (wrong, lambda: NewtonCG(curvature="hessian"), Status.STALLED),
        (WrongSquares(lambda x: x), lambda: LevenbergMarquardt(solver="cholesky"), Status.STALLED),
        (wrong, lambda: SimpleGD(0.5), Status.NONFINITE_LOSS),
    ],
    ids=["line search", "trust region", "damping", "gradient"],
)
@pytest.mark.thorough_after(1)
def test_a_gradient_of_the_wrong_sign_ends_with_a_message(fun, optimizer, status):
    result = minimize(fun, X0, optimizer(), max_steps=2000)
    assert result.status == status
    assert len(result.message) > 20
    assert np.all(np.isfinite(result.x))
    if status == Status.STALLED:
        assert "gradient is wrong" in result.message
        np.testing.assert_array_equal(result.x, X0)


@pytest.mark.parametrize("optimizer", [LBFGS, BFGS, NonlinearCG])
@pytest.mark.thorough_after(1)
def test_a_line_search_that_was_cut_short_on_its_way_down_is_no_stall(optimizer):
    """Its message would say that no smaller f was found."""
    result = minimize(lambda x: tf.reduce_sum(tf.square(x - 1e5)), [0.0, 0.0], optimizer(max_evaluations=5))
    assert result.status == Status.GRADIENT_TOLERANCE
    np.testing.assert_allclose(result.x, 1e5)


# --- Arguments that are refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x0", "message"),
    [
        ([1.0, np.nan, np.nan], r"x0 must be finite, received 2 of 3"),
        ([np.inf, 1.0], r"x0 must be finite, received 1 of 2"),
        ([[1.0, 2.0]], r"x0 must have shape \[n\].*received \(1, 2\).*flatten"),
        (1.0, r"x0 must have shape \[n\].*received \(\)"),
        ([], r"x0 must have shape \[n\] with n at least 1, received \(0,\)"),
        ([1, 2], r"x0 must be float32 or float64, received int64; write 1.0 instead of 1"),
        ([True], r"x0 must be float32 or float64, received bool"),
        ([1j], r"x0 must be float32 or float64, received complex128"),
        (np.ones(2, np.float16), r"x0 must be float32 or float64, received float16.*cast"),
        (["1.0", "2.0"], r"x0 must be float32 or float64, received string"),
        (None, r"x0 must be a vector of numbers, received None"),
        ([1.0, None], r"x0 must be a vector of numbers, received \[1.0, None\]"),
        ([[1.0], [1.0, 2.0]], r"x0 must be a vector of numbers, received"),
    ],
)
def test_a_start_that_is_no_vector_of_numbers_is_refused(x0, message):
    with pytest.raises(ValueError, match=message):
        minimize(quadratic, x0, SimpleGD())


@pytest.mark.parametrize(
    ("fun", "message"),
    [
        (lambda x: x, r"f as a scalar \[\].*tf.reduce_sum.*received shape \(3,\)"),
        (lambda x: x[:1], r"f as a scalar \[\].*received shape \(1,\)"),
        (lambda x: tf.cast(quadratic(x), tf.float32), r"f in the dtype of x, float64; received float32; .*cast"),
        (lambda x: (quadratic(x), tf.cast(x, tf.float32)), r"g in the dtype of x, float64; received float32; .*cast"),
        (lambda x: (quadratic(x), x[:2]), r"g as a vector of the shape of x, \(3,\); received shape \(2,\)"),
        (lambda x: (quadratic(x), x[:, None]), r"g as a vector of the shape of x, \(3,\); received shape \(3, 1\)"),
        (lambda x: (quadratic(x), x, x), r"f or \(f, g\), received 3 values"),
        (lambda x: (), r"f or \(f, g\), received 0 values"),
        (lambda x: tf.constant(1.0, x.dtype), r"fun has no gradient.*use TensorFlow operations, or return \(f, g\)"),
        (
            lambda x: tf.numpy_function(lambda x: x @ x, [x], x.dtype),
            r"fun has no gradient.*tf.numpy_function.*return \(f, g\)",
        ),
        (lambda x: None, r"fun must return .*received.*None"),
        (
            lambda x: tf.numpy_function(lambda x: (x @ x, x[:2]), [x], [x.dtype] * 2),
            r"(?s)fun must return .*3.*received.*2",
        ),
        (lambda x: quadratic(x) + np.nan, r"f is not finite at x0; start where"),
        (lambda x: quadratic(x) + np.inf, r"f is not finite at x0; start where"),
        (lambda x: tf.sqrt(tf.reduce_sum(x - X0)), r"g is not finite at x0; start where"),
        (3.0, r"fun must be a function of x or an Objective, received 3.0"),
        ("rosenbrock", r"fun must be a function of x or an Objective, received 'rosenbrock'"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(fun, message):
    with pytest.raises(ValueError, match=message):
        minimize(fun, X0, SimpleGD())


class Returning(Objective):
    """An objective of somebody else's that returns f and g as given."""

    def __init__(self, f, g):
        self.f, self.g = f, g

    def value(self, x):
        return self.f(x)

    def value_and_grad(self, x):
        return self.f(x), self.g(x)


def total(x):
    return tf.reduce_sum(x)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Returning(total, lambda x: x[:2]), r"g must have shape \[3\], received \[2\]"),
        (Returning(lambda x: x, lambda x: x), r"f must have shape \[\], received \[3\]"),
        (Returning(lambda x: tf.cast(total(x), tf.float32), lambda x: x), "f must .*float64.*received float32"),
        (Returning(total, lambda x: tf.cast(x, tf.float32)), "g must .*float64.*received float32"),
    ],
    ids=["shape of g", "shape of f", "dtype of f", "dtype of g"],
)
def test_an_objective_that_returns_something_else_is_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        minimize(objective, X0, SimpleGD())


@pytest.mark.parametrize(
    ("optimizer", "received"),
    [(LBFGS, "LBFGS itself"), (keras.optimizers.SGD(), "SGD"), ("lbfgs", "str"), (None, "NoneType")],
    ids=["class", "keras", "name", "none"],
)
def test_what_is_no_method_is_refused(optimizer, received):
    with pytest.raises(ValueError, match=rf"optimizer must be .* such as LBFGS\(\), received {received}"):
        minimize(quadratic, X0, optimizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps must be an integer of at least 1, received 0"),
        ({"max_steps": 1.5}, "max_steps must be an integer of at least 1, received 1.5"),
        ({"max_steps": True}, "max_steps must be an integer of at least 1, received True"),
        ({"max_steps": None}, "max_steps must be an integer of at least 1, received None"),
        ({"gtol": -1e-3}, "gtol must be a finite number at least 0, received -0.001"),
        ({"xtol": 1e-17}, "xtol must be at least 2.2e-16, .*float64; received 1e-17"),
        ({"max_evaluations": 0}, "max_evaluations must be an integer of at least 1, received 0"),
        ({"f_target": np.nan}, "f_target must be a finite number, received nan"),
        ({"callback": 5}, "callback must be a function.*received 5"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_refused_before_anything_is_evaluated(options, message):
    fun = FromNumpy(quadratic_numpy)
    with pytest.raises(ValueError, match=message):
        minimize(fun, X0, SimpleGD(), **options)
    assert fun.calls == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LBFGS(m=0), "m must be an integer of at least 1, received 0"),
        (lambda: LBFGS(m=2.5), "m must be an integer of at least 1, received 2.5"),
        (lambda: LBFGS(line_search="strong_wolf"), r"line_search must be one of .*did you mean 'strong_wolfe'"),
        (lambda: LBFGS(max_evaluations=1), "max_evaluations must be an integer of at least 2, received 1"),
        (lambda: LBFGS(first_step=0), "first_step must be a finite number above 0, received 0"),
        (lambda: LBFGS(memory=5), "unknown option memory=5"),
        (lambda: LBFGS(global_clipnorm=1.0), "LBFGS takes no global_clipnorm"),
        (lambda: BFGS(storage="dens"), "storage must be one of auto, dense, factored"),
        (lambda: NonlinearCG(beta="polak"), "beta must be one of polak_ribiere, hager_zhang; received 'polak'"),
        (lambda: NonlinearCG(line_search="armijo"), "line_search must be one of strong_wolfe, hager_zhang"),
        (lambda: NewtonCG(radius=0), "radius must be a finite number above 0, received 0"),
        (lambda: NewtonCG(radius=2, max_radius=1), "max_radius must be a finite number at least 2, received 1"),
        (lambda: NewtonCG("gauss newton"), "curvature must be one of .*did you mean 'gauss_newton'"),
        (lambda: NewtonCG(max_products=True), "max_products must be an integer of at least 1, received True"),
        (lambda: LevenbergMarquardt(tau=-1), "tau must be a finite number above 0, received -1"),
        (lambda: LevenbergMarquardt(min_damping=-1), "min_damping must be a finite number at least 0, received -1"),
        (lambda: LevenbergMarquardt(solver="choleski"), "solver must be one of .*did you mean 'cholesky'"),
    ],
)
def test_methods_with_a_line_search_or_a_region_check_their_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("optimizer", [NewtonCG, LevenbergMarquardt])
def test_a_method_that_needs_residuals_says_so(optimizer):
    with pytest.raises(ValueError, match=r"no Gauss-Newton products; give it residuals \(LeastSquares\)"):
        minimize(quadratic, X0, optimizer())


# --- What a result tells ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "success"),
    [({}, True), ({"f_target": 1.0}, True), ({"max_steps": 2}, False), ({"max_evaluations": 3}, False)],
)
@pytest.mark.thorough_after(1)
def test_a_run_that_has_reached_what_it_was_asked_for_is_a_success(options, success):
    result = minimize(rosenbrock, [-1.2, 1.0], LBFGS(), **options)
    assert result.success is success
    assert result.status.success is success


def test_a_result_is_drawn(tmp_path):
    result = minimize(rosenbrock, [-1.2, 1.0], LBFGS())
    figure = result.plot(tmp_path / "run.png", "valley")
    headings = [axes.get_title(loc="left") for axes in figure.axes]
    assert headings == ["f (log)", "gradient norm (log)", "step length (log)", "evaluations so far"]
    x, y = figure.axes[0].lines[0].get_data()
    np.testing.assert_array_equal(x, result.history["step"])
    np.testing.assert_array_equal(y, result.history["f"])
    assert (tmp_path / "run.png").stat().st_size > 1000


@pytest.mark.thorough
def test_a_result_can_be_copied_and_pickled():
    result = minimize(rosenbrock, [-1.2, 1.0], BFGS())
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        np.testing.assert_array_equal(other.x, result.x)
        np.testing.assert_array_equal(other.state["state.updates"], result.state["state.updates"])
