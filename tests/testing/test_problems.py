"""Tests of trainloop.testing.problems: published values, naive NumPy formulas, SciPy's solvers, differences.

No reference value here was computed by the code under test, except where the test's name says so.
"""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from trainloop.testing import Problem, chained_rosenbrock, extended_rosenbrock, problems

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

EVERY = pytest.mark.parametrize("name", list(problems))
SUMS_OF_SQUARES = [name for name, problem in problems.items() if problem.residuals is not None]


def tensor(x, dtype="float64"):
    return tf.constant(np.asarray(x, dtype))


def value(problem, x):
    return problem.fun(tensor(x)).numpy()


def value_and_gradient(fun, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        f = fun(x)
    return f, tape.gradient(f, x)


@functools.cache
def compiled(fun):
    """For the tests that evaluate a function hundreds of times."""
    return tf.function(fun, autograph=False)


def near(problem, scale=0.1):
    """A seeded random point near the start, where no two pieces of a maximum are equal."""
    rng = np.random.default_rng(0)
    return problem.x0 + scale * rng.uniform(-1, 1, problem.n) * (np.abs(problem.x0) + 0.1)


# --- values ---------------------------------------------------------------------------------------------

# f(x0), exact: Moré, Garbow and Hillstrom (1981), Lukšan and Vlček (2000), or a line of arithmetic.
START = {
    "extended_rosenbrock": 5 * 24.2,
    "chained_rosenbrock": 9 * 404,
    "powell_singular": 215,
    "wood": 19192,
    "beale": 14.203125,
    "helical_valley": 2500,
    "freudenstein_roth": 400.5,
    "brown_badly_scaled": 999999**2 + 0.999998**2 + 1,
    "watson": 30,
    "penalty_1": 384.75**2 + 285e-5,
    "variably_dimensioned": 38.5**4 + 38.5**2 + 3.85,
    "broyden_tridiagonal": 21,
    "linear_full_rank": 50,
    "logistic_regression": math.log(2),
    "crescent": 4.25,
    "cb2": 5.41,
    "cb3": 20,
    "dem": 6,
    "ql": 56,
    "lq": 1,
    "mifflin1": -0.8,
    "mifflin2": 4.75,
    "wolfe": 5 * math.sqrt(145),
    "rosen_suzuki": 0,
    "shor": 80,
    "maxq": 400,
    "maxl": 20,
    "goffin": 1225,
    "mxhilb": sum(1 / j for j in range(1, 51)),
    "l1hilb": math.fsum(1 / (i + j - 1) for i in range(1, 51) for j in range(1, 51)),
}


@pytest.mark.parametrize("name", START)
def test_value_at_the_start(name):
    problem = problems[name]
    np.testing.assert_allclose(value(problem, problem.x0), START[name], rtol=1e-14, atol=1e-14)


def test_maxquad_at_the_start():
    assert round(float(value(problems["maxquad"], np.ones(10))), 2) == 5337.07


def bard(x):
    y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
    return sum((y[i - 1] - (x[0] + i / ((16 - i) * x[1] + min(i, 16 - i) * x[2]))) ** 2 for i in range(1, 16))


def gaussian(x):
    y = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989]
    y += y[6::-1]
    return sum((x[0] * math.exp(-x[1] * ((8 - i) / 2 - x[2]) ** 2 / 2) - y[i - 1]) ** 2 for i in range(1, 16))


def meyer(x):
    y = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
    return sum((x[0] * math.exp(x[1] / (45 + 5 * i + x[2])) - y[i - 1]) ** 2 for i in range(1, 17))


def box(x):
    f = 0
    for i in range(1, 11):
        t = 0.1 * i
        f += (math.exp(-t * x[0]) - math.exp(-t * x[1]) - x[2] * (math.exp(-t) - math.exp(-10 * t))) ** 2
    return f


KOWALIK_Y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
KOWALIK_U = [4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]


def kowalik_osborne(x):
    pairs = zip(KOWALIK_Y, KOWALIK_U, strict=True)
    return sum((y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])) ** 2 for y, u in pairs)


def brown_dennis(x):
    f = 0
    for i in range(1, 21):
        t = i / 5
        f += ((x[0] + t * x[1] - math.exp(t)) ** 2 + (x[2] + x[3] * math.sin(t) - math.cos(t)) ** 2) ** 2
    return f


