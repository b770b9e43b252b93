"""One of two workers that share matrices: `python sharded_worker.py FOLDER` with TF_CONFIG. For test_shards_of_workers.

It runs every function here whose name begins with `case_` and writes what became of each to FOLDER/report_I.json. What
other tests compare goes to FOLDER too.
"""

import json
import os
import pathlib
import sys
import traceback

from matrix_cases import Draw, run_updates, with_variables

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import trainloop as tl
from trainloop.checkpoints import files as checkpoint_files
from trainloop.distributed.shards import Shards, counted, shard_over, take_part
from trainloop.matrices import sharded_panels
from trainloop.optimizer import memory_plan

N = 14


def compiled(function):
    return tf.function(function, autograph=False)


def matrix(storage="sharded", updates="any", n=N):
    return with_variables(tl.SharedMatrix.identity(n, dtype="float64", storage=storage, updates=updates))


def check(B, M, **tolerance):
    """B is M, seen through every product."""
    v, V = Draw(B.n, seed=5).vector(), Draw(B.n, seed=6).vector(3)
    tolerance = tolerance or {"rtol": 0, "atol": 1e-12 * np.abs(M).max()}
    products = compiled(lambda v, V: (B @ v, B @ V, B.T @ v, B.T @ V, B.to_dense()))(tf.constant(v), tf.constant(V))
    for product, expected in zip(products, (M @ v, M @ V, M.T @ v, M.T @ V, M), strict=True):
        np.testing.assert_allclose(product, expected, **tolerance)


def case_a_worker_has_its_half(folder, me):
    shards = Shards.here()
    assert (shards.count, shards.mine) == (2, (me,))
    B, variables = matrix("sharded:0")
    assert len(variables) == sharded_panels._PANELS / 2
    assert B.nbytes == sum(variable.numpy().nbytes for variable in variables.values())
    assert abs(B.nbytes - 8 * N * N / 2) <= 8 * N
    assert B.nbytes_everywhere == 8 * N * N


def case_any_changes(folder, me):
    B, _ = matrix()
    check(B, run_updates(B, [1] * 20, False))


def case_symmetric_changes(folder, me):
    B, _ = matrix("sharded:2", "symmetric")
    check(B, run_updates(B, [2] * 9, True))


def case_dilations(folder, me):
    """Applied by products with the matrix, so that the sum over workers is inside of a branch."""
    B, _ = matrix("sharded:8", "dilations")
    draw, M = Draw(N), np.eye(N)
    dilate = compiled(lambda xi, beta: B.dilate(xi, beta).commit())
    for _ in range(20):
        xi = draw.unit()
        dilate(tf.constant(xi), tf.constant(0.5, tf.float64))
        M = M @ (np.eye(N) - 0.5 * np.outer(xi, xi))
    check(B, M)


def case_more_workers_than_rows(folder, me):
    B, variables = matrix("sharded:0", n=1)
    assert len(variables) == (1 if me == 0 else 0)
    B.scale(3.0).commit()
    np.testing.assert_array_equal(compiled(lambda: B.to_dense())(), [[3.0]])


def case_a_sharded_history(folder, me):
    for storage, updates in [("sharded:factored", "any"), ("sharded:factored:70:restart", "symmetric")]:
        B, variables = matrix(storage, updates)
        check(B, run_updates(B, [1] * 66, updates == "symmetric"))
        assert variables[f"left_{me:02d}"].shape[1] == N / 2


def case_the_largest_terms_of_a_sharded_history(folder, me):
    B, _ = matrix("sharded:factored:6:subspace", "symmetric")
    add = compiled(lambda u, c: B.add_symmetric(u, c).commit())
    U = np.linalg.qr(Draw(N).vector(6))[0].T
    sizes = [5.0, 0.1, 3.0, 0.2, 1.0, 0.3]
    for u, c in zip(U, sizes, strict=True):
        add(tf.constant(u), tf.constant(c, tf.float64))
    check(B, np.eye(N) + U[[0, 2, 4]].T @ np.diag([5, 3, 1]) @ U[[0, 2, 4]])


