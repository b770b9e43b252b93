"""Steps of TestGD with the storages of its matrix, each in a process of its own so that its memory can be told apart.

As a program this file is one of them: it prints one line of JSON, seconds per step, seconds to read n x n numbers once,
and by how many bytes the resident size grew at its peak, after TensorFlow was loaded.

The gradients belong to f(x) = |x - c| + a'x with another a in every step, as mini-batches would have it; they cost next
to nothing. Steps and readings alternate, so that a busy machine disturbs both alike. "numpy" is the same step, written
in NumPy.
"""

import json
import resource
import statistics
import sys
import time

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option, run_program
from benchmarks.reporting import publish

_ROUNDS = 5
_READ_BYTES = 2**29


# (name, storage, largest n): NumPy has temporaries as large as the matrix, so that the largest does not fit.
MATRICES = (
    ("dense, every change applied", "dense:0", None),
    ("dense, eight at a time", "dense", None),
    ("sharded, two shards in one process", "sharded", None),
    ("factored, rank 1,000", "factored:1000:restart", None),
    ("NumPy", "numpy", 20_000),
)


@click.command("shared-matrix")
@click.option("--n", "sizes", type=click.IntRange(min=3000), multiple=True, help="Parameters; may be given repeatedly.")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Per measurement.")
@repeats_option
@output_option
def shared_matrix(sizes, steps, repeats, output):
    """TestGD with one matrix over all n parameters, 20,000 and 44,426 (LeNet-5) of them, against NumPy.

    A step is compared with reading n x n float32 numbers once from memory, measured in the same process. Extra is
    by how much the process grew at its peak, after TensorFlow was loaded.
    """
    rows = []
    for n in sizes or (20_000, 44_426):
        reports = {name: [] for name, _, largest in MATRICES if largest is None or n <= largest}
        for _ in range(repeats):
            for name, storage, _ in MATRICES:
                if name in reports:
                    reports[name].append(run_program("matrix", storage, n, steps))
        immediate = statistics.median(run["seconds"] for run in reports[MATRICES[0][0]])
        for name, runs in reports.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            rows.append(
                {
                    "group": f"n = {n:,}, float32, n x n numbers are {4e-9 * n * n:.1f} GB",
                    "name": name,
                    "milliseconds": 1e3 * seconds,
                    "reading": statistics.median(run["seconds"] / run["reading"] for run in runs),
                    "immediate": seconds / immediate,
                    "extra": statistics.median(run["extra"] for run in runs) / (4 * n * n),
                }
            )
    columns = {
        "milliseconds": ("ms/step", ".1f"),
        "reading": ("step/read", ".2f"),
        "immediate": ("step/applied each", ".3f"),
        "extra": ("extra/matrix", ".2f"),
    }
    publish(output, "shared-matrix", f"Steps of TestGD; medians of {repeats}", rows, columns, "milliseconds")


def main(storage, n, steps):
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(32, n)).astype(np.float32)
    read = _reader()
    read()
    before = _peak()
    run = (_numpy if storage == "numpy" else _trainloop)(storage, n, slopes)
    run(max(steps, 8))
    seconds, reading = [], []
    for _ in range(_ROUNDS):
        seconds.append(_timed(lambda: run(steps)) / steps)
        reading.append(_timed(read) * 4 * n * n / _READ_BYTES)
    report = {"seconds": statistics.median(seconds), "reading": statistics.median(reading)}
    print(json.dumps(report | {"extra": _peak() - before}))


def _peak():
    """Bytes of the largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _timed(job):
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def _reader():
    """Read _READ_BYTES from memory with all cores."""
    import tensorflow as tf

    numbers = tf.zeros([_READ_BYTES // 4])
    total = tf.function(lambda: tf.reduce_sum(numbers))
    return lambda: total().numpy()


def _trainloop(storage, n, slopes):
    import keras
    import tensorflow as tf

    import trainloop as tl
    from trainloop.distributed.shards import shard_over

    x = keras.Variable(np.zeros(n, np.float32))
    optimizer = tl.TestGD(storage=storage)
    with shard_over(2):  # matters where storage is "sharded"
        optimizer.build([x])
    slopes = tf.constant(slopes)

    class Batch:
        def __init__(self, i):
            self.slope = slopes[i % 32]

        def first_pass(self):
            point = tf.convert_to_tensor(x.value)
            return tf.zeros([]), tf.sign(point - 1) + self.slope

    @tf.function(autograph=False)
    def block(first, steps):
        def step(i):
            optimizer.step(Batch(i))
            return i + 1

        return tf.while_loop(lambda i: i < first + steps, step, (first,), parallel_iterations=1)

    done = [0]

    def run(steps):
        block(tf.constant(done[0]), tf.constant(steps))
        done[0] += steps

    if storage.startswith("factored"):
        run(int(storage.split(":")[1]) - 1)  # measured is a full history
    return run


def _numpy(_, n, slopes):
    B, x, radius = np.eye(n, dtype=np.float32), np.zeros(n, np.float32), np.float32((n + 1) * 0.05)
    c = np.float32(2 / (n + 1))
    grow = np.float32(((n + 1) / (n - 1)) ** (1 / n))

    def step(i):
        nonlocal B, x
        g = np.sign(x - 1) + slopes[i % 32]
        Bg = B @ g
        d = Bg / np.sqrt(g @ Bg)
        x -= radius / (n + 1) * d
        B -= c * np.outer(d, d)
        B *= grow

    def run(steps):
        for i in range(steps):
            step(i)

    return run


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
