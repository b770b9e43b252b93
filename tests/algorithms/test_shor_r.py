"""The r-algorithms against naive loops, and against minima that are known."""

import functools
import itertools

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights
from stepper import Stepper, inside_a_ball

from trainloop import ArrayData, ShorR, Status, StochasticShorR, TrainLoop, minimize
from trainloop.testing import check_optimizer, problems

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

NONSMOOTH = {name: problem for name, problem in problems.items() if not problem.smooth}


# --- Larger problems --------------------------------------------------------------------------------------
# Haarala, Miettinen and Makela (2004), "New limited memory bundle method for large-scale nonsmooth optimization".


def neighbours(x):
    return x[:-1], x[1:]


def chained_lq(x):
    a, b = neighbours(x)
    return tf.reduce_sum(tf.maximum(-a - b, -a - b + a**2 + b**2 - 1))


def cb3_pieces(x):
    a, b = neighbours(x)
    return tf.stack([a**4 + b**2, (2 - a) ** 2 + (2 - b) ** 2, 2 * tf.exp(b - a)])


def chained_cb3_1(x):
    return tf.reduce_sum(tf.reduce_max(cb3_pieces(x), 0))


def chained_cb3_2(x):
    return tf.reduce_max(tf.reduce_sum(cb3_pieces(x), 1))


def maxq(x):
    return tf.reduce_max(x**2)


def mxhilb(x):
    i = np.arange(1, x.shape[0] + 1)
    return tf.reduce_max(tf.abs(tf.linalg.matvec(tf.constant(1 / (i[:, None] + i - 1), x.dtype), x)))


def chained_mifflin_2(x):
    a, b = neighbours(x)
    s = a**2 + b**2 - 1
    return tf.reduce_sum(-a + 2 * s + 1.75 * tf.abs(s))


def mifflin_2_minimum(n):
    """By SciPy, as min sum t_i - x_i where t_i >= 15/4 s_i and t_i >= s_i / 4."""
    i = np.arange(n - 1)

    def constraints(z):
        s = z[: n - 1] ** 2 + z[1:n] ** 2 - 1
        return np.concatenate([z[n:] - 3.75 * s, z[n:] - 0.25 * s])

    def jacobian(z):
        J = np.zeros((2, n - 1, 2 * n - 1))
        for part, slope in zip(J, (3.75, 0.25), strict=True):
            part[i, i], part[i, i + 1], part[i, n + i] = -2 * slope * z[i], -2 * slope * z[i + 1], 1
        return J.reshape(-1, 2 * n - 1)

    c = np.concatenate([-np.ones(n - 1), [0], np.ones(n - 1)])
    bound = {"type": "ineq", "fun": constraints, "jac": jacobian}
    start = np.concatenate([np.full(n, 0.7), np.zeros(n - 1)])
    return scipy.optimize.minimize(
        lambda z: c @ z, start, jac=lambda _: c, constraints=bound, options={"ftol": 1e-14}
    ).fun


def up_and_down(n):
    i = np.arange(1.0, n + 1)
    return np.where(i <= n / 2, i, -i)


# Function, start, minimum.
LARGE = {
    "chained LQ": (chained_lq, lambda n: np.full(n, -0.5), lambda n: -(n - 1) * np.sqrt(2)),
    "chained CB3 I": (chained_cb3_1, lambda n: np.full(n, 2.0), lambda n: 2.0 * (n - 1)),
    "chained CB3 II": (chained_cb3_2, lambda n: np.full(n, 2.0), lambda n: 2.0 * (n - 1)),
    "MAXQ": (maxq, up_and_down, lambda n: 0.0),
    "MXHILB": (mxhilb, np.ones, lambda n: 0.0),
    "chained Mifflin 2": (chained_mifflin_2, lambda n: np.full(n, -1.0), mifflin_2_minimum),
}


def resolution(minimum, accuracy=1e-6):
    return accuracy * max(1, abs(minimum))


@pytest.mark.parametrize(
    ("name", "n", "steps"),
    [
        ("chained LQ", 200, 600),
        ("chained CB3 I", 100, 700),
        ("chained CB3 II", 200, 100),
        ("MAXQ", 50, 600),
        ("MXHILB", 1000, 130),
        ("chained Mifflin 2", 50, 900),
    ],
)
@pytest.mark.thorough_after(1)
def test_large_nonsmooth_problems_are_solved(name, n, steps):
    fun, start, minimum = LARGE[name]
    result = minimize(fun, start(n), ShorR(), max_steps=steps, gtol=0)
    assert abs(result.f - minimum(n)) <= resolution(minimum(n))


