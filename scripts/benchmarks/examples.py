"""Gradients of single samples: what they cost beside the gradient of their mean."""

import click
import numpy as np

from benchmarks.benchmarking import output_option, repeats_option
from benchmarks.reporting import alternate, compared, publish
from trainloop.cli.common import import_tensorflow


@click.command("examples")
@click.option("--batch", default=256, show_default=True, help="Samples.")
@repeats_option
@output_option
def examples(batch, repeats, output):
    """LeNet-5: the gradient of each sample and their norms, in gradients of the batch."""
    import_tensorflow()
    import keras
    import tensorflow as tf

    import trainloop as tl

    rng, loss = np.random.default_rng(0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    data = rng.uniform(size=(batch, 28, 28, 1)).astype("float32"), rng.integers(0, 10, batch).astype("int32")
    objective = tl.ModelObjective(tl.lenet5((28, 28, 1), 10), loss, data)
    x = objective.vector.read()
    jobs = {
        "gradient of the batch": lambda: objective.value_and_grad(x)[1],
        "trainloop gradient of each sample": lambda: objective.example_gradients(x),
        "trainloop norms of these": lambda: objective.example_gradient_norms(x),
    }
    compiled = {name: tf.function(job, autograph=False) for name, job in jobs.items()}
    seconds = alternate({name: lambda job=job: job()[0].numpy() for name, job in compiled.items()}, repeats)
    rows = compared(f"LeNet-5, batch {batch}", seconds, "gradient of the batch", scale=1e3)
    for row in rows:
        row["gradients"] = 1 / row["ratio"]
    columns = {"median": ("median ms", ".1f"), "low": ("lowest", ".1f"), "high": ("highest", ".1f")}
    columns |= {"gradients": ("in gradients", ".2f")}
    publish(output, "examples", f"Gradients of single samples; medians of {repeats}", rows, columns, "gradients")
