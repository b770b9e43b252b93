"""Sums of rank-one terms against loops over the terms in NumPy, and their best approximations against the SVD."""

import numpy as np
import pytest
import tensorflow as tf
from matrix_cases import best, with_variables

from trainloop.matrices import changes, rank_one_sum
from trainloop.matrices.history import first_rows
from trainloop.matrices.rank_one_sum import RankOneSum

N = 7
ATOL = {"float64": 1e-12, "float32": 1e-4}

every_symmetry = pytest.mark.parametrize("symmetric", [False, True], ids=["any", "symmetric"])
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
every_room = pytest.mark.parametrize("capacity", [None, 6], ids=["growing", "fixed"])


def empty(capacity, symmetric, dtype="float64", n=N):
    terms = RankOneSum.empty(n, capacity, tf.as_dtype(dtype), symmetric)
    return with_variables(terms)[0]


def draw(count, symmetric, dtype="float64", seed=0):
    """Terms (u, v, c), v the same object as u where they are symmetric."""
    rng = np.random.default_rng(seed)
    terms = []
    for _ in range(count):
        u = tf.constant(rng.normal(size=N), dtype)
        v = u if symmetric else tf.constant(rng.normal(size=N), dtype)
        terms.append((u, v, tf.constant(rng.normal(), dtype)))
    return terms


def sum_of(terms):
    M = np.zeros([N, N])
    for u, v, c in terms:
        M += float(c) * np.outer(np.asarray(u, float), np.asarray(v, float))
    return M


def assert_means(stored, M):
    dtype = stored.coefficients.dtype.name
    atol = ATOL[dtype] * max(1, np.abs(M).max())
    columns = np.random.default_rng(9).normal(size=(N, 2)).astype(dtype)
    np.testing.assert_allclose(stored.product(tf.constant(columns)), M @ columns, rtol=0, atol=atol)
    np.testing.assert_allclose(stored.transposed_product(tf.constant(columns)), M.T @ columns, rtol=0, atol=atol)
    left, right = stored.weighted()
    np.testing.assert_allclose(tf.matmul(left, right, transpose_a=True), M, rtol=0, atol=atol)


# --- Terms ----------------------------------------------------------------------------------------------


@every_room
@every_symmetry
@every_dtype
def test_terms_appended_one_by_one_and_together_are_their_sum(capacity, symmetric, dtype):
    stored, terms = empty(capacity, symmetric, dtype), draw(6, symmetric, dtype)
    assert_means(stored, np.zeros([N, N]))
    for first, last in [(0, 1), (1, 2), (2, 5), (5, 6)]:
        assert bool(stored.has_room_for(last - first))
        stored.append(terms[first:last])
        assert int(stored.rank) == last
        assert_means(stored, sum_of(terms[:last]))
    assert bool(stored.has_room_for(1)) == (capacity is None)


@every_symmetry
def test_symmetric_terms_are_kept_once(symmetric):
    stored = empty(6, symmetric)
    assert (stored.right is stored.left) == symmetric
    assert len(stored.arrays) == (3 if symmetric else 4)
    assert stored.in_words() == ("a vector" if symmetric else "two vectors")


@every_symmetry
def test_scaled_and_cleared_and_used_again(symmetric):
    stored, terms = empty(6, symmetric), draw(6, symmetric)
    stored.append(terms[:4])
    stored.scale(tf.constant(-3.0, tf.float64))
    assert_means(stored, -3 * sum_of(terms[:4]))
    stored.clear()
    assert int(stored.rank) == 0
    assert_means(stored, np.zeros([N, N]))
    stored.append(terms[4:])
    assert_means(stored, sum_of(terms[4:]))


def test_a_factor_of_zero_forgets_coefficients_that_are_not_finite():
    stored = empty(6, True)
    stored.append([(u, v, c * np.inf) for u, v, c in draw(2, True)])
    stored.scale(tf.constant(0.0, tf.float64))
    assert_means(stored, np.zeros([N, N]))


@every_symmetry
def test_weighted_terms_multiply_to_their_sum(symmetric):
    terms = draw(4, symmetric)
    left, right = changes.weighted(terms)
    np.testing.assert_allclose(left.numpy().T @ right.numpy(), sum_of(terms), atol=1e-13)


