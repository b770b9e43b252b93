"""What a matrix does at the moment its history is full, and what must not touch the history."""

import numpy as np
import pytest
import tensorflow as tf
from matrix_cases import best, built, dense_product, draw_dilations, saved, with_variables
from networks import blobs, crossentropy, dense_net, weights

from trainloop import ArrayData, GlobalVectorOptimizer, SharedMatrix, Status, TestGD, TrainingError, TrainLoop
from trainloop.matrices import dense as panels
from trainloop.matrices import shared_matrix
from trainloop.matrices.dilation_product import GROUP

N, LARGE = 7, 47  # one panel, four panels
ROOM = {"symmetric": 4, "any": 4, "dilations": GROUP}  # of "factored:4:...": dilations come in groups
POLICIES = ["restart", "subspace", "dense", "error"]

every_kind = pytest.mark.parametrize("updates", ROOM)
sums = pytest.mark.parametrize("updates", ["symmetric", "any"])
compiled_or_not = pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
one_panel_or_several = pytest.mark.parametrize("n", [N, LARGE])


@pytest.fixture(autouse=True)
def _several_panels(monkeypatch):
    monkeypatch.setattr(panels, "SMALL", 10)
    monkeypatch.setattr(shared_matrix, "SMALL", 10)


class Matrix:
    """A matrix in variables that is changed in compiled code, and NumPy's M, which is changed likewise.

    B <- 0.9 B + c u v', for a symmetric one v = u; or by a dilation, B <- 0.9 B (I + c u u').
    """

    def __init__(self, storage, updates, n=N, jit_compile=False):
        identity = SharedMatrix.identity(n, dtype="float64", storage=storage, updates=updates)
        self.B, self.variables = with_variables(identity)
        self.updates, self.M, self.rng = updates, np.eye(n), np.random.default_rng(0)
        self._compiled = tf.function(self._commit, autograph=False, jit_compile=jit_compile)

    def _commit(self, u, v, c):
        B = self.B.scale(0.9)
        if self.updates == "dilations":
            B.dilate(u, 1 + c).commit()
        else:
            (B.add_symmetric(u, c) if self.updates == "symmetric" else B.add_outer(u, v, c)).commit()

    def change(self, times=1):
        for _ in range(times):
            u, v = self.rng.normal(size=(2, self.B.n)) / np.sqrt(self.B.n)
            c = self.rng.uniform(-0.4, 0.4)
            self._compiled(*(tf.constant(a, tf.float64) for a in (u, v, c)))
            change = c * np.outer(u, v if self.updates == "any" else u)
            self.M = 0.9 * self.M + (0.9 * self.M @ change if self.updates == "dilations" else change)

    def check(self, atol=1e-13):
        np.testing.assert_allclose(self.B.to_dense(), self.M, rtol=0, atol=atol)
        np.testing.assert_allclose(self.B.T @ np.eye(self.B.n), self.M.T, rtol=0, atol=atol)

    def scalars(self):
        return {name: int(value) for name, value in self.B.scalars().items()}


# --- Policies -------------------------------------------------------------------------------------------


@every_kind
@compiled_or_not
def test_restart_is_the_identity_instead_of_the_change_that_did_not_fit(updates, jit_compile):
    matrix, room = Matrix("factored:4:restart", updates, jit_compile=jit_compile), ROOM[updates]
    for times_full in (1, 2):
        matrix.change(room)
        matrix.check()
        assert matrix.scalars() == {"rank": room, "times_full": times_full - 1}
        matrix.change()
        assert matrix.scalars() == {"rank": 0, "times_full": times_full}
        np.testing.assert_array_equal(matrix.B.to_dense(), np.eye(N))
        matrix.M = np.eye(N)


@every_kind
def test_the_shape_of_a_product_is_known_before_the_matrix_comes_into_being(updates):
    B, _ = with_variables(SharedMatrix.identity(1, storage="factored:4:dense", updates=updates))
    shapes = []

    @tf.function(autograph=False)
    def trace(v):
        shapes.extend([(B @ v).shape, (B.T @ v).shape, (B.scale(2.0) @ v[:, None]).shape])

    trace(tf.ones([1]))
    assert shapes == [[1], [1], [1, 1]]


