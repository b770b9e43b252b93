"""When a minimisation is over: every test of two points against its formula in NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from trainloop import Status
from trainloop.loop.termination import StoppingRule

DTYPES = ["float32", "float64"]
NEVER = {"gtol": 0}


def between(rule, x, f, x_new, f_new, g_new, evaluations=1):
    dtype = np.asarray(x).dtype
    x, f, x_new, f_new, g_new = (tf.constant(value, dtype) for value in (x, f, x_new, f_new, g_new))
    status = rule.between(x, f, x_new, f_new, g_new, tf.constant(evaluations, tf.int64))
    assert status.dtype == tf.int32
    assert status.shape == []
    return Status(int(status))


def between_numpy(options, x, f, x_new, f_new, g_new, evaluations):
    """The codes whose test holds."""
    moved = np.any(x != x_new)
    holds = {
        Status.GRADIENT_TOLERANCE: np.max(np.abs(g_new)) <= options["gtol"],
        Status.TARGET_REACHED: f_new <= options["f_target"],
        Status.F_TOLERANCE: moved and abs(f_new - f) <= options["ftol"] * max(1, abs(f), abs(f_new)),
        Status.X_TOLERANCE: moved and np.linalg.norm(x_new - x) <= options["xtol"] * max(1, np.linalg.norm(x_new)),
        Status.EVALUATIONS_SPENT: evaluations >= options["max_evaluations"],
    }
    return {status for status, condition in holds.items() if condition}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.thorough_after(1)
def test_the_code_is_one_whose_formula_holds(dtype):
    options = {"gtol": 0.4, "ftol": 0.1, "xtol": 0.2, "f_target": -1.0, "max_evaluations": 17}
    rule = StoppingRule.checked(dtype, **options)
    compiled = tf.function(rule.between, autograph=False)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        scale = 10 ** rng.uniform(-1, 1)
        x = scale * rng.normal(size=3)
        x_new = x + rng.choice([0, 0.03, 0.3, 3]) * rng.normal(size=3)
        f = scale * rng.normal()
        f_new = f + rng.choice([0.03, 0.3, 3]) * rng.normal()
        g_new = rng.choice([0.1, 1, 5]) * rng.normal(size=3)
        point = [np.asarray(value, dtype) for value in (x, f, x_new, f_new, g_new)]
        evaluations = rng.integers(1, 20)
        expected = between_numpy(options, *point, evaluations) or {Status.RUNNING}
        received = Status(int(compiled(*map(tf.constant, point), tf.constant(evaluations, tf.int64))))
        assert received in expected
        if len(expected) == 1:
            seen |= expected
    assert len(seen) == 6  # every code, once at least without a rival


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("options", "inside", "outside", "status"),
    [
        # Each as (x, f, x_new, f_new, g_new), on the limit and beyond it.
        ({"gtol": 0.5}, (0, 9, 1, 5, -0.5), (0, 9, 1, 5, -0.5625), Status.GRADIENT_TOLERANCE),
        ({"gtol": 0}, (0, 9, 1, 5, 0), (0, 9, 1, 5, 1e-30), Status.GRADIENT_TOLERANCE),
        ({"ftol": 0.25}, (0, 0.5, 1, 0.25, 1), (0, 0.5, 1, 0.125, 1), Status.F_TOLERANCE),
        ({"ftol": 0.25}, (0, 8, 1, 6, 1), (0, 8, 1, 5, 1), Status.F_TOLERANCE),
        ({"ftol": 0.25}, (0, -6, 1, -8, 1), (0, -5, 1, -8, 1), Status.F_TOLERANCE),
        ({"ftol": 0.25}, (0, 8, 1, 10, 1), (0, 8, 1, 11, 1), Status.F_TOLERANCE),
        ({"ftol": 0.25}, (0, 8, 1, 8, 1), (0, 8, 0, 8, 1), Status.F_TOLERANCE),  # it must have moved
        ({"xtol": 0.25}, (0.5, 9, 0.25, 5, 1), (0.5, 9, 0.125, 5, 1), Status.X_TOLERANCE),
        ({"xtol": 0.25}, (6, 9, 8, 5, 1), (8, 9, 6, 5, 1), Status.X_TOLERANCE),  # relative to the new point
        ({"xtol": 0.25}, (1, 9, 1.125, 5, 1), (1, 9, 1, 9, 1), Status.X_TOLERANCE),  # it must have moved
        ({"f_target": -2}, (0, 9, 1, -2, 1), (0, 9, 1, -1.875, 1), Status.TARGET_REACHED),
        ({"f_target": 0}, (0, 9, 1, 0, 1), (0, 0, 1, 1e-30, 1), Status.TARGET_REACHED),
    ],
)
def test_a_limit_belongs_to_what_it_admits(dtype, options, inside, outside, status):
    rule = StoppingRule.checked(dtype, **(NEVER | options))

    def code(x, f, x_new, f_new, g_new):
        return between(rule, np.array([x, 0], dtype), f, [x_new, 0], f_new, [g_new, 0])

    assert code(*inside) == status
    assert code(*outside) == Status.RUNNING


def test_evaluations_are_spent_when_the_last_one_is_done():
    rule = StoppingRule.checked("float64", gtol=0, max_evaluations=7)
    codes = [between(rule, np.zeros(1), 9.0, [1.0], 5.0, [1.0], evaluations=k) for k in (6, 7, 8)]
    assert codes == [Status.RUNNING, Status.EVALUATIONS_SPENT, Status.EVALUATIONS_SPENT]


def test_convergence_is_said_rather_than_that_the_evaluations_are_spent():
    for options, status in (
        ({"gtol": 1}, Status.GRADIENT_TOLERANCE),
        ({"ftol": 0.5}, Status.F_TOLERANCE),
        ({"xtol": 0.5}, Status.X_TOLERANCE),
        ({"f_target": 9}, Status.TARGET_REACHED),
    ):
        rule = StoppingRule.checked("float64", max_evaluations=1, **(NEVER | options))
        assert between(rule, np.array([10.0]), 5.0, [9.0], 5.0, [1.0], evaluations=5) == status


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_the_start_only_the_gradient_and_the_target_count(dtype):
    rule = StoppingRule.checked(dtype, gtol=0.5, ftol=0.5, xtol=0.5, f_target=1, max_evaluations=1)
    for f, g, status in (
        (2.0, [0.25, -0.5], Status.GRADIENT_TOLERANCE),
        (1.0, [0.25, -2], Status.TARGET_REACHED),
        (2.0, [0.25, -2], Status.RUNNING),
    ):
        assert Status(int(rule.at_point(tf.constant(f, dtype), tf.constant(g, dtype)))) == status


@pytest.mark.parametrize(
    ("f_new", "g_new"),
    [(np.nan, 0.0), (np.nan, 1.0), (np.inf, 0.0), (5.0, np.nan), (5.0, np.inf), (9.0, -np.inf)],
)
def test_nothing_has_converged_where_the_function_is_not_finite(f_new, g_new):
    """The gradient of tf.where(.., nan) is zero, so a zero gradient does not show that all is well."""
    rule = StoppingRule.checked("float64", gtol=1, ftol=0.9, xtol=0.9)
    status = between(rule, np.array([1.0, 0]), 9.0, [1.125, 0], f_new, [g_new, 0])
    assert status == Status.RUNNING or status.failed


@pytest.mark.parametrize(("dtype", "large"), [("float32", 1e38), ("float64", 1e308)], ids=DTYPES)
def test_differences_that_leave_the_range_are_not_small(dtype, large):
    rule = StoppingRule.checked(dtype, gtol=0, ftol=0.5, xtol=0.5)
    x, x_new = np.array([large, large], dtype), [-large, large]
    assert between(rule, x, -large, x_new, large, [1, 1]) == Status.RUNNING
    assert between(rule, x, 9, 0.75 * x, 4, [1, 1]) == Status.X_TOLERANCE


# --- What a rule is made of -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "gtol", "eps"), [("float32", 4.9e-3, 2**-23), ("float64", 6.1e-6, 2**-52)])
def test_tolerances_left_out_are_the_cube_root_of_the_precision_and_none(dtype, gtol, eps):
    rule = StoppingRule.checked(dtype)
    assert rule.gtol == pytest.approx(eps ** (1 / 3), rel=1e-12) == pytest.approx(gtol, rel=0.02)
    assert (rule.ftol, rule.xtol, rule.f_target, rule.max_evaluations) == (None,) * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_finest_tolerances_are_taken(dtype):
    info = np.finfo(dtype)
    rule = StoppingRule.checked(tf.as_dtype(dtype), gtol=float(info.tiny), ftol=float(info.eps), xtol=float(info.eps))
    assert (rule.gtol, rule.ftol, rule.xtol) == (info.tiny, info.eps, info.eps)
    assert StoppingRule.checked(dtype, gtol=0).gtol == 0


@pytest.mark.parametrize("value", [1, np.float32(0.5), np.int64(1), Fraction(1, 4)], ids=lambda v: type(v).__name__)
def test_every_kind_of_real_number_is_a_tolerance(value):
    names = ("gtol", "ftol", "xtol", "f_target")
    rule = StoppingRule.checked("float64", **dict.fromkeys(names, value))
    assert [getattr(rule, name) for name in names] == [value] * 4
    assert between(rule, np.array([10.0]), 99.0, [9.0], 50.0, [2.0]) in (Status.F_TOLERANCE, Status.X_TOLERANCE)


@pytest.mark.parametrize("name", ["gtol", "ftol", "xtol", "f_target"])
@pytest.mark.parametrize("value", [np.nan, np.inf, "1e-3", True, 1j, [1e-3]], ids=str)
def test_a_tolerance_that_is_no_finite_number_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a finite number.*received"):
        StoppingRule.checked("float64", **{name: value})


@pytest.mark.parametrize("name", ["gtol", "ftol", "xtol"])
def test_a_negative_tolerance_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must be .*at least 0, received -1e-06"):
        StoppingRule.checked("float32", **{name: -1e-6})


@pytest.mark.parametrize("name", ["ftol", "xtol"])
@pytest.mark.parametrize("value", [0, 1e-8])
def test_a_relative_tolerance_below_the_precision_is_refused_and_float64_is_named(name, value):
    message = rf"{name} must be at least 1.2e-07, the relative precision of float32; received {value}; .*use float64"
    with pytest.raises(ValueError, match=message):
        StoppingRule.checked("float32", **{name: value})
    if value:
        assert getattr(StoppingRule.checked("float64", **{name: value}), name) == value


def test_a_gradient_tolerance_that_the_dtype_cannot_tell_from_zero_is_refused():
    with pytest.raises(ValueError, match=r"gtol=1e-40 is below 1.2e-38, .*float32; pass 0, or use float64"):
        StoppingRule.checked("float32", gtol=1e-40)
    assert StoppingRule.checked("float64", gtol=1e-40).gtol == 1e-40


@pytest.mark.parametrize("options", [{"ftol": 1e-17}, {"xtol": 0}, {"gtol": 1e-310}], ids=str)
def test_nobody_who_uses_float64_is_told_to_use_it(options):
    (name,) = options
    with pytest.raises(ValueError, match=name) as refused:
        StoppingRule.checked("float64", **options)
    assert "use float64" not in str(refused.value)


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "10", np.nan], ids=str)
def test_a_number_of_evaluations_is_a_positive_integer(value):
    with pytest.raises(ValueError, match="max_evaluations must be an integer of at least 1, received"):
        StoppingRule.checked("float64", max_evaluations=value)
