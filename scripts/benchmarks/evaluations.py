"""One evaluation of f and its gradient at another point, against the bare gradient at the point the weights hold.

An evaluation writes x into the variables, runs the loss, lays the gradients end to end, and puts everything back. The
bare gradient is a tape around the same loss, nothing written and nothing packed. Both run in one compiled loop.
"""

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option
from benchmarks.reporting import alternate, compared, publish
from trainloop.cli.common import import_tensorflow


@click.command()
@repeats_option
@output_option
def evaluations(repeats, output):
    """An evaluation of the objective at another point, against the bare gradient of the same loss."""
    import_tensorflow()
    rows = []
    for title, (make, count) in cases().items():
        rows += compared(title, alternate(jobs(*make(), count), repeats), "trainloop objective", scale=1e3 / count)
    columns = {"median": ("median ms", ".3f"), "low": ("lowest", ".3f"), "high": ("highest", ".3f")}
    columns |= {"ratio": ("ours / this", ".2f")}
    publish(
        output, "evaluations", f"Milliseconds for f and its gradient; medians of {repeats}", rows, columns, "median"
    )


def cases():
    """{title: (function -> (model, loss_fn, batch), evaluations per measurement)}."""
    return {
        "LeNet-5, batch 64": (_lenet, 40),
        "transformer, 32 sequences": (_transformer, 10),
        "PINN, 4 x 20, 1,000 points": (_pinn, 100),
        "dense, n = 6.8 million": (_dense, 15),
        "tiny, 6-5-3": (lambda: _tiny(normalised=False), 1000),
        "tiny with BatchNormalization and Dropout": (lambda: _tiny(normalised=True), 1000),
    }


def jobs(model, loss_fn, batch, count):
    """Functions that take `count` evaluations each."""
    import tensorflow as tf

    import trainloop as tl

    vector = tl.VariableVector(model.trainable_variables)
    x = vector.read()

    def bare(_):
        with tf.GradientTape() as tape:
            f = loss_fn(model, batch)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(f, model.trainable_variables) if g is not None]
        with tf.control_dependencies(gradients):
            return tf.identity(f)

    def looped(make):
        @tf.function(autograph=False)
        def run():
            evaluate = make()
            total = tf.zeros([], x.dtype)
            return tf.while_loop(lambda i, _: i < count, lambda i, t: (i + 1, t + evaluate(x)), (0, total))[1]

        return lambda: run().numpy()

    def ours():
        objective = tl.ModelObjective(model, loss_fn=loss_fn, batch=batch, vector=vector)

        def evaluate(x):
            f, g = objective.value_and_grad(x)
            with tf.control_dependencies([g]):
                return tf.identity(f)

        return evaluate

    return {"trainloop objective": looped(ours), "bare gradient": looped(lambda: bare)}


def _supervised(model, x, classes):
    import keras
    import tensorflow as tf

    targets = np.random.default_rng(1).integers(0, classes, (len(x), *model.output_shape[1:-1])).astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, lambda model, b: loss(b[1], model(b[0], training=True)), (tf.constant(x), tf.constant(targets))


def _numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _lenet():
    import trainloop as tl

    return _supervised(tl.lenet5(), _numbers(64, 28, 28, 1), 10)


def _transformer():
    import trainloop as tl

    tokens = np.random.default_rng(0).integers(0, 96, (32, 64)).astype("int32")
    return _supervised(tl.transformer(input_shape=(64,), outputs=96), tokens, 96)


def _dense():
    import trainloop as tl

    return _supervised(tl.mlp(input_shape=(784,), outputs=10, hidden=(2048, 2500)), _numbers(64, 784), 10)


def _tiny(normalised):
    import keras

    extra = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)] if normalised else []
    layers = [keras.layers.Input((6,)), keras.layers.Dense(5, "tanh"), *extra, keras.layers.Dense(3)]
    return _supervised(keras.Sequential(layers), _numbers(16, 6), 3)


def _pinn():
    """u_t + u u_x = 0.01 u_xx by nested tapes."""
    import keras
    import tensorflow as tf

    hidden = [keras.layers.Dense(20, "tanh") for _ in range(4)]
    model = keras.Sequential([keras.layers.Input((2,)), *hidden, keras.layers.Dense(1)])

    def loss_fn(model, points):
        with tf.GradientTape() as outer:
            outer.watch(points)
            with tf.GradientTape() as inner:
                inner.watch(points)
                u = model(points)
            slopes = inner.gradient(u, points)
        second = outer.gradient(slopes, points)
        return tf.reduce_mean((slopes[:, 1:] + u * slopes[:, :1] - 0.01 * second[:, :1]) ** 2)

    return model, loss_fn, tf.constant(np.random.default_rng(0).uniform(size=(1000, 2)).astype("float32"))