@sums
@compiled_or_not
@pytest.mark.thorough_after(1)
def test_subspace_keeps_the_best_approximation_of_half_the_rank(updates, jit_compile):
    """Of the terms beside a multiple of the identity, once there is no room for another one.

    XLA iterates for eigenvalues and singular values only to about 1e-7.
    """
    matrix = Matrix("factored:4:subspace", updates, jit_compile=jit_compile)
    matrix.change(3)
    matrix.check()
    matrix.change()
    multiple = 0.9**4 * np.eye(N)
    matrix.M = multiple + best(matrix.M - multiple, 2)
    matrix.check(1e-5 if jit_compile else 1e-13)
    assert matrix.scalars() == {"rank": 2, "times_full": 1}
    matrix.change()
    matrix.check(1e-5 if jit_compile else 1e-13)


@pytest.mark.parametrize("storage", ["factored:4:subspace", "factored:5:subspace", "factored:2:subspace"])
@pytest.mark.thorough_after(1)
def test_contracted_matrices_stay_symmetric_and_positive_definite_in_a_subspace(storage):
    rng, v = np.random.default_rng(0), tf.Variable(np.zeros(N))
    optimizer = TestGD(rad=1.0, storage=storage)
    for _ in range(40):
        optimizer.apply([tf.constant(rng.normal(size=N))], [v])
        B = optimizer.state["B"].to_dense().numpy()
        np.testing.assert_allclose(B, B.T, rtol=0, atol=1e-14 * np.abs(B).max())
        assert np.linalg.eigvalsh(B)[0] > 0
    assert int(optimizer.state["B"].scalars()["times_full"]) > 10


def test_bfgs_updates_stay_positive_definite_in_a_subspace():
    H, _ = with_variables(SharedMatrix.identity(6, dtype="float64", storage="factored:4:subspace", updates="symmetric"))
    curvatures, steps = np.logspace(0, 2, 6), np.random.default_rng(0).normal(size=(10, 6))
    for s in steps:  # equation 6.17 of Nocedal and Wright, as at the top of `bfgs`
        y = curvatures * s
        u = (H @ y).numpy()
        stretch = 1 + y @ u / (s @ y)
        H.add_symmetric(s - u / stretch, stretch / (s @ y)).add_symmetric(u, -1 / (stretch * (s @ y))).commit()
        assert np.linalg.eigvalsh(H.to_dense())[0] > 0


@every_kind
@one_panel_or_several
@pytest.mark.thorough_after(1)
def test_dense_is_exact_before_and_after_the_numbers_come_into_being(updates, n):
    matrix, room = Matrix("factored:4:dense", updates, n), ROOM[updates]
    for times_full in range(3):
        matrix.change(room if times_full == 0 else room - 1)
        matrix.check()
        assert matrix.scalars() == {"rank": room, "times_full": times_full}
        rows = sum(v.numpy().shape[0] for name, v in matrix.variables.items() if name.startswith("panel"))
        assert rows == (n if times_full else 0)
        matrix.change()
        matrix.check()
        assert matrix.scalars() == {"rank": 1, "times_full": times_full + 1}


WAITING = [("dense:0", N, False), ("dense:4", N, False), ("dense:4", N, True)]
WAITING += [(word, LARGE, False) for word in ("dense", "dense:0", "dense:1", "dense:4")]
WAITING += [("dense:0", LARGE, True), ("dense:4", LARGE, True)]


@every_kind
@pytest.mark.parametrize(("storage", "n", "jit_compile"), WAITING)
@pytest.mark.thorough_after(1)
def test_changes_that_wait_beside_a_dense_matrix_are_applied(updates, storage, n, jit_compile):
    matrix = Matrix(storage, updates, n, jit_compile)
    for _ in range(3):
        matrix.change(4)
        matrix.check()
    assert matrix.scalars() == {}


@pytest.mark.parametrize("policy", ["restart", "dense", "error"])
def test_a_change_that_fits_in_part_is_not_made_in_part(policy):
    """Two terms at a time, room for three."""
    B, _ = with_variables(SharedMatrix.identity(N, dtype="float64", storage=f"factored:3:{policy}"))
    u, v, w = np.random.default_rng(0).normal(size=(3, N))
    B.add_outer(u, v).add_outer(v, u).commit()
    change = B.add_outer(u, w).add_outer(w, v)
    told, described = dict(map(reversed, change.failures())), change.to_dense().numpy()
    change.commit()
    full = np.eye(N) + np.outer(u, v) + np.outer(v, u)
    expected = {"restart": np.eye(N), "dense": described, "error": full}[policy]
    np.testing.assert_allclose(B.to_dense(), expected, rtol=0, atol=1e-13)
    assert {status: bool(holds) for status, holds in told.items() if holds} == (
        {Status.HISTORY_FULL: True} if policy == "error" else {}
    )


