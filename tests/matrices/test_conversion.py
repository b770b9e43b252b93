"""Tests of trainloop.matrices.conversion: what was saved in one storage is loaded into another."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from matrix_cases import best, built, saved

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

N = 6
STORAGES = ["dense", "dense:0", "dense:3", "factored", "factored:40:restart", "factored:4:dense"]
PAIRS = list(itertools.permutations(STORAGES, 2))


@pytest.mark.parametrize(
    ("before", "after", "updates"),
    [(*pair, "symmetric") for pair in PAIRS]
    + [("dense", "factored", "any"), ("factored", "dense", "any"), ("dense:3", "factored:40:restart", "any")],
)
def test_a_sum_is_the_same_matrix_in_every_other_storage_and_goes_on(before, after, updates):
    (one, M), (other, _) = built(before, updates, steps=3), built(after, updates)
    other.load_own_variables(saved(one))
    np.testing.assert_allclose(other.state["B"].to_dense(), M, atol=1e-13)
    g = np.arange(1.0, N + 1)
    for optimizer in (one, other):
        optimizer.apply([tf.constant(g)], optimizer.given)
    np.testing.assert_allclose(other.state["B"].to_dense(), one.state["B"].to_dense(), atol=1e-12)


@pytest.mark.parametrize("before", STORAGES)
@pytest.mark.parametrize("after", ["dense", "dense:0", "dense:8"])
def test_dilations_become_dense_from_every_storage(before, after):
    (one, M), (other, _) = built(before, "dilations", steps=11), built(after, "dilations")
    other.load_own_variables(saved(one))
    np.testing.assert_allclose(other.state["B"].to_dense(), M, atol=1e-13)


@pytest.mark.parametrize("after", ["factored:40:restart", "factored:64:dense"])
def test_dilations_stay_dilations_where_they_are_still_known(after):
    (one, M), (other, _) = built("factored", "dilations", steps=11), built(after, "dilations")
    other.load_own_variables(saved(one))
    np.testing.assert_allclose(other.state["B"].to_dense(), M, atol=1e-13)
    assert int(other.state["B"].scalars()["rank"]) == 11


def test_dense_numbers_are_no_product_of_dilations():
    (one, _), (other, _) = built("dense:0", "dilations", steps=3), built("factored", "dilations")
    with pytest.raises(ValueError, match="cannot be written as a product of dilations; load it with storage='dense'"):
        other.load_own_variables(saved(one))


def test_a_history_that_is_too_short_says_what_is_needed():
    (one, _), (other, _) = built("factored", "symmetric", steps=5), built("factored:4:restart", "symmetric")
    with pytest.raises(ValueError, match=r"rank 5 .* a capacity of 4; ask for more"):
        other.load_own_variables(saved(one))


@pytest.mark.parametrize("before", ["factored", "factored:4:restart"])
def test_a_history_that_is_full_makes_room_in_a_subspace_before_it_takes_a_change(before):
    (one, M), (other, _) = built(before, "symmetric", steps=4), built("factored:4:subspace", "symmetric")
    other.load_own_variables(saved(one))
    np.testing.assert_allclose(other.state["B"].to_dense(), M, atol=1e-13)
    other.apply([tf.constant(np.eye(N)[0])], other.given)
    assert {name: int(value) for name, value in other.state["B"].scalars().items()} == {"rank": 3, "times_full": 1}
    expected = 1.1 * (1.1**4 * np.eye(N) + best(M - 1.1**4 * np.eye(N), 2))
    expected[0, 0] -= 0.3
    np.testing.assert_allclose(other.state["B"].to_dense(), expected, atol=1e-12)


def test_a_matrix_of_another_model_is_refused():
    (one, _), (other, _) = built("dense", "symmetric", n=5), built("factored", "symmetric")
    with pytest.raises(ValueError, match="another optimizer's"):
        other.load_own_variables(saved(one))


def test_rank_and_capacity_and_pending_terms_are_restored_to_the_bit():
    for storage in STORAGES:
        (one, _), (other, _) = built(storage, "symmetric", steps=3), built(storage, "symmetric")
        other.load_own_variables(saved(one))
        for name, array in saved(one).items():
            np.testing.assert_array_equal(saved(other)[name], array)
