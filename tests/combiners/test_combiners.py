"""Combiners against SciPy's solvers, brute force and the numbered equations in NumPy."""

import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from trainloop import combiners, testing

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

KINDS = ("generic", "conflicting", "parallel", "opposite", "zero", "tiny", "scales")


@functools.cache
def matrices(count=10):
    """[(kind, G [k, n])]: few shapes, so few traces."""
    rng, found = np.random.default_rng(0), []
    for k, n in ((2, 4), (3, 2), (4, 7), (5, 5)):
        for kind in KINDS:
            for _ in range(count):
                G = rng.normal(size=(k, n))
                if kind == "conflicting":
                    G -= 1.5 * G.mean(0)
                elif kind in ("parallel", "opposite"):
                    G[1] = rng.uniform(0.1, 10) * (G[0] if kind == "parallel" else -G[0])
                elif kind in ("zero", "tiny"):
                    G[rng.integers(k)] *= 0 if kind == "zero" else 1e-12
                elif kind == "scales":
                    G *= 10.0 ** rng.uniform(-3, 3, size=(k, 1))
                found.append((kind, G))
    return found


@functools.cache
def compiled(combiner):
    return tf.function(combiner.combine, autograph=False, reduce_retracing=False)


def combined(combiner, G, state=None):
    G = tf.constant(G)
    state = combiner.init_state() if state is None else state
    return compiled(combiner)(tf.ones([G.shape[0]], G.dtype), G, state)[0].numpy()


def longest(G):
    return np.max(np.linalg.norm(G, axis=1))


def units(G):
    lengths = np.linalg.norm(G, axis=1, keepdims=True)
    return np.where(lengths > 0, G / np.where(lengths > 0, lengths, 1), 0)


def test_upgrad_is_the_mean_of_projections_found_by_nonnegative_least_squares():
    """P_K(g_i) = g_i + U'u with the u >= 0 for which that is shortest."""
    combiner = combiners.UPGrad()
    for kind, G in matrices():
        U = units(G)
        projected = []
        for g in G:
            scale = np.linalg.norm(g) or 1.0
            projected.append(g + scale * U.T @ scipy.optimize.nnls(-U.T, g / scale)[0])
        expected = np.mean(projected, axis=0)
        np.testing.assert_allclose(combined(combiner, G), expected, rtol=0, atol=1e-8 * longest(G), err_msg=kind)


def test_along_upgrad_no_loss_rises():
    combiner = combiners.UPGrad()
    for kind, G in matrices():
        rates = units(G) @ combined(combiner, G)
        assert np.min(rates) >= -1e-8 * longest(G), kind


def test_without_conflict_upgrad_is_the_mean():
    G = np.abs(np.random.default_rng(1).normal(size=(4, 6)))
    np.testing.assert_allclose(combined(combiners.UPGrad(), G), G.mean(0), rtol=1e-13)


def test_mgda_is_the_shortest_vector_of_the_convex_hull():
    """Its w is a multiple of the nonnegative least squares solution of [G'; 1] w = [0; 1]."""
    combiner = combiners.MGDA()
    for kind, G in matrices():
        if kind in ("tiny", "scales"):
            continue
        A, b = np.vstack([G.T, np.ones(len(G))]), np.append(np.zeros(G.shape[1]), 1.0)
        w = scipy.optimize.nnls(A, b)[0]
        expected = G.T @ w / np.sum(w)
        np.testing.assert_allclose(combined(combiner, G), expected, rtol=0, atol=1e-7 * longest(G), err_msg=kind)


def test_all_losses_fall_along_mgda_at_least_at_the_rate_of_its_square():
    combiner = combiners.MGDA()
    for kind, G in matrices():
        g = combined(combiner, G)
        assert np.min(G @ g - g @ g) >= -1e-8 * longest(G) ** 2, kind
        assert np.linalg.norm(g) <= (1 + 1e-8) * np.min(np.linalg.norm(G, axis=1)) + 1e-14 * longest(G), kind