def test_a_subspace_needs_room_for_as_many_terms_again():
    B, _ = with_variables(SharedMatrix.identity(N, dtype="float64", storage="factored:3:subspace"))
    with pytest.raises(ValueError, match=r"2 times, .* capacity of 3; ask for at least 4"):
        B.add_symmetric(np.ones(N)).add_symmetric(np.arange(N)).commit()


@pytest.mark.parametrize(
    ("storage", "updates", "count"), [("factored:4:restart", "any", 5), ("dense:2", "dilations", 9)]
)
def test_an_update_with_more_changes_than_there_is_room_for_says_what_to_ask_for(storage, updates, count):
    B, _ = with_variables(SharedMatrix.identity(3, storage=storage, updates=updates))
    for _ in range(count):
        B = B.dilate([1.0, 0.0, 0.0], 0.5)
    with pytest.raises(ValueError, match=f"{count} times, .* capacity of {count - 1}; ask for at least {count}"):
        B.commit()


def test_dilations_have_no_subspace():
    with pytest.raises(ValueError, match="no dominant subspace that dilations could keep; use restart, dense or error"):
        SharedMatrix.identity(3, storage="factored:8:subspace", updates="dilations")


@pytest.mark.parametrize("storage", ["factored", "dense:8", "factored:8:dense", "dense"])
@pytest.mark.thorough_after(1)
def test_dilations_keep_in_every_storage_the_digits_that_a_dense_matrix_keeps(storage):
    n = 12
    B, _ = with_variables(SharedMatrix.identity(n, storage=storage, updates="dilations"))
    dilate = tf.function(lambda xi, b: B.dilate(xi, 1 + b).commit(), autograph=False)
    xis, bs = draw_dilations(200, "float32", n)
    for xi, b in zip(xis, bs, strict=True):
        dilate(tf.constant(xi), tf.constant(b))
    g = np.random.default_rng(0).normal(size=(n, 4)).astype("float32")
    exact = dense_product(xis, bs).T @ g
    assert np.linalg.norm(B.T @ g - exact) < 3 * np.linalg.norm(dense_product(xis, bs, "float32").T @ g - exact)


# --- The identity again ---------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("storage", "n"), [("dense:0", N), ("dense:4", LARGE), ("factored", N), ("factored:4:dense", N)]
)
@pytest.mark.thorough_after(1)
def test_reset_is_the_identity_where_it_is_asked_for(updates, storage, n):
    matrix = Matrix(storage, updates, n)

    @tf.function(autograph=False)
    def reset(when):
        new = matrix.B.reset(when)
        described = new.to_dense()
        new.commit()
        return described

    for when in (False, True, False, True):
        matrix.change(ROOM[updates] + 1)  # a part of B is in the numbers, and a part waits
        matrix.M = np.eye(n) if when else matrix.M
        np.testing.assert_allclose(reset(tf.constant(when)), matrix.M, rtol=0, atol=1e-13)
        matrix.check()


@pytest.mark.parametrize("storage", ["dense:0", "dense:4", "factored", "factored:4:dense"])
@pytest.mark.parametrize("updates", ["any", "dilations"])
def test_a_reset_between_two_changes_forgets_only_the_first(storage, updates):
    B, _ = with_variables(SharedMatrix.identity(N, dtype="float64", storage=storage, updates=updates))
    u, v = np.random.default_rng(0).normal(size=(2, N))

    def change(B, u):
        return B.dilate(u, 3.0) if updates == "dilations" else B.add_outer(u, v, 2.0)

    change(B, v).scale(5.0).commit()
    change(change(B, v).scale(7.0).reset(), u).commit()
    expected = np.eye(N) + 2 * np.outer(u, u if updates == "dilations" else v)
    np.testing.assert_allclose(B.to_dense(), expected, rtol=0, atol=1e-12)


