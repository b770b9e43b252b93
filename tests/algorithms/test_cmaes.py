"""CMA-ES against the numbered equations in naive NumPy, against the counts of pycma, and where f is no number."""

import functools
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from networks import blobs, crossentropy, dense_net

from trainloop import ArrayData, FunctionObjective, Status, TrainLoop, minimize
from trainloop.algorithms.cmaes import CMAES
from trainloop.testing import check_optimizer

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

FORMS = ["full", "separable"]


def run(optimizer, f, v):
    """A compiled function of k: k generations on the variable v; what they logged, arrays [k] by name."""
    optimizer.build([v])
    names, zero = sorted(optimizer.log_dtypes()), (tf.zeros([], v.dtype), tf.zeros(v.shape, v.dtype))
    objective = FunctionObjective(f)

    @functools.partial(tf.function, autograph=False, input_signature=[tf.TensorSpec([], tf.int32)])
    def generations(k):
        def one(i, rows):
            result = optimizer.step(objective, zero)
            logs = {**result.logs, "status": result.status}
            return i + 1, rows.write(i, tf.stack([tf.cast(logs[name], tf.float64) for name in names]))

        return tf.while_loop(lambda i, _: i < k, one, (tf.constant(0), tf.TensorArray(tf.float64, k)))[1].stack()

    return lambda k: dict(zip(names, generations(tf.constant(k)).numpy().T, strict=True))


def first_end(statuses):
    return next((Status(int(status)) for status in statuses if status != Status.RUNNING), Status.RUNNING)


def covariance(optimizer):
    C = optimizer.state["C"]
    return np.diag(C) if isinstance(C, tf.Tensor) else C.to_dense().numpy()


# --- The equations ----------------------------------------------------------------------------------------


def valley(x):
    """Rosenbrock's function with valleys that differ, for TensorFlow and for NumPy."""
    r = 10 * (x[1:] - x[:-1] ** 2)
    return r @ r + (1 - x) @ (1 - x) if isinstance(x, np.ndarray) else tf.reduce_sum(r**2) + tf.reduce_sum((1 - x) ** 2)


def parameters(n, population, separable):
    """Table 1: w, mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu."""
    w_raw = np.array([math.log((population + 1) / 2) - math.log(i) for i in range(1, population + 1)])  # 49
    plus, minus = w_raw[w_raw >= 0], w_raw[w_raw < 0]
    mu_eff, mu_eff_minus = plus.sum() ** 2 / (plus**2).sum(), minus.sum() ** 2 / (minus**2).sum()
    faster = (n + 2) / 3 if separable else 1.0  # Ros and Hansen (2008)
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)  # 55
    d_sigma = 1 + 2 * max(0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # 56
    c_1 = faster * 2 / ((n + 1.3) ** 2 + mu_eff)  # 57
    c_mu = min(1 - c_1, faster * 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + 2 * mu_eff / 2))  # 58
    alphas = (1 + c_1 / c_mu, 1 + 2 * mu_eff_minus / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))  # 50 to 52
    w = np.where(w_raw >= 0, w_raw / plus.sum(), min(alphas) * w_raw / np.abs(minus).sum())  # 53
    return w, mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu


