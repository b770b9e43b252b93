"""Shards in one process: where parts go, and a matrix sharded over 1, 2, 3 of them against NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from matrix_cases import Draw, assert_equals, eagerly, run_updates, with_variables
from networks import blobs, crossentropy, dense_net, weights

from trainloop import (
    BFGS,
    CMAES,
    LBFGS,
    SR1,
    ArrayData,
    Ellipsoid,
    FullMatrixAdaGrad,
    FunctionObjective,
    SaveCheckpoint,
    SharedMatrix,
    ShorR,
    SSBroyden,
    StochasticShorR,
    TestGD,
    TrainLoop,
    VectorRing,
)
from trainloop.distributed.shards import Shards, counted, deal, shard_over
from trainloop.matrices import dense, sharded_panels
from trainloop.matrices.sharded_panels import ShardedPanels
from trainloop.matrices.vector_ring import combine

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


@pytest.fixture(autouse=True)
def _few_panels(monkeypatch):
    """Six for up to three shards, twelve for up to six."""
    monkeypatch.setattr(sharded_panels, "_PANELS", 6)


every_count = pytest.mark.parametrize("shards", [1, 2, 3])
every_symmetry = pytest.mark.parametrize("symmetric", [False, True], ids=["any", "symmetric"])


def sharded(n, shards, storage="sharded", dtype="float64", updates="any"):
    with shard_over(shards):
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
    assert traffic == []


def test_shard_over_ends_where_it_ends():
    with shard_over(2):
        with shard_over(3):
            assert Shards.here().count == 3
        assert Shards.here().count == 2
    assert Shards.here().count == 1


@pytest.mark.parametrize("where", [0, -1, 2.0, True, "two", None])
def test_shards_are_those_of_a_strategy_or_a_number(where):
    with pytest.raises(ValueError, match=r"a number of shards.* must be an integer of at least 1, received"):
        Shards.of(where)
    with pytest.raises(ValueError, match="a number of shards"), shard_over(where):
        pass


def test_other_strategies_with_several_replicas_are_refused(monkeypatch):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    assert Shards.of(strategy).count == 1
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 2)
    with pytest.raises(ValueError, match="a MirroredStrategy or a MultiWorkerMirroredStrategy, received OneDevice"):
        Shards.of(strategy)


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
    B = sharded(n, shards, dtype=dtype, updates="symmetric" if symmetric else "any")
    assert (B.n, B.dtype.name, B.storage) == (n, dtype, "sharded")
    np.testing.assert_array_equal(B.to_dense().numpy(), np.eye(n, dtype=dtype), strict=True)
    assert_equals(B, np.eye(n))


@pytest.mark.parametrize("shards", [1, 3])
@every_symmetry
@pytest.mark.parametrize("n", [5, 17])
@pytest.mark.thorough_after(1)
def test_updates_in_place_equal_numpy(shards, symmetric, n):
    """5 rows are fewer than there are panels, 17 are more."""
    B, variables = with_variables(sharded(n, shards, updates="symmetric" if symmetric else "any"))
    M = run_updates(B, [1] * 12, symmetric)
    assert_equals(B, M)
    assert [name for name in variables if name.startswith("panel_")] == [f"panel_{i:02d}" for i in range(min(n, 6))]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("updates", ["any", "symmetric", "dilations"])
@pytest.mark.parametrize("storage", ["sharded:0", "sharded:3"])
@pytest.mark.thorough_after(1)
def test_every_change_is_that_of_numpy(shards, updates, storage):
    n = 5
    draw, M = Draw(n), np.eye(n)
    B, _ = with_variables(sharded(n, shards, storage, updates=updates))
    changes = {
        "any": ["symmetric", "scale", "outer", "dilate"],
        "symmetric": ["symmetric", "scale"],
        "dilations": ["dilate", "scale"],
    }[updates]
    for i in range(9):
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
@pytest.mark.thorough_after(1)
def test_a_value_dropped_without_commit_leaves_no_trace(symmetric):
    B, variables = with_variables(sharded(6, 2, updates="symmetric" if symmetric else "any"))
    run_updates(B, [1] * 10, symmetric, way=eagerly)
    before = {name: variable.numpy() for name, variable in variables.items()}
    x = np.ones(6)
    tf.function(lambda x: B.scale(3.0).add_symmetric(x, -1.0) @ x)(x)
    for name, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), before[name])


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_product_is_one_sum_of_n_numbers_and_a_change_none(symmetric):
    n = 30
    B, _ = with_variables(sharded(n, 3, "sharded:2", updates="symmetric" if symmetric else "any"))
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
def test_every_shard_has_its_part_of_the_numbers(monkeypatch, k, symmetric):
    """n^2 / k numbers of any matrix; of a symmetric one n^2 / (2 k) and a 24th of that more, give or take a little."""
    monkeypatch.undo()
    n = 48_000
    M = ShardedPanels.identity(n, tf.float32, symmetric, Shards.of(k))
    numbers = [sum(rows * width for _, _, (rows, width) in M._placed_in(shard)) for shard in range(k)]
    if symmetric:
        count = len(M.parts)
        assert sum(numbers) == n**2 / 2 * (1 + 1 / count)
        assert max(numbers) <= 1.15 * sum(numbers) / k
    else:
        assert sum(numbers) == n**2
        assert max(numbers) <= (1 if 24 % k == 0 else 1.1) * n**2 / k


def test_there_may_be_more_shards_than_rows():
    B, _ = with_variables(sharded(3, 5))
    assert_equals(B, run_updates(B, [1] * 10, False))


def test_large_panels_are_changed_in_one_pass(monkeypatch):
    monkeypatch.setattr(dense, "SMALL", 5)
    B, _ = with_variables(sharded(7, 2, updates="symmetric"))
    assert_equals(B, run_updates(B, [1] * 20, True))


def test_a_scope_in_which_variables_are_copied_is_refused():
    with (
        tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
        pytest.raises(ValueError, match=r"outside of strategy\.scope"),
    ):
        with_variables(SharedMatrix.identity(3, storage="sharded"))


# --- A history ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
@every_symmetry
@pytest.mark.parametrize(("storage", "count"), [("sharded:factored", 66), ("sharded:factored:20:restart", 15)])
@pytest.mark.thorough_after(1)
def test_a_sharded_history_is_that_of_numpy(shards, symmetric, storage, count):
    B, variables = with_variables(sharded(7, shards, storage, updates="symmetric" if symmetric else "any"))
    assert B.storage == "sharded"
    assert_equals(B, run_updates(B, [1] * count, symmetric))
    assert sum(variables[f"left_{i:02d}"].shape[1] for i in range(shards)) == 7
    assert "left" not in variables


@every_symmetry
def test_the_largest_terms_of_a_sharded_history_are_those_of_one_that_is_not(symmetric):
    updates = "symmetric" if symmetric else "any"
    (one, _), (other, _) = (
        with_variables(sharded(7, 3, f"{kind}factored:6:subspace", updates=updates)) for kind in ("", "sharded:")
    )
    for B in (one, other):
        run_updates(B, [1] * 15, symmetric, way=eagerly)
    np.testing.assert_allclose(other.to_dense(), one.to_dense(), rtol=0, atol=1e-12)


def test_a_product_with_a_sharded_history_is_a_sum_of_k_numbers_and_one_of_n():
    B, _ = with_variables(sharded(30, 3, "sharded:factored:5:restart"))
    with counted() as traffic:
        B @ np.ones(30)
        B.add_outer(np.ones(30), np.arange(30.0)).commit()
    assert [reduction.shape for reduction in traffic] == [(5, 1), (30, 1)]


@pytest.mark.parametrize(
    ("updates", "storage", "reason"),
    [
        ("dilations", "sharded:factored", "one sum over the shards after the other.* use storage='sharded'"),
        ("any", "sharded:factored:5:dense", "does not become dense.* 'sharded:factored:5:restart'"),
    ],
)
def test_what_is_not_sharded_raises_with_the_reason(updates, storage, reason):
    with pytest.raises(ValueError, match=reason):
        sharded(5, 2, storage, updates=updates)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("n", [2, 7, 2**11])
def test_a_sharded_ring_is_one_that_is_not(shards, n):
    rng = np.random.default_rng(0)
    with shard_over(shards):
        rings = [
            VectorRing.empty(3, n=n, dtype="float64", storage=storage).as_variables(
                lambda name, value, grows: tf.Variable(value)
            )
            for storage in ("dense", "sharded")
        ]
    for row in (0, 2, 0, 1):
        v, u = rng.normal(size=(2, n))
        for ring in rings:
            ring.put(row, v).put((row + 1) % 3, u, False).commit()
    v, c = tf.constant(rng.normal(size=n)), tf.constant(rng.normal(size=3))
    with counted() as traffic:
        results = [(ring.dots(v), combine(tf.constant(2.0, v.dtype), v, (ring, c))) for ring in rings]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-11)
    assert [reduction.shape for reduction in traffic] == ([(3,), (n,)] if shards > 1 else [])


# --- What is saved --------------------------------------------------------------------------------------


def saved(optimizer):
    store = {}
    optimizer.save_own_variables(store)
    return store


def built(make, shards, store=None, n=11):
    """An optimizer in a number of shards, after some steps or as it was saved."""
    variable = tf.Variable(np.linspace(-1, 1, n))
    with shard_over(shards):
        optimizer = make()
        optimizer.build([variable])
    if store is not None:
        optimizer.load_own_variables(store)
        return optimizer
    objective = FunctionObjective(lambda x: tf.reduce_sum(tf.square(x - 1)) + x[0] ** 4)
    step = tf.function(
        lambda: optimizer.step(objective, objective.value_and_grad(variable.read_value())).status, autograph=False
    )
    for _ in range(4):
        step()
    return optimizer


METHODS = {
    "matrix": lambda: TestGD(rad=20.0, storage="sharded:2"),
    "history": lambda: TestGD(rad=20.0, storage="sharded:factored:5:restart"),
    "ring": lambda: LBFGS(m=3, storage="sharded"),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
@pytest.mark.thorough_after(1)
def test_what_is_saved_in_two_shards_is_loaded_to_the_bit_in_any_number_and_goes_on(make):
    two = saved(built(make, 2))
    for shards in (1, 3):
        other = saved(built(make, shards, two))
        assert list(other) == list(two)
        for name, array in two.items():
            assert other[name].tobytes() == array.tobytes()


def test_more_panels_for_more_shards_are_the_same_matrix():
    def make():
        return TestGD(rad=20.0, storage="sharded:0")

    five = built(make, 5)
    two = built(make, 2, saved(five))
    assert len(saved(five)) > len(saved(two))
    np.testing.assert_array_equal(two.state["B"].to_dense(), five.state["B"].to_dense())


@pytest.mark.parametrize("storage", ["sharded", "sharded:factored"])
@pytest.mark.thorough_after(1)
def test_a_run_goes_on_from_its_checkpoint_in_another_number_of_shards(tmp_path, storage):
    def loop(hooks=()):
        return TrainLoop(dense_net(), TestGD(rad=5.0, storage=storage), crossentropy(), hooks=hooks)

    data, whole = ArrayData(*blobs(), 16), loop()
    whole.run(data, steps=7)
    with shard_over(2):
        loop([SaveCheckpoint(tmp_path, every_steps=4)]).run(data, steps=4)
    with shard_over(3):
        other = loop()
    assert "over 3 shards" in other.optimizer.state["B"].notes()[0]
    assert other.restore(tmp_path) == 4
    other.run(data, until_step=7)
    for one, same in zip(weights(other.model), weights(whole.model), strict=True):
        np.testing.assert_allclose(one, same, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("there", "here"),
    [("dense", "sharded"), ("dense:0", "sharded:0"), ("factored", "sharded"), ("factored", "sharded:factored")],
)
@pytest.mark.thorough_after(1)
def test_sharded_and_other_storages_are_loaded_into_each_other(there, here):
    for before, after in ((there, here), (here, there)):
        one = built(lambda word=before: TestGD(rad=20.0, storage=word), 2)
        other = built(lambda word=after: TestGD(rad=20.0, storage=word), 3, saved(one))
        np.testing.assert_allclose(other.state["B"].to_dense(), one.state["B"].to_dense(), rtol=0, atol=1e-14)


# --- The plan -------------------------------------------------------------------------------------------


def test_the_plan_has_the_parts_of_this_process(monkeypatch):
    """As worker 1 of 2 sees it."""
    monkeypatch.undo()
    n = 48_000
    half = ShardedPanels.identity(n, tf.float32, True, dataclasses.replace(Shards.of(2), mine=(1,), devices=(None,)))
    assert sum(part.shape.num_elements() for part in half.arrays) * 2 == n**2 / 2 * 25 / 24
    assert sum(part.shape.num_elements() for part in half.elsewhere) * 2 == n**2 / 2 * 25 / 24
    with shard_over(2):
        (note,) = TestGD(storage="sharded").memory_plan(n).notes
    assert note == (
        "B: sharded, half of n x n numbers, B being symmetric, sharded over 2 shards, here; "
        "up to 8 changes wait beside it"
    )


@pytest.mark.parametrize("cls", [TestGD, BFGS, SSBroyden, SR1, ShorR, StochasticShorR, Ellipsoid, LBFGS])
def test_methods_take_the_word(cls):
    method = cls(storage="sharded")
    assert type(method).from_config(method.get_config()).storage == "sharded"
    with shard_over(2):
        assert any("sharded over 2 shards" in note for note in method.memory_plan(10_000).notes)


@pytest.mark.parametrize("cls", [CMAES, FullMatrixAdaGrad])
def test_methods_that_need_all_of_the_matrix_at_once_refuse_it(cls):
    with pytest.raises(ValueError, match="takes no storage: it needs the eigenvectors of the whole matrix"):
        cls(storage="sharded")
