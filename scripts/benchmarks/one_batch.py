"""What a step costs beside its arithmetic, on a batch that does not change: however the batch is given."""

import statistics
import time

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option
from benchmarks.reporting import publish

_COLUMNS = {"median": ("median ms", ".3f"), "low": ("lowest", ".3f"), "high": ("highest", ".3f")}


@click.command("one-batch")
@click.option("--steps", type=click.IntRange(min=1), default=2_000, show_default=True, help="Steps of a measurement.")
@repeats_option
@output_option
def one_batch(steps, repeats, output):
    """A step of gradient descent on a tiny network and one batch, beside the same by hand in one compiled function."""
    runs = {"by hand": _by_hand(steps)} | {name: _loop(data, steps) for name, data in _kinds().items()}
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run()  # traces, and finds the length of its blocks
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(1e3 * (time.perf_counter() - began) / steps)
    rows = [
        {"group": "a step", "name": name, "median": statistics.median(of), "low": min(of), "high": max(of)}
        for name, of in seconds.items()
    ]
    publish(output, "one-batch", f"Steps on one batch of 64 samples; medians of {repeats}", rows, _COLUMNS, "median")


def _kinds():
    """The same batch as each kind of data."""
    import tensorflow as tf

    import trainloop as tl

    x, y = _samples()
    return {
        "ArrayData": tl.ArrayData(x, y, batch_size=None),
        "tuple": (x, y),
        "Dataset.from_tensors": tf.data.Dataset.from_tensors((x, y)),
        "Points": tl.Points({"x": x}),
    }


def _samples():
    x = np.random.default_rng(0).normal(size=(64, 2))
    return x, x[:, :1] ** 2


def _network():
    import keras

    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "tanh", dtype="float64"), keras.layers.Dense(1, dtype="float64")]
    return keras.Sequential([keras.Input((2,), dtype="float64"), *layers])


def _loop(data, steps):
    import tensorflow as tf

    import trainloop as tl

    points = isinstance(data, tl.Points)
    how = {"loss_fn": lambda model, batch: tf.reduce_mean(model(batch["x"]) ** 2)} if points else {"loss": "mse"}
    loop = tl.TrainLoop(_network(), tl.SimpleGD(1e-3), **how)
    return lambda: loop.run(data, steps=steps, verbose=0)


def _by_hand(steps):
    import tensorflow as tf

    model, (x, y) = _network(), map(tf.constant, _samples())

    @tf.function
    def run(count):
        for _ in tf.range(count):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            for variable, g in zip(
                model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
            ):
                variable.value.assign_sub(1e-3 * g)

    return lambda: run(tf.constant(steps))