def reference(f, m, sigma, population, seed, separable, generations):
    """(m, sigma, C) after each generation and its h, one equation a line."""
    n = len(m)
    w, mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu = parameters(n, population, separable)
    length = scipy.stats.chi(n).mean()  # E|N(0, I)|
    p_sigma, p_c, C, found = np.zeros(n), np.zeros(n), np.eye(n), []
    for g in range(generations):
        if g % max(1, math.floor(1 / (10 * n * (c_1 + c_mu)))) == 0:
            squares, B = np.linalg.eigh(C)
            root, inverse_root = (B @ np.diag(squares**power) @ B.T for power in (0.5, -0.5))
        z = tf.random.stateless_normal([population, n], [seed, g], dtype="float64").numpy()
        y = [root @ z_k for z_k in z]  # 39
        y = sorted(y, key=lambda y_k: f(m + sigma * y_k))  # 40
        step = sum(w_i * y_i for w_i, y_i in zip(w, y, strict=True) if w_i > 0)  # 41
        m = m + sigma * step  # 42
        p_sigma = (1 - c_sigma) * p_sigma + math.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * inverse_root @ step  # 43
        norm = np.linalg.norm(p_sigma)
        h = norm / math.sqrt(1 - (1 - c_sigma) ** (2 * (g + 1))) < (1.4 + 2 / (n + 1)) * length
        sigma = sigma * math.exp(c_sigma / d_sigma * (norm / length - 1))  # 44
        p_c = (1 - c_c) * p_c + h * math.sqrt(c_c * (2 - c_c) * mu_eff) * step  # 45
        v = [
            w_i * (1 if w_i >= 0 else n / np.linalg.norm(inverse_root @ y_i) ** 2)
            for w_i, y_i in zip(w, y, strict=True)
        ]  # 46
        delta = (1 - h) * c_c * (2 - c_c)
        rank_mu = sum(v_i * np.outer(y_i, y_i) for v_i, y_i in zip(v, y, strict=True))
        C = (1 + c_1 * delta - c_1 - c_mu * w.sum()) * C + c_1 * np.outer(p_c, p_c) + c_mu * rank_mu  # 47
        C = np.diag(np.diag(C)) if separable else C
        found.append((m, sigma, C, h))
    return found


@pytest.mark.parametrize(
    ("form", "n", "population", "sigma"),
    [
        ("full", 7, None, 1e-3),  # so short that h becomes 0
        ("separable", 30, None, 1e-3),
        ("full", 2, None, 0.5),
        ("full", 7, None, 0.5),
        ("full", 7, 40, 0.5),
        ("full", 100, 4, 0.1),  # the root is renewed in every third generation
        ("separable", 7, None, 0.5),
    ],
)
@pytest.mark.thorough_after(2)
def test_ten_generations_are_those_of_the_equations(form, n, population, sigma):
    x0 = np.linspace(-1, 0.5, n)
    optimizer, v = CMAES(sigma, population=population, covariance=form, seed=3), tf.Variable(x0)
    generations = run(optimizer, valley, v)
    size = population or 4 + math.floor(3 * math.log(n))
    expected = reference(valley, x0, sigma, size, 3, form == "separable", 10)
    for m, step_size, C, _ in expected:
        best = generations(1)["best_f"][0]
        np.testing.assert_allclose(v.numpy(), m, rtol=1e-9)
        np.testing.assert_allclose(float(optimizer.state["sigma"]), step_size, rtol=1e-9)
        np.testing.assert_allclose(covariance(optimizer), C, rtol=0, atol=1e-9 * np.abs(C).max())
        assert math.isfinite(best)
    assert np.abs(expected[-1][2] - np.eye(n)).max() > 1e-3


def test_both_values_of_h_occur_in_the_test_above():
    trail = reference(valley, np.linspace(-1, 0.5, 7), 1e-3, 9, 3, False, 10)
    assert {bool(h) for *_, h in trail} == {True, False}