def test_symmetric_factors_give_both_halves_the_same_bits():
    stored, terms = empty(6, True, "float32"), draw(6, True, "float32")
    stored.append(terms)
    for left, right in (stored.weighted(), changes.weighted(terms)):
        for u, v in zip(left.numpy(), right.numpy(), strict=True):
            np.testing.assert_array_equal(np.outer(u, v), np.outer(v, u))


# --- Room -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rows"), [(1, 64), (2**18, 64), (2**20, 16), (2**21, 8), (10**9, 8)])
def test_a_growing_history_begins_with_64_rows_or_fewer_where_they_are_long(n, rows):
    assert first_rows(n) == rows
    assert RankOneSum.empty(n, None, tf.float64, True).left.shape == [rows, n]


@every_symmetry
@pytest.mark.parametrize(("before", "r", "after"), [(64, 1, 128), (64, 100, 164), (400, 1, 500)])
def test_growing_keeps_the_terms_and_adds_a_quarter_or_what_is_needed(monkeypatch, symmetric, before, r, after):
    monkeypatch.setattr(rank_one_sum, "first_rows", lambda n: before)
    stored, terms = empty(None, symmetric), draw(3, symmetric)
    monkeypatch.undo()
    stored.append(terms)
    stored.grow(r)
    assert int(stored.room) == after
    assert all(len(array.numpy()) == after for array in (stored.left.whole, stored.right.whole, stored.coefficients))
    assert (stored.grows, stored.capacity) == (True, None)
    assert_means(stored, sum_of(terms))


def test_a_fixed_room_is_a_number():
    stored = empty(6, True)
    assert (stored.grows, stored.capacity) == (False, 6)
    stored.append(draw(4, True))
    assert (bool(stored.has_room_for(2)), bool(stored.has_room_for(3))) == (True, False)


# --- The best approximation -----------------------------------------------------------------------------


def test_of_orthogonal_terms_those_with_the_largest_coefficients_stay():
    """In closed form: sum c_j e_j e_j' keeps |c| = 5, 4 of c = 1, -5, 2, 4, -3."""
    stored, unit = empty(6, True), tf.unstack(tf.eye(N, dtype=tf.float64))
    stored.append([(u, u, tf.constant(c, tf.float64)) for u, c in zip(unit, [1.0, -5, 2, 4, -3], strict=False)])
    stored.keep_largest(2)
    assert_means(stored, np.diag([0, -5, 0, 4, 0, 0, 0]))


@every_symmetry
@every_dtype
@pytest.mark.parametrize("r", [1, 3, 5])
@pytest.mark.parametrize("graph", [False, True])
def test_any_terms_become_their_best_approximation_and_more_may_follow(symmetric, dtype, r, graph):
    stored, terms = empty(6, symmetric, dtype), draw(6, symmetric, dtype)
    stored.append(terms)
    keep = tf.function(stored.keep_largest, autograph=False) if graph else stored.keep_largest
    keep(r)
    expected = best(sum_of(terms), r)
    assert int(stored.rank) == r
    assert not stored.coefficients.numpy()[r:].any()
    assert_means(stored, expected)
    more = draw(1, symmetric, dtype, seed=1)
    stored.append(more)
    assert_means(stored, expected + sum_of(more))


@every_symmetry
def test_terms_that_depend_on_each_other_lose_nothing(symmetric):
    """Six terms of which three are multiples of the others: their rank is three, and so is the approximation's."""
    stored, terms = empty(6, symmetric), draw(3, symmetric)
    multiples = [(-2 * u, v if not symmetric else None, c) for u, v, c in terms]
    multiples = [(u, u if v is None else v, c) for u, v, c in multiples]
    stored.append(terms + multiples)
    stored.keep_largest(3)
    assert_means(stored, sum_of(terms + multiples))


@every_symmetry
def test_no_terms_stay_no_terms(symmetric):
    stored = empty(6, symmetric)
    stored.append([(tf.zeros_like(u), tf.zeros_like(v) if not symmetric else None, c) for u, v, c in draw(2, False)])
    stored.keep_largest(2)
    assert_means(stored, np.zeros([N, N]))