def jennrich_sampson(x):
    return sum((2 + 2 * i - (math.exp(i * x[0]) + math.exp(i * x[1]))) ** 2 for i in range(1, 11))


def biggs_exp6(x):
    f = 0
    for i in range(1, 14):
        t = 0.1 * i
        y = math.exp(-t) - 5 * math.exp(-10 * t) + 3 * math.exp(-4 * t)
        f += (x[2] * math.exp(-t * x[0]) - x[3] * math.exp(-t * x[1]) + x[5] * math.exp(-t * x[4]) - y) ** 2
    return f


def watson(x):
    f = x[0] ** 2 + (x[1] - x[0] ** 2 - 1) ** 2
    for i in range(1, 30):
        t = i / 29
        slope = sum((j - 1) * x[j - 1] * t ** (j - 2) for j in range(2, 7))
        f += (slope - sum(x[j - 1] * t ** (j - 1) for j in range(1, 7)) ** 2 - 1) ** 2
    return f


def trigonometric(x):
    n = len(x)
    total = sum(math.cos(xj) for xj in x)
    return sum((n - total + i * (1 - math.cos(xi)) - math.sin(xi)) ** 2 for i, xi in enumerate(x, 1))


def discrete_boundary_value(x):
    n = len(x)
    h = 1 / (n + 1)
    x = [0, *x, 0]
    return sum((2 * x[i] - x[i - 1] - x[i + 1] + h**2 * (x[i] + i * h + 1) ** 3 / 2) ** 2 for i in range(1, n + 1))


def helical_valley(x):
    """As Moré, Garbow and Hillstrom write it, for x1 != 0."""
    theta = math.atan(x[1] / x[0]) / (2 * math.pi) + (0.5 if x[0] < 0 else 0)
    return 100 * (x[2] - 10 * theta) ** 2 + 100 * (math.hypot(x[0], x[1]) - 1) ** 2 + x[2] ** 2


def shor(x):
    table = {  # centre: weight
        "00000": 1,
        "21113": 5,
        "12112": 10,
        "14122": 2,
        "32101": 4,
        "02101": 3,
        "11111": 1.7,
        "10121": 2.5,
        "00210": 6,
        "11200": 3.5,
    }
    return [b * sum((xj - int(a)) ** 2 for xj, a in zip(x, centre, strict=True)) for centre, b in table.items()]


def maxquad(x):
    pieces = []
    for k in range(1, 6):
        A = np.zeros((10, 10))
        for i in range(1, 11):
            for j in range(i + 1, 11):
                A[i - 1, j - 1] = A[j - 1, i - 1] = math.exp(i / j) * math.cos(i * j) * math.sin(k)
        for i in range(1, 11):
            A[i - 1, i - 1] = i / 10 * abs(math.sin(k)) + sum(abs(A[i - 1, j]) for j in range(10) if j != i - 1)
        b = [math.exp(i / k) * math.sin(i * k) for i in range(1, 11)]
        pieces.append(x @ A @ x - b @ x)
    return pieces


def logistic_regression(w):
    rng = np.random.default_rng(0)
    samples, weights, noise = rng.standard_normal((100, 10)), rng.standard_normal(10), rng.standard_normal(100)
    f = 0.01 / 2 * sum(wj**2 for wj in w)
    for a, e in zip(samples, noise, strict=True):
        label = 1 if a @ weights + e > 0 else -1
        f += math.log(1 + math.exp(-label * (a @ w))) / 100
    return f


def tanh_network(x):
    def output(x, t):
        return sum(x[8 + k] * math.tanh(x[k] * t + x[4 + k]) for k in range(4)) + x[12]

    teacher = [2, 3, -3, 2, 4, 2, 2, -5, 1, 2, 1, -1, 0.5]
    return sum((output(x, 0.25 * i) - output(teacher, 0.25 * i)) ** 2 for i in range(-12, 13))