# --- Invariance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.thorough_after(1)
def test_an_increasing_transformation_of_f_changes_no_bit(form):
    trails = []
    for f in (valley, lambda x: tf.math.log(valley(x)), lambda x: -1 / valley(x)):
        optimizer, v = CMAES(0.5, covariance=form), tf.Variable(np.linspace(-1, 0.5, 6))
        logged = run(optimizer, f, v)(40)
        trails.append([v.numpy(), covariance(optimizer), logged["sigma"], logged["axis_ratio"]])
    for other in trails[1:]:
        for first, second in zip(trails[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.thorough_after(1)
def test_a_translation_translates_the_trail(form):
    offset, ends = np.arange(1.0, 7.0), []
    for shift in (np.zeros(6), offset):
        v = tf.Variable(np.linspace(-1, 0.5, 6) + shift)
        run(CMAES(0.5, covariance=form), lambda x, shift=shift: valley(x - shift), v)(40)
        ends.append(v.numpy() - shift)
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.thorough_after(1)
def test_only_the_product_of_step_size_and_covariance_counts(form):
    """A covariance outside of the range that numbers are kept in goes on as its double inside of it."""
    optimizer, v = CMAES(0.5, covariance=form), tf.Variable(np.linspace(-1, 0.5, 6))
    generations, saved, ends = run(optimizer, valley, v), {}, []
    generations(5)
    optimizer.save_own_variables(saved)
    saved, x = {name: np.array(value) for name, value in saved.items()}, v.numpy()
    (C,) = (name for name in saved if name.startswith("state.C"))
    for unit in (1.0, 2.0**12, 2.0**-12):
        v.assign(x)
        factors = {"state.sigma": 1 / unit, "state.p_c": unit, C: unit**2}
        optimizer.load_own_variables({name: value * factors.get(name, 1) for name, value in saved.items()})
        generations(20)
        ends.append((v.numpy(), float(optimizer.state["sigma"]) ** 2 * covariance(optimizer)))
        assert 1e-3 < covariance(optimizer).max() < 1e3
    for end, product in ends[1:]:
        np.testing.assert_allclose(end, ends[0][0], rtol=1e-9)
        np.testing.assert_allclose(product, ends[0][1], rtol=0, atol=1e-9 * product.max())


# --- Minima -----------------------------------------------------------------------------------------------

SCALES = 1e6 ** np.linspace(0, 1, 10)
ROTATION = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 10)))[0]

# f, start, first sigma, and the median of evaluations that pycma 4.5.0 takes to 1e-8 with its defaults (15 seeds).
MINIMA = {
    "sphere": (lambda x: tf.reduce_sum(x**2), np.ones(10), 1.0, 1370),
    "ellipsoid": (lambda x: tf.reduce_sum(SCALES * x**2), np.ones(10), 1.0, 4020),
    "rotated ellipsoid": (
        lambda x: tf.reduce_sum(SCALES * tf.linalg.matvec(ROTATION, x) ** 2),
        np.ones(10),
        1.0,
        3900,
    ),
    "rosenbrock": (
        lambda x: tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
        np.zeros(5),
        0.5,
        1584,
    ),
}


@pytest.mark.parametrize(("f", "x0", "sigma", "usual"), MINIMA.values(), ids=MINIMA.keys())
@pytest.mark.thorough_after(1)
def test_minima_are_found_in_as_many_evaluations_as_pycma_takes(f, x0, sigma, usual):
    result = minimize(f, x0, CMAES(sigma), f_target=1e-8, max_steps=2000)
    assert result.status == Status.TARGET_REACHED
    population = 4 + math.floor(3 * math.log(len(x0)))
    assert result.evaluations["f"] == 1 + result.steps * (population + 1)  # minimize looks at the mean, too
    assert result.evaluations["f"] <= 1.5 * usual


@pytest.mark.thorough
def test_the_separable_form_is_done_before_the_full_one_has_learned_anything():
    """C changes by a factor of e in about 1 / (c_1 + c_mu) generations: that is what these rates mean."""
    n = 300
    scales = 1e3 ** np.linspace(0, 1, n)
    target, method = 1e-5 * float(scales.sum()), CMAES(1.0, covariance="separable")
    result = minimize(lambda x: tf.reduce_sum(scales * x**2), np.ones(n), method, f_target=target, max_steps=10_000)
    assert result.status == Status.TARGET_REACHED
    *_, c_1, c_mu = parameters(n, 21, separable=False)
    assert result.evaluations["f"] < 25 / (c_1 + c_mu) / 4
    assert result.history["axis_ratio"][-1] > 10


