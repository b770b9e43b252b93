"""Steps in a trust region against linear algebra in NumPy."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from trainloop.linesearch.trust_region import agreement, steihaug, trial

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

N = 12


def matrix(rng, low=0.1, high=10.0, negative=0):
    """Symmetric, with eigenvalues between low and high, of which some have the other sign."""
    Q = np.linalg.qr(rng.normal(size=(N, N)))[0]
    eigenvalues = np.exp(rng.uniform(np.log(low), np.log(high), N))
    eigenvalues[:negative] *= -1
    return Q @ np.diag(eigenvalues) @ Q.T


def model(B, g, p):
    """m(p)."""
    return g @ p + p @ B @ p / 2


@functools.cache
def compiled(edge=True, max_products=100, accuracy=0.5, dtype="float64"):
    """Steps for any B, g and radius, in one trace; and how often the product was really taken."""
    calls = tf.Variable(0)

    def run(B, g, radius):
        def product(v):
            calls.assign_add(1)
            return tf.linalg.matvec(B, v)

        calls.assign(0)
        step = steihaug(product, g, radius if edge else None, max_products, accuracy)
        return (*step, calls.read_value())

    function = tf.function(run, autograph=False)
    return lambda B, g, radius=1.0: [
        t.numpy() for t in function(*(tf.constant(np.asarray(a, dtype)) for a in (B, g, radius)))
    ]


def solved(B, g, radius=1.0, **options):
    """(p, whether at the edge, products) after checking what holds for every step."""
    p, predicted, at_edge, products, calls = compiled(**options)(B, g, radius)
    assert products == calls <= options.get("max_products", 100)
    scale = np.abs(g) @ np.abs(p) + np.abs(p) @ np.abs(B) @ np.abs(p)
    assert predicted == pytest.approx(-model(B, g, p), rel=1e-10, abs=1e-13 * scale)
    assert predicted >= 0
    return p, bool(at_edge), int(products)


def problems(count=8, **options):
    """(B, g) again and again."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield matrix(rng, **options), rng.normal(size=N)


@pytest.mark.parametrize(("length", "accuracy"), [(1.0, 0.5), (1.0, 1e-3), (1e-6, 0.5), (1e3, 0.1)])
def test_inside_the_region_the_linear_system_is_solved_to_the_accuracy_asked_for(length, accuracy):
    for B, g in problems():
        g = g * length / np.linalg.norm(g)
        p, at_edge, _ = solved(B, g, 1e6, accuracy=accuracy)
        assert not at_edge
        wanted = min(accuracy, np.sqrt(length)) * length
        assert np.linalg.norm(B @ p + g) <= wanted * (1 + 1e-9)
        exact = np.linalg.solve(B, -g)
        assert np.linalg.norm(p - exact) <= np.linalg.norm(np.linalg.inv(B), 2) * wanted * (1 + 1e-9)


def test_a_high_accuracy_gives_the_solution():
    rng = np.random.default_rng(0)
    B, g = matrix(rng), rng.normal(size=N)
    p, at_edge, products = solved(B, g, 1e6, accuracy=1e-12)
    assert not at_edge
    np.testing.assert_allclose(p, np.linalg.solve(B, -g), rtol=1e-9)
    assert products <= N + 3


def test_a_step_that_leaves_the_region_ends_at_its_edge():
    for B, g in problems():
        full = np.linalg.norm(np.linalg.solve(B, -g))
        for part in (1e-6, 0.1, 0.7):
            p, at_edge, _ = solved(B, g, part * full, accuracy=1e-10)
            assert at_edge
            assert np.linalg.norm(p) == pytest.approx(part * full, rel=1e-12)
            # No worse than the best point along -g, Cauchy's, which makes trust regions converge.
            t = min(g @ g / (g @ B @ g), part * full / np.linalg.norm(g))
            assert model(B, g, p) <= model(B, g, -t * g) * (1 - 1e-12)
        p, at_edge, _ = solved(B, g, 1.001 * full, accuracy=1e-10)
        assert not at_edge


@pytest.mark.parametrize("negative", [1, 2, 4])
def test_negative_curvature_is_followed_to_the_edge(negative):
    for B, g in problems(negative=negative):
        for radius in (0.1, 1, 100):
            p, at_edge, _ = solved(B, g, radius, accuracy=1e-10)
            assert at_edge
            assert np.linalg.norm(p) == pytest.approx(radius, rel=1e-12)
            assert model(B, g, p) < 0


@pytest.mark.parametrize("B", [-np.eye(N), np.zeros((N, N))], ids=["concave", "linear"])
def test_without_curvature_the_step_is_steepest_descent_to_the_edge(B):
    g = np.random.default_rng(0).normal(size=N)
    p, at_edge, products = solved(B, g, 2.5)
    np.testing.assert_allclose(p, -2.5 * g / np.linalg.norm(g), rtol=1e-12)
    assert at_edge
    assert products == 1