NAIVE = {
    "bard": bard,
    "gaussian": gaussian,
    "meyer": meyer,
    "box": box,
    "kowalik_osborne": kowalik_osborne,
    "brown_dennis": brown_dennis,
    "jennrich_sampson": jennrich_sampson,
    "biggs_exp6": biggs_exp6,
    "watson": watson,
    "trigonometric": trigonometric,
    "discrete_boundary_value": discrete_boundary_value,
    "helical_valley": helical_valley,
    "logistic_regression": logistic_regression,
    "tanh_network": tanh_network,
    "wolfe": lambda x: 5 * math.hypot(3 * x[0], 4 * x[1]),  # right of the diagonals, where it starts
    "l1hilb": lambda x: sum(abs(sum(x[j] / (i + j + 1) for j in range(50))) for i in range(50)),
}

# The pieces of which f is the maximum; x has NumPy's index, from 0.
PIECES = {
    "crescent": lambda x: [
        x[0] ** 2 + (x[1] - 1) ** 2 + x[1] - 1,
        -(x[0] ** 2) - (x[1] - 1) ** 2 + x[1] + 1,
    ],
    "cb2": lambda x: [x[0] ** 2 + x[1] ** 4, (2 - x[0]) ** 2 + (2 - x[1]) ** 2, 2 * math.exp(x[1] - x[0])],
    "cb3": lambda x: [x[0] ** 4 + x[1] ** 2, (2 - x[0]) ** 2 + (2 - x[1]) ** 2, 2 * math.exp(x[1] - x[0])],
    "dem": lambda x: [5 * x[0] + x[1], -5 * x[0] + x[1], x[0] ** 2 + x[1] ** 2 + 4 * x[1]],
    "ql": lambda x: x @ x + 10 * np.array([0, -4 * x[0] - x[1] + 4, -x[0] - 2 * x[1] + 6]),
    "lq": lambda x: [-x[0] - x[1], -x[0] - x[1] + x @ x - 1],
    "mifflin1": lambda x: [-x[0], -x[0] + 20 * (x @ x - 1)],
    "mifflin2": lambda x: [-x[0] + (2 - 1.75) * (x @ x - 1), -x[0] + (2 + 1.75) * (x @ x - 1)],
    "rosen_suzuki": lambda x: (
        np.array([1, 1, 2, 1]) @ x**2
        + np.array([-5, -5, -21, 7]) @ x
        + 10
        * np.array(
            [
                0,
                x @ x + x[0] - x[1] + x[2] - x[3] - 8,
                x @ x + x[1] ** 2 + x[3] ** 2 - x[0] - x[3] - 10,
                x @ x - x[3] ** 2 + 2 * x[0] - x[1] - x[3] - 5,
            ]
        )
    ),
    "shor": shor,
    "maxquad": maxquad,
    "maxq": lambda x: x**2,
    "maxl": lambda x: np.concatenate([x, -x]),
    "goffin": lambda x: 50 * x - x.sum(),
    "mxhilb": lambda x: np.array(
        [sign * sum(x[j] / (i + j + 1) for j in range(50)) for i in range(50) for sign in (1, -1)]
    ),
}


@pytest.mark.parametrize("name", NAIVE)
def test_value_equals_a_naive_loop(name):
    problem = problems[name]
    for x in (problem.x0, near(problem)):
        np.testing.assert_allclose(value(problem, x), NAIVE[name](x), rtol=1e-12)


@pytest.mark.parametrize("name", PIECES)
def test_value_equals_the_largest_piece(name):
    problem = problems[name]
    for x in (problem.x0, near(problem), near(problem, 3)):
        np.testing.assert_allclose(value(problem, x), max(PIECES[name](x)), rtol=1e-13)


def test_value_is_the_sum_of_squares():
    for name in SUMS_OF_SQUARES:
        x = near(problems[name])
        r = problems[name].residuals(tensor(x)).numpy()
        np.testing.assert_allclose(value(problems[name], x), math.fsum(r**2), rtol=1e-14, err_msg=name)


def test_the_quadratic_has_condition_1e6_and_is_not_aligned_with_the_axes():
    problem = problems["quadratic"]
    offset = problem.residuals(tensor(np.zeros(50))).numpy()
    J = np.array([problem.residuals(tensor(e)).numpy() - offset for e in np.eye(50)]).T
    assert np.linalg.cond(J.T @ J) == pytest.approx(1e6, rel=1e-6)
    assert np.abs(np.linalg.svd(J)[2]).max() < 0.6