def test_the_minimum_from_scipy_is_the_published_one():
    assert mifflin_2_minimum(50) == pytest.approx(-34.795, abs=5e-4)


# --- The equations ----------------------------------------------------------------------------------------


def in_numpy(fun):
    """x -> (f, g) of a TensorFlow function."""

    @tf.function(autograph=False)
    def derive(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            f = fun(x)
        return f, tape.gradient(f, x)

    def value_and_grad(x):
        f, g = derive(tf.constant(x))
        return float(f), g.numpy()

    return value_and_grad


def ralgb5(value_and_grad, x, alpha=2.3, h=1.0, q1=0.9, q2=1.1, nh=3):
    """(x, f, h, evaluations, best f) after each step, for ever: Stetsyuk (2017)."""
    B, (f, g), evaluations = np.eye(len(x)), value_and_grad(x), 1
    best = f
    while True:
        image = B.T @ g
        d = -B @ image / np.linalg.norm(image)
        trials, slope = 0, -1.0
        while slope < 0:
            x = x + h * d
            f, g_new = value_and_grad(x)
            best, slope, trials = min(best, f), g_new @ d, trials + 1
            if trials % nh == 0:
                h *= q2
        if trials == 1:
            h *= q1
        evaluations += trials
        yield x, f, h, evaluations, best
        xi = B.T @ (g_new - g)
        xi /= np.linalg.norm(xi)
        B = B @ (np.eye(len(x)) + (1 / alpha - 1) * np.outer(xi, xi))
        g = g_new


CASES = {
    "shor": (problems["shor"].fun, problems["shor"].x0, {}),
    "maxquad": (problems["maxquad"].fun, problems["maxquad"].x0, {"alpha": 3.0, "q1": 0.8, "q2": 1.2, "nh": 2}),
    "chained Mifflin 2": (chained_mifflin_2, -np.ones(30), {"step_length": 0.1, "nh": 1}),
}


@pytest.mark.parametrize(
    ("name", "storage"), [*((name, "dense") for name in CASES), ("shor", "factored"), ("chained Mifflin 2", "factored")]
)
@pytest.mark.thorough_after(1)
def test_sixty_steps_are_those_of_ralgb5(name, storage):
    fun, x0, options = CASES[name]
    result = minimize(fun, x0, ShorR(storage=storage, **options), max_steps=60, gtol=0)
    if "step_length" in options:
        options = {**options, "h": options["step_length"]}
        del options["step_length"]
    steps = itertools.islice(ralgb5(in_numpy(fun), np.array(x0), **options), 60)
    x, f, h, evaluations, best = map(np.array, zip(*steps, strict=True))
    history, scale = result.history, np.abs(result.history["f"]).max()
    np.testing.assert_array_equal(history["evaluations/f"], evaluations)
    np.testing.assert_allclose(history["step_length"], h, rtol=1e-12)
    np.testing.assert_allclose(history["f"][1:], f[:-1], rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(history["best_f"], best, rtol=0, atol=1e-10 * scale)
    assert len(set(np.diff(evaluations))) >= 2
    if best[-1] == f[-1]:
        np.testing.assert_allclose(result.x, x[-1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", NONSMOOTH)
@pytest.mark.thorough_after(1)
def test_a_minimum_is_found_with_the_evaluations_of_ralgb5_and_the_run_ends_by_itself(name):
    problem = NONSMOOTH[name]
    result = minimize(problem.fun, problem.x0, ShorR(), max_steps=1100, gtol=0)
    wanted, best = problem.minimum + resolution(problem.minimum), result.history["best_f"]
    steps = ralgb5(in_numpy(problem.fun), np.array(problem.x0))
    theirs = next(evaluations for *_, evaluations, best_f in steps if best_f <= wanted)
    assert result.history["evaluations/f"][np.flatnonzero(best <= wanted)[0]] <= 1.2 * theirs
    assert result.f == best[-1] == min(result.f, *result.history["f"])
    assert result.f == pytest.approx(float(problem.fun(tf.constant(result.x))), rel=1e-13, abs=1e-300)
    # The first one takes three thousand steps to its last digit; f of the others comes closer to 0 for ever.
    if name not in ("goffin", "maxq", "maxl"):
        assert result.status == Status.CONVERGED
        assert abs(result.f - problem.minimum) <= resolution(problem.minimum, 1e-12)


# --- Cycles -----------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_cycles_find_what_a_step_length_that_shrinks_too_fast_has_lost():
    fun, start, minimum = LARGE["chained LQ"]
    n, q1 = 100, 0.1
    result = minimize(fun, start(n), ShorR(q1=q1), max_steps=1200, gtol=0)
    cycle, best, h = (result.history[name] for name in ("cycle/number", "best_f", "step_length"))
    trials = np.diff(result.history["evaluations/f"], prepend=1)
    first = np.flatnonzero(cycle == 0)[-1]
    assert best[first] - minimum(n) > resolution(minimum(n), 1e-4)
    assert result.f - minimum(n) <= resolution(minimum(n))
    # h shrinks by q1 for a search of one trial; later for fifty of every n of them.
    single = (trials[1:] == 1) & (cycle[1:] == cycle[:-1]) & (result.history["cycle/reach"][:-1] == 0)
    for later, factor in ((False, q1), (True, q1 ** (50 / n))):
        ratios = (h[1:] / h[:-1])[single & ((cycle[1:] > 0) == later)]
        assert len(ratios) >= 10
        np.testing.assert_allclose(ratios, factor, rtol=1e-12)


@pytest.mark.thorough
def test_a_cycle_begins_with_a_hundredth_of_the_way_of_the_last_one_and_ends_when_f_no_longer_falls():
    points = [problems["shor"].x0]
    result = minimize(
        problems["shor"].fun, points[0], ShorR(), gtol=0, callback=lambda iterate: points.append(iterate.x)
    )
    number, idle, reach, best = (
        result.history[name] for name in ("cycle/number", "cycle/idle", "cycle/reach", "best_f")
    )
    trials = np.diff(result.history["evaluations/f"], prepend=1)
    assert result.status == Status.CONVERGED
    ends = np.flatnonzero(np.diff(number, prepend=0))
    assert len(ends) >= 1
    began = 0
    for end in ends:
        way = np.linalg.norm(points[end + 1] - points[began])
        assert reach[end] == pytest.approx(0.01 * way, rel=1e-12)
        assert trials[end + 1] <= 3
        moved = np.linalg.norm(points[end + 2] - points[end + 1])
        assert moved == pytest.approx(0.01 * way * trials[end + 1], rel=1e-9)
        began = end + 1
    assert np.all(np.delete(reach, ends) == 0)
    # Fifty steps and two for each of the five dimensions are waited for.
    assert np.all(idle[ends - 1] == 60)
    assert np.all(idle[ends] == 0)
    assert idle[-1] == 61
    fell = best[1:] < best[:-1] - np.finfo(float).eps * np.abs(best[:-1])
    others = np.setdiff1d(np.arange(1, len(idle)), ends)
    np.testing.assert_array_equal(idle[others], np.where(fell[others - 1], 0, idle[others - 1] + 1))
    # The last cycle found nothing better.
    assert not np.any(fell[ends[-1] :])


@pytest.mark.thorough
def test_at_a_zero_gradient_nothing_moves_and_the_run_ends():
    here = Stepper(ShorR(), lambda x: tf.reduce_sum(tf.square(x)), np.zeros(2))
    logs = here.run(60)
    end = np.flatnonzero(logs["status"])[0]
    assert logs["status"][end] == Status.CONVERGED
    assert end == 55  # the first f is smaller than none; 50 + 2 n more are waited for
    np.testing.assert_array_equal(logs["x"], np.zeros((60, 2)))
    np.testing.assert_array_equal(here.B, np.eye(2))


@pytest.mark.thorough
def test_on_a_plane_searches_are_as_long_as_allowed_and_space_is_not_dilated():
    """Its gradients differ by rounding, here and there."""
    c = np.array([3.0, -4.0])

    def fun(x):
        return tf.tensordot(x, tf.constant(c), 1), c + 3e-16 * tf.sign(tf.sin(1e3 * x))

    optimizer = ShorR(max_evaluations=7, storage="dense")
    here = Stepper(optimizer, fun, np.zeros(2))
    logs = here.run(3)
    # Trials 3 and 6 of a search make the next ones longer by a tenth.
    length = np.cumsum([3 + 3 * 1.1 + 1.1**2] * 3 * 1.1 ** (2 * np.arange(3)))
    np.testing.assert_allclose(logs["x"], -length[:, None] * c / 5, rtol=1e-12)
    np.testing.assert_array_equal(here.B, np.eye(2))
    counted = minimize(fun, np.zeros(2), optimizer.fresh(), max_steps=3)
    np.testing.assert_array_equal(counted.history["evaluations/f"], 1 + 7 * np.arange(1, 4))


# --- Where there is no f ----------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [np.nan, np.inf, -1e9], ids=["f is NaN", "f is infinite", "only g is NaN"])
@pytest.mark.thorough_after(1)
def test_what_is_not_finite_is_avoided(beyond):
    c = np.array([1.0, 2.0, -1.0])
    fun = inside_a_ball(c, beyond)
    result = minimize(fun, np.full(3, 0.1), ShorR(step_length=16.0), gtol=1e-6)
    np.testing.assert_allclose(result.history["step_length"][0], 16 / 2 * 0.9)
    assert np.all(np.isfinite(result.history["f"]))
    np.testing.assert_allclose(result.x, c / np.sqrt(7), rtol=0, atol=1e-5)
    assert result.f == pytest.approx(-np.sqrt(7), abs=1e-9)


# --- Rounding ---------------------------------------------------------------------------------------------


def forget(optimizer):
    """Overwrite B with zeros."""
    saved = {}
    optimizer.save_own_variables(saved)
    optimizer.load_own_variables({**saved, "state.B.panel_00": np.zeros_like(saved["state.B.panel_00"])})


@pytest.mark.thorough
def test_a_matrix_without_a_direction_of_descent_is_the_identity_again():
    problem = problems["shor"]
    here = Stepper(ShorR(storage="dense"), problem.fun, problem.x0)
    here.run(12)
    forget(here.optimizer)
    before = here.x
    restart = here.run(1)
    assert restart["restarts"] == [1]
    assert restart["status"] == [Status.RUNNING]
    # A new cycle begins, so that h is no longer that of the old B.
    assert restart["cycle/number"] == [1]
    assert restart["cycle/reach"] == pytest.approx(0.01 * np.linalg.norm(before - problem.x0))
    np.testing.assert_array_equal(here.x, before)
    np.testing.assert_array_equal(here.B, np.eye(5))
    _, g = in_numpy(problem.fun)(before)
    here.run(1)
    step = here.x - before
    cosine = -step @ g / np.linalg.norm(step) / np.linalg.norm(g)
    assert cosine == pytest.approx(1, rel=1e-12)
    logs = here.run(100)
    assert np.all(np.isfinite(logs["x"]))
    assert logs["restarts"][-1] == 1
    assert logs["best_f"][-1] - problem.minimum <= resolution(problem.minimum)


def test_on_mini_batches_too_the_run_goes_on_from_the_identity():
    here, batch, _ = on_batches(ShorR(storage="dense"))
    for k in range(9):
        batch.assign(k % 3)
        here.step()
    forget(here.optimizer)
    batch.assign(0)
    result = here.step()
    assert int(result.logs["restarts"]) == 1
    assert int(result.status) == Status.RUNNING


@pytest.mark.thorough
def test_in_float32_a_function_of_huge_condition_brings_restarts_and_still_its_minimum():
    problem = problems["mxhilb"]
    result = minimize(problem.fun, problem.x0.astype("float32"), ShorR(), max_steps=300, gtol=0)
    assert result.history["restarts"][-1] >= 1
    assert result.f < 1e-7


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.thorough
def test_ten_thousand_float32_steps_stay_finite(n):
    A = tf.constant(np.random.default_rng(n).normal(size=(3 * n, n)), tf.float32)

    def fun(x):
        return tf.reduce_sum(tf.abs(tf.linalg.matvec(A, x - 0.2)))

    here = Stepper(ShorR(), fun, np.zeros(n), "float32")
    logs = here.run(10_000)
    assert all(np.all(np.isfinite(values[1:])) for name, values in logs.items() if name != "cycle/f")
    assert not np.any(np.isnan(logs["cycle/f"]))
    assert logs["best_f"][-1] < 1e-5
    assert {Status.RUNNING, Status.CONVERGED} == set(logs["status"])
    assert here.optimizer.skipped_steps == 0


# --- Mini-batches -----------------------------------------------------------------------------------------


def on_batches(optimizer, n=4, batches=3):
    """(stepper on |A_b (x - z_b)|_1, the variable with b, the functions in NumPy)."""
    rng = np.random.default_rng(0)
    A, z = rng.normal(size=(batches, 2 * n, n)), 0.3 * rng.normal(size=(batches, n))
    batch = tf.Variable(0)

    def fun(x):
        return tf.reduce_sum(tf.abs(tf.linalg.matvec(tf.gather(A, batch), x - tf.gather(z, batch))))

    def in_numpy(b):
        return lambda x: (np.abs(A[b] @ (x - z[b])).sum(), A[b].T @ np.sign(A[b] @ (x - z[b])))

    return Stepper(optimizer, fun, np.ones(n)), batch, [in_numpy(b) for b in range(batches)]


def naive_on_batches(functions, x, order, alpha=2.3, h=1.0, q1=0.9, q2=1.1, nh=3):
    """(x, h, whether it searched, whether f fell) after each step.

    A search where f is the function that the last step ended with, else a single trial.
    """
    B, known = np.eye(len(x)), None
    for k, b in enumerate(order):
        f, g = functions[b](x)
        searches = k == 0 or np.array_equal(g, known)
        d = -B @ B.T @ g / np.linalg.norm(B.T @ g)
        trials, x_t, slope = 0, x, -1.0
        while slope < 0 and (searches or trials < 1):
            x_t = x_t + h * d
            f_t, g_t = functions[b](x_t)
            slope, trials = g_t @ d, trials + 1
            if searches and trials % nh == 0:
                h *= q2
        if slope >= 0 and trials == 1:
            h *= q1
        elif not searches:
            h *= q2 ** (1 / nh)
        if np.any(g_t != g):
            xi = B.T @ (g_t - g)
            xi /= np.linalg.norm(xi)
            B = B @ (np.eye(len(x)) + (1 / alpha - 1) * np.outer(xi, xi))
        x, known = (x_t if searches or f_t <= f else x), g_t
        yield x, h, searches, bool(f_t <= f)


@pytest.mark.parametrize(("storage", "nh"), [("dense", 3), ("factored", 3), ("dense", 1)])
@pytest.mark.thorough_after(1)
def test_on_mini_batches_both_gradients_of_a_difference_belong_to_one_batch(storage, nh):
    """Among them are batches that come twice in a row, where B'g is known."""
    order = [0, 1, 1, 2, 0, 2, 2, 1, 0, 0, 1, 2, 1, 1, 0, 2, 0, 1, 2, 2, 1, 0, 0, 2]
    here, batch, functions = on_batches(ShorR(storage=storage, nh=nh))
    kinds = set()
    expected = naive_on_batches(functions, np.ones(4), order, nh=nh)
    for b, (x, h, searches, better) in zip(order, expected, strict=True):
        batch.assign(b)
        logs = here.step().logs
        np.testing.assert_allclose(here.x, x, rtol=0, atol=1e-9)
        assert float(logs["step_length"]) == pytest.approx(h, rel=1e-12)
        kinds.add((searches, better))
        # The best point is that of this batch, not of another one.
        best_x, best_f = here.optimizer.best_point()
        assert float(best_f) == pytest.approx(functions[b](best_x.numpy())[0], rel=1e-12)
        assert best_f <= functions[b](here.x)[0] * (1 + 1e-12)
    assert {(True, True), (False, True), (False, False)} <= kinds


def test_on_mini_batches_there_is_one_trial_after_a_zero_gradient_too():
    weight, calls = tf.Variable(1.0, dtype=tf.float64), tf.Variable(0)

    def fun(x):
        calls.assign_add(1)
        return weight * tf.reduce_sum(tf.abs(x))

    here = Stepper(ShorR(step_length=1e-3), fun, [3.0, 4.0])
    for w, evaluations in ((1.0, None), (0.0, 1), (2.0, 2)):
        weight.assign(w)
        calls.assign(0)
        here.step()
        assert evaluations in (None, int(calls))
    assert np.all(np.isfinite(here.x))


def test_on_mini_batches_a_step_too_short_to_change_x_ends_the_run():
    here, batch, _ = on_batches(ShorR(step_length=1e-18))
    batch.assign(1)
    assert int(here.step().status) == Status.CONVERGED
    np.testing.assert_array_equal(here.x, np.ones(4))


@pytest.mark.thorough
def test_mini_batches_train_a_network(float32):
    x, y = blobs()
    model = dense_net()
    loop = TrainLoop(model, ShorR(step_length=0.1), crossentropy())
    result = loop.run(ArrayData(x, y, 24, seed=1), epochs=15)
    assert np.mean(result.history["loss"][-4:]) < 0.4 * np.mean(result.history["loss"][:4])
    # One evaluation before each step and one in it; only the first step searches.
    np.testing.assert_array_equal(np.diff(result.history["evaluations/f"]), 2)


# --- On networks, and the contract ------------------------------------------------------------------------


@pytest.mark.thorough
def test_dense_and_factored_train_a_network_alike():
    x, y = blobs(40)
    runs = []
    for storage in ("dense", "factored"):
        model = dense_net()
        result = TrainLoop(model, ShorR(storage=storage), crossentropy()).run(ArrayData(x, y, None), epochs=20)
        runs.append(weights(model))
        assert np.min(result.history["loss"]) < 0.5 * result.history["loss"][0]
        # The full batch is one function: steps without a smaller f are counted.
        assert np.max(result.history["cycle/idle"]) >= 1
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("storage", ["dense", "factored:40:restart"])
@pytest.mark.thorough_after(1)
def test_xla_takes_the_same_steps(storage):
    problem = problems["shor"]
    plain, compiled = (Stepper(ShorR(storage=storage), problem.fun, problem.x0) for _ in range(2))
    step = tf.function(compiled.step, autograph=False, jit_compile=True)
    for x in plain.run(30)["x"]:
        step()
        np.testing.assert_allclose(compiled.x, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cls", [ShorR, StochasticShorR])
@pytest.mark.thorough_after(1)
def test_it_keeps_every_promise_of_a_method_in_a_history_too(cls):
    check_optimizer(functools.partial(cls, storage="factored"))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (
            ShorR,
            {
                **{"alpha": 2.0, "step_length": 0.5, "q1": 1.0, "q2": 1.0, "nh": 2, "max_evaluations": 9},
                "storage": "factored:30:restart",
            },
        ),
        (StochasticShorR, {"learning_rate": 0.25, "alpha": 1.5, "storage": "dense", "global_clipnorm": None}),
    ],
)
def test_config_makes_the_same_method_again(cls, options):
    again = keras.optimizers.deserialize(keras.optimizers.serialize(cls(**options)))
    assert type(again) is cls
    assert {**again.get_config(), "name": None} == {**options, "name": None}


@pytest.mark.parametrize(
    ("cls", "name", "bad"),
    [
        (ShorR, "alpha", 1.0),
        (ShorR, "alpha", float("nan")),
        (ShorR, "step_length", 0),
        (ShorR, "q1", 0.0),
        (ShorR, "q1", 1.01),
        (ShorR, "q2", 0.99),
        (ShorR, "nh", 0),
        (ShorR, "nh", 2.5),
        (ShorR, "max_evaluations", 0),
        (ShorR, "storage", "sparse"),
        (StochasticShorR, "alpha", 1),
        (StochasticShorR, "learning_rate", 0),
        (StochasticShorR, "storage", 3),
    ],
)
def test_bad_arguments_are_refused_by_name(cls, name, bad):
    with pytest.raises(ValueError, match=f"{name} must be .* received {bad!r}"):
        cls(**{name: bad})


# --- Without searches -------------------------------------------------------------------------------------


def noise(steps, n, condition=1e2, seed=0):
    """(gradients [steps, n], their covariance)."""
    rng = np.random.default_rng(seed)
    L = np.linalg.qr(rng.normal(size=(n, n)))[0] * np.geomspace(1, condition**-0.5, n)
    return rng.normal(size=(steps, n)) @ L.T, L @ L.T


def stochastic(gradients, dtype="float64", learning_rate=0.3, **options):
    """(x [steps, n] along given gradients from 0, the optimizer)."""
    optimizer, v, xs = (
        StochasticShorR(learning_rate, **options),
        tf.Variable(np.zeros(gradients.shape[1]), dtype=dtype),
        [],
    )
    optimizer.build([v])
    step = tf.function(lambda g: optimizer.apply([g], [v]), autograph=False)
    for g in gradients:
        step(tf.constant(g, dtype))
        xs.append(v.numpy())
    return np.array(xs), optimizer


def naive_stochastic(gradients, t, alpha):
    """The equations of the file, beginning with the dilation along the last two gradients: (x, B) after each step."""
    n = gradients.shape[1]
    x, B = np.zeros(n), np.eye(n)
    for k, g in enumerate(gradients):
        if k:
            xi = B.T @ (g - gradients[k - 1])
            xi /= np.linalg.norm(xi)
            B = alpha ** (1 / n) * B @ (np.eye(n) + (1 / alpha - 1) * np.outer(xi, xi))
        x = x - t * B @ B.T @ g / np.linalg.norm(B.T @ g)
        yield x, B


@pytest.mark.parametrize("storage", ["dense", "factored"])
@pytest.mark.parametrize(("n", "alpha"), [(1, 2.0), (6, 1.3)])
@pytest.mark.thorough_after(1)
def test_fifty_stochastic_steps_are_those_of_the_equations(n, alpha, storage):
    gradients, _ = noise(50, n)
    xs, optimizer = stochastic(gradients, alpha=alpha, storage=storage)
    expected, matrices = zip(*naive_stochastic(gradients, 0.3, alpha), strict=True)
    np.testing.assert_allclose(xs, expected, rtol=0, atol=1e-10)
    B = optimizer.state["B"].to_dense().numpy()
    np.testing.assert_allclose(B, matrices[-1], rtol=0, atol=1e-10)
    assert np.linalg.det(B) == pytest.approx(1, rel=1e-10)
    assert int(optimizer.state["restarts"]) == 0


def test_zero_gradients_change_nothing():
    gradients, _ = noise(20, 4)
    with_zeros = np.insert(gradients, [0, 0, 5, 5, 17], 0.0, axis=0)
    xs, optimizer = stochastic(with_zeros)
    expected, other = stochastic(gradients)
    np.testing.assert_array_equal(xs[np.any(with_zeros, axis=1)], expected)
    np.testing.assert_array_equal(xs[:2], np.zeros((2, 4)))
    np.testing.assert_array_equal(optimizer.state["B"].to_dense(), other.state["B"].to_dense())


@pytest.mark.parametrize(("scale", "dtype"), [(1e-30, "float32"), (1e30, "float32"), (1e-250, "float64")])
@pytest.mark.thorough_after(1)
def test_the_length_of_gradients_does_not_matter(scale, dtype):
    gradients, _ = noise(30, 4)
    expected, _ = stochastic(gradients, dtype, alpha=1.2)
    xs, optimizer = stochastic(scale * gradients, dtype, alpha=1.2)
    np.testing.assert_allclose(xs, expected, rtol=0, atol=1e-3 if dtype == "float32" else 1e-10)
    assert int(optimizer.state["restarts"]) == 0


@pytest.mark.thorough
def test_with_noise_alone_space_becomes_round():
    """B'C B, the covariance of the images, has about equal eigenvalues when B B' is about C^-1."""
    gradients, C = noise(1500, 5, condition=1e4)
    _, optimizer = stochastic(gradients, alpha=1.1)
    B = optimizer.state["B"].to_dense().numpy()
    assert np.linalg.cond(C) > 5e3
    assert np.linalg.cond(B.T @ C @ B) < 6


def test_a_ruined_matrix_is_the_identity_again_and_x_stays():
    here = Stepper(StochasticShorR(0.5, storage="dense"), lambda x: tf.reduce_sum(tf.square(x)), np.ones(4))
    here.step()
    before = here.x
    forget(here.optimizer)
    assert int(here.step().logs["restarts"]) == 1
    np.testing.assert_array_equal(here.x, before)
    np.testing.assert_array_equal(here.B, np.eye(4))
    assert int(here.step().logs["restarts"]) == 1
    assert np.all(here.x != before)


@pytest.mark.thorough
def test_fit_trains_a_model():
    model = dense_net()
    model.compile(StochasticShorR(0.1), loss=crossentropy())
    losses = model.fit(*blobs(), batch_size=16, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
