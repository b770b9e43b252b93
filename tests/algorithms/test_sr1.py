"""SR1 against naive linear algebra: its equations, the secant condition, and Hessians that are known."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights
from stepper import Stepper, inside_a_ball

from trainloop import SR1, ArrayData, Status, TrainLoop, minimize
from trainloop.testing import check_optimizer, problems

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def quadratic(eigenvalues, seed=0):
    """(x'A x / 2 - b'x in TensorFlow, A, b)."""
    rng, n = np.random.default_rng(seed), len(eigenvalues)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A, b = Q @ np.diag(eigenvalues) @ Q.T, rng.normal(size=n)
    return lambda x: tf.tensordot(x, tf.linalg.matvec(A, x) / 2 - b, 1), A, b


def saddle(x):
    """Its saddle is at 0, its minima -1 at (0, +-sqrt 2)."""
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


def with_memory(optimizer, fun, x0, **values):
    """A stepper whose optimizer remembers these values of its state."""
    here, saved = Stepper(optimizer, fun, x0), {}
    here.optimizer.save_own_variables(saved)
    here.optimizer.load_own_variables({**saved, **{f"state.{name}": value for name, value in values.items()}})
    return here


# --- The equations ----------------------------------------------------------------------------------------


def steihaug(B, g, radius, most=100):
    """(p, -m(p), whether |p| = radius): algorithm 7.2 of Nocedal and Wright (2006)."""
    p, r, d = np.zeros_like(g), g, -g
    enough = min(0.5, np.sqrt(np.linalg.norm(g))) * np.linalg.norm(g)
    for _ in range(most):
        if np.linalg.norm(r) <= enough:
            break
        curvature = d @ B @ d
        a = r @ r / curvature if curvature > 0 else np.inf
        if not curvature > 0 or np.linalg.norm(p + a * d) >= radius:
            a = max(np.roots([d @ d, 2 * p @ d, p @ p - radius**2]).real)
            p = p + a * d
            return p, -(g @ p + p @ B @ p / 2), True
        p, r_new = p + a * d, r + a * B @ d
        d, r = -r_new + (r_new @ r_new) / (r @ r) * d, r_new
    return p, -(g @ p + p @ B @ p / 2), False


def reference(value_and_grad, x, steps, radius=1.0, largest=1000.0):
    """(x, B, radius, rho) after each step: algorithm 6.2 with the radii of algorithm 4.1, and a first B of f's size."""
    B, (f, g), moved = np.eye(len(x)), value_and_grad(x), False
    for _ in range(steps):
        s, promised, at_edge = steihaug(B, g, radius)
        f_trial, g_trial = value_and_grad(x + s)
        rho, y = (f - f_trial) / promised, g_trial - g
        taken = rho > 1e-4
        if rho < 1 / 4:
            radius = np.linalg.norm(s) / 4
        elif rho > 3 / 4 and at_edge:
            radius = min(2 * radius, largest)
        if taken and not moved and s @ y > 0:
            B = (y @ y) / (s @ y) * B
        r = y - B @ s
        if (taken or moved) and abs(r @ s) >= 1e-8 * np.linalg.norm(r) * np.linalg.norm(s) > 0:
            B = B + np.outer(r, r) / (r @ s)
        if taken:
            x, f, g, moved = x + s, f_trial, g_trial, True
        yield x, B, radius, rho, taken


