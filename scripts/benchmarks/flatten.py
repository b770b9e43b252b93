"""The optimizer step alone: pack, update, check, split and assign, against Keras's own in the same compiled loop."""

import math

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option
from benchmarks.reporting import alternate, compared, publish
from trainloop.cli.common import import_tensorflow

_LENET = ((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (256, 120), (120,), (120, 84), (84,), (84, 10), (10,))


def _residual_network():
    """126 variables of convolutions with normalisation, and a dense layer."""
    widths, shapes, before = [64] * 19 + [128] * 16 + [256] * 7, [], 3
    for width in widths:
        shapes += [(3, 3, before, width), (width,), (width,)]
        before = width
    return (*shapes, (256, 10), (10,))


LAYOUTS = {
    "LeNet-5": _LENET,
    "MLP 784-2048-2048-10": ((784, 2048), (2048,), (2048, 2048), (2048,), (2048, 10), (10,)),
    "ResNet shapes": _residual_network(),
    "600 small variables": ((1000,),) * 600,
}


@click.command()
@repeats_option
@output_option
def flatten(repeats, output):
    """The optimizer step alone, as one vector and by variable, for four layouts of variables."""
    import_tensorflow()
    rows = []
    for layout in LAYOUTS:
        steps_of, steps = jobs(layout)
        rows += compared(title(layout), alternate(steps_of, repeats), next(iter(steps_of)), scale=1e6 / steps)
    columns = {"median": ("median us", ".0f"), "low": ("lowest", ".0f"), "high": ("highest", ".0f")}
    columns |= {"ratio": ("ours / this", ".2f")}
    publish(output, "flatten", f"Microseconds for a step of Adam; medians of {repeats}", rows, columns, "median")


def title(layout):
    """Name, number of variables and n."""
    shapes = LAYOUTS[layout]
    return f"{layout}: n = {sum(map(math.prod, shapes)):,} in {len(shapes)} variables"


def jobs(layout):
    """(dict of functions that take `steps` steps each, steps): about a tenth of a second of them."""
    import keras

    import trainloop as tl

    shapes = LAYOUTS[layout]
    steps = max(10, int(5e7 / (sum(map(math.prod, shapes)) + 1e4 * len(shapes))))
    ours, theirs = tl.Adam(), keras.optimizers.Adam()
    return {
        "trainloop Adam, one vector": _steps(ours, shapes, steps, lambda gradients, _: ours.apply(gradients)),
        "Keras Adam, by variable": _steps(theirs, shapes, steps, theirs.apply),
    }, steps


def _steps(optimizer, shapes, steps, apply):
    """Many steps in one compiled loop, on gradients that are the same in each."""
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in shapes]
    gradients = [tf.constant(rng.normal(size=shape).astype("float32")) for shape in shapes]
    optimizer.build(variables)

    @tf.function(autograph=False)
    def run(k, *gradients):
        def step(i):
            apply(list(gradients), variables)
            return i + 1

        return tf.while_loop(lambda i: i < k, step, [tf.constant(0)])

    return lambda: run(tf.constant(steps), *gradients)
