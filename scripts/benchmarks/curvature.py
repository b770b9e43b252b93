"""Products with curvature matrices over a data set, against one gradient over the same data.

The gradient is a tape around the same loss, batch by batch, in a compiled function. A product with one vector is what
Lanczos's method takes, one with ten columns what the estimates of trace and diagonal take.
"""

import functools

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option
from benchmarks.reporting import alternate, compared, publish
from trainloop.cli.common import import_tensorflow

COLUMNS = 10


@click.command()
@repeats_option
@output_option
def curvature(repeats, output):
    """Products with the Hessian, Gauss-Newton and empirical Fisher matrices of a data set, against its gradient."""
    import_tensorflow()
    rows = []
    for title, make in {"LeNet-5, 1,437 digits": lenet, "dense 784-128-10, 1,437 digits": dense}.items():
        rows += compared(title, alternate(jobs(*make()), repeats), "gradient", scale=1e3)
    columns = {"median": ("median ms", ".1f"), "low": ("lowest", ".1f"), "high": ("highest", ".1f")}
    columns |= {"ratio": ("gradient / this", ".3f")}
    title = f"Milliseconds for a pass over the data in batches of 256; medians of {repeats}"
    publish(output, "curvature", title, rows, columns, "median")


def jobs(model, loss, data):
    """Functions that take one pass over the data each."""
    import trainloop as tl

    passes = {"gradient": _gradient(model, loss, data)}
    for kind in ("hessian", "ggn", "empirical_fisher"):
        C = tl.curvature(model, loss, data=data, kind=kind)
        V = np.random.default_rng(0).normal(size=[C.shape[0], COLUMNS]).astype(C.dtype)
        passes[f"trainloop {kind}, 1 vector"] = functools.partial(C.__matmul__, V[:, 0])
        passes[f"trainloop {kind}, {COLUMNS} vectors"] = functools.partial(C.__matmul__, V)
    return passes


def _gradient(model, loss, data):
    import tensorflow as tf

    import trainloop as tl

    vector = tl.VariableVector(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def of_batch(x, y):
        with tf.GradientTape() as tape:
            f = loss(y, model(x, training=False))
        return vector.layout.pack(tape.gradient(f, vector.variables)) * tf.cast(len(x), f.dtype)

    def run():
        x, y = data.arrays
        starts = range(0, data.size, data.batch_size)
        return sum(of_batch(x[i : i + data.batch_size], y[i : i + data.batch_size]) for i in starts).numpy() / data.size

    return run


def _parts(model):
    import keras

    import trainloop as tl

    digits = tl.load("digits")
    data = tl.ArrayData(digits.x_train, digits.y_train, 256, shuffle=False)
    return model(digits.input_shape, digits.classes), keras.losses.SparseCategoricalCrossentropy(from_logits=True), data


def lenet():
    """(model, loss, data)."""
    import trainloop as tl

    return _parts(tl.lenet5)


def dense():
    """(model, loss, data)."""
    import trainloop as tl

    return _parts(tl.mlp)
