"""Shards in one process: where parts go, and a matrix spread over 1, 2, 3 of them against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_shared_matrix import Draw, assert_equals, eagerly, run_updates, with_variables

from trainloop import panels
from trainloop.shards import ALONE, Shards, counted, deal, spread_over
from trainloop.shared_matrix import SharedMatrix

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

every_count = pytest.mark.parametrize("shards", [1, 2, 3])
every_symmetry = pytest.mark.parametrize("symmetric", [False, True], ids=["any", "symmetric"])


def spread(n, shards, storage="sharded", dtype="float64", updates="any"):
    with spread_over(shards):
        return SharedMatrix.identity(n, storage=storage, dtype=dtype, updates=updates)


# --- Where parts go -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "count", "loads"),
    [
        ([], 2, [0, 0]),
        ([5], 3, [0, 0, 5]),
        ([1] * 24, 4, [6] * 4),
        (range(1, 25), 2, [150, 150]),
        (range(1, 25), 3, [100, 100, 100]),
        (range(1, 25), 12, [25] * 12),
        (range(1, 25), 7, [42, 42, 42, 42, 43, 44, 45]),
    ],
)
def test_all_shards_are_dealt_about_as_much(sizes, count, loads):
    dealt = [0] * count
    for size, owner in zip(sizes, deal(list(sizes), count), strict=True):
        dealt[owner] += size
    assert sorted(dealt) == loads


def test_without_a_strategy_there_is_one_shard_and_nothing_is_summed():
    with counted() as traffic:
        shards = Shards.here()
        assert (shards.count, shards.mine, shards.strategy) == (1, (0,), None)
        assert shards.sum([tf.constant([2.0])]).numpy() == [2.0]
    assert shards is not ALONE
    assert traffic == []


def test_spread_over_ends_where_it_ends():
    with spread_over(2):
        with spread_over(3):
            assert Shards.here().count == 3
        assert Shards.here().count == 2
    assert Shards.here().count == 1


def test_sums_are_counted_with_their_bytes():
    shards = Shards.of(2)
    with counted() as traffic:
        total = shards.sum([tf.ones([5, 3]), 2 * tf.ones([5, 3])])
    shards.sum([tf.ones([]), tf.ones([])])
    np.testing.assert_array_equal(total, 3 * np.ones([5, 3]))
    assert [(reduction.shape, reduction.nbytes) for reduction in traffic] == [((5, 3), 60)]


# --- A matrix -------------------------------------------------------------------------------------------


@every_count
@every_symmetry
@pytest.mark.parametrize(("n", "dtype"), [(1, "float64"), (2, "float64"), (7, "float64"), (31, "float32")])
def test_the_identity_is_the_identity(shards, symmetric, n, dtype):
    B = spread(n, shards, dtype=dtype, updates="symmetric" if symmetric else "any")
    assert (B.n, B.dtype.name, B.storage) == (n, dtype, "sharded")
    np.testing.assert_array_equal(B.to_dense().numpy(), np.eye(n, dtype=dtype), strict=True)
    assert_equals(B, np.eye(n))


@every_count
@every_symmetry
@pytest.mark.parametrize("n", [1, 5, 26])
def test_updates_in_place_equal_numpy(shards, symmetric, n):
    B, variables = with_variables(spread(n, shards, updates="symmetric" if symmetric else "any"))
    M = run_updates(B, [1] * 20, symmetric)
    assert_equals(B, M)
    assert [name for name in variables if name.startswith("panel_")] == [f"panel_{i:02d}" for i in range(min(n, 24))]


@every_count
@pytest.mark.parametrize("updates", ["any", "symmetric", "dilations"])
@pytest.mark.parametrize("storage", ["sharded:0", "sharded:3"])
def test_every_change_is_that_of_numpy(shards, updates, storage):
    n = 5
    draw, M = Draw(n), np.eye(n)
    B, _ = with_variables(spread(n, shards, storage, updates=updates))
    changes = {
        "any": ["symmetric", "scale", "outer", "dilate"],
        "symmetric": ["symmetric", "scale"],
        "dilations": ["dilate", "scale"],
    }[updates]
    for i in range(13):
        on_B, on_M = getattr(draw, f"_{changes[i % len(changes)]}")()
        on_B(B).commit()
        M = on_M(M)
    if updates != "dilations":
        B.shift(tf.constant(0.7, tf.float64)).commit()
        M = M + 0.7 * np.eye(n)
    assert_equals(B, M)
    B.reset(False).commit()
    assert_equals(B, M)
    B.reset().commit()
    assert_equals(B, np.eye(n))


@every_symmetry
def test_a_value_dropped_without_commit_leaves_no_trace(symmetric):
    B, variables = with_variables(spread(6, 2, updates="symmetric" if symmetric else "any"))
    run_updates(B, [1] * 10, symmetric, way=eagerly)
    before = {name: variable.numpy() for name, variable in variables.items()}
    x = np.ones(6)
    tf.function(lambda x: B.scale(3.0).add_symmetric(x, -1.0) @ x)(x)
    for name, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), before[name])


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_product_is_one_sum_of_n_numbers_and_a_change_none(symmetric):
    n = 30
    B, _ = with_variables(spread(n, 3, "sharded:2", updates="symmetric" if symmetric else "any"))
    x = tf.ones([n], tf.float64)

    def traffic(work):
        with counted() as reductions:
            work()
        return [reduction.nbytes for reduction in reductions]

    assert traffic(lambda: B @ x) == traffic(lambda: B.T @ x) == [8 * n]
    assert traffic(lambda: B @ tf.ones([n, 4], tf.float64)) == [4 * 8 * n]
    assert traffic(lambda: [B.scale(0.5).add_symmetric(x, 0.1).commit() for _ in range(5)]) == []
    assert traffic(lambda: B.to_dense()) == [8 * n * n]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 8, 12, 16])
def test_every_shard_has_its_part_of_the_numbers(k, symmetric):
    """n^2 / k numbers of any matrix; of a symmetric one n^2 / (2 k) and a 24th of that more, give or take a little."""
    n = 48_000
    M = panels.Panels.identity(n, tf.float32, symmetric, Shards.of(k))
    numbers = [sum(rows * width for _, _, (rows, width) in M._placed(shard)) for shard in range(k)]
    if symmetric:
        count = len(M.parts)
        assert sum(numbers) == n**2 / 2 * (1 + 1 / count)
        assert max(numbers) <= 1.15 * sum(numbers) / k
    else:
        assert sum(numbers) == n**2
        assert max(numbers) <= (1 if 24 % k == 0 else 1.1) * n**2 / k


def test_there_may_be_more_shards_than_rows():
    B, _ = with_variables(spread(3, 5))
    assert_equals(B, run_updates(B, [1] * 10, False))


def test_large_panels_are_changed_in_one_pass(monkeypatch):
    monkeypatch.setattr(panels, "SMALL", 10)
    B, _ = with_variables(spread(50, 2, updates="symmetric"))
    assert_equals(B, run_updates(B, [1] * 20, True))


def test_a_scope_in_which_variables_are_copied_is_refused():
    with (
        tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
        pytest.raises(ValueError, match=r"outside of strategy\.scope"),
    ):
        with_variables(SharedMatrix.identity(3, storage="sharded"))
    keras.backend.clear_session()
