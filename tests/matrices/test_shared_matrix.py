"""Tests of trainloop.matrices.shared_matrix: every operation against a dense NumPy matrix, described and committed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from matrix_cases import Draw, assert_equals, eagerly, run_updates, with_variables

from trainloop.matrices.changes import SumChange
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage import MatrixStorage

STORAGES = ["dense", "factored"]

every_storage = pytest.mark.parametrize("storage", STORAGES)
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])
every_symmetry = pytest.mark.parametrize("symmetric", [False, True])


def identity(n=5, storage="dense", dtype="float64", symmetric=False) -> SharedMatrix:
    return SharedMatrix.identity(n, storage=storage, dtype=dtype, updates="symmetric" if symmetric else "any")


# --- identity -------------------------------------------------------------------------------------------


@every_storage
@every_dtype
@every_symmetry
@pytest.mark.parametrize("n", [1, 2, 7])
def test_identity_is_the_identity(storage, dtype, symmetric, n):
    B = identity(n, storage, dtype, symmetric)
    assert (B.n, B.dtype.name, B.storage) == (n, dtype, storage)
    np.testing.assert_array_equal(B.to_dense().numpy(), np.eye(n, dtype=dtype), strict=True)
    assert_equals(B, np.eye(n))


@pytest.mark.parametrize("n", [0, -1, 2.0, True, None, "3"])
def test_identity_refuses_a_size(n):
    with pytest.raises(ValueError, match=f"n must be an integer of at least 1, received {n!r}"):
        SharedMatrix.identity(n)


@pytest.mark.parametrize("storage", ["dens", "Factored", "", "dense:8:restart", "factored:0:restart", "factored:9", 3])
def test_identity_refuses_a_storage_and_says_which_there_are(storage):
    with pytest.raises(
        ValueError, match=rf"one of auto, dense, factored, sharded, .* 'factored:1000:restart.*; received {storage!r}"
    ):
        SharedMatrix.identity(3, storage=storage)


def test_a_matrix_takes_no_memory_before_it_becomes_variables():
    B = SharedMatrix.identity(10_000_000, storage="dense", updates="symmetric")
    assert B.nbytes > 2 * 10**14


@pytest.mark.parametrize(
    ("n", "dtype", "storage"),
    [
        (10, "float32", "dense"),
        (4096, "float32", "dense"),  # exactly 64 MiB
        (4097, "float32", "factored"),
        (2896, "float64", "dense"),
        (2897, "float64", "factored"),
        (10_000_000, "float32", "factored"),
    ],
)
def test_auto_is_dense_up_to_64_mebibytes(n, dtype, storage):
    B = SharedMatrix.identity(n, dtype=dtype)
    assert B.storage == storage


@every_storage
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_matrix_of_one_number(storage, symmetric):
    B = identity(1, storage, symmetric=symmetric)
    B = B.add_symmetric([2.0], 0.5).scale(-3.0)  # -3 (1 + 0.5 * 4)
    np.testing.assert_allclose(B.to_dense(), [[-9.0]], rtol=1e-15)
    np.testing.assert_allclose(B.T @ tf.constant([2.0], tf.float64), [-18.0], rtol=1e-15)


# --- described changes ----------------------------------------------------------------------------------


@every_storage
@every_dtype
@every_symmetry
@pytest.mark.parametrize("n", [1, 6])
def test_random_changes_equal_numpy(storage, dtype, symmetric, n):
    draw, B, M = Draw(n, dtype), identity(n, storage, dtype, symmetric), np.eye(n)
    for _ in range(30):
        on_B, on_M = draw.change(symmetric)
        B, M = on_B(B), on_M(M)
    assert_equals(B, M)


@every_storage
@pytest.mark.parametrize("way", [tf.function, lambda function: tf.function(function, jit_compile=True)])
def test_changes_may_be_described_in_compiled_code(storage, way):
    draw, B = Draw(4, seed=1), identity(4, storage)
    u, v, xi, x = draw.vector(), draw.vector(), draw.unit(), draw.vector()
    M = 0.5 * (np.eye(4) + 2 * np.outer(u, v)) @ (np.eye(4) + 2 * np.outer(xi, xi))
    y = way(lambda x: B.add_outer(u, v, 2.0).scale(0.5).dilate(xi, 3.0) @ x)(x)
    np.testing.assert_allclose(y, M @ x, rtol=1e-13)


@every_storage
def test_dilation_stretches_along_its_direction_only(storage):
    B, xi = identity(3, storage), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(B.dilate(xi, 4.0).to_dense(), np.diag([1.0, 4.0, 1.0]), rtol=1e-15)


@every_storage
def test_the_default_coefficient_is_one(storage):
    u, v = np.arange(5.0), np.ones(5)
    np.testing.assert_allclose(identity(5, storage).add_outer(u, v).to_dense(), np.eye(5) + np.outer(u, v))
    np.testing.assert_allclose(identity(5, storage).add_symmetric(u).to_dense(), np.eye(5) + np.outer(u, u))


@every_storage
def test_values_are_immutable(storage):
    draw, values = Draw(4), [identity(4, storage)]
    snapshots = [values[0].to_dense().numpy()]
    for _ in range(10):
        values.append(draw.change()[0](values[-1]))
        snapshots.append(values[-1].to_dense().numpy())
    for value, snapshot in zip(values, snapshots, strict=True):
        np.testing.assert_array_equal(value.to_dense(), snapshot)


@every_storage
def test_one_value_may_be_changed_in_two_ways(storage):
    B, u = identity(3, storage).scale(2.0), np.ones(3)
    added, scaled = B.add_symmetric(u), B.scale(5.0)
    np.testing.assert_allclose(added.to_dense(), 2 * np.eye(3) + np.ones((3, 3)))
    np.testing.assert_allclose(scaled.to_dense(), 10 * np.eye(3))


def test_describes_change_of_knows_what_was_derived():
    B, other = identity(3), identity(3)
    derived = B.scale(2.0).add_symmetric(np.ones(3)).dilate(np.eye(3)[0], 2.0)
    assert derived.describes_change_of(B)
    assert B.describes_change_of(B)
    assert not other.describes_change_of(B)
    assert not derived.describes_change_of(other)


def test_repr_tells_whether_something_is_pending():
    B = identity(3, "factored")
    assert repr(B) == "SharedMatrix(n=3, dtype=float64, storage='factored')"
    assert repr(B.add_symmetric(np.ones(3))) == "SharedMatrix(n=3, dtype=float64, storage='factored', changed)"


# --- refusals -------------------------------------------------------------------------------------------

WRONG_VECTORS = [np.ones(2), np.ones(4), np.ones((3, 1)), np.ones((1, 3)), 1.0]


@every_storage
@pytest.mark.parametrize("wrong", WRONG_VECTORS)
@pytest.mark.parametrize(
    "operation",
    [
        lambda B, w: B.add_symmetric(w),
        lambda B, w: B.add_outer(w, np.ones(3)),
        lambda B, w: B.add_outer(np.ones(3), w),
        lambda B, w: B.dilate(w, 2.0),
    ],
    ids=["add_symmetric", "add_outer left", "add_outer right", "dilate"],
)
def test_vectors_of_a_wrong_shape_are_refused(storage, wrong, operation):
    with pytest.raises(ValueError, match=r"B is \[3, 3\] and takes vectors of shape \[3\], received"):
        operation(identity(3, storage), wrong)


@every_storage
@pytest.mark.parametrize("wrong", [np.ones(2), np.ones((4, 1)), np.ones((1, 3)), np.ones((3, 1, 1)), 1.0])
def test_products_of_a_wrong_shape_are_refused(storage, wrong):
    B = identity(3, storage)
    for matrix in (B, B.T):
        with pytest.raises(ValueError, match=r"B is \[3, 3\] and multiplies \[3\] or \[3, k\], received"):
            matrix @ wrong


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones(1), np.ones((1, 1))])
@pytest.mark.parametrize(
    "operation",
    [
        lambda B, w: B.scale(w),
        lambda B, w: B.add_symmetric(np.ones(3), w),
        lambda B, w: B.add_outer(np.ones(3), np.ones(3), w),
        lambda B, w: B.dilate(np.eye(3)[0], w),
    ],
    ids=["scale", "add_symmetric", "add_outer", "dilate"],
)
def test_coefficients_that_are_no_scalars_are_refused(operation, wrong):
    """They would broadcast, and the products would silently be those of another matrix."""
    with pytest.raises(ValueError, match=r"shape \[\]|scalar"):
        operation(identity(3), wrong)


@every_storage
def test_a_symmetric_matrix_refuses_what_would_break_the_symmetry(storage):
    B, u = identity(3, storage, symmetric=True), np.ones(3)
    with pytest.raises(ValueError, match="updates='symmetric' and cannot add_outer; use add_symmetric, scale"):
        B.add_outer(u, np.arange(3.0))
    with pytest.raises(ValueError, match="updates='symmetric'"):
        B.dilate(u / np.sqrt(3), 2.0)
    np.testing.assert_allclose(B.add_outer(u, u).to_dense(), np.eye(3) + 1)


# --- committed changes ----------------------------------------------------------------------------------


@every_storage
@every_dtype
@every_symmetry
@pytest.mark.thorough_after(1)
def test_hundreds_of_committed_updates_equal_numpy(storage, dtype, symmetric):
    B, _ = with_variables(identity(5, storage, dtype, symmetric))
    M = run_updates(B, [1] * 300, symmetric)
    assert_equals(B, M)


@every_storage
@every_symmetry
@pytest.mark.parametrize(
    "counts",
    [[11] * 30, [17] * 17, [16, 1, 15, 1, 16, 2], [257, 1, 270]],
    ids=["some at a time", "more than a block", "full blocks", "more than two blocks"],
)
def test_several_terms_per_commit_equal_numpy(storage, symmetric, counts):
    B, _ = with_variables(identity(4, storage, symmetric=symmetric))
    M = run_updates(B, counts, symmetric, way=eagerly)
    assert_equals(B, M)


@every_symmetry
@pytest.mark.parametrize("counts", [[], [1], [1] * 16, [1] * 17, [29] * 10], ids=sum)
def test_factored_keeps_one_row_per_committed_term_and_tells_how_many(symmetric, counts):
    B, _ = with_variables(identity(3, "factored", symmetric=symmetric))
    run_updates(B, counts, symmetric, way=eagerly)
    assert {name: int(value) for name, value in B.scalars().items()} == {"rank": sum(counts)}


def test_a_growing_history_has_at_most_a_quarter_more_room_than_it_needs():
    B, variables = with_variables(identity(3, "factored"))
    run_updates(B, [1] * 1000, symmetric=False)
    assert 1000 <= len(variables["coefficients"].numpy()) <= 1250


@every_dtype
def test_dense_takes_the_same_bytes_always(dtype):
    B, _ = with_variables(identity(3, "dense", dtype))
    run_updates(B, [1] * 20, symmetric=False, way=eagerly)
    assert B.nbytes == 3 * 3 * B.dtype.size


@every_storage
def test_nbytes_counts_the_stored_numbers_and_not_the_pending(storage):
    B, variables = with_variables(identity(3, storage))
    run_updates(B, [1, 2, 3], symmetric=False, way=eagerly)
    stored = sum(variable.numpy().nbytes for variable in variables.values())
    assert type(B.nbytes) is int
    assert B.nbytes == B.add_outer(np.ones(3), np.arange(3.0)).nbytes == stored


def test_nbytes_of_factored_is_known_to_compiled_code():
    B, variables = with_variables(identity(3, "factored"))
    nbytes = tf.function(lambda: B.nbytes)
    run_updates(B, [200], symmetric=False, way=eagerly)
    assert int(nbytes()) == B.nbytes == sum(variable.numpy().nbytes for variable in variables.values())
    assert nbytes().dtype == tf.int64


@every_storage
@every_symmetry
def test_changes_of_all_kinds_may_be_committed(storage, symmetric):
    draw, M = Draw(4), np.eye(4)
    B, _ = with_variables(identity(4, storage, symmetric=symmetric))
    for _ in range(20):
        on_B, on_M = draw.change(symmetric)
        on_B(B).commit()
        M = on_M(M)
        assert_equals(B, M)


def test_a_dense_update_may_be_committed_in_code_compiled_with_xla():
    B, _ = with_variables(identity(4, "dense"))
    draw, M = Draw(4), np.eye(4)
    update = tf.function(lambda xi, beta: B.dilate(xi, beta).commit(), jit_compile=True)
    for _ in range(10):
        xi, beta = draw.unit(), draw.number(1.0)
        update(xi, beta)
        M = M @ (np.eye(4) + (beta - 1) * np.outer(xi, xi))
    assert_equals(B, M)


@every_storage
def test_committing_what_is_unchanged_changes_nothing(storage):
    B, variables = with_variables(identity(4, storage))
    run_updates(B, [1] * 20, symmetric=False, way=eagerly)
    before = {name: variable.numpy() for name, variable in variables.items()}
    B.commit()
    for name, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), before[name])


@every_storage
def test_a_value_dropped_without_commit_leaves_no_trace(storage):
    B, variables = with_variables(identity(4, storage))
    run_updates(B, [1] * 20, symmetric=False, way=eagerly)
    before = {name: variable.numpy() for name, variable in variables.items()}
    x = np.ones(4)
    dropped = tf.function(lambda x: B.scale(3.0).add_outer(x, x, -1.0).dilate(x / 2, 2.0) @ x)(x)
    assert np.isfinite(dropped).all()
    for name, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), before[name])


@every_storage
def test_a_product_before_the_commit_belongs_to_the_old_value_and_after_it_to_the_new(storage):
    B, _ = with_variables(identity(3, storage))

    @tf.function
    def update(x):
        new = B.scale(2.0).add_symmetric(x)
        old_product, new_product = B @ x, new @ x
        new.commit()
        return old_product, new_product, B @ x

    x = np.array([1.0, 0.0, 2.0])  # x'x = 5
    old, described, committed = update(x)
    np.testing.assert_allclose(old, x)
    np.testing.assert_allclose(described, 7 * x)
    np.testing.assert_allclose(committed, 7 * x)


@every_storage
def test_a_committed_value_can_be_described_by_changes_again(storage):
    B, _ = with_variables(identity(3, storage))
    B.scale(2.0).commit()
    derived = B.scale(3.0)
    assert derived.describes_change_of(B)
    np.testing.assert_allclose(derived.to_dense(), 6 * np.eye(3))


@every_storage
@every_symmetry
def test_variables_hold_everything(storage, symmetric):
    """Assigned to the variables of a fresh matrix, as a checkpoint does, they make it the same matrix."""
    B, variables = with_variables(identity(4, storage, symmetric=symmetric))
    M = run_updates(B, [30] * 10, symmetric, way=eagerly)
    restored, empty = with_variables(identity(4, storage, symmetric=symmetric))
    assert empty.keys() == variables.keys()
    for name, variable in empty.items():
        variable.assign(variables[name].numpy())
    np.testing.assert_array_equal(restored.to_dense(), B.to_dense())
    assert_equals(restored, M)


def test_a_symmetric_factored_matrix_keeps_one_vector_per_update():
    one, two = (with_variables(identity(1000, "factored", symmetric=symmetric)) for symmetric in (True, False))
    run_updates(one[0], [3], symmetric=True, way=eagerly)
    run_updates(two[0], [3], symmetric=False, way=eagerly)
    names = [{name for name, v in variables.items() if v.shape.rank == 2} for _, variables in (one, two)]
    assert names == [{"left"}, {"left", "right"}]


@pytest.mark.parametrize("change", [lambda B: B.scale(2.0), lambda B: B.add_symmetric(np.ones(3))])
def test_a_changed_value_cannot_become_variables(change):
    with pytest.raises(ValueError, match="must return a SharedMatrix as built, without changes"):
        with_variables(change(identity(3)))


ARITHMETIC = {
    "B - tensor": lambda B, v: B - tf.tensordot(v, v, 0),
    "tensor - B": lambda B, v: tf.tensordot(v, v, 0) - B,
    "B + array": lambda B, v: B + np.eye(3),
    "array + B": lambda B, v: np.eye(3) + B,
    "B + B": lambda B, v: B + B,
    "2 B": lambda B, v: 2.0 * B,
    "B 2": lambda B, v: B * 2.0,
    "tensor B": lambda B, v: tf.constant(2.0, tf.float64) * B,
    "number B": lambda B, v: np.float64(2) * B,
    "B / 2": lambda B, v: B / 2,
    "-B": lambda B, v: -B,
    "matvec": lambda B, v: tf.linalg.matvec(B, v),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("operation", ARITHMETIC)
def test_arithmetic_names_the_operations_that_there_are(operation, compiled):
    function = tf.function(ARITHMETIC[operation], autograph=False) if compiled else ARITHMETIC[operation]
    with pytest.raises(TypeError, match=r"B.add_outer\(u, v, c\), .* B.scale\(s\), .* B.shift\(c\)"):
        function(identity(3), tf.ones(3, tf.float64))


@pytest.mark.parametrize(
    ("product", "words"),
    [
        (lambda B, v: v @ B, r"for x' B use B.T @ x|B @ x multiplies"),  # a tensor asks for a tensor first
        (lambda B, v: v.numpy() @ B, r"for x' B use B.T @ x"),
        (lambda B, v: B @ B, r"for B1 B2 use B1 @ B2.to_dense\(\)"),
    ],
)
def test_products_that_there_are_not(product, words):
    with pytest.raises(TypeError, match=words):
        product(identity(3), tf.ones(3, tf.float64))


def test_the_operations_that_are_named_are_what_was_meant():
    u, v, B = tf.constant([1.0, 2, 3], tf.float64), tf.constant([0.0, 1, -1], tf.float64), identity(3)
    one = np.eye(3)
    np.testing.assert_allclose(B.add_outer(u, v, -1.0).to_dense(), one - np.outer(u, v))
    np.testing.assert_allclose(B.add_symmetric(u, 2.0).to_dense(), one + 2 * np.outer(u, u))
    np.testing.assert_allclose(B.scale(0.5).to_dense(), one / 2)
    np.testing.assert_allclose(B.shift(3.0).to_dense(), 4 * one)
    changed = B.add_outer(u, v)
    np.testing.assert_allclose(changed.T @ u, np.asarray(u) @ (one + np.outer(u, v)))
    np.testing.assert_allclose(changed.reset().to_dense(), one)


@pytest.mark.parametrize("dtype", ["int32", tf.int64, "bool", "complex64", "floaty", int])
def test_a_dtype_that_is_not_floating(dtype):
    with pytest.raises(ValueError, match=r"dtype must be a floating dtype, received .*; pass that of x"):
        SharedMatrix.identity(3, dtype=dtype)


# --- A storage of somebody else -------------------------------------------------------------------------


class Plain(MatrixStorage):
    """All numbers in one array, written from what `MatrixStorage` and `Change` say."""

    no_change = SumChange()
    storage, dtype = "plain", tf.float64

    def __init__(self, M):
        self.M, self.n = M, M.shape[0]

    @property
    def arrays(self):
        return (self.M,)

    def product(self, columns):
        return tf.matmul(self.M, columns)

    def transposed_product(self, columns):
        return tf.matmul(self.M, columns, transpose_a=True)

    def as_variables(self, make_variable):
        return Plain(make_variable("M", self.M, False))

    def commit(self, change):
        self.M.assign(change.product(self.product, tf.eye(self.n, dtype=self.dtype)))

    def note(self):
        return "plain"


@every_symmetry
def test_a_storage_of_somebody_else_is_a_matrix_as_any_other(symmetric):
    B, variables = with_variables(SharedMatrix(Plain(tf.eye(5, dtype=tf.float64)), "any"))
    assert list(variables) == ["M"]
    assert (B.n, B.storage, B.nbytes, B.workspace, B.failures(), B.notes()) == (5, "plain", 200, 0, [], ("plain",))
    M = run_updates(B, [2] * 5, symmetric)
    assert_equals(B, M)
    u = Draw(5).unit()
    dilated = M @ (np.eye(5) - 0.5 * np.outer(u, u))
    assert_equals(B.dilate(u, 0.5).shift(2.0), dilated + 2 * np.eye(5))
    assert_equals(B.reset(), np.eye(5))