def test_auto_is_full_up_to_500():
    shapes = {n: CMAES().memory_plan(n, "float32").entries[0].shape for n in (500, 501)}
    assert shapes == {500: (500, 500), 501: (501,)}


@pytest.mark.thorough
def test_a_network_learns(float32):
    x, y = blobs()
    result = TrainLoop(dense_net(), CMAES(0.1), crossentropy()).run(ArrayData(x, y, None), epochs=100)
    assert result.history["loss"][-1] < 0.1 * result.history["loss"][0]
    population = 4 + math.floor(3 * math.log(dense_net().count_params()))
    assert result.evaluations["f"] == 100 * (population + 1)


def test_f_is_traced_once():
    traces = []

    def f(x):
        traces.append(x)
        return tf.reduce_sum(x**2)

    run(CMAES(population=50), f, tf.Variable(np.ones(3)))(2)
    assert len(traces) == 1


@pytest.mark.thorough
def test_the_seed_decides():
    ends = []
    for seed in (1, 1, 2):
        v = tf.Variable(np.ones(4))
        run(CMAES(seed=seed), valley, v)(5)
        ends.append(v.numpy())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


# --- Where f is no number ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("population", [None, 300])
@pytest.mark.thorough_after(1)
def test_half_of_space_without_values_is_a_wall(form, population):
    """The minimiser -1 lies behind it, so the best point is on it; m stays on the side where f is."""

    def f(x):
        return tf.where(x[0] < 0, tf.constant(math.nan, x.dtype), (x[0] + 1) ** 2 + tf.reduce_sum(x[1:] ** 2))

    result = minimize(f, np.array([2.0, 1.0, -1.0]), CMAES(0.5, population, form), f_target=1 + 1e-6)
    assert result.status == Status.TARGET_REACHED
    assert np.all(np.isfinite(result.history["f"]))


@pytest.mark.parametrize(("nothing", "population"), [(math.nan, None), (math.inf, 300)])
@pytest.mark.thorough_after(1)
def test_a_generation_without_a_value_halves_sigma_and_keeps_the_rest(nothing, population):
    def f(x):
        return tf.where(tf.reduce_sum(x**2) < 1e-6, tf.reduce_sum(x**2), tf.constant(nothing, x.dtype))

    optimizer, v = CMAES(64.0, population), tf.Variable(np.full(4, 1e-4))
    generations = run(optimizer, f, v)
    logged = generations(1)
    assert (logged["sigma"][0], logged["best_f"][0]) == (32, math.inf)
    np.testing.assert_array_equal(v, np.full(4, 1e-4))
    np.testing.assert_array_equal(covariance(optimizer), np.eye(4))
    assert generations(200)["best_f"][-1] < 1e-12


def test_a_step_size_that_overflows_comes_back(float32):
    optimizer, v, saved = CMAES(), tf.Variable(tf.ones([3])), {}
    generations = run(optimizer, lambda x: tf.reduce_sum(x**2), v)
    optimizer.save_own_variables(saved)
    optimizer.load_own_variables({**saved, "state.p_sigma": np.full(3, 1e4, "float32")})
    logged = generations(400)
    assert 1e18 < logged["sigma"].max() < 1e20
    assert logged["best_f"][-1] < 1


def test_without_any_value_the_run_stalls_where_it_began():
    x0 = np.array([1.0, 2.0])
    alone = lambda x: tf.where(tf.reduce_all(tf.equal(x, x0)), tf.ones([], x.dtype), math.nan)  # noqa: E731
    v = tf.Variable(x0)
    logged = run(CMAES(), alone, v)(70)
    assert first_end(logged["status"]) == Status.STALLED
    np.testing.assert_array_equal(v, x0)


# --- The end, and long beyond it --------------------------------------------------------------------------