def naive_pcgrad(G, order):
    total = np.zeros(G.shape[1])
    for i in range(len(G)):
        h = G[i].copy()
        for j in order[i]:
            if j != i and h @ G[j] < 0:
                h -= h @ G[j] / (G[j] @ G[j]) * G[j]
        total += h
    return total


def test_pcgrad_does_what_its_algorithm_says_in_the_order_that_is_drawn():
    combiner = combiners.PCGrad(seed=3)
    for kind, G in matrices():
        k, state = len(G), combiner.init_state()
        order = np.argsort(tf.random.stateless_uniform([k, k], state["seed_and_step"]).numpy(), axis=1)
        np.testing.assert_allclose(
            combined(combiner, G), naive_pcgrad(G, order), rtol=0, atol=1e-12 * longest(G), err_msg=kind
        )


def test_pcgrad_draws_another_order_at_every_step_and_the_same_for_a_seed():
    G = np.random.default_rng(2).normal(size=(5, 4)) - 1.0 * np.eye(5, 4)
    l = tf.ones([5], tf.float64)  # noqa: E741

    def course(seed):
        combiner, found = combiners.PCGrad(seed), []
        state = combiner.init_state()
        for _ in range(6):
            g, state = combiner.combine(l, tf.constant(G), state)
            found.append(g.numpy())
        return np.array(found)

    np.testing.assert_array_equal(course(1), course(1))
    assert len(np.unique(course(1).round(9), axis=0)) > 1
    assert not np.array_equal(course(1), course(2))


def worst_rate(d, G):
    return np.min(G @ d)


def test_cagrad_maximises_the_slowest_fall_inside_of_the_ball():
    """Its dual bounds it from above: F(w) = g_w'g_0 + c |g_0| |g_w| >= min_i g_i'd for all w of the simplex."""
    combiner, c = combiners.CAGrad(0.5), 0.5
    for kind, G in matrices(2):
        d, mean = combined(combiner, G), G.mean(0)
        radius = c * np.linalg.norm(mean)
        assert np.linalg.norm(d - mean) <= radius * (1 + 1e-7) + 1e-12 * longest(G), kind

        def F(w, G=G, mean=mean, radius=radius):
            g_w = w @ G
            return (g_w @ mean + radius * np.linalg.norm(g_w)) / longest(G) ** 2

        k = len(G)
        simplex = {"type": "eq", "fun": lambda w: np.sum(w) - 1}
        starts = [np.full(k, 1 / k), *np.eye(k)]
        exactly = {"method": "SLSQP", "bounds": [(0, 1)] * k, "constraints": simplex, "options": {"ftol": 1e-14}}
        found = [scipy.optimize.minimize(F, w, **exactly) for w in starts]
        bound = min(one.fun for one in found if abs(np.sum(one.x) - 1) < 1e-9)
        assert worst_rate(d, G) / longest(G) ** 2 >= bound - 1e-7, kind


def test_cagrad_of_two_orthogonal_gradients_in_closed_form():
    """By symmetry w = (1/2, 1/2), g_w = g_0, and d = (1 + c) g_0; for c = 0 it is the mean."""
    G = np.eye(2)
    np.testing.assert_allclose(combined(combiners.CAGrad(0.3), G), [0.65, 0.65], rtol=1e-12)
    np.testing.assert_allclose(combined(combiners.CAGrad(0.0), np.array([[1.0, 0], [-3, 1]])), [-1, 0.5], rtol=1e-12)


def test_config_is_the_pseudo_inverse_of_unit_rows_applied_to_ones():
    combiner = combiners.ConFIG()
    for kind, G in matrices():
        direction = np.linalg.pinv(units(G), rcond=1e-9) @ np.ones(len(G))
        length = np.linalg.norm(direction)
        direction = direction / length if length > 1e-8 else 0 * direction
        expected = np.sum(G @ direction) * direction
        np.testing.assert_allclose(combined(combiner, G), expected, rtol=0, atol=1e-9 * longest(G), err_msg=kind)


