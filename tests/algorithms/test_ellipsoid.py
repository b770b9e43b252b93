"""The ellipsoid method with deep cuts against a loop on the ellipsoid matrix, and its lower bound against minima."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights
from stepper import Stepper

from trainloop import ArrayData, Ellipsoid, Status, TestGD, TrainLoop, minimize
from trainloop.testing import check_optimizer, problems

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

CONVEX = {name: problem for name, problem in problems.items() if problem.convex}


def ellipsoid(here):
    """P = r^2 B B'."""
    return float(here.optimizer.state["radius"]) ** 2 * here.B @ here.B.T


def bowl(n, seed=0):
    """(|A (x - z)|_1 + |x - z|^2 + 1 in TensorFlow and, with a subgradient, in NumPy, z in the unit ball)."""
    rng = np.random.default_rng(seed)
    A, z = rng.normal(size=(3 * n, n)), rng.normal(size=n)
    z *= 0.7 / np.linalg.norm(z)

    def fun(x):
        return tf.reduce_sum(tf.abs(tf.linalg.matvec(A, x - z))) + tf.reduce_sum(tf.square(x - z)) + 1

    def value_and_grad(x):
        d = x - z
        return np.abs(A @ d).sum() + d @ d + 1, A.T @ np.sign(A @ d) + 2 * d

    return fun, value_and_grad, z


# --- The equations ----------------------------------------------------------------------------------------


def deep_cuts(value_and_grad, n, rad, steps):
    """(x, P, best f, lower bound) after each step from 0: the deep cuts of Bland, Goldfarb and Todd (1981)."""
    x, P, best, bound = np.zeros(n), rad**2 * np.eye(n), np.inf, -np.inf
    for _ in range(steps):
        f, g = value_and_grad(x)
        root = np.sqrt(g @ P @ g)
        best, bound = min(best, f), max(bound, f - root)
        a = (f - best) / root
        tau = (1 + n * a) / (n + 1)
        sigma = 2 * (1 + n * a) / ((n + 1) * (1 + a))
        delta = n**2 * (1 - a**2) / (n**2 - 1)
        b = P @ g / root
        x, P = x - tau * b, delta * (P - sigma * np.outer(b, b))
        yield x, P, best, bound


def interval(value_and_grad, rad, steps):
    """The same in one dimension, with the two ends of the interval that holds the minimiser."""
    low, high, x, best, bound = -rad, rad, 0.0, np.inf, -np.inf
    for _ in range(steps):
        f, g = value_and_grad(np.array([x]))
        best, bound = min(best, f), max(bound, f - abs(g[0]) * (high - low) / 2)
        cut = x - (f - best) / g[0]
        low, high = (low, cut) if g[0] > 0 else (cut, high)
        x = (low + high) / 2
        yield np.array([x]), np.array([[(high - low) ** 2 / 4]]), best, bound


@pytest.mark.parametrize("storage", ["dense", "factored"])
@pytest.mark.parametrize("n", [7, 1, 2])
@pytest.mark.thorough_after(1)
def test_iterates_are_the_textbooks(n, storage):
    fun, value_and_grad, _ = bowl(n)
    here = Stepper(Ellipsoid(rad=1.0, storage=storage), fun, np.zeros(n))
    steps = 6 if n == 1 else 40
    expected = list(interval(value_and_grad, 1.0, steps) if n == 1 else deep_cuts(value_and_grad, n, 1.0, steps))
    depths = 0
    for x, P, best, bound in expected:
        logs = here.step().logs
        depths += float(logs["loss"]) > best
        np.testing.assert_allclose(here.x, x, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ellipsoid(here), P, rtol=0, atol=1e-8 * np.abs(P).max())
        assert float(logs["best_f"]) == pytest.approx(best, rel=1e-10)
        assert float(logs["lower_bound"]) == pytest.approx(bound, rel=1e-9)
        assert float(logs["gap"]) == pytest.approx(best - bound, rel=1e-7)
    assert depths >= steps / 4  # of the cuts are deep ones


@pytest.mark.parametrize(("n", "storage"), [(1, "dense"), (2, "factored"), (7, "dense"), (7, "factored")])
@pytest.mark.thorough_after(1)
def test_the_minimiser_stays_inside_and_the_volume_shrinks_at_least_as_with_central_cuts(n, storage):
    fun, _, z = bowl(n, seed=n)
    here = Stepper(Ellipsoid(rad=1.0, storage=storage), fun, np.zeros(n))
    volumes = [0.0]
    for _ in range(8 if n == 1 else 60):
        here.step()
        P = ellipsoid(here)
        assert (z - here.x) @ np.linalg.solve(P, z - here.x) <= 1 + 1e-7
        volumes.append(np.linalg.slogdet(P)[1] / 2)
        assert float(here.optimizer.state["radius"]) == pytest.approx(np.exp(volumes[-1] / n), rel=1e-7)
    assert np.all(np.diff(volumes) < -1 / (2 * (n + 1)))


