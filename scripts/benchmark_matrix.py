"""Steps of TestGD with one storage of its matrix, in a process of its own so that its memory can be told apart.

Called by `benchmark.py shared-matrix`; prints one line of JSON: seconds per step, seconds to read n x n numbers once,
and by how many bytes the resident size grew at its peak, after TensorFlow was loaded.

The gradients belong to f(x) = |x - c| + a'x with another a in every step, as mini-batches would have it; they cost next
to nothing. Steps and readings alternate, so that a busy machine disturbs both alike. "numpy" is the same method as one
writes it down in NumPy.
"""

import json
import resource
import statistics
import sys
import time

import numpy as np

_ROUNDS = 5
_READ_BYTES = 2**29


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
    from trainloop.shards import spread_over

    x = keras.Variable(np.zeros(n, np.float32))
    optimizer = tl.TestGD(storage=storage)
    with spread_over(2):  # matters where storage is "sharded"
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