def test_config_has_equal_cosines_to_all():
    G = np.random.default_rng(4).normal(size=(4, 9)) * [[1e-6], [1.0], [1e3], [1.0]]
    rates = units(G) @ combined(combiners.ConFIG(), G)
    np.testing.assert_allclose(rates, rates[0], rtol=1e-9)
    assert rates[0] > 0


def test_the_sum_is_the_sum():
    G = np.random.default_rng(4).normal(size=(4, 9))
    np.testing.assert_allclose(combined(combiners.Sum(), G), G.sum(0), rtol=1e-13)


def test_cosines():
    G = np.random.default_rng(4).normal(size=(3, 9)) * [[1e-200], [1.0], [1e200]]
    U = units(G * [[1e200], [1.0], [1e-200]])
    np.testing.assert_allclose(combiners.cosines(tf.constant(G)), U @ U.T, rtol=1e-13)
    np.testing.assert_array_equal(combiners.cosines(tf.zeros([2, 3])), np.zeros([2, 2]))


@pytest.mark.parametrize("name", combiners.NAMES)
@pytest.mark.thorough_after(2)
def test_it_keeps_what_every_combiner_promises(name):
    testing.check_combiner(getattr(combiners, name)())


@pytest.mark.parametrize("name", combiners.NAMES)
def test_float32_gradients_of_any_size(name):
    """In float32 squares of these gradients are no numbers."""
    combiner, G = getattr(combiners, name)(), np.array([[1.0, 2.0, 0.5], [-1.0, 1.0, 1.0]])
    expected = combined(combiner, G)
    for scale in (1e-30, 1.0, 1e30):
        g = combined(combiner, (scale * G).astype("float32"))
        assert g.dtype == np.float32
        np.testing.assert_allclose(g / scale, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["UPGrad", "MGDA", "CAGrad"])
def test_ten_terms(name):
    combiner, rng = getattr(combiners, name)(), np.random.default_rng(6)
    for _ in range(20):
        G = rng.normal(size=(10, 30)) - 0.5
        rates = units(G) @ combined(combiner, G)
        assert np.min(rates) >= -1e-9 or name == "CAGrad"
        assert np.all(np.isfinite(rates))


def test_too_many_terms_are_rejected():
    with pytest.raises(ValueError, match="at most 12 terms can be combined this way, received 13"):
        combiners.UPGrad().combine(tf.ones([13]), tf.ones([13, 2]), {})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: combiners.CAGrad(1.0), "c must be a finite number at least 0 and below 1, received 1.0"),
        (lambda: combiners.PCGrad(0.5), "seed must be an integer, received 0.5"),
    ],
)
def test_bad_arguments(make, said):
    with pytest.raises(ValueError, match=said):
        make()


class Broken(combiners.Combiner):
    """Breaks one promise after the other."""

    def __init__(self, fault="none"):
        self.fault = fault
        self.calls = 0

    def init_state(self):
        return {"count": tf.zeros([], tf.int32)}

    def combine(self, losses, gradients, state):
        self.calls += 1
        mean = tf.reduce_mean(gradients, 0)
        g = {
            "dtype": lambda: tf.cast(mean, tf.float16),
            "purity": lambda: mean * self.calls,
            "finite": lambda: mean / tf.norm(gradients[-1]),
            "agreement": lambda: -mean,
            "shape": lambda: gradients,
        }.get(self.fault, lambda: mean)()
        return g, {"other": state["count"]} if self.fault == "state" else state

    def get_config(self):
        return {} if self.fault == "config" else {"fault": self.fault}


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        ("dtype", "shapes"),
        ("shape", "shapes"),
        ("state", "shapes"),
        ("purity", "purity"),
        ("finite", "finite"),
        ("agreement", "agreement"),
        ("config", "config"),
    ],
)
def test_a_broken_promise_is_named(fault, promise):
    with pytest.raises(testing.ConformanceError, match=f"^{promise}: "):
        testing.check_combiner(Broken(fault))


def test_a_combiner_that_breaks_none_passes():
    testing.check_combiner(Broken())
    with pytest.raises(testing.ConformanceError, match=r"must be a trainloop\.combiners\.Combiner, received 'upgrad'"):
        testing.check_combiner("upgrad")