@pytest.mark.parametrize("max_products", [1, 2, 5])
def test_products_are_bounded(max_products):
    rng = np.random.default_rng(0)
    B, g = matrix(rng), rng.normal(size=N)
    p, at_edge, products = solved(B, g, 1e6, accuracy=1e-12, max_products=max_products)
    assert products == max_products
    assert not at_edge
    # The minimiser in the Krylov space of that dimension.
    K = np.linalg.qr(np.stack([np.linalg.matrix_power(B, k) @ g for k in range(max_products)], 1))[0]
    best = K @ np.linalg.solve(K.T @ B @ K, -K.T @ g)
    np.testing.assert_allclose(p, best, rtol=1e-9, atol=1e-12)


def test_a_region_without_an_edge_is_all_of_space():
    rng = np.random.default_rng(1)
    B, g = matrix(rng, low=1e-3), 1e3 * rng.normal(size=N)
    p, at_edge, _ = solved(B, g, edge=False, accuracy=1e-12)
    assert not at_edge
    np.testing.assert_allclose(p, np.linalg.solve(B, -g), rtol=1e-7)


def test_no_gradient_no_step():
    p, at_edge, products = solved(np.eye(N), np.zeros(N))
    np.testing.assert_array_equal(p, np.zeros(N))
    assert (at_edge, products) == (False, 0)


def test_steps_in_float32_stay_in_float32():
    rng = np.random.default_rng(2)
    B, g = matrix(rng).astype("float32"), rng.normal(size=N).astype("float32")
    p, predicted, at_edge, *_ = compiled(dtype="float32")(B, g, 0.5)
    assert p.dtype == predicted.dtype == "float32"
    assert at_edge
    assert np.linalg.norm(p) == pytest.approx(0.5, rel=1e-5)
    assert predicted == pytest.approx(-model(B, g, p), rel=1e-4)


