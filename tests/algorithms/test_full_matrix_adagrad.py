"""Full-matrix AdaGrad against a naive loop over its equations, closed forms, and singular vectors in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net

from trainloop import Status
from trainloop.algorithms.full_matrix_adagrad import FullMatrixAdaGrad
from trainloop.testing import check_optimizer

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

RATE = 0.3

forms = pytest.mark.parametrize("window", [None, 7], ids=["exact", "window"])


def gaussian(steps, n, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, n))


def nearly_parallel(steps, n, difference):
    return gaussian(1, n, seed=1) + difference * gaussian(steps, n)


def iterates(gradients, dtype="float64", *, restart=False, jit_compile=False, **options):
    """x [steps + 1, n] from 0 along given gradients [steps, n], all in one compiled loop.

    With `restart` every step starts from 0, so that it has all digits of the dtype: then -x / RATE is H^-1 g.
    """
    steps, n = gradients.shape
    optimizer, v = FullMatrixAdaGrad(RATE, **options), tf.Variable(np.zeros(n), dtype=dtype)
    optimizer.build([v])

    @tf.function(autograph=False, jit_compile=jit_compile)
    def run(gradients):
        def step(i, xs):
            if restart:
                v.assign(tf.zeros_like(v))
            optimizer.apply([tf.gather(gradients, i)], [v])
            return i + 1, xs.write(i, v)

        xs = tf.TensorArray(dtype, steps, element_shape=[n])
        return tf.while_loop(lambda i, _: i < steps, step, (tf.constant(0), xs))[1].stack()

    return np.concatenate([np.zeros((1, n)), run(tf.constant(gradients, dtype))]).astype("float64")


def directions(gradients, dtype, **options):
    """H^-1 g of every step."""
    return -iterates(gradients, dtype, restart=True, **options)[1:] / RATE


def from_singular_vectors(gradients, epsilon, window):
    """(epsilon I + (V'V)^(1/2))^-1 g = P S (S + epsilon)^-1 Q'e for V = Q S P', which squares nothing."""
    found = []
    for k in range(1, len(gradients) + 1):
        Q, S, P = np.linalg.svd(gradients[max(0, k - window) : k], full_matrices=False)
        found.append(S / (S + epsilon) * Q[-1] @ P)
    return np.array(found)


# --- The equations --------------------------------------------------------------------------------------


def square_root(G):
    values, Q = np.linalg.eigh(G)
    return Q * np.sqrt(np.maximum(values, 0)) @ Q.T


def naive(gradients, epsilon, beta2=1.0, window=None):
    """Figure 2 of Duchi, Hazan and Singer (2011); with a window, algorithm 1 of Agarwal et al. (2019)."""
    n = gradients.shape[1]
    x, G, xs = np.zeros(n), np.zeros((n, n)), [np.zeros(n)]
    for k, g in enumerate(gradients):
        if window is None:
            G = beta2**2 * G + np.outer(g, g)
        else:
            rows = [beta2**age * gradients[k - age] for age in range(min(window, k + 1))]
            G = np.transpose(rows) @ rows
        x = x - RATE * np.linalg.solve(epsilon * np.eye(n) + square_root(G), g)
        xs.append(x)
    return np.array(xs)


@pytest.mark.parametrize("beta2", [1.0, 0.8])
@forms
def test_fifty_steps_are_those_of_the_equations(window, beta2):
    gradients = gaussian(50, 12)
    expected = naive(gradients, 0.1, beta2, window)
    assert np.abs(expected[-1]).max() > RATE
    np.testing.assert_allclose(
        iterates(gradients, window=window, beta2=beta2, epsilon=0.1), expected, rtol=0, atol=1e-10
    )


def test_a_window_that_holds_everything_is_the_exact_form():
    gradients = gaussian(30, 20)
    exact, window = (iterates(gradients, window=window, epsilon=1e-3) for window in (None, 30))
    np.testing.assert_allclose(window, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("window", "beta2"), [(None, 1.0), (None, 0.9), (4, 0.9), (1, 1.0)])
def test_a_constant_gradient_has_a_closed_form(window, beta2):
    """G = |g|^2 sum_j beta2^2j g g' / |g|^2, so H^-1 g = g / (sqrt(sum_j beta2^2j) |g| + epsilon)."""
    g, steps, epsilon = np.array([3.0, 0.0, -4.0]), 10, 0.5
    ages = [np.arange(min(k, window or steps)) for k in range(1, steps + 1)]
    lengths = [1 / (np.sqrt(np.sum(beta2 ** (2 * age))) * 5 + epsilon) for age in ages]
    expected = -RATE * np.outer(np.cumsum([0, *lengths]), g)
    xs = iterates(np.tile(g, (steps, 1)), window=window, beta2=beta2, epsilon=epsilon)
    np.testing.assert_allclose(xs, expected, rtol=0, atol=1e-12)


@forms
def test_gradients_at_right_angles_make_steps_of_full_length(window):
    gradients = np.diag([1e-3, 1.0, 7.0, 1e2])
    expected = np.eye(4) * (np.diag(gradients) / (np.diag(gradients) + 1e-6))
    np.testing.assert_allclose(directions(gradients, "float64", window=window, epsilon=1e-6), expected, atol=1e-9)


# --- Invariances ----------------------------------------------------------------------------------------


@forms
@pytest.mark.thorough_after(1)
def test_rotated_coordinates_rotate_the_iterates(window):
    gradients = gaussian(20, 8) * np.geomspace(1, 1e-2, 8)
    rotation = np.linalg.qr(gaussian(8, 8, seed=3))[0]
    straight, rotated = (iterates(g, window=window) for g in (gradients, gradients @ rotation))
    np.testing.assert_allclose(rotated, straight @ rotation, rtol=0, atol=1e-8)


@forms
@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_the_length_of_all_gradients_does_not_matter(window, scale):
    """In float32 the squares of these gradients are zero, or infinite."""
    gradients = gaussian(12, 6)
    expected = from_singular_vectors(gradients, 1e-12, window or 12)
    found = directions(scale * gradients, "float32", window=window, epsilon=1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def contents(optimizer):
    saved = {}
    optimizer.save_own_variables(saved)
    return {name: value.copy() for name, value in saved.items() if name.startswith("state")}


@forms
def test_a_zero_gradient_changes_nothing(window):
    v, optimizer = tf.Variable(np.ones(3)), FullMatrixAdaGrad(window=window, beta2=0.5)
    optimizer.build([v])
    for g in gaussian(9, 3):
        x, before = v.numpy(), contents(optimizer)
        optimizer.apply([tf.zeros(3, tf.float64)], [v])
        np.testing.assert_array_equal(v, x)
        for name, value in contents(optimizer).items():
            np.testing.assert_array_equal(value, before[name])
        optimizer.apply([tf.constant(g)], [v])
        assert np.all(v.numpy() != x)


# --- Rounding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("difference", [1e-2, 1e-3])
def test_in_float32_a_window_of_nearly_parallel_gradients_keeps_the_digits_of_float32(difference):
    """Products in float32 would leave nothing of the directions in which the gradients differ."""
    gradients = nearly_parallel(25, 40, difference).astype("float32")
    expected = from_singular_vectors(gradients.astype("float64"), 1e-8, window=8)
    found = directions(gradients, "float32", window=8, epsilon=1e-8)
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@forms
def test_gradients_that_differ_by_rounding_make_no_step_longer_than_the_learning_rate(window, dtype):
    differences = np.repeat([0, 1e-12, 1e-9, 1e-7, 1e-6], 10)[:, None]
    gradients = nearly_parallel(50, 6, differences)
    lengths = np.linalg.norm(directions(gradients, dtype, window=window, epsilon=1e-30), axis=1)
    assert np.all(lengths <= 1 + 1e-6)
    # Along the common direction every step is 1 / sqrt(number of gradients).
    assert np.all(lengths > 0.99 / np.sqrt(np.minimum(np.arange(1, 51), window or 50)))


@forms
@pytest.mark.parametrize("difference", [1.0, 1e-6], ids=["random", "parallel"])
@pytest.mark.thorough_after(1)
def test_ten_thousand_float32_steps_stay_finite_and_short(window, difference):
    v = tf.Variable(np.zeros(5, "float32"))
    optimizer = FullMatrixAdaGrad(RATE, window=window, beta2=0.99, epsilon=1e-30)
    optimizer.build([v])
    common = tf.constant(gaussian(1, 5)[0], tf.float32)

    @tf.function(autograph=False)
    def run(steps):
        def step(i, longest):
            x = tf.convert_to_tensor(v)
            optimizer.apply([common + difference * tf.random.stateless_normal([5], [i, 0])], [v])
            return i + 1, tf.maximum(longest, tf.norm(v - x))

        return tf.while_loop(lambda i, _: i < steps, step, (tf.constant(0), tf.constant(0.0)))

    taken, longest = run(tf.constant(10_000))
    assert optimizer.skipped_steps == 0
    assert int(taken) == int(optimizer.iterations) == 10_000
    assert np.all(np.isfinite(v))
    # x grows to a thousand here, where the numbers of float32 are 1e-4 apart.
    assert 0.01 * RATE < float(longest) < RATE + 2e-3


@pytest.mark.parametrize(
    ("bad", "dtype", "status"),
    [
        (np.nan, "float32", Status.NONFINITE_GRADIENT),
        (np.inf, "float32", Status.NONFINITE_GRADIENT),
        (1e200, "float64", Status.NONFINITE_STEP),
    ],
)
@forms
def test_what_has_no_finite_square_ends_the_block_with_a_status(window, bad, dtype, status):
    v, optimizer = tf.Variable(np.ones(3), dtype=dtype), FullMatrixAdaGrad(window=window)
    optimizer.apply([tf.constant([1.0, 2.0, 3.0], dtype)], [v])
    x, before = v.numpy(), contents(optimizer)
    result = optimizer.step(None, (tf.zeros([], dtype), tf.constant([0.0, bad, 1.0], dtype)))
    assert int(result.status) == status
    np.testing.assert_array_equal(v, x)
    for name, value in contents(optimizer).items():
        np.testing.assert_array_equal(value, before[name])


def test_xla_takes_the_same_steps():
    """Its eigenvectors are good to some 1e-7."""
    gradients = gaussian(20, 5)
    xs = iterates(gradients, jit_compile=True, window=4, epsilon=0.1)
    np.testing.assert_allclose(xs, naive(gradients, 0.1, window=4), rtol=0, atol=1e-5)


# --- What it is for -------------------------------------------------------------------------------------


def noisy_descent(optimizer, A, steps=400):
    """f = x'A x / 2 at the end of a descent from (1, ..., 1) with gradients A x + noise of the shape of A^(1/2)."""
    n = len(A)
    A, half, v = tf.constant(A), tf.constant(square_root(A)), keras.Variable(np.ones(n))
    optimizer.build([v])

    @tf.function(autograph=False)
    def run():
        def step(i):
            noise = tf.random.stateless_normal([n], [i, 0], dtype=tf.float64)
            g = tf.linalg.matvec(A, v) + 1e-3 * tf.linalg.matvec(half, noise)
            optimizer.apply([g], [v])
            return i + 1

        return tf.while_loop(lambda i: i < steps, step, [tf.constant(0)])

    run()
    x = v.numpy()
    return x @ A.numpy() @ x / 2


@pytest.mark.thorough
def test_on_a_rotated_ill_conditioned_quadratic_it_leaves_diagonal_adagrad_far_behind():
    rotation = np.linalg.qr(gaussian(6, 6))[0]
    A = rotation @ np.diag(np.geomspace(1, 1e-4, 6)) @ rotation.T
    diagonal = min(noisy_descent(keras.optimizers.Adagrad(rate), A) for rate in (1.0, 3.0, 10.0, 30.0))
    for window in (None, 100):
        assert noisy_descent(FullMatrixAdaGrad(RATE, window, epsilon=1e-8), A) < diagonal / 50


def test_fit_trains_a_model():
    model = dense_net()
    model.compile(FullMatrixAdaGrad(), loss=crossentropy())
    losses = model.fit(*blobs(), batch_size=16, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


# --- The contract ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.thorough_after(1)
def test_it_keeps_every_promise_of_a_method(window):
    check_optimizer(lambda: FullMatrixAdaGrad(0.1, window=window, beta2=0.9))


def test_auto_is_exact_for_small_n_and_a_window_for_large_n():
    shapes = {n: FullMatrixAdaGrad().init_state(tf.zeros(n)).keys() for n in (300, 301)}
    assert shapes == {300: {"G", "updates"}, 301: {"V", "VV", "updates"}}
    small, large = (FullMatrixAdaGrad().memory_plan(n).nbytes for n in (300, 10_000))
    assert small == 300**2 * 8 + 8
    assert large == 50 * 10_000 * 8 + 50**2 * 8 + 8


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("window", 0),
        ("window", 2.0),
        ("window", True),
        ("window", "all"),
        ("beta2", 0),
        ("beta2", 1.01),
        ("beta2", "1"),
        ("epsilon", 0.0),
        ("epsilon", float("nan")),
        ("learning_rate", 0),
    ],
)
def test_bad_arguments_are_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be .* received {bad!r}"):
        FullMatrixAdaGrad(**{name: bad})
