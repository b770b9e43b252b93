"""Measure what it costs never to lose a run.

python scripts/benchmark.py checkpoint save
python scripts/benchmark.py checkpoint matrix
python scripts/benchmark.py checkpoint deterministic
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import click

from trainloop.cli.common import as_help, import_tensorflow


@click.group(help=as_help(__doc__))
def checkpoint():
    """See the top of this file."""


@checkpoint.command()
@click.option("--rank", type=click.IntRange(min=1), default=1000, show_default=True, help="Terms of the history.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N")
def save(rank, repeats):
    """A checkpoint of LeNet-5 with TestGD, its matrix factored and full, against a minute of training."""
    import_tensorflow()
    import keras

    import trainloop as tl

    data = tl.load("digits")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tl.TestGD(rad=3000.0, storage=f"factored:{rank}:restart")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        saver = tl.SaveCheckpoint(folder, keep=1)
        seconds = []

        class Timed(tl.Hook):
            def on_rest(self, progress, status):
                if status == tl.Status.RUNNING and progress.run_step > rank:
                    began = time.perf_counter()
                    saver.save(progress.step)
                    seconds.append(time.perf_counter() - began)

        model = tl.lenet5(data.input_shape, data.classes)
        loop = tl.TrainLoop(model, optimizer, loss, hooks=[saver, Timed()], steps_per_call=10)
        loop.run(tl.ArrayData(data.x_train, data.y_train, 64), steps=rank + 10 * repeats + 20)
        (newest,) = pathlib.Path(folder).glob("step-*/arrays.npz")
        size = newest.stat().st_size
    median = statistics.median(seconds)
    click.echo(
        f"{size / 1e6:.0f} MB in {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"{median / 60:.1%} of the time at one a minute"
    )


@checkpoint.command()
@click.option("--n", type=click.IntRange(min=1000), default=20_000, show_default=True, help="Parameters.")
def matrix(n):
    """Peak memory of saving and restoring a dense n x n matrix, over what the process takes with the matrix."""
    import_tensorflow()
    import numpy as np
    import tensorflow as tf

    import trainloop as tl
    from trainloop.checkpoints import files as checkpoint_files

    variable = tf.Variable(np.zeros(n, "float32"))
    optimizer = tl.StochasticShorR(storage="dense:0")
    optimizer.build([variable])
    variables = optimizer.resumable_variables()
    bytes_of_matrix = 4 * n * n
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = pathlib.Path(folder) / "it"
        before, seconds = _memory(), {}
        reset_peak()
        began = time.perf_counter()
        checkpoint_files.write(path, variables, {})
        seconds["save"], peak = time.perf_counter() - began, {"save": peak_memory() - before}
        reset_peak()
        began = time.perf_counter()
        with checkpoint_files.Saved(path) as saved:
            for name, v in variables.items():
                v.assign(saved.read(name))
        seconds["restore"], peak["restore"] = time.perf_counter() - began, peak_memory() - before
    click.echo(f"a dense matrix, n = {n:,}, {bytes_of_matrix / 1e9:.1f} GB")
    for name in seconds:
        click.echo(f"{name:<8} {seconds[name]:6.1f} s   extra memory {peak[name] / bytes_of_matrix:.2f} of the matrix")


@checkpoint.command()
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N")
def deterministic(epochs, repeats):
    """Seconds that train.py takes for so many epochs of LeNet-5, with --deterministic over without, in turn."""
    seconds = {False: [], True: []}
    for _ in range(repeats):
        for wanted in seconds:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "trainloop", "train", "--epochs", str(epochs)]
                command += ["--optimizer", "adam", "--run-dir", folder, *(["--deterministic"] if wanted else [])]
                subprocess.run(command, capture_output=True, check=True)
                records = map(json.loads, (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines())
                seconds[wanted] += [record["seconds"] for record in records if record["kind"] == "end"]
    medians = {wanted: statistics.median(times) for wanted, times in seconds.items()}
    click.echo(f"{medians[True]:.1f} s with, {medians[False]:.1f} s without: {medians[True] / medians[False]:.2f}")


def _memory():
    """Bytes that this process has in memory now."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def reset_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """Bytes that this process had in memory at most since `reset_peak`."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise click.ClickException("this system does not tell the peak of memory")