@every_kind
def test_a_reset_forgets_numbers_that_are_not_finite(updates):
    matrix = Matrix("dense:0", updates)
    spoil = matrix.B.dilate if updates == "dilations" else matrix.B.add_symmetric
    spoil(np.full(N, np.nan), 0.5).commit()
    matrix.B.reset().commit()
    matrix.change()
    matrix.check()


class Spoilt(GlobalVectorOptimizer):
    """Moves well, but its second change of B is not finite."""

    def __init__(self, storage, **kwargs):
        super().__init__(None, **kwargs)
        self.storage = storage

    def init_state(self, x):
        B = SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage=self.storage, updates="symmetric")
        return {"B": B, "steps": tf.constant(0)}

    def update(self, x, g, state):
        c = tf.where(state["steps"] > 0, tf.constant(np.nan, x.dtype), 1.0)
        return x - g, {"B": state["B"].add_symmetric(g, c), "steps": state["steps"] + 1}


@pytest.mark.parametrize("storage", ["dense:0", "dense:4", "factored"])
def test_a_change_that_is_not_finite_is_not_committed(storage):
    v = tf.Variable(np.zeros(N))
    optimizer = Spoilt(storage)
    optimizer.build([v])
    step, g = stepper(optimizer), np.arange(1.0, N + 1)
    assert int(step(g)[0]) == Status.RUNNING
    before = saved(optimizer)
    assert int(step(g)[0]) == Status.NONFINITE_STEP
    assert_same(before, saved(optimizer))
    np.testing.assert_allclose(optimizer.state["B"].to_dense(), np.eye(N) + np.outer(g, g), rtol=0, atol=1e-12)


@every_kind
def test_a_reset_gives_the_room_back(updates):
    matrix = Matrix("factored:4:error", updates)
    matrix.change(ROOM[updates])
    matrix.B.reset().commit()
    matrix.M = np.eye(N)
    matrix.change()
    matrix.check()
    assert matrix.scalars() == {"rank": 1, "times_full": 0}


@sums
@pytest.mark.parametrize("storage", ["dense:0", "dense:4", "factored", "factored:4:dense"])
@pytest.mark.thorough_after(1)
def test_a_multiple_of_the_identity_is_added(updates, storage):
    matrix = Matrix(storage, updates, LARGE)

    @tf.function(autograph=False)
    def shift(c):
        new = matrix.B.scale(2.0).shift(c).scale(-1.0)
        described = new.to_dense()
        new.commit()
        return described

    for c in (0.5, -0.2):
        matrix.change(3)
        matrix.M = -2 * matrix.M - c * np.eye(LARGE)
        np.testing.assert_allclose(shift(tf.constant(c, tf.float64)), matrix.M, rtol=0, atol=1e-13)
        matrix.check()


# --- Through an optimizer -------------------------------------------------------------------------------

FULL_AFTER = {"symmetric": 4, "any": 2, "dilations": GROUP}  # steps of the small method in test_matrix_conversion


def stepper(optimizer, jit_compile=False):
    """A compiled step on a given f and g: (code, logs)."""

    def step(f, g):
        result = optimizer.step(None, evaluated=(f, g))
        return result.status, result.logs

    compiled = tf.function(step, autograph=False, jit_compile=jit_compile)
    return lambda g, f=1.0: compiled(tf.constant(f, tf.float64), tf.constant(g, tf.float64))


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@every_kind
@compiled_or_not
@pytest.mark.thorough_after(1)
def test_error_is_a_status_and_nothing_is_committed(updates, jit_compile):
    optimizer, M = built("factored:4:error", updates, steps=FULL_AFTER[updates])
    before, g = saved(optimizer), np.arange(1.0, 7)
    status, logs = stepper(optimizer, jit_compile)(g)
    assert int(status) == Status.HISTORY_FULL
    assert (int(logs["B/rank"]), int(logs["B/times_full"])) == (ROOM[updates], 0)
    assert_same(before, saved(optimizer))
    assert optimizer.skipped_steps == 1
    np.testing.assert_allclose(optimizer.state["B"].to_dense(), M, rtol=0, atol=1e-13)