@pytest.mark.parametrize("exponent", [-100, -70, 70, 100])
def test_the_unit_of_f_makes_no_difference_where_squares_leave_the_range_of_the_dtype(exponent):
    rng = np.random.default_rng(3)
    B, g, unit = matrix(rng, negative=1), rng.normal(size=N), 2.0**exponent
    for radius in (0.1, 10.0):
        # High accuracy, because sqrt|g| is no number without a unit.
        expected, predicted, *_ = compiled(accuracy=1e-3, dtype="float64")(B, g, radius)
        p, scaled, *_ = compiled(accuracy=1e-3, dtype="float32")(unit * B, unit * g, radius)
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-3 * radius)
        assert scaled == pytest.approx(predicted * unit, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_products_that_are_not_finite_end_the_iteration(bad):
    *_, products, calls = compiled()(np.full((N, N), bad), np.ones(N), 1.0)
    assert products == calls <= 2


# --- Agreement --------------------------------------------------------------------------------------------


def rho(predicted, f, f_trial, length=1.0, trial_length=0.5, dtype="float64"):
    def point(f, length):
        return tf.constant(f, dtype), tf.constant([length, 0], dtype)

    return agreement(tf.constant(predicted, dtype), point(f, length), point(f_trial, trial_length)).numpy()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("f", [0.0, 3.0, -3.0])
def test_agreement_is_the_actual_decrease_over_the_predicted_one(f, dtype):
    for predicted, actual in [(2.0, 1.0), (0.5, 0.5), (0.25, -1.0), (1.0, 3.0), (1.0, 0.0)]:
        ratio = rho(predicted, f, f - actual, dtype=dtype)
        assert ratio == pytest.approx(actual / predicted, rel=1e-6)
        assert ratio.dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("f", [1e6, -1e6, 1e-20])
def test_below_the_rounding_of_f_the_gradient_decides(f, dtype):
    rounding = np.finfo(dtype).eps * abs(f)
    for f_trial in (f, f - rounding, f + 2 * rounding):
        assert rho(rounding, f, f_trial, trial_length=0.999, dtype=dtype) == 1
        assert rho(rounding, f, f_trial, trial_length=1.0, dtype=dtype) == 0
        assert rho(rounding, f, f_trial, trial_length=2.0, dtype=dtype) == 0
        assert rho(0.0, f, f_trial, dtype=dtype) == 1


def test_a_change_that_rounding_does_not_explain_is_seen_whatever_was_predicted():
    eps = np.finfo("float64").eps
    assert rho(eps, 1.0, 1.0 + 1000 * eps, trial_length=0.1) < -1
    assert rho(eps, 1.0, 1.0 - 1000 * eps, trial_length=2.0) > 1
    assert rho(0.0, 1.0, 2.0) < 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_trial_that_is_not_finite_is_as_bad_as_can_be(bad):
    assert rho(1.0, 1.0, bad) == -np.inf
    assert rho(0.0, 1.0, bad) == -np.inf
    assert rho(1.0, 1.0, 0.5, trial_length=bad) == -np.inf


# --- A trial ----------------------------------------------------------------------------------------------


def tried(f_trial, g_trial=(0.1, 0.0, 0.0), radius=1.0, g=(3.0, 0.0, 0.0), x=(1.0, 2.0, 3.0), curvature=1.0):
    """A trial with B = curvature I from a point with f = 10, and how often f was evaluated, where."""
    points = []

    class Given:
        def value_and_grad(self, point):
            points.append(point.numpy())
            return tf.constant(f_trial, tf.float64), tf.constant(g_trial, tf.float64)

    x, g, f, radius = (tf.constant(value, tf.float64) for value in (x, g, 10.0, radius))
    return trial(Given(), x, f, g, lambda v: curvature * v, radius, 1.6, 100), points


# m falls by 3 - 1/2 on the way to the edge at p = (-1, 0, 0), and by 9/8 to the minimum of the model at (-3/4, 0, 0).
@pytest.mark.parametrize(
    ("f_trial", "curvature", "taken", "radius"),
    [
        (10 - 2.5 * 0.8, 1.0, True, 1.6),  # would be 2
        (10 - 2.5 * 0.7, 1.0, True, 1.0),
        (10 - 2.5 * 0.26, 1.0, True, 1.0),
        (10 - 2.5 * 0.24, 1.0, True, 0.25),
        (10 - 2.5 * 2e-4, 1.0, True, 0.25),
        (10 - 2.5 * 5e-5, 1.0, False, 0.25),
        (11.0, 1.0, False, 0.25),
        (np.nan, 1.0, False, 0.25),
        (np.inf, 1.0, False, 0.25),
        (10 - 9 / 8, 4.0, True, 1.0),  # as promised, but not at the edge
        (10.0, 4.0, False, 0.1875),  # a quarter of the step, not of the region
    ],
)
def test_a_trial_is_taken_and_the_region_grows_or_shrinks_as_the_model_was_right(f_trial, curvature, taken, radius):
    found, points = tried(f_trial, curvature=curvature)
    p = [-1.0 if curvature == 1 else -0.75, 0, 0]
    np.testing.assert_allclose(points, [np.add([1, 2, 3], p)], rtol=1e-15)
    assert bool(found.taken) == taken
    assert float(found.radius) == pytest.approx(radius, rel=1e-12)
    np.testing.assert_allclose(found.p, p, rtol=1e-15)
    np.testing.assert_allclose(found.y, [-2.9, 0, 0], rtol=1e-15)
    expected = (points[0], f_trial, [0.1, 0, 0]) if taken else ([1, 2, 3], 10, [3, 0, 0])
    for value, wanted in zip((found.x, found.f, found.g), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert int(found.products) == 1
    assert not found.stalled


def test_a_trial_without_a_gradient_is_refused_and_its_y_is_not_finite():
    found, _ = tried(5.0, (np.nan, 0.0, 0.0))
    assert not found.taken
    assert float(found.rho) == -np.inf
    assert not np.all(np.isfinite(found.y))
    assert np.all(np.isfinite(found.x))
    assert float(found.radius) == 0.25


@pytest.mark.parametrize(("scale", "parts", "stalled"), [(1e-3, 0.9, True), (1.0, 1.1, False), (1e3, 900.0, True)])
def test_a_refused_step_of_the_size_of_rounding_stalls(scale, parts, stalled):
    """Rounding is eps max(|x|, 1)."""
    x = np.array([scale, 0.0, 0.0])
    found, _ = tried(11.0, radius=parts * np.finfo(float).eps, x=x)
    assert bool(found.stalled) == stalled
    assert not tried(9.0, radius=parts * np.finfo(float).eps, x=x)[0].stalled  # it is taken


def test_where_the_gradient_is_zero_nothing_stalls_and_the_region_stays():
    found, _ = tried(10.0, g=(0.0, 0.0, 0.0))
    assert not found.stalled
    assert not found.taken
    assert float(found.radius) == 1


def test_a_step_that_is_not_finite_stalls_and_leaves_the_region():
    found, _ = tried(np.nan, curvature=np.nan, g=(1e300, 1e300, 0.0), radius=np.inf)
    assert not found.taken
    assert found.stalled
    assert float(found.radius) == np.inf


@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
def test_only_minus_infinity_is_unbounded_and_it_is_not_taken(bad):
    found, _ = tried(bad)
    assert bool(found.unbounded) == (bad == -np.inf)
    assert not found.taken
    np.testing.assert_array_equal(found.x, [1, 2, 3])
    assert float(found.f) == 10
