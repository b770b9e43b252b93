"""Measure trainloop against what it replaces, side by side, on this machine.

python scripts/benchmark.py loop --dataset mnist
"""

import statistics
import time

import click
from train import import_tensorflow


@click.group(help=__doc__)
def benchmark():
    import_tensorflow()


@benchmark.command()
@click.option("--dataset", default="mnist", show_default=True, help="Name, .npz file, or folder of IDX files.")
@click.option("--optimizer", default="adam", show_default=True, help="adam, momentum or simplegd.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Epochs of each."
)
def loop(dataset, optimizer, repeats):
    """One epoch of LeNet-5 at batch 64: TrainLoop against model.fit with default settings.

    Both run in this process, alternating, each after an epoch that is not counted.
    """
    import keras

    import trainloop as tl

    data = tl.load(dataset)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs = {"adam": keras.optimizers.Adam, "simplegd": keras.optimizers.SGD}
    theirs["momentum"] = lambda: keras.optimizers.SGD(momentum=0.9)
    if optimizer not in theirs:
        raise click.UsageError(f"optimizer must be one of {', '.join(theirs)}, received {optimizer!r}")

    fitted = tl.lenet5(data.input_shape, data.classes)
    fitted.compile(theirs[optimizer](), loss, metrics=["accuracy"])
    looped = tl.lenet5(data.input_shape, data.classes)
    train_loop = tl.TrainLoop(looped, tl.ALGORITHMS[optimizer](), loss, metrics=["accuracy"])
    batches = tl.ArrayData(data.x_train, data.y_train, 64)
    seconds = alternate(
        {
            "model.fit": lambda: fitted.fit(data.x_train, data.y_train, batch_size=64, verbose=0),
            "TrainLoop": lambda: train_loop.run(batches, epochs=1),
        },
        repeats,
    )
    for name, times in seconds.items():
        click.echo(f"{name:<10} {statistics.median(times):7.2f} s  ({min(times):.2f} to {max(times):.2f})")
    ratio = statistics.median(seconds["TrainLoop"]) / statistics.median(seconds["model.fit"])
    click.echo(f"TrainLoop / model.fit {ratio:.2f}")


def alternate(jobs, repeats):
    """Wall-clock seconds of each job, taken in turn so that a busy machine disturbs all alike."""
    seconds = {name: [] for name in jobs}
    for round_number in range(repeats + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if round_number:  # the first round traces and compiles
                seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    benchmark()