def test_a_loop_ends_with_a_message_and_the_weights_of_the_last_step_that_was_taken():
    models = dense_net(), dense_net()
    data = [ArrayData(*blobs(), 16, shuffle=False) for _ in models]
    TrainLoop(models[0], TestGD(rad=5.0, storage="factored"), crossentropy()).run(data[0], steps=4)
    loop = TrainLoop(models[1], TestGD(rad=5.0, storage="factored:4:error"), crossentropy())
    with pytest.raises(TrainingError, match=r"reached its capacity; ask for more.*'factored:1000:restart'") as ended:
        loop.run(data[1], steps=10)
    assert (ended.value.status, ended.value.step) == (Status.HISTORY_FULL, 5)
    np.testing.assert_array_equal(weights(models[1]), weights(models[0]))
    assert np.abs(weights(models[1]) - weights(dense_net())).max() > 1e-3


SEEN = ["dense:0", "dense:4", "factored", *(f"factored:4:{policy}" for policy in POLICIES)]
SEEN = [(word, "symmetric") for word in SEEN] + [(word, "dilations") for word in SEEN if "subspace" not in word]


@pytest.mark.parametrize(("storage", "updates"), SEEN)
@pytest.mark.thorough_after(1)
def test_a_rejected_step_leaves_no_trace_not_even_where_the_history_is_full(storage, updates):
    (optimizer, _), (twin, _) = (built(storage, updates, steps=FULL_AFTER[updates]) for _ in range(2))
    before, step, g = saved(optimizer), stepper(optimizer), np.arange(1.0, 7)
    for f, spoilt in [(1.0, g * np.nan), (1.0, g - [np.inf, 0, 0, 0, 0, 0]), (np.nan, g), (-np.inf, g)]:
        status, _ = step(spoilt, f)
        assert int(status) in (Status.NONFINITE_LOSS, Status.NONFINITE_GRADIENT)
        assert_same(before, saved(optimizer))
    assert int(step(g)[0]) == (Status.HISTORY_FULL if storage.endswith("error") else Status.RUNNING)
    twin.apply([tf.constant(g)], twin.given)
    assert_same(saved(twin), saved(optimizer))
    assert all(np.isfinite(array).all() for array in saved(optimizer).values())


@pytest.mark.parametrize(
    ("storage", "rank", "times_full"),
    [
        ("factored:4:restart", [1, 2, 3, 4, 0, 1], [0, 0, 0, 0, 1, 1]),
        ("factored:4:subspace", [1, 2, 3, 2, 3, 2], [0, 0, 0, 1, 1, 2]),
        ("factored:4:dense", [1, 2, 3, 4, 1, 2], [0, 0, 0, 0, 1, 1]),
        ("factored:4:error", [1, 2, 3, 4, 4, 4], [0, 0, 0, 0, 0, 0]),
        ("factored", [1, 2, 3, 4, 5, 6], None),
        ("dense:4", None, None),
    ],
)
@pytest.mark.thorough_after(1)
def test_logs_tell_how_long_the_history_is_and_how_often_it_was_full(storage, rank, times_full):
    optimizer, _ = built(storage, "symmetric")
    step, rng = stepper(optimizer), np.random.default_rng(0)
    logs = [step(rng.normal(size=6))[1] for _ in range(6)]
    for name, expected in [("B/rank", rank), ("B/times_full", times_full)]:
        assert (name in optimizer.log_dtypes()) == (expected is not None)
        assert [int(log[name]) for log in logs if name in log] == (expected or [])


@pytest.mark.parametrize("storage", ["factored", "factored:4:dense"])
def test_what_grows_is_not_compiled_with_xla(storage):
    with pytest.raises(ValueError, match="keeps a history that grows"):
        TrainLoop(dense_net(), TestGD(storage=storage), crossentropy(), jit_compile=True)


@pytest.mark.parametrize(("policy", "times_full", "atol"), [("restart", 2, 1e-10), ("subspace", 5, 1e-6)])
@pytest.mark.thorough_after(1)
def test_a_loop_compiled_with_xla_is_the_same_run(policy, times_full, atol):
    runs = []
    for jit_compile in (False, True):
        model, method = dense_net(), TestGD(rad=5.0, storage=f"factored:4:{policy}")
        loop = TrainLoop(model, method, crossentropy(), jit_compile=jit_compile)
        result = loop.run(ArrayData(*blobs(), 16), steps=12)
        assert result.history["B/times_full"][-1] == times_full
        runs.append(weights(model))
    np.testing.assert_allclose(*runs, rtol=0, atol=atol)
