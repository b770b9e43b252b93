"""Panels of a dense matrix, several of them at small n, against the whole matrix in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from trainloop.matrices import dense
from trainloop.matrices.dense import Panels

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

PASS = dense._LARGEST_PASS  # changes of a higher rank are matrix products
SMALL, N = 10, 47  # four panels, the first of them with 11 rows and the others with 12
EDGES = [0, 11, 23, 35, 47]
ATOL = {"float64": 1e-12, "float32": 1e-4}

every_symmetry = pytest.mark.parametrize("symmetric", [False, True], ids=["any", "symmetric"])
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


@pytest.fixture(autouse=True)
def _several_panels(monkeypatch):
    monkeypatch.setattr(dense, "SMALL", SMALL)


def in_variables(M):
    return M.as_variables(
        lambda name, value, grows: tf.Variable(value, shape=[None, value.shape[1]] if grows else None)
    )


def identity(symmetric, n=N, dtype="float64"):
    return in_variables(Panels.identity(n, tf.as_dtype(dtype), symmetric))


def whole(M):
    """The matrix that the panels mean, as the drawings at the top of `matrices/dense.py` say."""
    rows, first = np.zeros([M.n, M.n]), 0
    for part in M.parts:
        last = first + part.shape[0]
        rows[first:last, : part.shape[1]] = part.numpy()
        if M.symmetric:
            rows[:first, first:last] = part.numpy()[:, :first].T
        first = last
    assert first == M.n
    return rows


def change(rng, k, symmetric, dtype="float64", n=N):
    left = rng.normal(size=(k, n)).astype(dtype)
    signs = rng.choice([-1, 1], size=(k, 1)).astype(dtype)
    return left, signs * left if symmetric else rng.normal(size=(k, n)).astype(dtype)


def assert_means(M, expected):
    rng, dtype = np.random.default_rng(9), M.dtype.as_numpy_dtype
    atol = ATOL[M.dtype.name] * max(1, np.abs(expected).max())
    columns = rng.normal(size=(M.n, 3)).astype(dtype)
    np.testing.assert_allclose(whole(M), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(M.product(tf.constant(columns)), expected @ columns, rtol=0, atol=10 * atol)
    np.testing.assert_allclose(M.transposed_product(tf.constant(columns)), expected.T @ columns, rtol=0, atol=10 * atol)


# --- Which numbers are kept -----------------------------------------------------------------------------


@every_symmetry
@every_dtype
@pytest.mark.parametrize("n", [1, SMALL, 2 * SMALL, N, 66, 170])
def test_the_identity_is_the_identity(symmetric, dtype, n):
    M = identity(symmetric, n, dtype)
    np.testing.assert_array_equal(whole(M), np.eye(n))
    assert_means(M, np.eye(n))
    assert M.product(tf.eye(n, dtype=dtype)).dtype == M.dtype == dtype


@pytest.mark.parametrize(("n", "count"), [(1, 1), (19, 1), (20, 2), (N, 4), (159, 15), (160, 16), (1000, 16)])
def test_there_are_about_small_rows_in_a_panel_and_at_most_sixteen_panels(n, count):
    rows = [part.shape[0] for part in Panels.identity(n, tf.float64, False).parts]
    assert len(rows) == count
    assert sum(rows) == n
    assert max(rows) - min(rows) <= 1


def test_half_of_a_symmetric_matrix_is_kept_and_a_sixteenth_of_that_half_more():
    """(n/16)^2 (1 + 2 + .. + 16) = 17/32 n^2."""
    n = 160_000
    M = Panels.identity(n, tf.float64, True)
    assert sum(part.shape.num_elements() for part in M.parts) == 17 * n**2 // 32
    assert M.in_words() == "half of n x n numbers, B being symmetric"
    M = Panels.identity(n, tf.float64, False)
    assert sum(part.shape.num_elements() for part in M.parts) == n**2
    assert M.in_words() == "n x n numbers"


@pytest.mark.parametrize(("symmetric", "widths"), [(False, [N] * 4), (True, EDGES[1:])])
def test_widths_are_the_columns_of_the_panels_by_name(symmetric, widths):
    M = identity(symmetric)
    assert M.widths() == dict(zip(["panel_00", "panel_01", "panel_02", "panel_03"], widths, strict=True))
    assert [part.shape.as_list() for part in M.parts] == [
        [last - first, width] for first, last, width in zip(EDGES, EDGES[1:], widths, strict=False)
    ]


def test_one_panel_of_a_symmetric_matrix_is_no_half():
    M = Panels.identity(SMALL, tf.float64, True)
    assert M.in_words() == "n x n numbers"
    assert M.parts[0].shape == [SMALL, SMALL]


# --- Changes --------------------------------------------------------------------------------------------


@every_symmetry
@every_dtype
@pytest.mark.parametrize(
    ("k", "shift"), [(0, 0.7), (1, None), (5, 0.7), (PASS, None), (PASS + 1, None), (PASS + 1, 0.7)]
)
@pytest.mark.thorough_after(1)
def test_applied_terms_are_those_of_numpy(symmetric, dtype, k, shift):
    M, expected, rng = identity(symmetric, dtype=dtype), np.eye(N), np.random.default_rng(k)
    apply = tf.function(
        lambda *args: M.apply(*args, None if shift is None else tf.constant(shift, dtype)), autograph=False
    )
    for _ in range(3):
        left, right = change(rng, k, symmetric, dtype)
        apply(tf.constant(-0.5, dtype), tf.constant(left), tf.constant(right))
        expected = -0.5 * expected + left.astype(float).T @ right + (shift or 0) * np.eye(N)
    assert_means(M, expected)


@every_symmetry
def test_small_matrices_are_changed_likewise(symmetric):
    M, expected, rng = identity(symmetric, SMALL), np.eye(SMALL), np.random.default_rng(0)
    for _ in range(3):
        left, right = change(rng, 2, symmetric, n=SMALL)
        M.apply(tf.constant(0.5, tf.float64), tf.constant(left), tf.constant(right), tf.constant(3.0, tf.float64))
        expected = 0.5 * expected + left.T @ right + 3 * np.eye(SMALL)
    assert_means(M, expected)


@every_symmetry
@pytest.mark.thorough_after(1)
def test_changes_and_products_may_be_compiled_into_a_loop(symmetric):
    M, rng = identity(symmetric), np.random.default_rng(0)
    left, right = change(rng, 2, symmetric)
    left, right = 0.1 * left, 0.1 * right
    v, expected, product = rng.normal(size=(N, 1)), np.eye(N), np.zeros([N, 1])
    for _ in range(4):
        expected = 0.9 * expected + left.T @ right
        product = product + expected @ v

    def turn(i, total):
        M.apply(tf.constant(0.9, tf.float64), tf.constant(left), tf.constant(right))
        return i + 1, total + M.product(tf.constant(v))

    run = tf.function(
        lambda turns: tf.while_loop(lambda i, _: i < turns, turn, (tf.constant(0), tf.zeros([N, 1], tf.float64)))[1],
        jit_compile=True,
        autograph=False,
    )
    np.testing.assert_allclose(run(tf.constant(4)), product, rtol=0, atol=1e-12)
    assert_means(M, expected)


def test_the_squares_on_the_diagonal_stay_symmetric_to_the_bit():
    M, rng = identity(True, dtype="float32"), np.random.default_rng(0)
    apply = tf.function(lambda left, right: M.apply(tf.constant(1.01), left, right, tf.constant(0.3)), autograph=False)
    for _ in range(20):
        apply(*map(tf.constant, change(rng, 3, True, "float32")))
    for part in M.parts:
        square = part.numpy()[:, -part.shape[0] :]
        np.testing.assert_array_equal(square, square.T)


@pytest.mark.parametrize("k", [1, PASS + 1])
def test_a_factor_of_zero_forgets_what_is_not_finite(k):
    M = identity(False)
    for part in M.parts:
        part.assign(np.full(part.shape, np.nan))
    left, right = change(np.random.default_rng(0), k, False)
    apply = tf.function(lambda scale: M.apply(scale, tf.constant(left), tf.constant(right)), autograph=False)
    apply(tf.constant(0.0, tf.float64))
    assert_means(M, left.T @ right)


@every_symmetry
def test_it_becomes_the_identity_again(symmetric):
    M = identity(symmetric)
    for part in M.parts:
        part.assign(np.full(part.shape, 7.0))
    M.make_identity()
    np.testing.assert_array_equal(whole(M), np.eye(N))


# --- Panels that come later -----------------------------------------------------------------------------


@every_symmetry
@pytest.mark.parametrize("graph", [False, True])
def test_absent_panels_take_nothing_until_they_are_filled(symmetric, graph):
    M = in_variables(Panels.absent(N, tf.float64, symmetric))
    assert [part.numpy().shape for part in M.parts] == [(0, width) for width in M.widths().values()]
    A = np.random.default_rng(0).normal(size=(N, N))
    A = A + A.T if symmetric else A
    fill = tf.function(M.fill, autograph=False) if graph else M.fill
    fill(lambda columns: tf.linalg.matmul(tf.constant(A.T), columns))
    assert sum(part.numpy().nbytes for part in M.parts) <= M.filled
    np.testing.assert_array_equal([part.numpy().shape[0] for part in M.parts], np.diff(EDGES))
    filled = Panels(tuple(tf.constant(part.numpy()) for part in M.parts), N, symmetric)
    assert_means(filled, A)
