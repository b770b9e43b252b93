"""Tests of trainloop.matrix_conversion: what was saved in one storage is loaded into another."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_rank_one_sum import best

import trainloop as tl
from trainloop.shared_matrix import SharedMatrix

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

N = 6
STORAGES = ["dense", "dense:0", "dense:3", "factored", "factored:40:restart", "factored:4:dense"]
PAIRS = list(itertools.permutations(STORAGES, 2))


class Changing(tl.GlobalVectorOptimizer):
    """x stays; B changes as a small method would change it."""

    def __init__(self, storage, updates, **kwargs):
        super().__init__(None, **kwargs)
        self.storage, self.updates = storage, updates

    def init_state(self, x):
        n = x.shape[0]
        return {"B": SharedMatrix.identity(n, dtype=x.dtype, storage=self.storage, updates=self.updates)}

    def update(self, x, g, state):
        B, u = state["B"], g / tf.norm(g)
        if self.updates == "dilations":
            return x, {"B": B.dilate(u, 0.5).scale(1.1)}
        B = B.scale(1.1).add_symmetric(u, -0.3)
        return x, {"B": B.add_outer(u, tf.reverse(u, [0]), 0.2) if self.updates == "any" else B}


def built(storage, updates, steps=0, n=N):
    """An optimizer after some steps, and its matrix as NumPy has it."""
    optimizer = Changing(storage, updates)
    variable = keras.Variable(np.zeros(n), dtype="float64")
    optimizer.build([variable])
    optimizer.given = (variable,)
    gradients = np.random.default_rng(0).normal(size=(steps, n))
    for g in gradients:
        optimizer.apply([tf.constant(g)], [variable])
    M = np.eye(n)
    for g in gradients:
        u = g / np.linalg.norm(g)
        if updates == "dilations":
            M = 1.1 * M @ (np.eye(n) - 0.5 * np.outer(u, u))
        else:
            M = 1.1 * M - 0.3 * np.outer(u, u) + (0.2 * np.outer(u, u[::-1]) if updates == "any" else 0)
    return optimizer, M


def saved(optimizer):
    store = {}
    optimizer.save_own_variables(store)
    return store


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
