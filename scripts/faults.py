"""Kill training runs and damage their files, and count what is survived.

    python scripts/faults.py
    python scripts/faults.py --kills 100 --seed 1

A run survives a kill when it ends with the same weights, the same state of the method and the same metrics.jsonl as
one that was not disturbed. The model has BatchNormalization and dropout, the data are shuffled. It survives another
fault when it goes on, or ends with an error that names the cause, and its last good checkpoint is as it was.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

import click

from trainloop.cli.common import as_help

METHODS = ("simplegd", "adam", "testgd", "lbfgs")
EPOCHS, BATCH = 40, 32

# Seconds after which a run counts as stuck.
_LONGEST = 240


@click.command(help=as_help(__doc__))
@click.option(
    "--kills", type=click.IntRange(min=1), default=24, show_default=True, metavar="N", help="kill -9, in all."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments.")
def faults(kills, seed):
    # Every run is a fork of this process, which imports TensorFlow and never uses it: threads do not survive a fork.
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    import faults_injected
    import tensorflow  # noqa: F401

    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tried = survived = 0
        for i, method in enumerate(METHODS):
            wanted = kills * (i + 1) // len(METHODS) - kills * i // len(METHODS)
            equal, steps = kill_again_and_again(folder / method, method, wanted, moments)
            click.echo(
                f"{method:<10} killed after steps {', '.join(map(str, steps))}: {'equal' if equal else 'DIFFERENT'}"
            )
            tried, survived = tried + wanted, survived + wanted * equal
        good = 0
        for name, fault in faults_injected.FAULTS.items():
            (folder / name).mkdir()
            ended = in_a_process(fault, folder / name)
            good += ended == 0
            click.echo(f"{name.replace('_', ' '):<42} {'survived' if ended == 0 else 'NOT SURVIVED'}")
    click.echo(f"kills survived: {survived} of {tried}; faults survived: {good} of {len(faults_injected.FAULTS)}")
    sys.exit(0 if survived == tried and good == len(faults_injected.FAULTS) else 1)


def kill_again_and_again(folder, method, kills, moments):
    """(whether the run ended as an undisturbed one, steps in its log when it was killed)."""
    folder.mkdir()
    for name in ("whole", "cut"):
        (folder / name).mkdir()
    began = time.monotonic()
    in_a_process(train, folder / "whole", method)
    seconds = time.monotonic() - began
    steps = []
    while len(steps) < kills:
        after = moments.uniform(0, seconds)
        if in_a_process(train, folder / "cut", method, kill_after=after) == signal.SIGKILL:
            steps.append(steps_in(folder / "cut"))
        else:  # it was faster than the moment: begin anew
            shutil.rmtree(folder / "cut")
            (folder / "cut").mkdir()
    in_a_process(train, folder / "cut", method)
    return outcome(folder / "cut") == outcome(folder / "whole"), steps


def train(folder, method):
    """The same command every time: begins, or goes on."""
    import numpy as np

    loop, data = make_loop(folder, method)
    if loop.restore(folder / "checkpoints") is None:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    loop.run(data, epochs=EPOCHS, validation_data=data)
    variables = loop.resumable().variables()
    np.savez(folder / "final.npz", **{name.replace("/", "|"): v.numpy() for name, v in variables.items()})


def make_loop(folder, method="simplegd", hooks=(), loss=None, **options):
    """A small network with everything that has a state, and its data."""
    import keras
    import numpy as np

    import trainloop as tl

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.layers.Input((10,)), *layers, keras.layers.Dense(4)])
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400).astype("int32")
    x = (rng.normal(size=(4, 10))[y] + rng.normal(size=(400, 10))).astype("float32")
    storage = {"storage": "factored"} if method == "testgd" else {}
    log, saver = tl.MetricsFile(folder / "metrics.jsonl"), tl.SaveCheckpoint(folder / "checkpoints", every_steps=25)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    hooks = [log, saver, tl.EarlyStopping("loss", patience=10**6), tl.RestoreBest("loss"), *hooks]
    optimizer = options.pop("optimizer", None) or tl.ALGORITHMS[method](**storage)
    return tl.TrainLoop(model, optimizer, loss, hooks=hooks, **options), tl.ArrayData(x, y, BATCH)


def in_a_process(function, *arguments, kill_after=None):
    """Run a function in a fork: 0, its exit code, or the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(_LONGEST)
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    status = ended[1]
    return os.WTERMSIG(status) or os.WEXITSTATUS(status)


def records(folder):
    """Complete lines of metrics.jsonl, without what differs from process to process."""
    path = folder / "metrics.jsonl"
    complete = [line for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []
    differing = ("seconds", "peak_memory")
    return [{name: value for name, value in json.loads(line).items() if name not in differing} for line in complete]


def steps_in(folder):
    return max((r["step"] for r in records(folder)), default=0)


def outcome(folder):
    """What a run has left: its log, and the bytes of every variable."""
    import numpy as np

    with np.load(folder / "final.npz") as final:
        return records(folder), {name: final[name].tobytes() for name in final.files}


if __name__ == "__main__":
    faults()