def test_wolfe_on_the_left():
    for x in ([-0.7, 0.4], [0.3, -0.5], [-2, 0]):
        naive = 9 * x[0] + 16 * abs(x[1]) - (x[0] ** 9 if x[0] < 0 else 0)
        np.testing.assert_allclose(value(problems["wolfe"], x), naive, rtol=1e-14)


def test_helical_valley_all_around():
    problem = problems["helical_valley"]
    for angle in np.linspace(0.1, 2 * np.pi, 12):
        x = np.array([2 * math.cos(angle), 2 * math.sin(angle), 0.3])
        np.testing.assert_allclose(value(problem, x), helical_valley(x), rtol=1e-13)


def test_helical_valley_is_continuous_where_x1_is_zero_and_x2_positive():
    problem = problems["helical_valley"]
    left, middle, right = (value(problem, [x1, 2, 0.3]) for x1 in (-1e-12, 0, 1e-12))
    np.testing.assert_allclose([left, right], middle, rtol=1e-10)


# --- gradients ------------------------------------------------------------------------------------------


@EVERY
def test_gradient_equals_central_differences(name):
    problem = problems[name]
    x = near(problem)
    gradient = value_and_gradient(problem.fun, tensor(x))[1].numpy()
    steps = 1e-5 * (np.abs(x) + 1e-2)
    h = np.diag(steps)
    fun = compiled(problem.fun)
    differences = [(fun(tensor(x + h[i])) - fun(tensor(x - h[i]))).numpy() / (2 * steps[i]) for i in range(problem.n)]
    tolerance = 1e-6 * np.abs(gradient).max() + 1e-15 * np.abs(value(problem, x)) / steps  # truncation, rounding
    assert (np.abs(gradient - differences) <= tolerance).all()


@EVERY
def test_value_and_gradient_keep_single_precision(name):
    problem = problems[name]
    f, g = value_and_gradient(problem.fun, tensor(near(problem), "float32"))
    assert f.dtype == g.dtype == tf.float32
    assert f.shape == ()
    assert g.shape == (problem.n,)
    f64, g64 = value_and_gradient(problem.fun, tensor(near(problem)))
    np.testing.assert_allclose(f, f64, rtol=1e-4)
    np.testing.assert_allclose(g, g64, rtol=1e-3, atol=1e-4 * np.abs(g64).max())
    if problem.residuals is not None:
        assert problem.residuals(tensor(problem.x0, "float32")).dtype == tf.float32


@pytest.mark.parametrize("name", ["helical_valley", *PIECES, "wolfe", "l1hilb"])
def test_gradient_is_finite_at_the_start_at_the_minimiser_and_at_zero(name):
    problem = problems[name]
    for x in (problem.x0, problem.minimiser, np.zeros(problem.n)):
        assert np.isfinite(value_and_gradient(problem.fun, tensor(x))[1]).all()


def test_gradient_at_a_kink_is_a_subgradient():
    rng = np.random.default_rng(1)
    for name in ("cb3", "ql", "rosen_suzuki", "mifflin2", "goffin", "l1hilb", "wolfe"):
        problem = problems[name]
        f, g = value_and_gradient(problem.fun, tensor(problem.minimiser))
        for d in rng.normal(size=(20, problem.n)):
            assert value(problem, problem.minimiser + d) >= f + np.dot(g, d) - 1e-9


def test_compiled_by_xla_in_a_loop():
    chosen = [problems[name] for name in ("helical_valley", "maxquad", "wolfe")]

    @tf.function(jit_compile=True)
    def descend(points):
        def body(i, points):
            gradients = [value_and_gradient(p.fun, x)[1] for p, x in zip(chosen, points, strict=True)]
            return i + 1, [x - 1e-6 * g for x, g in zip(points, gradients, strict=True)]

        return tf.while_loop(lambda i, _: i < 3, body, (0, points))[1]

    ends = descend([tensor(near(problem)) for problem in chosen])
    for problem, end in zip(chosen, ends, strict=True):
        x = tensor(near(problem))
        for _ in range(3):
            x = x - 1e-6 * value_and_gradient(problem.fun, x)[1]
        np.testing.assert_allclose(end, x, rtol=1e-12, atol=1e-13, err_msg=problem.name)


# --- minima ---------------------------------------------------------------------------------------------

