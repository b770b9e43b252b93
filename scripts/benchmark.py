"""Measure trainloop against what it replaces, side by side, on this machine.

python scripts/benchmark.py loop --dataset mnist
python scripts/benchmark.py flatten
python scripts/benchmark.py extras --dataset mnist
python scripts/benchmark.py looking --dataset mnist
python scripts/benchmark.py startup
python scripts/benchmark.py minimize
python scripts/benchmark.py shared-matrix

What is not installed is named and left out. Ratios are what to look at: seconds belong to a machine.
"""

import functools
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import click
from command_line import import_tensorflow
from reporting import alternate, compared, publish

HERE = pathlib.Path(__file__).parent

TIMES = {"median": ("median s", ".3f"), "low": ("lowest", ".3f"), "high": ("highest", ".3f")}

repeats_option = click.option(
    "--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Rounds that count."
)
dataset_option = click.option(
    "--dataset", default="mnist", show_default=True, help="Name, .npz file, or folder of IDX files."
)
output_option = click.option(
    "--output", default="benchmarks", show_default=True, help="Folder for the JSON file and the chart."
)


@click.group(help=__doc__.replace("\n\npython", "\n\n\b\npython"))
def benchmark():
    """See the top of this file."""


# Convolutions compiled by XLA for CPUs take several times as long, ours and JAX's.
_NOT_FOR_LENET = ("trainloop, XLA", "JAX lax.scan")


@benchmark.command()
@dataset_option
@click.option("--network", "networks", multiple=True, help="LeNet-5, 784-32-10 or 784-128-10; all if none is given.")
@repeats_option
@output_option
def loop(dataset, networks, repeats, output):
    """Epochs of a network at batch 64 with Adam: TrainLoop, model.fit, a hand-written loop, PyTorch and JAX.

    Each library has a process of its own. They take their epochs in turn; the first of each is not counted.
    """
    from benchmark_loop import LIBRARIES, NEEDS, NETWORKS

    unknown = set(networks) - set(NETWORKS)
    if unknown:
        raise click.UsageError(f"network must be one of {', '.join(NETWORKS)}, received {', '.join(unknown)}")
    missing = [name for name, module in NEEDS.items() if importlib.util.find_spec(module) is None]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        arrays = save_arrays(dataset, folder)
        for network in networks or NETWORKS:
            unfit = [*missing, *(_NOT_FOR_LENET if network == "LeNet-5" else ())]
            seconds = in_turn([name for name in LIBRARIES if name not in unfit], network, arrays, repeats)
            reference = "trainloop" if network == "LeNet-5" else "trainloop, XLA"
            rows += compared(network, seconds, reference)
    columns = TIMES | {"ratio": ("ours / this", ".2f")}
    publish(
        output,
        "loop",
        f"Seconds for an epoch of {dataset}, batch 64, Adam; medians of {repeats}",
        rows,
        columns,
        "median",
    )
    name_missing(missing)


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
            workers[name] = start_program("benchmark_loop.py", name, network, arrays, stderr=subprocess.DEVNULL)
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
        raise click.ClickException(f"{name} ended early; run benchmark_loop.py by itself to see why")
    return line


@benchmark.command()
@repeats_option
@output_option
def flatten(repeats, output):
    """The optimizer step alone, as one vector and by variable, for four layouts of variables."""
    import_tensorflow()
    from benchmark_flatten import LAYOUTS, jobs, title

    rows = []
    for layout in LAYOUTS:
        steps_of, steps = jobs(layout)
        rows += compared(title(layout), alternate(steps_of, repeats), next(iter(steps_of)), scale=1e6 / steps)
    columns = {"median": ("median us", ".0f"), "low": ("lowest", ".0f"), "high": ("highest", ".0f")}
    columns |= {"ratio": ("ours / this", ".2f")}
    publish(output, "flatten", f"Microseconds for a step of Adam; medians of {repeats}", rows, columns, "median")


