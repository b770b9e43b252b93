"""Epochs of a network with one optimizer by several libraries, each a process of `benchmarks.libraries`."""

import pathlib
import subprocess
import tempfile

import click

from benchmarks.benchmarking import (
    TIMES,
    dataset_option,
    missing,
    name_missing,
    output_option,
    repeats_option,
    start_program,
)
from benchmarks.libraries import LIBRARIES, NEEDS, NETWORKS
from benchmarks.reporting import compared, publish
from trainloop.cli.common import import_tensorflow

# Convolutions compiled by XLA for CPUs take several times as long, ours and JAX's.
_NOT_FOR_LENET = ("trainloop, XLA", "JAX lax.scan")


@click.command()
@dataset_option
@click.option("--network", "networks", multiple=True, help="LeNet-5, 784-32-10 or 784-128-10; all if none is given.")
@repeats_option
@output_option
def loop(dataset, networks, repeats, output):
    """Epochs of a network at batch 64 with Adam: TrainLoop, model.fit, a hand-written loop, PyTorch and JAX.

    Each library has a process of its own. They take their epochs in turn; the first of each is not counted.
    """
    unknown = set(networks) - set(NETWORKS)
    if unknown:
        raise click.UsageError(f"network must be one of {', '.join(NETWORKS)}, received {', '.join(unknown)}")
    left_out, rows = missing(NEEDS), []
    with tempfile.TemporaryDirectory() as folder:
        arrays = save_arrays(dataset, folder)
        for network in networks or NETWORKS:
            unfit = [*left_out, *(_NOT_FOR_LENET if network == "LeNet-5" else ())]
            seconds = in_turn([name for name in LIBRARIES if name not in unfit], network, arrays, repeats)
            reference = "trainloop" if network == "LeNet-5" else "trainloop, XLA"
            rows += compared(network, seconds, reference)
    columns = TIMES | {"ratio": ("ours / this", ".2f")}
    title = f"Seconds for an epoch of {dataset}, batch 64, Adam; medians of {repeats}"
    publish(output, "loop", title, rows, columns, "median")
    name_missing(left_out)


def save_arrays(dataset, folder):
    """The training set as an .npz file that libraries without TensorFlow can read."""
    import_tensorflow()
    import numpy as np

    import trainloop as tl

    data, path = tl.load(dataset), pathlib.Path(folder, "arrays.npz")
    np.savez(path, x=data.x_train, y=data.y_train)
    return path


def in_turn(libraries, network, arrays, repeats):
    """Seconds of each library's epochs, taken in turn."""
    seconds, workers = {name: [] for name in libraries}, {}
    try:
        for name in libraries:
            click.echo(f"{network}: first epoch of {name}", err=True)
            workers[name] = start_program("libraries", name, network, arrays, stderr=subprocess.DEVNULL)
            answer(workers[name], name)
        for _ in range(repeats):
            for name, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                seconds[name].append(float(answer(worker, name)))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return seconds


def answer(worker, name):
    line = worker.stdout.readline()
    if not line:
        raise click.ClickException(f"{name} ended early; run python -m benchmarks.libraries in scripts/ to see why")
    return line