# As printed in the sources, to the digits that they give.
PUBLISHED = {
    "jennrich_sampson": 124.362,
    "bard": 8.21487e-3,
    "gaussian": 1.12793e-8,
    "meyer": 87.9458,
    "kowalik_osborne": 3.07505e-4,
    "brown_dennis": 85822.2,
    "osborne_1": 5.46489e-5,
    "watson": 2.28767e-3,
    "penalty_1": 7.08765e-5,
    "linear_full_rank": 10,
    "cb2": 1.9522245,
    "cb3": 2,
    "dem": -3,
    "ql": 7.2,
    "lq": -1.4142136,
    "mifflin1": -1,
    "mifflin2": -1,
    "wolfe": -8,
    "rosen_suzuki": -44,
    "shor": 22.600162,
    "maxquad": -0.8414083,
}


@EVERY
def test_minimum_is_the_published_one(name):
    if name != "logistic_regression":  # ours; solved below
        np.testing.assert_allclose(problems[name].minimum, PUBLISHED.get(name, 0), rtol=5e-6, atol=0)


@pytest.mark.parametrize("name", [name for name, problem in problems.items() if problem.minimiser is not None])
def test_value_at_the_minimiser_is_the_minimum(name):
    problem = problems[name]
    np.testing.assert_allclose(value(problem, problem.minimiser), problem.minimum, rtol=1e-14, atol=1e-20)


def solve(problem, x0):
    """The sum of squares where a trust region method ends."""

    def residuals(x):
        return compiled(problem.residuals)(tensor(x)).numpy()

    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
    return 2 * optimize.least_squares(residuals, x0, **tight).cost


# From x0 these end in another minimum, as printed by Moré, Garbow and Hillstrom.
ELSEWHERE = {"freudenstein_roth": 48.9842, "trigonometric": 2.79506e-5}


@pytest.mark.parametrize("name", SUMS_OF_SQUARES)
def test_scipy_finds_the_minimum_from_the_start(name):
    problem = problems[name]
    reached = solve(problem, problem.x0)
    if name in ELSEWHERE:
        assert reached == pytest.approx(problem.other_minima[0], rel=1e-10)
        assert reached == pytest.approx(ELSEWHERE[name], rel=2e-6)
        reached = solve(problem, problem.minimiser + 0.02)
    assert reached == pytest.approx(problem.minimum, rel=1e-10, abs=1e-20)


def test_bfgs_finds_the_minimum_of_logistic_regression():
    problem = problems["logistic_regression"]

    def fun(x):
        return [part.numpy() for part in value_and_gradient(problem.fun, tensor(x))]

    result = optimize.minimize(fun, problem.x0, jac=True, method="BFGS", options={"gtol": 1e-10})
    assert result.fun == pytest.approx(problem.minimum, rel=1e-12)


def test_chained_rosenbrock_has_the_recorded_local_minimum():
    problem = problems["chained_rosenbrock"]
    assert solve(problem, [-1, *[1] * 9]) == pytest.approx(problem.other_minima[0], rel=1e-12)


def test_biggs_has_the_recorded_saddle():
    """Where x1 = x5 and x3 = x6, in the four variables that are left."""
    problem = problems["biggs_exp6"]
    result = optimize.least_squares(
        lambda z: problem.residuals(tensor([z[0], z[1], z[2], z[3], z[0], z[2]])).numpy(), np.array([1, 2, 1, 1])
    )
    assert 2 * result.cost == pytest.approx(problem.other_minima[0], rel=1e-10)
    assert 2 * result.cost == pytest.approx(5.65565e-3, rel=2e-6)


def test_bard_and_kowalik_osborne_have_the_recorded_minima_at_infinity():
    y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
    constant = 15 * np.var(y)  # x2 and x3 infinite: the best constant x1
    assert constant == pytest.approx(17.4286, rel=1e-5)
    assert problems["bard"].other_minima[0] == pytest.approx(constant, rel=1e-14)

    y, u = np.array(KOWALIK_Y), np.array(KOWALIK_U)
    # x1, x3 and x4 infinite: p1 (u^2 + u p2) / (u + p3) is left
    fit = optimize.least_squares(lambda p: y - p[0] * (u**2 + u * p[1]) / (u + p[2]), [0.01, -14, 1])
    assert 2 * fit.cost == pytest.approx(1.02734e-3, rel=5e-6)
    assert problems["kowalik_osborne"].other_minima[0] == pytest.approx(2 * fit.cost, rel=1e-8)