def case_one_sum_of_n_numbers_per_product(folder, me):
    B, _ = matrix(updates="symmetric")
    x = tf.ones([N], tf.float64)
    with counted() as traffic:
        compiled(lambda: (B @ x, B.scale(0.5).add_symmetric(x, 0.1).commit())[0])()
    assert [reduction.nbytes for reduction in traffic] == [8 * N]


def case_devices_of_one_process(folder, me):
    """The other strategy: every shard on a device of its own, all of them here."""
    with shard_over(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        B, variables = matrix("sharded:2")
    check(B, run_updates(B, [1] * 4, False))
    devices = [v.device[-5:] for name, v in variables.items() if name.startswith("panel_")]
    assert sorted(devices) == sorted(["CPU:0", "CPU:1"] * (sharded_panels._PANELS // 2))
    with counted() as traffic:
        compiled(lambda: B @ tf.ones([N], tf.float64))()
    assert [reduction.nbytes for reduction in traffic] == [8 * N]


def quadratic(x):
    return tf.reduce_sum(tf.constant(np.linspace(1, 9, x.shape[0])) * tf.square(x - 1)) / 2


def steps(optimizer, count, n=N, dtype="float64"):
    """x after some steps in one compiled loop, in this process alone but for the sums of the matrix."""
    variable = tf.Variable(np.linspace(-1, 1, n), dtype=dtype)
    optimizer.build([variable])
    objective = tl.FunctionObjective(lambda x: tf.cast(quadratic(tf.cast(x, tf.float64)), dtype))

    def one(i):
        optimizer.step(objective, objective.value_and_grad(variable.read_value()))
        return (i + 1,)

    compiled(lambda: tf.while_loop(lambda i: i < count, one, (tf.constant(0),)))()
    return variable.numpy()


METHODS = {
    "TestGD": lambda storage: tl.TestGD(rad=20.0, storage=storage),
    "ShorR": lambda storage: tl.ShorR(storage=storage),
    "LBFGS": lambda storage: tl.LBFGS(m=3, storage=storage),
}


def case_methods(folder, me):
    for name, make in METHODS.items():
        np.save(folder / f"{name}_{me}.npy", steps(make("sharded"), 12))


def case_what_is_too_large_for_one_worker_runs_in_two(folder, me):
    n = 600
    memory_plan.free_memory, before = lambda: 2_500_000, memory_plan.free_memory  # 3 * 600^2 float32: 4,320,000
    try:
        try:
            steps(tl.Ellipsoid(rad=20.0, storage="dense:0"), 1, n, "float32")
        except ValueError as error:
            refusal = str(error)
        assert "storage='sharded' takes 7" in refusal, refusal
        assert "KiB in each of 2 workers; storage='factored:100:restart'" in refusal, refusal
        assert np.all(np.isfinite(steps(tl.Ellipsoid(rad=20.0, storage="sharded:0"), 2, n, "float32")))
    finally:
        memory_plan.free_memory = before


def case_checkpoint(folder, me):
    """The first worker writes, the others take part; and all take up what it wrote."""
    optimizer, other = (tl.TestGD(rad=20.0, storage="sharded:2") for _ in range(2))
    x = steps(optimizer, 7)
    variables, B = optimizer.resumable_variables(), compiled(lambda: optimizer.state["B"].to_dense())().numpy()
    if me == 0:
        checkpoint_files.write(folder / "checkpoint", variables, {"x": x.tolist()})
        np.save(folder / "B.npy", B)
    else:
        take_part(variables)
    other.build([tf.Variable(x)])
    again = other.resumable_variables()
    for name, variable in again.items():
        variable.assign(variables[name].numpy())
    assert all(again[name].numpy().tobytes() == variable.numpy().tobytes() for name, variable in variables.items())


def main(folder):
    keras.config.set_floatx("float64")
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as in the other tests
    sharded_panels._PANELS = 6
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=60)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    me, report = strategy.cluster_resolver.task_id, {}
    with shard_over(strategy):
        for name, case in [item for item in globals().items() if item[0].startswith("case_")]:
            try:
                case(folder, me)
                report[name] = "ok"
            except Exception:  # whatever it is, the test says it
                report[name] = traceback.format_exc()
            (folder / f"report_{me}.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