def test_cuts_through_the_centre_are_those_of_the_other_ellipsoid_method():
    """On a linear function every point is the best so far."""
    c = np.random.default_rng(0).normal(size=5)
    ours, other = (Stepper(make, lambda x: tf.tensordot(x, tf.constant(c), 1), np.zeros(5)) for make in (
        Ellipsoid(rad=2.0), TestGD(rad=2.0)
    ))  # fmt: skip
    for _ in range(10):
        ours.step(), other.step()
        np.testing.assert_allclose(ours.x, other.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rad", "first"), [(None, 0.05), (2.0, 2.0 / 8)])
@pytest.mark.thorough_after(1)
def test_the_first_step_has_the_promised_length(rad, first):
    here = Stepper(Ellipsoid(rad=rad), bowl(7)[0], np.zeros(7))
    here.step()
    assert np.linalg.norm(here.x) == pytest.approx(first, rel=1e-12)


def test_the_unit_of_f_does_not_matter():
    fun, _, _ = bowl(3)
    unit, xs = tf.Variable(1.0, dtype=tf.float64), []
    for value in (1.0, 1e-150, 1e150):
        unit.assign(value)
        xs.append(Stepper(Ellipsoid(rad=1.0), lambda x: unit * fun(x), np.zeros(3)).run(15)["x"])
    np.testing.assert_allclose(xs[1:], [xs[0], xs[0]], rtol=0, atol=1e-10)


# --- The certificate --------------------------------------------------------------------------------------


def distance(problem):
    return 15.0 if problem.minimiser is None else float(np.linalg.norm(problem.x0 - problem.minimiser))


def solved(problem, max_steps=500, **options):
    rad = 1.5 * distance(problem) + 0.1
    return minimize(problem.fun, problem.x0, Ellipsoid(rad=rad, **options), max_steps=max_steps, gtol=0)


@pytest.mark.parametrize(
    ("name", "storage"),
    [*((name, "dense") for name in CONVEX), *((name, "factored") for name, p in CONVEX.items() if p.n <= 10)],
)
@pytest.mark.thorough_after(1)
def test_the_lower_bound_stays_below_the_minimum_and_the_gap_above_the_error(name, storage):
    problem = CONVEX[name]
    result = solved(problem, 500 if storage == "dense" or problem.n <= 4 else 150, storage=storage)
    bound, gap, best = (result.history[key] for key in ("lower_bound", "gap", "best_f"))
    scale = max(1, abs(problem.minimum))
    # The minima of the collection have fifteen digits.
    assert np.all(bound <= problem.minimum + 1e-14 * scale)
    assert np.all(gap >= best - problem.minimum - 1e-14 * scale)
    assert np.all(np.diff(bound) >= 0)
    np.testing.assert_array_equal(best, np.minimum.accumulate(result.history["f"]))
    np.testing.assert_array_equal(gap, best - bound)
    assert gap[-1] < 0.9 * gap[0]
    if problem.n <= 4:
        assert result.status == Status.CERTIFIED
        assert abs(result.f - problem.minimum) <= 1000 * np.finfo(float).eps * scale
    else:
        assert result.status in (Status.CERTIFIED, Status.FINISHED)


@pytest.mark.parametrize(("name", "gap"), [("cb3", 1.0), ("cb3", 1e-5), ("rosen_suzuki", 1e-2)])
@pytest.mark.thorough_after(1)
def test_a_run_ends_as_soon_as_the_gap_is_as_small_as_asked_for(name, gap):
    problem = CONVEX[name]
    result = solved(problem, gap=gap)
    assert result.status == Status.CERTIFIED
    allowed = gap * np.maximum(1, np.abs(result.history["best_f"]))
    assert np.all(result.history["gap"][:-1] > allowed[:-1])
    assert result.history["gap"][-1] <= allowed[-1]
    assert result.f - problem.minimum <= gap * max(1, abs(result.f))


def test_a_function_that_is_not_convex_is_found_out():
    result = minimize(lambda x: tf.reduce_sum(tf.square(x**2 - 1)), np.full(5, 0.1), Ellipsoid(rad=3.0), gtol=0)
    assert result.status == Status.CONTRADICTION
    assert np.all(result.history["gap"][:-1] >= 0)
    assert result.history["gap"][-1] < 0


@pytest.mark.parametrize("name", ["cb2", "wolfe", "maxquad"])
@pytest.mark.thorough_after(1)
def test_a_ball_without_the_minimiser_is_found_out(name):
    problem = CONVEX[name]
    result = minimize(problem.fun, problem.x0, Ellipsoid(rad=0.2 * distance(problem)), gtol=0)
    assert result.status == Status.CONTRADICTION
    # What was found before stays.
    assert result.f == np.min(result.history["f"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_zero_gradient_certifies(dtype):
    here = Stepper(Ellipsoid(rad=2.0), lambda x: 3 + tf.reduce_sum(x**2), np.zeros(4), dtype)
    result = here.step()
    assert int(result.status) == Status.CERTIFIED
    assert float(result.logs["lower_bound"]) == pytest.approx(3, rel=200 * float(np.finfo(dtype).eps))
    assert float(result.logs["lower_bound"]) <= 3
    np.testing.assert_array_equal(here.x, np.zeros(4))
    np.testing.assert_array_equal(here.B, np.eye(4))
    assert float(here.optimizer.state["radius"]) == 2


def test_a_zero_gradient_above_the_best_f_is_a_contradiction():
    """A plateau beside a valley."""
    here = Stepper(Ellipsoid(rad=2.0), lambda x: tf.where(x[0] < 0.5, tf.reduce_sum(x), 9.0), np.zeros(1))
    assert int(here.step().status) == Status.RUNNING
    here.v.assign([1.0])
    assert int(here.step().status) == Status.CONTRADICTION
    np.testing.assert_array_equal(here.x, [1.0])


def test_the_best_point_is_returned():
    fun, value_and_grad, _ = bowl(4)
    result = minimize(fun, np.zeros(4), Ellipsoid(rad=1.0), max_steps=9)
    assert result.f == np.min(result.history["f"]) < result.history["f"][-1]
    assert value_and_grad(result.x)[0] == pytest.approx(result.f, rel=1e-14)


def test_one_variable_converges_to_a_point_that_no_step_changes():
    """With a gap that f cannot have, because it is not known to more digits."""
    here = Stepper(Ellipsoid(rad=1.0, gap=0.0), lambda x: 7 + tf.abs(x[0] - 0.3), np.zeros(1))
    codes = [int(here.step().status) for _ in range(80)]
    assert Status.CONVERGED in codes
    assert codes[: codes.index(Status.CONVERGED)] == [Status.RUNNING] * codes.index(Status.CONVERGED)
    assert here.x[0] == pytest.approx(0.3, abs=1e-14)


@pytest.mark.parametrize(("n", "gap"), [(1, 0.0), (2, None), (5, 0.0)])
@pytest.mark.thorough_after(1)
def test_ten_thousand_float32_steps_end_by_a_status_and_stay_finite(n, gap):
    A = tf.constant(np.random.default_rng(n).normal(size=(3 * n, n)), tf.float32)

    def fun(x):
        return tf.reduce_sum(tf.abs(tf.linalg.matvec(A, x - 0.2)))

    logs = Stepper(Ellipsoid(rad=1.0, gap=gap), fun, np.zeros(n), "float32").run(10_000)
    assert all(np.all(np.isfinite(values)) for values in logs.values())
    end = next((code for code in logs["status"] if code != Status.RUNNING), None)
    assert end in ((Status.CERTIFIED,) if gap is None else (Status.CERTIFIED, Status.CONVERGED))
    np.testing.assert_allclose(logs["x"][-1], 0.2, rtol=0, atol=1e-3)


# --- On networks, and the contract ------------------------------------------------------------------------


def test_dense_and_factored_train_a_network_alike():
    """On a full batch, from a ball so large that the bound says nothing."""
    x, y = blobs(30)
    runs = []
    for storage in ("dense", "factored"):
        model = dense_net()
        result = TrainLoop(model, Ellipsoid(rad=10.0, storage=storage), crossentropy()).run(
            ArrayData(x, y, None), epochs=25
        )
        runs.append(weights(model))
        assert {"lower_bound", "gap", "best_f"} <= result.history.keys()
        assert np.min(result.history["loss"]) < result.history["loss"][0]
    np.testing.assert_allclose(runs[0], runs[1], rtol=0, atol=1e-9)


@pytest.mark.thorough
def test_it_keeps_every_promise_of_a_method_in_a_history_too():
    check_optimizer(functools.partial(Ellipsoid, rad=2.0, storage="factored"))


def test_config_makes_the_same_method_again():
    optimizer = Ellipsoid(rad=3.0, gap=1e-3, storage="factored")
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Ellipsoid
    assert again.get_config() == {"name": "ellipsoid", "rad": 3.0, "gap": 1e-3, "storage": "factored"}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("rad", 0),
        ("rad", -1.0),
        ("rad", float("inf")),
        ("rad", "1"),
        ("gap", -1e-9),
        ("gap", float("nan")),
        ("storage", "sparse"),
    ],
)
def test_bad_arguments_are_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be .* received {bad!r}"):
        Ellipsoid(**{name: bad})