@pytest.mark.thorough
def test_it_converges_to_the_resolution_of_the_dtype():
    """Steep and flat directions together: the shortest axis is the first that the dtype cannot resolve."""

    def f(x):
        return tf.reduce_sum(SCALES**2 * tf.linalg.matvec(ROTATION, x - 1) ** 2)

    result = minimize(f, np.zeros(10), CMAES(1.0), max_steps=2000)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.x, 1, rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.thorough_after(1)
def test_one_coordinate_beyond_the_dtype_is_enough(form):
    """The other one could go on to 1e-160, and f would not be any smaller where it matters."""
    far = tf.constant([2.0**20, 0.0], "float64")
    result = minimize(lambda x: tf.reduce_sum((x - far) ** 2), far.numpy() + 1, CMAES(covariance=form), max_steps=2000)
    assert result.status == Status.CONVERGED
    assert 1e-20 < abs(result.x[1]) < 1e-8


def test_a_condition_beyond_the_dtype_stalls_with_the_axis_ratio_at_its_limit(float32):
    scales = tf.constant([1.0, 1e10])
    result = minimize(lambda x: tf.reduce_sum(scales * (x - 1) ** 2), np.zeros(2, "float32"), CMAES())
    assert result.status == Status.STALLED
    assert result.history["axis_ratio"].max() == pytest.approx(430, rel=0.01)


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "n"), [("full", 3), ("separable", 3)])
def test_ten_thousand_float32_generations_stay_finite(form, n, float32):
    """Far beyond the end of a run: at a minimum, where f is flat, and where it falls without bound."""
    kind = tf.Variable(0)

    def f(x):
        return tf.gather([tf.reduce_sum((x - 1) ** 2), tf.zeros([]), x[0]], kind)

    optimizer, v = CMAES(0.5, covariance=form), tf.Variable(tf.zeros([n]))
    generations = run(optimizer, f, v)
    first = {}
    optimizer.save_own_variables(first)
    first = {name: np.array(value) for name, value in first.items()}
    ends = {}
    for i, (name, k) in enumerate({"minimum": 10_000, "flat": 3000, "falling": 3000}.items()):
        kind.assign(i)
        v.assign(tf.zeros([n]))
        optimizer.load_own_variables(first)
        logged = generations(k)
        assert all(np.all(np.isfinite(logged[key])) for key in ("sigma", "axis_ratio"))
        assert logged["status"].min() >= 0
        assert np.all(np.isfinite(v.numpy()))
        ends[name] = first_end(logged["status"])
    assert ends["minimum"] in (Status.CONVERGED, Status.STALLED)
    assert ends["flat"] == Status.STALLED


def test_the_covariance_stays_symmetric_and_positive_definite_in_float32(float32):
    scales = tf.constant(np.geomspace(1, 1e4, 6), "float32")
    turn = tf.constant(ROTATION[:6, :6], "float32")
    optimizer, v = CMAES(), tf.Variable(tf.zeros([6]))
    generations = run(optimizer, lambda x: tf.reduce_sum(scales * tf.linalg.matvec(turn, x - 1) ** 2), v)
    for _ in range(40):
        generations(20)
        C = covariance(optimizer).astype("float64")
        np.testing.assert_allclose(C, C.T, rtol=0, atol=1e-6 * np.abs(C).max())
        squares = np.linalg.eigvalsh(C)
        assert squares[0] > 1e-6 * squares[-1]


# --- Constructor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"sigma": 0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"population": 1}, "population"),
        ({"population": 8.0}, "population"),
        ({"covariance": "diagonal"}, "covariance"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=f"{name} must be .* received"):
        CMAES(**arguments)


def test_config_makes_the_same_method_again():
    optimizer = CMAES(0.7, population=12, covariance="separable", seed=5)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == {
        "name": "cmaes",
        "sigma": 0.7,
        "population": 12,
        "covariance": "separable",
        "seed": 5,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.thorough_after(1)
def test_it_keeps_all_promises(form):
    check_optimizer(lambda: CMAES(covariance=form))
