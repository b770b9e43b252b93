"""Measure trainloop against what it replaces, side by side, on this machine.

python scripts/benchmark.py loop --dataset mnist
python scripts/benchmark.py minimize
python scripts/benchmark.py shared-matrix
"""

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import click
from train import import_tensorflow


@click.group(help=__doc__.replace("\n\n    python", "\n\n\b\n    python"))
def benchmark():
    """See the top of this file."""


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
    import_tensorflow()
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


# Each in a process of its own, by the module it needs.
MINIMIZERS = {
    "trainloop": "trainloop",
    "scipy": "scipy",
    "tfp": "tensorflow_probability",
    "torch": "torch",
}


@benchmark.command()
@click.option("--n", type=click.IntRange(min=100_000), default=2_000_000, show_default=True, help="Unknowns, even.")
@click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float64", show_default=True)
@click.option("--iterations", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Runs of each.")
def minimize(n, dtype, iterations, repeats):
    """L-BFGS with ten pairs on the extended Rosenbrock function, against SciPy, TensorFlow Probability and PyTorch.

    Those that are not installed are named and left out. SciPy works in float64 whatever the dtype.
    """
    missing = [name for name, module in MINIMIZERS.items() if importlib.util.find_spec(module) is None]
    reports = {name: [] for name in MINIMIZERS if name not in missing}
    for _ in range(repeats):
        for name in reports:
            timed = run_minimizer(name, n, dtype, iterations, {})
            # What is freed goes back to the system at once, so that the peak is what was in use. That costs time.
            measured = run_minimizer(name, n, dtype, iterations, {"MALLOC_MMAP_THRESHOLD_": str(2**20)})
            reports[name].append(timed | {"extra": measured["extra"]})
    click.echo(f"extended Rosenbrock, n = {n:,}, {dtype}, m = 10: medians of {repeats}")
    click.echo(f"{'':<10} {'ms/iteration':>13} {'evaluations':>12} {'extra MB':>9} {'extra/history':>14}")
    for name, runs in reports.items():
        seconds, evaluations, extra = (
            statistics.median(r[key] for r in runs) for key in ("seconds", "evaluations", "extra")
        )
        ratio = extra / runs[0]["history"]
        click.echo(f"{name:<10} {seconds * 1e3:13.0f} {evaluations:12.2f} {extra / 1e6:9.0f} {ratio:14.2f}")
    if missing:
        click.echo(f"not installed: {', '.join(missing)}")


# (name, storage, largest n): NumPy has temporaries as large as the matrix, so that the largest does not fit.
MATRICES = (
    ("dense, every change folded", "dense:0", None),
    ("dense, eight at a time", "dense", None),
    ("factored, rank 1,000", "factored:1000:restart", None),
    ("NumPy", "numpy", 20_000),
)


@benchmark.command("shared-matrix")
@click.option("--n", "sizes", type=click.IntRange(min=3000), multiple=True, help="Parameters; may be given repeatedly.")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Per measurement.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Runs of each.")
def shared_matrix(sizes, steps, repeats):
    """TestGD with one matrix over all n parameters, 20,000 and 44,426 (LeNet-5) of them, against NumPy.

    A step is compared with reading n x n float32 numbers once from memory, measured in the same process. Extra is
    by how much the process grew at its peak, after TensorFlow was loaded.
    """
    for n in sizes or (20_000, 44_426):
        reports = {name: [] for name, _, largest in MATRICES if largest is None or n <= largest}
        for _ in range(repeats):
            for name, storage, _ in MATRICES:
                if name in reports:
                    reports[name].append(run_program("benchmark_matrix.py", storage, n, steps))
        click.echo(f"TestGD, n = {n:,}, float32, n x n numbers are {4e-9 * n * n:.1f} GB: medians of {repeats}")
        click.echo(f"{'':<28} {'ms/step':>8} {'step/read':>10} {'step/folded each':>17} {'extra/matrix':>13}")
        immediate = statistics.median(r["seconds"] for r in reports[MATRICES[0][0]])
        for name, runs in reports.items():
            seconds, extra = (statistics.median(r[key] for r in runs) for key in ("seconds", "extra"))
            ratio = statistics.median(r["seconds"] / r["reading"] for r in runs)
            click.echo(
                f"{name:<28} {seconds * 1e3:8.1f} {ratio:10.2f} {seconds / immediate:17.3f} {extra / (4 * n * n):13.2f}"
            )


def run_minimizer(name, n, dtype, iterations, environment):
    """The report of one process, see `benchmark_minimize.py`."""
    if name == "tfp":
        environment = {**environment, "TF_USE_LEGACY_KERAS": "1"}
    return run_program("benchmark_minimize.py", name, n, dtype, iterations, **environment)


def run_program(program, *arguments, **environment):
    """The last line that a program of this folder prints, as JSON."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name(program)), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command[1:])} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


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
