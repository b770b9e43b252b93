"""Tests of trainloop.linesearch: the inequalities a step must satisfy, checked on many functions with NumPy.

The functions are psi(u), u = a'x, with psi a sum of a quartic, sines, exponentials and a logarithmic barrier. Their
coefficients are arguments of the compiled search, so that one trace serves them all. Derivatives in the search come
from a gradient tape, derivatives in the checks are written by hand.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from trainloop import linesearch
from trainloop.linesearch import line as interpolation
from trainloop.linesearch._backtracking import Backtracking
from trainloop.linesearch._hager_zhang import HagerZhang
from trainloop.linesearch._more_thuente import MoreThuente
from trainloop.linesearch.line import Line, Point
from trainloop.linesearch.line import point as evaluated

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

SEARCHES = {
    "armijo": (linesearch.armijo, {"decrease": 1e-4, "max_evaluations": 30}),
    "strong_wolfe": (linesearch.strong_wolfe, {"decrease": 1e-4, "curvature": 0.9, "max_evaluations": 20}),
    "hager_zhang": (linesearch.hager_zhang, {"decrease": 0.1, "curvature": 0.9, "max_evaluations": 50}),
}
CALLS = {"value": tf.Variable(0, trainable=False), "value_and_grad": tf.Variable(0, trainable=False)}


class Counted:
    """An objective made of a function; counts its calls, and in `sites` how often Python traced it."""

    def __init__(self, function):
        self.function = function
        self.sites = {"value": 0, "value_and_grad": 0}

    def value(self, x):
        self.count("value")
        return self.function(x)

    def value_and_grad(self, x):
        self.count("value_and_grad")
        with tf.GradientTape() as tape:
            tape.watch(x)
            f = self.function(x)
        return f, tape.gradient(f, x, unconnected_gradients="zero")

    def count(self, kind):
        self.sites[kind] += 1
        CALLS[kind].assign_add(1)


def calls():
    return sum(int(variable) for variable in CALLS.values())


@pytest.fixture(autouse=True)
def _reset_calls():
    for variable in CALLS.values():
        variable.assign(0)


def start(function, x, dtype="float64"):
    """x, f and g as tensors."""
    x = tf.constant(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        f = function(x)
    return x, f, tape.gradient(f, x, unconnected_gradients="zero")


def descend(name, function, x, t0=1.0, d=None, dtype="float64", **options):
    """One search, down the gradient unless d is given, eagerly."""
    search, defaults = SEARCHES[name]
    x, f, g = start(function, x, dtype)
    d = -g if d is None else tf.constant(d, dtype)
    return search(Counted(function), x, f, g, d, t0, **{**defaults, **options})


# --- random functions -----------------------------------------------------------------------------------


PARTS = {
    "c": slice(0, 4), "s": slice(4, 7), "w": slice(7, 10), "p": slice(10, 13),
    "e": slice(13, 15), "b": slice(15, 17), "m": slice(17, 18), "wall": slice(18, 19),
}  # fmt: skip


def coefficients(array):
    """psi(u) = sum_k c_k u^k + sum_j s_j sin(w_j u + p_j) + sum_j e_j exp(b_j u) - m log(wall - u)."""
    return {name: array[..., part] for name, part in PARTS.items()}


def coefficient_array(**parts):
    array = np.zeros(19)
    array[PARTS["wall"]] = 1e30
    for name, numbers in parts.items():
        array[PARTS[name]] = numbers
    return array


def psi_tensorflow(array, u):
    k = coefficients(array)
    powers = tf.stack([u, u**2, u**3, u**4])
    f = tf.reduce_sum(k["c"] * powers) + tf.reduce_sum(k["s"] * tf.sin(k["w"] * u + k["p"]))
    return f + tf.reduce_sum(k["e"] * tf.exp(k["b"] * u)) - tf.reduce_sum(k["m"] * tf.math.log(k["wall"] - u))


@np.errstate(invalid="ignore", over="ignore")  # beyond the wall, and far out
def psi_numpy(array, u):
    """psi, psi', and how large the rounding errors of both are, in units of eps: sums of what the terms contribute.

    array [..., 19] and u [...] stand for as many functions.
    """
    k, n, u = coefficients(array), np.arange(1, 5), np.asarray(u)[..., None]
    phase, growth, gap = k["w"] * u + k["p"], k["e"] * np.exp(k["b"] * u), k["wall"] - u
    terms = [k["c"] * u**n, k["s"] * np.sin(phase), growth, -k["m"] * np.log(gap)]
    slopes = [k["c"] * n * u ** (n - 1), k["s"] * k["w"] * np.cos(phase), growth * k["b"], k["m"] / gap]
    powers = u ** np.maximum(n - 2, 0)
    bends = [k["c"] * n * (n - 1) * powers, k["s"] * k["w"] ** 2, growth * k["b"] ** 2, k["m"] / gap**2]
    terms, slopes, bends = (np.concatenate(parts, axis=-1) for parts in (terms, slopes, bends))
    size, slope_size, bend_size = (np.abs(parts).sum(-1) for parts in (terms, slopes, bends))
    near = np.maximum(np.abs(u), np.where(k["m"] > 0, k["wall"], 0))[..., 0]
    return terms.sum(-1), slopes.sum(-1), size + near * slope_size, slope_size + near * bend_size


def random_function(kind, rng):
    """Bounded below, falling at u = 0 (or rising: then the search goes left)."""
    wobble = {"s": rng.uniform(0, 0.5, 3), "w": rng.uniform(0.5, 6, 3), "p": rng.uniform(0, 6, 3)}
    if kind == "quartic":
        cubic = rng.normal()
        return coefficient_array(c=[rng.normal(), rng.normal(), cubic, cubic**2 + rng.uniform(0.05, 1)])
    if kind == "sines":
        return coefficient_array(c=[rng.normal(), rng.uniform(0.1, 1), 0, 0], **wobble)
    if kind == "exponentials":
        return coefficient_array(e=10 ** rng.uniform(-2, 1, 2), b=[rng.uniform(0.2, 4), -rng.uniform(0.2, 4)])
    return coefficient_array(  # "barrier": undefined beyond a wall on one side, a parabola on the other
        c=[-rng.uniform(1, 5), rng.uniform(0, 1), 0, 0], m=10 ** rng.uniform(-3, 0), wall=10 ** rng.uniform(-2, 1)
    )


KINDS = ("quartic", "sines", "exponentials", "barrier")


class Problem:
    """One function of two variables, a point, a direction of descent and a first step, in the precision asked for."""

    def __init__(self, kind, seed, dtype):
        rng = np.random.default_rng([seed, len(kind)])
        self.array = random_function(kind, rng).astype(dtype)
        self.a = rng.normal(size=2).astype(dtype)
        self.x = (1e-3 * rng.normal(size=2)).astype(dtype)
        self.f, self.slope, *_ = self.phi(self.x)
        self.g = self.slope * self.a
        self.d = -self.g * 10 ** rng.uniform(-1, 1) + (0 if kind == "barrier" else 0.1) * rng.normal(size=2)
        self.d *= -np.sign(self.g @ self.d)
        self.t0 = 10 ** rng.uniform(-2, 2)

    def phi(self, x):
        return psi_numpy(self.array.astype(float), float(self.a.astype(float) @ x.astype(float)))

    def arguments(self, dtype):
        parts = self.array, self.a, self.x, self.f, self.g, self.d, self.t0
        return [tf.constant(part, dtype) for part in parts]


@functools.cache
def compiled(name, jit=False):
    """A search as a compiled function of the coefficients too; it serves every problem."""
    search, options = SEARCHES[name]

    def run(array, a, x, f, g, d, t0):
        objective = Counted(lambda x: psi_tensorflow(array, tf.tensordot(a, x, 1)))
        found = search(objective, x, f, g, d, t0, **options)
        sites.append(objective.sites)
        return found

    sites = []
    function = tf.function(run, autograph=False, jit_compile=jit)
    function.sites = sites
    return function


def check_conditions(name, problem, found, dtype):
    """The inequalities that a search promises at its step, with NumPy in float64."""
    options = SEARCHES[name][1]
    eps = np.finfo(dtype).eps
    t, x = float(found.t), found.x.numpy()
    f, psi_slope, size, slope_size = problem.phi(x)
    derivative = float(problem.a.astype(float) @ problem.d.astype(dtype).astype(float))
    slope, slope0 = psi_slope * derivative, problem.slope * derivative
    f_slack, slope_slack = 200 * eps * size, 200 * eps * slope_size * abs(derivative)

    assert bool(found.success)
    assert slope0 < 0 < t
    np.testing.assert_allclose(x, problem.x + t * problem.d, rtol=8 * eps, atol=8 * eps * t * np.abs(problem.d).max())
    assert abs(float(found.f) - f) <= f_slack
    np.testing.assert_allclose(found.g, psi_slope * problem.a, atol=200 * eps * slope_size)
    sufficient = f <= problem.f + options["decrease"] * t * slope0 + f_slack
    if name == "armijo":
        assert sufficient
    elif name.startswith("strong_wolfe"):
        assert sufficient
        assert abs(slope) <= options["curvature"] * abs(slope0) + slope_slack
    else:
        flat = slope <= (2 * options["decrease"] - 1) * slope0 + slope_slack
        level = f <= problem.f + 1e-6 * abs(problem.f) + f_slack
        assert sufficient or (flat and level)
        assert slope >= options["curvature"] * slope0 - slope_slack


def check_random_functions(name, kind, dtype, seeds, jit=False):
    search = compiled(name, jit)
    for seed in seeds:
        before, problem = calls(), Problem(kind, seed, dtype)
        found = search(*problem.arguments(dtype))
        assert found.f.dtype == found.t.dtype == found.x.dtype == dtype
        assert int(found.evaluations) == calls() - before
        assert 1 <= int(found.evaluations) <= SEARCHES[name][1]["max_evaluations"]
        check_conditions(name, problem, found, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", SEARCHES)
def test_the_conditions_hold(name, dtype):
    for kind in KINDS:
        check_random_functions(name, kind, dtype, range(10))


@pytest.mark.parametrize("name", ["armijo", "strong_wolfe"])  # the two kinds of loop
@pytest.mark.thorough_after(1)
def test_the_conditions_hold_under_xla(name):
    for kind in KINDS:
        check_random_functions(name, kind, "float32", range(5), jit=True)


@pytest.mark.parametrize("name", SEARCHES)
def test_one_trace_and_one_call_site_serve_all_calls(name):
    check_random_functions(name, "quartic", "float64", range(3))
    check_random_functions(name, "barrier", "float64", range(3))
    search = compiled(name)
    assert search.experimental_get_tracing_count() == len(search.sites) <= 2  # one for each dtype
    value_sites = 1 if name == "armijo" else 0
    assert all(sites == {"value": value_sites, "value_and_grad": 1} for sites in search.sites)


# --- the rules alone, on hundreds of functions at once --------------------------------------------------


def follow(rule, phi, t0, dtype, limit=50):
    """What the loop of a search does, for one function phi(t) -> (f, slope) per entry of t0.

    Returns:
        the accepted steps, NaN where there is none, and how many evaluations each search needed.
    """
    origin = Point(np.zeros_like(t0), *phi(np.zeros_like(t0)))
    noise = 100 * np.finfo(dtype).eps * np.abs(origin.f)
    line = Line(origin, np.full_like(t0, 1e30), np.zeros_like(t0), noise)
    line = tf.nest.map_structure(lambda entry: tf.constant(entry, dtype), line)
    state, live = rule.begin(line, tf.constant(t0, dtype)), np.full(t0.shape, True)
    accepted, evaluations = np.full(t0.shape, np.nan), np.zeros(t0.shape, int)
    while live.any() and evaluations.max() < limit:
        t = state.t.numpy().astype(float)
        f, slope = phi(np.where(live, t, 0.0))
        evaluations += live
        state = rule.advance(line, state, evaluated(state.t, tf.constant(f, dtype), tf.constant(slope, dtype)))
        accepted = np.where(live & state.accepted.numpy(), t, accepted)
        live &= ~state.done.numpy()
    return accepted, evaluations


RULES = {
    "backtracking": Backtracking(1e-4, 51),
    "more_thuente": MoreThuente(1e-4, 0.9),
    "more_thuente, narrow": MoreThuente(1e-4, 0.1),
    "more_thuente, narrow and steep": MoreThuente(0.1, 0.1),
    "secant2": HagerZhang(0.1, 0.9, 1e-6, 0.5, 0.66, 5.0),
    "secant2, narrow": HagerZhang(0.1, 0.1, 1e-6, 0.5, 0.66, 5.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_rules_on_many_functions(name, kind):
    rule, rng, count = RULES[name], np.random.default_rng(len(kind)), 300
    array = np.stack([random_function(kind, rng) for _ in range(count)])
    stretch = 10 ** rng.uniform(-1, 1, count) * -np.sign(psi_numpy(array, np.zeros(count))[1])

    def phi(t):
        f, slope, *_ = psi_numpy(array, t * stretch)
        return f, slope * stretch

    t, evaluations = follow(rule, phi, 10 ** rng.uniform(-2, 2, count), "float64")
    (f0, slope0), (f, slope) = phi(np.zeros(count)), phi(t)
    sufficient = f <= f0 + rule.decrease * t * slope0
    assert np.isfinite(t).all()
    if name.startswith("secant2"):
        flat = (slope <= (2 * rule.decrease - 1) * slope0) & (f <= f0 + 1e-6 * np.abs(f0))
        assert (sufficient | flat).all()
        assert (slope >= rule.curvature * slope0).all()
    else:
        assert sufficient.all()
    if name.startswith("more_thuente"):
        assert (np.abs(slope) <= rule.curvature * np.abs(slope0)).all()
    assert evaluations.mean() <= 8
    assert evaluations.max() <= 25


# --- known functions ------------------------------------------------------------------------------------


def more_thuente_functions(u):
    """The functions of equations 5.1 to 5.4, the last with the three pairs of constants of section 5."""

    def gamma(beta):
        return np.sqrt(1 + beta**2) - beta

    def yanai(b1, b2):
        return gamma(b1) * tf.sqrt((1 - u) ** 2 + b2**2) + gamma(b2) * tf.sqrt(u**2 + b1**2)

    b = 0.01
    valley = tf.where(u <= 1 - b, 1 - u, tf.where(u >= 1 + b, u - 1, (u - 1) ** 2 / (2 * b) + b / 2))
    return [
        -u / (u**2 + 2),
        (u + 0.004) ** 5 - 2 * (u + 0.004) ** 4,
        valley + 2 * (1 - b) / (39 * np.pi) * tf.sin(39 * np.pi / 2 * u),
        yanai(0.001, 0.001),
        yanai(0.01, 0.001),
        yanai(0.001, 0.01),
    ]


# number: (decrease, curvature, evaluations from t0 = 1e-3, 1e-1, 1e1, 1e3 by SciPy's port of dcsrch from MINPACK-2)
MORE_THUENTE = {
    1: (1e-3, 0.1, (6, 3, 1, 4)),
    2: (0.1, 0.1, (12, 8, 8, 11)),
    3: (0.1, 0.1, (12, 12, 10, 13)),
    4: (1e-3, 1e-3, (4, 1, 3, 4)),
    5: (1e-3, 1e-3, (6, 3, 7, 8)),
    6: (1e-3, 1e-3, (13, 11, 8, 11)),
}


def more_thuente_phi(number):
    def phi(t):
        u = tf.constant(t)
        with tf.GradientTape() as tape:
            tape.watch(u)
            f = more_thuente_functions(u)[number - 1]
        return f.numpy(), tape.gradient(f, u).numpy()

    return phi


@pytest.mark.parametrize("number", MORE_THUENTE)
def test_functions_of_more_and_thuente(number):
    decrease, curvature, expected = MORE_THUENTE[number]
    phi, t0 = more_thuente_phi(number), np.array([1e-3, 1e-1, 1e1, 1e3])
    f0, slope0 = phi(np.zeros(4))

    t, evaluations = follow(MoreThuente(decrease, curvature), phi, t0, "float64", limit=20)
    f, slope = phi(t)
    assert (f <= f0 + decrease * t * slope0).all()
    assert (np.abs(slope) <= curvature * np.abs(slope0)).all()
    assert tuple(evaluations) == expected

    t, evaluations = follow(HagerZhang(decrease, curvature, 1e-6, 0.5, 0.66, 5.0), phi, t0, "float64", limit=25)
    f, slope = phi(t)
    flat = (slope <= (2 * decrease - 1) * slope0) & (f <= f0 + 1e-6 * np.abs(f0))
    assert ((f <= f0 + decrease * t * slope0) | flat).all()
    assert (slope >= curvature * slope0).all()


def test_counts_on_a_parabola():
    def parabola(x):
        return 0.5 * tf.reduce_sum(x**2)

    for name, counts in {
        "armijo": (2, 3, 2),  # each with a gradient at the end
        "strong_wolfe": (1, 2, 3),  # from 1e-2 a step grows at most fivefold, to 5e-2 and 2.1e-1
        "hager_zhang": (1, 2, 3),
    }.items():
        found = [descend(name, parabola, [3.0, -4.0], t0) for t0 in (1.0, 10.0, 1e-2)]
        assert tuple(int(result.evaluations) for result in found) == counts, name
        assert all(bool(result.success) for result in found)


def rosenbrock(x):
    return tf.reduce_sum((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2)


@pytest.mark.parametrize("name", SEARCHES)
def test_units_do_not_matter(name):
    """f -> 2^40 f and t -> 2^30 t change nothing but the units: exactly, because they are powers of two."""
    plain = descend(name, rosenbrock, [-1.2, 1.0])
    scaled = descend(name, lambda x: 2.0**40 * rosenbrock(x), [-1.2, 1.0], 2.0**-40)
    stretched = descend(name, lambda x: rosenbrock(x * 2.0**-30), [-1.2 * 2**30, 2.0**30], 2.0**60)
    assert int(plain.evaluations) == int(scaled.evaluations) == int(stretched.evaluations)
    assert float(plain.f) == float(scaled.f) * 2.0**-40 == float(stretched.f)
    assert float(plain.t) == float(scaled.t) * 2.0**40 == float(stretched.t) * 2.0**-60


# --- where a search must fail, or be careful ------------------------------------------------------------


def square(x):
    return tf.reduce_sum(x**2)


@pytest.mark.parametrize(
    "change",
    [
        {"d": [2.0, 4.0]},  # ascent
        {"d": [0.0, 0.0]},
        {"d": [2.0, -1.0]},  # along the level set
        {"d": [np.nan, -1.0]},
        {"d": [-np.inf, -1.0]},
        {"t0": 0.0},
        {"t0": -1.0},
        {"t0": np.nan},
        {"t0": np.inf},
        {"f": np.nan},
        {"f": np.inf},
        {"g": [np.nan, 4.0]},
        {"g": [np.inf, 4.0]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", SEARCHES)
def test_without_descent_nothing_is_evaluated(name, change):
    given = {"x": [1.0, 2.0], "f": 5.0, "g": [2.0, 4.0], "d": [-1.0, -1.0], "t0": 1.0, **change}
    found = SEARCHES[name][0](Counted(square), **{key: tf.constant(v, tf.float64) for key, v in given.items()})
    assert not bool(found.success)
    assert int(found.evaluations) == calls() == 0
    assert float(found.t) == 0.0
    for key in ("x", "f", "g"):
        np.testing.assert_array_equal(getattr(found, key), given[key])


def defined_on(radius, x):
    """The square near [1, 2], NaN elsewhere."""
    return square(x) + tf.where(tf.reduce_max(tf.abs(x - [1.0, 2.0])) <= radius, tf.zeros([], x.dtype), np.nan)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_function_that_is_finite_nowhere_else(name, bad):
    def alone(x):
        return square(x) + tf.where(tf.reduce_all(x == [1.0, 2.0]), tf.zeros([], x.dtype), bad)

    found = descend(name, alone, [1.0, 2.0], max_evaluations=12)
    assert not bool(found.success)
    assert int(found.evaluations) == calls() <= 12
    np.testing.assert_array_equal(found.x, [1.0, 2.0])
    np.testing.assert_array_equal(found.g, [2.0, 4.0])
    assert (float(found.t), float(found.f)) == (0.0, 5.0)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_small_finite_region_is_found(name):
    found = descend(name, lambda x: defined_on(1e-5, x), [1.0, 2.0])
    assert float(found.f) < 5.0
    assert np.isfinite(found.x).all()
    assert int(found.evaluations) == calls()
    assert bool(found.success) == (name == "armijo")  # the slope is the same everywhere in the region


@pytest.mark.parametrize("name", SEARCHES)
def test_a_gradient_that_is_not_finite_counts_as_infinite_f(name):
    class Broken(Counted):
        def value_and_grad(self, x):
            f, g = super().value_and_grad(x)
            return f, tf.where(x[0] < 0.5, np.nan, g)

    x, f, g = start(square, [1.0, 2.0])
    found = SEARCHES[name][0](Broken(square), x, f, g, -g, 0.5)  # whose minimum at t = 1/2 has such a gradient
    assert bool(found.success)
    assert float(found.f) < 5.0
    assert int(found.evaluations) == calls()
    np.testing.assert_allclose(found.g, 2 * found.x.numpy())


@pytest.mark.parametrize(("dtype", "t0"), [("float32", 1e30), ("float64", 1e-3)])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_function_without_a_minimum(name, dtype, t0):
    found = descend(name, lambda x: -x[0], [0.0, 1.0], t0, dtype=dtype, max_evaluations=14)
    assert bool(found.success) == (name == "armijo")
    assert int(found.evaluations) == calls() <= 14
    assert float(found.f) < 0.0
    assert np.isfinite(found.x).all()
    assert t0 <= float(found.t) * (1 + 1e-6) <= t0 * 5.0**13 * (1 + 1e-5)


@pytest.mark.parametrize("limit", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("name", "narrow"), [("armijo", {}), ("strong_wolfe", {"curvature": 0.01}), ("hager_zhang", {"curvature": 0.1})]
)
def test_the_budget_is_kept_and_the_best_point_returned(name, narrow, limit):
    found = descend(name, rosenbrock, [-1.2, 1.0, 0.5], 1e-1, max_evaluations=limit, **narrow)
    assert int(found.evaluations) == calls() <= limit
    assert float(found.f) <= float(start(rosenbrock, [-1.2, 1.0, 0.5])[1])
    _, f, g = start(rosenbrock, found.x.numpy())
    assert (float(f), g.numpy().tolist()) == (float(found.f), found.g.numpy().tolist())


def test_armijo_out_of_trials_returns_the_lowest_point():
    found = descend("armijo", square, [1.0, 2.0], 0.45, decrease=0.999, max_evaluations=4)  # 0.45 is best, and too long
    assert not bool(found.success)
    assert [int(CALLS[kind]) for kind in ("value", "value_and_grad")] == [3, 1]
    np.testing.assert_allclose(found.x, [0.1, 0.2])
    np.testing.assert_allclose(found.g, [0.2, 0.4])


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_ends_when_its_interval_is_a_single_point(name):
    """f rises by 1 wherever x moves at all, against its gradient. Without the test of the interval all 50 are used."""

    def jump(x):
        return tf.where(tf.reduce_all(x == 1.0), tf.reduce_sum(x), tf.reduce_sum(x) + 1.0)

    found = descend(name, jump, [1.0, 1.0], 1e-14, d=[-1.0, -1.0], max_evaluations=50)
    assert not bool(found.success)
    assert int(found.evaluations) < 12
    assert float(found.t) == 0.0


@pytest.mark.parametrize("options", [{"decrease": 0.0}, {"curvature": 1.0}, {"decrease": 0.5, "curvature": 0.4}])
def test_constants_outside_of_their_interval_are_refused(options):
    for name in ("strong_wolfe", "hager_zhang"):
        with pytest.raises(ValueError, match=r"must be .*received"):
            descend(name, square, [1.0], **options)
    with pytest.raises(ValueError, match="max_evaluations must be an integer of at least 2, received 1"):
        descend("armijo", square, [1.0], max_evaluations=1)


# --- the unit of f, and f without a lower bound ---------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHES)
def test_minus_infinity_ends_a_search_at_once(name):
    def cliff(x):
        return tf.where(x[0] > 3, tf.constant(-np.inf, x.dtype), -x[0])

    found = descend(name, cliff, [0.0], t0=4.0)
    assert (int(found.evaluations), bool(found.unbounded), bool(found.success)) == (1, True, False)
    assert (float(found.t), float(found.f)) == (0, 0)
    np.testing.assert_array_equal([*found.x, *found.g], [0, -1])
    assert not descend(name, cliff, [0.0], t0=1e-3, max_evaluations=2).unbounded  # it does not come so far


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(("dtype", "power"), [("float32", 40), ("float32", 80), ("float64", 300), ("float64", 800)])
@pytest.mark.thorough_after(1)
def test_a_search_along_the_gradient_does_not_depend_on_the_unit_of_f(name, dtype, power):
    def bumps(x, unit=1.0):
        return tf.constant(unit, dtype) * (tf.reduce_sum(x**4 / 4 - x) + tf.sin(5 * x[0]))

    known = descend(name, bumps, [0.3, -1.0], t0=16.0, dtype=dtype)
    assert int(known.evaluations) > 2
    for unit in (2.0**-power, 2.0**power):
        found = descend(name, lambda x, unit=unit: bumps(x, unit), [0.3, -1.0], t0=16.0 / unit, dtype=dtype)
        assert int(found.evaluations) == int(known.evaluations)
        np.testing.assert_array_equal(found.x, known.x)


# --- inside methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.thorough_after(1)
def test_inside_a_compiled_loop(jit):
    """Steepest descent in one tf.while_loop takes the same steps as from Python; the length of x is not known."""

    def step(x):
        f, g = Counted(rosenbrock).value_and_grad(x)
        return linesearch.hager_zhang(Counted(rosenbrock), x, f, g, -g, 1e-3).x

    def loop(x):
        return tf.while_loop(lambda k, x: k < 3, lambda k, x: (k + 1, step(x)), (0, x))[1]

    x = np.array([-1.2, 1.0, 0.5])
    spec = [tf.TensorSpec([3] if jit else [None], tf.float64)]
    compiled_loop = tf.function(loop, input_signature=spec, autograph=False, jit_compile=jit)
    expected = tf.constant(x)
    for _ in range(3):
        expected = step(expected)
    np.testing.assert_allclose(compiled_loop(x), expected, rtol=1e-9)


def powell(x):
    a, b, c, d = x[0], x[1], x[2], x[3]
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


def wood(x):
    a, b, c, d = x[0], x[1], x[2], x[3]
    valleys = 100 * (a**2 - b) ** 2 + (a - 1) ** 2 + 90 * (c**2 - d) ** 2 + (c - 1) ** 2
    return valleys + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)


def bfgs(function, x, dtype, gtol, steps=100):
    """BFGS in NumPy, Nocedal and Wright (2006), algorithm 6.1.   Returns x, g and the number of evaluations."""

    @functools.partial(tf.function, autograph=False)
    def search(x, f, g, d, t0):
        return linesearch.strong_wolfe(Counted(function), x, f, g, d, t0)

    x, f, g = (part.numpy() for part in start(function, x, dtype))
    H, evaluations = np.eye(len(x), dtype=dtype), 1
    for k in range(steps):
        if np.abs(g).max() <= gtol:
            break
        t0 = 1.0 if k else min(1.0, 1.0 / np.abs(g).sum())
        found = search(*(tf.constant(part, dtype) for part in (x, f, g, -H @ g, t0)))
        evaluations += int(found.evaluations)
        if not found.success:
            break
        s, y = found.x.numpy() - x, found.g.numpy() - g
        H = H if k else H * (s @ y) / (y @ y)
        V = np.eye(len(x)) - np.outer(s, y) / (s @ y)
        H = V @ H @ V.T + np.outer(s, s) / (s @ y)
        x, f, g = found.x.numpy(), found.f.numpy(), found.g.numpy()
    return x, g, evaluations


@pytest.mark.thorough
def test_bfgs_needs_no_more_evaluations_than_scipy():
    problems = [(powell, [3.0, -1.0, 0.0, 1.0]), (wood, [-3.0, -1.0, -3.0, -1.0])]
    ours = theirs = 0
    for function, x in problems:
        gradient = tf.function(Counted(function).value_and_grad, autograph=False)
        reference = scipy.optimize.minimize(
            lambda x, gradient=gradient: [part.numpy() for part in gradient(tf.constant(x))],
            x, jac=True, method="BFGS", options={"gtol": 1e-8},
        )  # fmt: skip
        found, _, evaluations = bfgs(function, x, "float64", gtol=1e-8)
        np.testing.assert_allclose(found, reference.x, atol=1e-2)  # Powell's function is flat at its minimum
        ours, theirs = ours + evaluations, theirs + reference.nfev
    assert ours <= theirs


@pytest.mark.parametrize(("dtype", "gtol"), [("float32", 3e-6), ("float64", 3e-14)])
def test_bfgs_reaches_gradients_at_the_level_of_rounding(dtype, gtol):
    """f at its minimum is 1, so that it resolves |g| no better than the square root of eps."""
    Q = np.diag(np.geomspace(1e-1, 1e1, 6)) + 0.05

    def valley(x):
        return 1.0 + 0.5 * tf.tensordot(x, tf.linalg.matvec(tf.constant(Q, x.dtype), x), 1) + 0.1 * square(x**2)

    _, g, _ = bfgs(valley, np.ones(6), dtype, gtol)
    assert np.abs(g).max() <= gtol


# --- the models ----------------------------------------------------------------------------------------


def at(polynomial, t):
    t = np.float64(t)
    return Point(*(tf.constant(value, tf.float64) for value in (t, polynomial(t), polynomial.deriv()(t))))


@pytest.mark.parametrize("seed", range(5))
def test_models_are_exact_on_polynomials(seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.uniform(-2, 2, 2))
    # Its derivative is c (t - low) (t - high): a maximum, then a minimum.
    cubic = np.polynomial.Polynomial.fromroots([low, high]).integ() * rng.uniform(0.1, 10) + rng.normal()
    parabola = np.polynomial.Polynomial.fromroots([high]).integ() * rng.uniform(0.1, 10) + rng.normal()
    for a, b in [
        (high - 0.7, high + 0.4),
        (high + 0.4, high - 0.7),
        (high + 1.0, high + 3.0),
        (high + 3.0, high + 1.0),
    ]:
        np.testing.assert_allclose(interpolation.cubic(at(cubic, a), at(cubic, b)), high, rtol=1e-9, atol=1e-9)
        for model in (interpolation.parabola, interpolation.secant, interpolation.cubic):
            np.testing.assert_allclose(model(at(parabola, a), at(parabola, b)), high, rtol=1e-9, atol=1e-9)


def test_a_cubic_without_a_minimum_gives_nan():
    rising = np.polynomial.Polynomial([0.0, 1.0, 0.0, 1.0])
    assert np.isnan(interpolation.cubic(at(rising, -1.0), at(rising, 2.0)))


def test_choices_between_candidates_skip_nan():
    assert float(interpolation.nearer(1.0, tf.constant(np.nan), 3.0)) == 3.0
    assert float(interpolation.farther(1.0, tf.constant(np.nan), 3.0)) == 3.0
    assert float(interpolation.nearer(1.0, tf.constant(0.5), 3.0)) == 0.5
    assert float(interpolation.farther(1.0, tf.constant(0.5), 3.0)) == 3.0