@benchmark.command()
@dataset_option
@repeats_option
@output_option
def extras(dataset, repeats, output):
    """Epochs of LeNet-5 with everything (metrics, a schedule, a log file, a display) and with nothing."""
    import_tensorflow()
    import keras

    import trainloop as tl
    from trainloop.display import PlainLines
    from trainloop.writers import MetricsFile

    data, loss = tl.load(dataset), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tempfile.TemporaryDirectory() as folder:
        everything = {"metrics": ["accuracy"], "hooks": [PlainLines(lambda line: None)]}
        schedule = keras.optimizers.schedules.CosineDecay(0.001, 10**5)
        jobs, number = {}, iter(range(10**6))
        for name, rate, options in (("with everything", schedule, everything), ("bare", 0.001, {})):
            model = tl.lenet5(data.input_shape, data.classes)
            train_loop = tl.TrainLoop(model, tl.Adam(rate), loss, **options)
            batches = tl.ArrayData(data.x_train, data.y_train, 64)

            def epoch(train_loop=train_loop, batches=batches, logged=bool(options), hooks=train_loop.hooks):
                if logged:
                    train_loop.hooks = (*hooks, MetricsFile(pathlib.Path(folder, f"{next(number)}.jsonl")))
                train_loop.run(batches, epochs=1)

            jobs[name] = epoch
        rows = compared("LeNet-5, batch 64, Adam", alternate(jobs, repeats), "with everything")
    columns = TIMES | {"ratio": ("everything / this", ".3f")}
    publish(output, "extras", f"Seconds for an epoch of {dataset}; medians of {repeats}", rows, columns, "median")


# Steps per round of each way to look.
LOOKS = {"bare": 200, "LayerNorms": 200, "eager": 20}


@benchmark.command()
@dataset_option
@repeats_option
@output_option
def looking(dataset, repeats, output):
    """Steps of LeNet-5 at batch 64 with the hook LayerNorms, as plain Python (eager), and bare."""
    import_tensorflow()
    import keras

    import trainloop as tl

    data, loss, rows = tl.load(dataset), keras.losses.SparseCategoricalCrossentropy(from_logits=True), []
    # With a capacity, so that steps do not take longer and longer.
    methods = {"Adam": tl.Adam, "TestGD": functools.partial(tl.TestGD, storage="factored:100:restart")}
    for title, method in methods.items():
        jobs = {}
        for name, steps in LOOKS.items():
            hooks = [tl.LayerNorms()] if name == "LayerNorms" else []
            model = tl.lenet5(data.input_shape, data.classes)
            train_loop = tl.TrainLoop(model, method(), loss, hooks=hooks, eager=name == "eager")
            batches = tl.ArrayData(data.x_train, data.y_train, 64)
            jobs[name] = functools.partial(train_loop.run, batches, steps=steps)
        seconds = alternate(jobs, repeats)
        per_step = {name: [1e3 * s / LOOKS[name] for s in times] for name, times in seconds.items()}
        rows += compared(f"LeNet-5, batch 64, {title}", per_step, "bare")
    columns = {"median": ("median ms", ".2f"), "low": ("lowest", ".2f"), "high": ("highest", ".2f")}
    columns |= {"ratio": ("bare / this", ".3f")}
    publish(output, "looking", f"Milliseconds per step on {dataset}; medians of {repeats}", rows, columns, "median")


STARTS = {
    "import tensorflow": "import tensorflow",
    "import keras": "import keras",
    "import trainloop": "import trainloop",
}


@benchmark.command()
@repeats_option
@output_option
def startup(repeats, output):
    """What importing trainloop takes beside importing TensorFlow, each in a fresh process."""

    def importing(statement):
        return lambda: subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)

    seconds = alternate({name: importing(statement) for name, statement in STARTS.items()}, repeats)
    rows = compared("a fresh process", seconds, "import trainloop")
    columns = TIMES | {"ratio": ("ours / this", ".3f")}
    publish(output, "startup", f"Seconds to import; medians of {repeats}", rows, columns, "median")