@pytest.mark.parametrize("name", [name for name in PIECES if name != "mxhilb"])
def test_slsqp_finds_the_minimum_of_the_largest_piece(name):
    """min t  subject to  t >= every piece, with the naive NumPy pieces: independent of the code under test."""
    problem, pieces = problems[name], PIECES[name]
    t = max(pieces(problem.x0))
    result = optimize.minimize(
        lambda z: z[-1],
        [*problem.x0, t],
        jac=lambda z: np.append(np.zeros(problem.n), 1.0),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda z: z[-1] - np.array(pieces(z[:-1]))},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert max(pieces(result.x[:-1])) == pytest.approx(problem.minimum, rel=1e-8, abs=1e-8)


def test_wolfe_is_minimal_where_subgradients_average_to_zero():
    problem = problems["wolfe"]  # convex, so that this is enough
    above, below = (value_and_gradient(problem.fun, tensor([-1, x2]))[1].numpy() for x2 in (1e-9, -1e-9))
    np.testing.assert_allclose(above + below, [0, 0], atol=1e-14)


def violates(problem, middle, half):
    """Whether f(m) > (f(m - h) + f(m + h)) / 2, which a convex f never does."""
    before, at, after = (compiled(problem.fun)(tensor(middle + i * half)).numpy() for i in (-1, 0, 1))
    return 2 * at > before + after + 1e-12 * abs(before + after)


@pytest.mark.parametrize("name", [name for name in problems if name != "discrete_boundary_value"])
def test_midpoints_confirm_convexity_or_refute_it(name):
    """On every random segment where f is called convex, and on one of 300 where it is not."""
    problem = problems[name]
    rng = np.random.default_rng(0)

    def segments(count):
        for _ in range(count):
            scale = 10 ** rng.uniform(-2, 2.5)
            middle = problem.x0 * rng.integers(2) + scale * rng.normal(size=problem.n)
            direction = rng.normal(size=problem.n) if rng.integers(2) else np.eye(problem.n)[rng.integers(problem.n)]
            yield middle, scale * rng.uniform() * direction

    if problem.convex:
        assert not any(violates(problem, *segment) for segment in segments(30))
    else:
        assert any(violates(problem, *segment) for segment in segments(300))


def test_the_discrete_boundary_value_problem_is_not_convex():
    middle = np.array([0, 0, 0, 100, 10, 100, 0, 0, 0, 0])  # random segments miss it
    assert violates(problems["discrete_boundary_value"], middle, np.eye(10)[4])


# --- the collection -------------------------------------------------------------------------------------


def test_descriptions():
    for name, problem in problems.items():
        assert problem.name == name
        assert problem.source
        assert problem.x0.dtype == np.float64
        assert problem.x0.shape == (problem.n,)


def test_a_start_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        problems["wood"].x0[0] = 0


def test_x0_is_copied():
    start = np.ones(3)
    problem = Problem("sphere", lambda x: tf.reduce_sum(x * x), start, 0.0, smooth=True, convex=True)
    start[0] = 2  # still ours to write
    np.testing.assert_array_equal(problem.x0, [1, 1, 1])


@pytest.mark.parametrize("make", [extended_rosenbrock, chained_rosenbrock])
def test_rosenbrock_of_two_variables_is_the_classical_one(make):
    x = np.array([0.3, -0.7])
    np.testing.assert_allclose(value(make(2), x), optimize.rosen(x), rtol=1e-14)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_chained_rosenbrock_is_scipys(n):
    x = np.linspace(-1, 2, n)
    np.testing.assert_allclose(value(chained_rosenbrock(n), x), optimize.rosen(x), rtol=1e-14)


def test_extended_rosenbrock_is_a_sum_over_pairs():
    x = np.linspace(-1, 2, 6)
    naive = sum(optimize.rosen(pair) for pair in x.reshape(3, 2))
    np.testing.assert_allclose(value(extended_rosenbrock(6), x), naive, rtol=1e-14)


@pytest.mark.parametrize(("make", "n"), [(extended_rosenbrock, 3), (extended_rosenbrock, 0), (chained_rosenbrock, 1)])
def test_impossible_sizes_are_refused(make, n):
    with pytest.raises(ValueError, match=f"received {n}"):
        make(n)