@pytest.mark.parametrize(
    ("name", "storage"),
    [("wood", "dense"), ("chained_rosenbrock", "dense"), ("tanh_network", "dense"), ("tanh_network", "factored")],
)
@pytest.mark.thorough_after(1)
def test_fifteen_steps_are_those_of_the_equations(name, storage):
    problem = problems[name]

    @tf.function(autograph=False)
    def derive(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            f = problem.fun(x)
        return f, tape.gradient(f, x)

    def value_and_grad(x):
        f, g = derive(tf.constant(x))
        return float(f), g.numpy()

    here, refused = Stepper(SR1(storage=storage), problem.fun, problem.x0), 0
    for x, B, radius, rho, taken in reference(value_and_grad, np.array(problem.x0), 15):
        logs = here.step().logs
        np.testing.assert_allclose(here.x, x, rtol=0, atol=1e-7 * np.abs(x).max())
        np.testing.assert_allclose(here.B, B, rtol=0, atol=1e-6 * np.abs(B).max())
        assert float(logs["radius"]) == pytest.approx(radius, rel=1e-6)
        assert float(logs["rho"]) == pytest.approx(rho, rel=1e-4)
        refused += not taken
    assert refused > 0


@pytest.mark.thorough
def test_every_step_that_is_taken_fulfils_the_secant_equation():
    _, A, b = quadratic([1.0, 3.0, -2.0, 0.5])

    def fun(x):
        return tf.tensordot(x, tf.linalg.matvec(A, x) / 2 - b, 1) + tf.reduce_sum(x**4)

    def gradient(x):
        return A @ x - b + 4 * x**3

    here, x, moves = Stepper(SR1(radius=0.5), fun, np.ones(4)), np.ones(4), 0
    for _ in range(12):
        here.step()
        s, y, B = here.x - x, gradient(here.x) - gradient(x), here.B
        np.testing.assert_allclose(B @ s, y, rtol=0, atol=1e-9 * np.abs(B).max() * max(np.abs(s).max(), 1e-6))
        np.testing.assert_array_equal(B, B.T)
        moves, x = moves + np.any(s != 0), here.x
    assert moves >= 8


@pytest.mark.parametrize("eigenvalues", [[1.0, 2.0, 3.0, 5.0, 8.0], [3.0, 2.0, 1.0, -1.0, -4.0]])
@pytest.mark.thorough_after(1)
def test_on_a_quadratic_b_is_the_hessian_after_n_steps(eigenvalues):
    """Nocedal and Wright (2006), theorem 6.1."""
    fun, A, _ = quadratic(eigenvalues)
    here = Stepper(SR1(), fun, np.arange(5.0))
    errors = []
    for _ in range(5):
        here.step()
        errors.append(np.abs(here.B - A).max())
    assert min(errors[:-1]) > 0.1
    assert errors[-1] < 1e-6


def test_the_first_step_taken_gives_b_the_size_of_f():
    here = Stepper(SR1(), lambda x: 300 * tf.reduce_sum(tf.square(x)), np.ones(3))
    here.step()
    np.testing.assert_allclose(here.B, 600 * np.eye(3), rtol=1e-12)


def test_before_a_step_is_taken_b_stays_as_it_is():
    """The first regions hold nothing but rising ground."""
    here = Stepper(SR1(radius=100.0), lambda x: tf.reduce_sum(tf.square(x)) ** 2, 0.6 * np.ones(3))
    steps = []
    for _ in range(6):
        x = here.x
        steps.append(int(here.step().logs["steps"]))
        assert np.array_equal(here.B, np.eye(3)) == np.array_equal(x, here.x) == (steps[-1] == 0)
        if steps[-1]:
            break
    assert len(steps) > 1
    assert steps[-1] == 1


@pytest.mark.parametrize(("cosine", "updated"), [(0.0, False), (1e-9, False), (1e-7, True), (1.0, True)])
@pytest.mark.thorough_after(1)
def test_a_denominator_of_rounding_leaves_b_alone(cosine, updated):
    """s = (1, 0), y = (1 + cosine, 1): so r = (cosine, 1), and r's = cosine |r| |s|, nearly."""
    A = np.array([[1 + cosine, 1.0], [1.0, 1.0]])

    def fun(x):
        return tf.tensordot(x, tf.linalg.matvec(A, x), 1) / 2 - 2 * x[0]

    here = with_memory(SR1(), fun, np.zeros(2), steps=np.int32(1))
    here.step()
    np.testing.assert_allclose(here.x, [1.0, 0.0], rtol=1e-12)
    r = np.array([cosine, 1.0])
    expected = np.eye(2) + np.outer(r, r) / cosine if updated else np.eye(2)
    np.testing.assert_allclose(here.B, expected, rtol=1e-6)


def test_a_first_pair_without_curvature_along_it_does_not_blow_b_up():
    """Along the first step curvatures 1 and -1 cancel, so that s'y is rounding."""
    Q = np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    H = Q @ np.diag([1.0, -1.0]) @ Q.T
    here = Stepper(SR1(), lambda x: tf.tensordot(x, tf.linalg.matvec(H, x), 1) / 2, 0.3 * Q @ np.ones(2))
    here.step()
    assert np.abs(here.B).max() < 1e3


# --- What it does -----------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_negative_curvature_is_found_and_followed():
    here = Stepper(SR1(), saddle, [1.0, 1e-3])
    lowest = []
    for _ in range(5):
        here.step()
        lowest.append(np.linalg.eigvalsh(here.B)[0])
    assert min(lowest) < -0.5
    result = minimize(saddle, [1.0, 1e-3], SR1(), gtol=1e-8)
    assert result.status == Status.GRADIENT_TOLERANCE
    np.testing.assert_allclose(np.abs(result.x), [0, np.sqrt(2)], rtol=0, atol=1e-7)


@pytest.mark.thorough
def test_a_history_that_is_full_begins_anew():
    problem = problems["extended_rosenbrock"]
    limited, full = (
        minimize(problem.fun, problem.x0, SR1(storage=storage)) for storage in ("factored:20:restart", "dense")
    )
    assert limited.status == full.status == Status.GRADIENT_TOLERANCE
    assert limited.f < 1e-8
    assert limited.history["B/times_full"][-1] >= 2
    assert np.max(limited.history["B/rank"]) <= 20
    np.testing.assert_allclose(limited.history["f"][:19], full.history["f"][:19], rtol=1e-6)


@pytest.mark.parametrize("beyond", [np.nan, np.inf, -1e9], ids=["f is NaN", "f is infinite", "only g is NaN"])
@pytest.mark.thorough_after(1)
def test_a_trial_that_is_not_finite_shortens_the_region(beyond):
    c = np.array([1.0, 2.0, -1.0])
    fun = inside_a_ball(c, beyond)
    result = minimize(fun, np.full(3, 0.1), SR1(radius=1.5), gtol=1e-7)
    assert result.history["rho"][0] == -np.inf
    assert result.history["radius"][0] == 1.5 / 4
    assert result.status == Status.GRADIENT_TOLERANCE
    np.testing.assert_allclose(result.x, c / np.sqrt(7), rtol=0, atol=1e-6)
    assert np.all(np.isfinite(result.history["f"]))


def test_a_run_stalls_only_after_a_new_beginning():
    optimizer = SR1(radius=0.7)
    result = minimize(problems["bard"].fun, problems["bard"].x0, optimizer, gtol=0)
    steps, radius, status = (result.history[name] for name in ("steps", "radius", "status"))
    assert result.status == status[-1] == Status.STALLED
    assert np.all(status[:-1] == Status.RUNNING)
    again = np.flatnonzero((steps[1:] == 0) & (steps[:-1] > 0)) + 1
    assert 1 <= len(again) <= again[-1] < len(steps) - 1
    assert np.all(radius[again] == 0.7)
    assert np.all(steps[again[-1] :] == 0)
    np.testing.assert_array_equal(result.state["state.B.panel_00"], np.eye(3))
    assert result.f == pytest.approx(problems["bard"].minimum, rel=1e-14)


@pytest.mark.thorough
def test_an_ascent_direction_for_a_gradient_stalls_at_once():
    """No new beginning can help where B is still the identity."""
    result = minimize(lambda x: (tf.reduce_sum(tf.square(x)), -2 * x), np.ones(3), SR1())
    assert result.status == Status.STALLED
    assert np.all(result.history["steps"] == 0)
    np.testing.assert_array_equal(result.x, np.ones(3))
    # Every trial quarters the region, to eps |x|.
    assert result.steps == pytest.approx(-np.log(np.finfo(float).eps * np.sqrt(3)) / np.log(4), abs=2)


@pytest.mark.parametrize("max_products", [1, 3])
@pytest.mark.thorough_after(1)
def test_products_are_counted_and_bounded(max_products):
    fun, _, _ = quadratic(np.geomspace(1, 1e3, 20))
    result = minimize(fun, np.zeros(20), SR1(max_products=max_products), max_steps=25)
    assert np.max(result.history["products"]) == max_products


def test_the_region_does_not_grow_beyond_its_bound():
    result = minimize(lambda x: -tf.reduce_sum(x), np.zeros(2), SR1(radius=1.0, max_radius=5.0), max_steps=6)
    np.testing.assert_array_equal(result.history["radius"], [2, 4, 5, 5, 5, 5])


def test_a_step_evaluates_once():
    result = minimize(problems["wood"].fun, problems["wood"].x0, SR1(), max_steps=30)
    np.testing.assert_array_equal(result.history["evaluations/f"], 1 + result.history["step"])


# --- On networks, and the contract ------------------------------------------------------------------------


@pytest.mark.thorough
def test_dense_and_factored_train_a_network_alike():
    x, y = blobs(40)
    runs = []
    for storage in ("dense", "factored"):
        model = dense_net()
        result = TrainLoop(model, SR1(storage=storage), crossentropy()).run(ArrayData(x, y, None), epochs=20)
        runs.append(weights(model))
        assert result.history["loss"][-1] < 0.3 * result.history["loss"][0]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-6)


@pytest.mark.thorough
def test_it_keeps_every_promise_of_a_method_in_limited_memory_too():
    check_optimizer(functools.partial(SR1, storage="factored:20:restart"))


def test_config_makes_the_same_method_again():
    options = {"radius": 0.5, "max_radius": 3.0, "max_products": 7, "storage": "factored:20:restart"}
    again = keras.optimizers.deserialize(keras.optimizers.serialize(SR1(**options)))
    assert type(again) is SR1
    assert again.get_config() == {"name": "sr1", **options}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("radius", 0),
        ("radius", float("nan")),
        ("max_radius", 0.5),
        ("max_products", 0),
        ("max_products", 1.5),
        ("storage", "sparse"),
    ],
)
def test_bad_arguments_are_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be .* received {bad!r}"):
        SR1(**{name: bad})