def name_missing(missing):
    if missing:
        click.echo(f"not installed: {', '.join(missing)}")


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
@repeats_option
@output_option
def minimize(n, dtype, iterations, repeats, output):
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
    rows = [
        {
            "group": f"n = {n:,}, {dtype}, m = 10",
            "name": name,
            "milliseconds": 1e3 * statistics.median(run["seconds"] for run in runs),
            "evaluations": statistics.median(run["evaluations"] for run in runs),
            "extra": statistics.median(run["extra"] for run in runs) / 1e6,
            "relative": statistics.median(run["extra"] / run["history"] for run in runs),
        }
        for name, runs in reports.items()
    ]
    columns = {
        "milliseconds": ("ms/iteration", ".0f"),
        "evaluations": ("evaluations", ".2f"),
        "extra": ("extra MB", ".0f"),
        "relative": ("extra/history", ".2f"),
    }
    title = f"L-BFGS on the extended Rosenbrock function; medians of {repeats}"
    publish(output, "minimize", title, rows, columns, "milliseconds")
    name_missing(missing)


# (name, storage, largest n): NumPy has temporaries as large as the matrix, so that the largest does not fit.
MATRICES = (
    ("dense, every change folded", "dense:0", None),
    ("dense, eight at a time", "dense", None),
    ("sharded, two shards in one process", "sharded", None),
    ("factored, rank 1,000", "factored:1000:restart", None),
    ("NumPy", "numpy", 20_000),
)


@benchmark.command("shared-matrix")
@click.option("--n", "sizes", type=click.IntRange(min=3000), multiple=True, help="Parameters; may be given repeatedly.")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Per measurement.")
@repeats_option
@output_option
def shared_matrix(sizes, steps, repeats, output):
    """TestGD with one matrix over all n parameters, 20,000 and 44,426 (LeNet-5) of them, against NumPy.

    A step is compared with reading n x n float32 numbers once from memory, measured in the same process. Extra is
    by how much the process grew at its peak, after TensorFlow was loaded.
    """
    rows = []
    for n in sizes or (20_000, 44_426):
        reports = {name: [] for name, _, largest in MATRICES if largest is None or n <= largest}
        for _ in range(repeats):
            for name, storage, _ in MATRICES:
                if name in reports:
                    reports[name].append(run_program("benchmark_matrix.py", storage, n, steps))
        immediate = statistics.median(run["seconds"] for run in reports[MATRICES[0][0]])
        for name, runs in reports.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            rows.append(
                {
                    "group": f"n = {n:,}, float32, n x n numbers are {4e-9 * n * n:.1f} GB",
                    "name": name,
                    "milliseconds": 1e3 * seconds,
                    "reading": statistics.median(run["seconds"] / run["reading"] for run in runs),
                    "immediate": seconds / immediate,
                    "extra": statistics.median(run["extra"] for run in runs) / (4 * n * n),
                }
            )
    columns = {
        "milliseconds": ("ms/step", ".1f"),
        "reading": ("step/read", ".2f"),
        "immediate": ("step/folded each", ".3f"),
        "extra": ("extra/matrix", ".2f"),
    }
    publish(output, "shared-matrix", f"Steps of TestGD; medians of {repeats}", rows, columns, "milliseconds")


def run_minimizer(name, n, dtype, iterations, environment):
    """The report of one process, see `benchmark_minimize.py`."""
    if name == "tfp":
        environment = {**environment, "TF_USE_LEGACY_KERAS": "1"}
    return run_program("benchmark_minimize.py", name, n, dtype, iterations, **environment)


def run_program(program, *arguments, **environment):
    """The last line that a program of this folder prints, as JSON."""
    process = start_program(program, *arguments, **environment)
    printed, complaints = process.communicate()
    if process.returncode:
        raise click.ClickException(f"{program} {arguments[0]} failed: {complaints.strip().splitlines()[-1]}")
    return json.loads(printed.splitlines()[-1])


def start_program(program, *arguments, stderr=subprocess.PIPE, **environment):
    """A program of this folder as a process that can be talked to."""
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


if __name__ == "__main__":
    benchmark()
