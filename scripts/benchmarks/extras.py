"""What comes with the loop, and what it costs: logs and metrics, ways to look inside, the import."""

import functools
import pathlib
import subprocess
import sys
import tempfile

import click

from benchmarks.benchmarking import TIMES, dataset_option, output_option, repeats_option
from benchmarks.reporting import alternate, compared, publish
from trainloop.cli.common import import_tensorflow


@click.command()
@dataset_option
@repeats_option
@output_option
def extras(dataset, repeats, output):
    """Epochs of LeNet-5 with everything (metrics, a schedule, a log file, a display) and with nothing."""
    import_tensorflow()
    import keras

    import trainloop as tl
    from trainloop.hooks.display import PlainLines
    from trainloop.hooks.metrics_file import MetricsFile

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


@click.command()
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


@click.command()
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
