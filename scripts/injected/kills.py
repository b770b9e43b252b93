"""Kills with SIGKILL, and whether the run that goes on ends as one that was never disturbed.

A function of each kind takes a folder, how many kills, and a `random.Random`, and returns (whether it ended as the
undisturbed one, words for where it was killed).
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from injected.runs import (
    OPTIMIZERS,
    ROOT,
    after,
    dataset,
    in_a_process,
    keep,
    make_optimizer,
    outcome,
    records,
    samples,
    start,
    steps_in,
    train,
    train_phases,
    wait,
)


def at_random(folder, kills, moments, run=train, arguments=()):
    """At any moment of a run: every third one by the clock, the others by how far it has come."""
    whole, cut = _two_folders(folder)
    began = time.monotonic()
    in_a_process(run, whole, *arguments)
    seconds = time.monotonic() - began
    steps = []
    while len(steps) < kills:
        moment = after(moments.uniform(0, seconds))
        if len(steps) % 3 != 2:
            moment = _longer_than(cut, (len(steps) + moments.random()) / kills * _length(whole))
        if in_a_process(run, cut, *arguments, kill_when=moment) == signal.SIGKILL:
            steps.append(str(steps_in(cut)))
        else:  # it was faster than the moment: begin anew
            _empty(cut)
    in_a_process(run, cut, *arguments)
    return outcome(cut) == outcome(whole), f"after steps {', '.join(steps)}"


def _length(folder):
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def _longer_than(folder, size):
    """A function that says whether the log has come so far."""
    return lambda: _length(folder) > size


def while_saving(folder, kills, moments):
    """In the midst of the arrays of a checkpoint, and before one gets its name."""
    whole, cut = _two_folders(folder)
    in_a_process(train, whole)
    places = []
    while len(places) < kills:
        kill = (("array", "rename")[len(places) % 2], moments.randrange(40 if len(places) % 2 == 0 else 4))
        if in_a_process(train, cut, "simplegd", None, kill) == signal.SIGKILL:
            places.append(f"{kill[0]} {kill[1]}")
        else:
            _empty(cut)
    in_a_process(train, cut)
    return outcome(cut) == outcome(whole), f"before {', '.join(places)}"


def of_the_program(folder, kills, moments):
    """Of `trainloop train`: while TensorFlow is imported, in the midst, and while the results are written."""
    whole, cut = _two_folders(folder)
    began = time.monotonic()
    _program(whole).wait()
    seconds = time.monotonic() - began
    told = []
    while len(told) < kills:
        kind = ("during import", "in the midst", "at the end")[len(told) % 3]
        process = _program(cut)
        moment = after(moments.uniform(0.1, 1) if kind == "during import" else moments.uniform(0.5, 1) * seconds)
        while process.poll() is None and not (_is_ending(cut) if kind == "at the end" else moment()):
            time.sleep(0.002)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            told.append(kind)
        else:
            _empty(cut)
    _program(cut).wait()
    same = _log(cut) == _log(whole) and _last_arrays(cut) == _last_arrays(whole)
    return same and (cut / "run" / "model.keras").exists(), ", ".join(told)


def _program(folder):
    words = ["--dataset", "wine", "--optimizer", "adam", "--epochs", "30", "--checkpoint-steps", "10", "--quiet"]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *words, "--run-dir", str(folder / "run"), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _is_ending(folder):
    path = folder / "run" / "metrics.jsonl"
    return path.exists() and b'"kind": "end"' in path.read_bytes()[-2000:]


def _log(folder):
    """Without what differs from process to process, and without the test: it is measured after the end."""
    return [record for record in records(folder / "run") if record["kind"] != "test"]


def _last_arrays(folder):
    import numpy as np

    newest = max((folder / "run" / "checkpoints").glob("step-*"))
    with np.load(newest / "arrays.npz") as arrays:
        return newest.name, {name: arrays[name].tobytes() for name in arrays.files if not name.startswith("random/")}


def of_workers(folder, kills, moments):
    """One of two workers that train together; the other one ends too, and both are started again."""
    whole, cut = _two_folders(folder)
    began = time.monotonic()
    _wait_for_all(_workers(whole))
    seconds = time.monotonic() - began
    steps = []
    while len(steps) < kills:
        children, victim = _workers(cut), len(steps) % 2
        moment = after(moments.uniform(0.2, 1) * seconds)
        ended = wait(children[victim], moment)
        _wait_for_all([children[1 - victim]])
        if ended == signal.SIGKILL:
            steps.append(f"{steps_in(cut)} (worker {victim})")
        else:
            _empty(cut)
    _wait_for_all(_workers(cut))
    return outcome(cut) == outcome(whole), f"after steps {', '.join(steps)}"


def _workers(folder):
    from trainloop.cli.launch import free_ports

    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [start(_work, folder, addresses, index) for index in range(2)]


def _wait_for_all(children):
    return [wait(child) for child in children]


def _work(folder, addresses, index):
    """As `train`, in a process that is one of two."""
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    os.environ["TF_CONFIG"] = json.dumps(task)
    import trainloop as tl

    strategy = tl.connect_workers(timeout_seconds=20)
    loop, batches = loop_of_workers(folder, strategy)
    if loop.restore(folder / "checkpoints") is None and index == 0:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    try:
        loop.run(batches, until_epoch=20, validation_data=batches)
    except tl.WorkersError:
        os._exit(3)
    if index == 0:
        keep(loop, folder)


def loop_of_workers(folder, strategy, **options):
    import keras

    import trainloop as tl

    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    hooks = [tl.MetricsFile(folder / "metrics.jsonl"), tl.SaveCheckpoint(folder / "checkpoints", every_steps=25)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loop = tl.TrainLoop(model, make_optimizer("adam"), loss, hooks=hooks, steps_per_call=5, **options)
    return loop, tl.ArrayData(*samples(), 40)


def _two_folders(folder):
    for name in ("whole", "cut"):
        (folder / name).mkdir(parents=True)
    return folder / "whole", folder / "cut"


def _empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


# name -> (function, its part of all kills); the first ones are the short form.
KINDS = {
    **{method: (functools.partial(at_random, arguments=(method,)), 3) for method in OPTIMIZERS},
    "tf.data": (functools.partial(at_random, arguments=("simplegd", dataset)), 5),
    "phases and resampling": (functools.partial(at_random, run=train_phases), 4),
    "while saving": (while_saving, 8),
    "the program": (of_the_program, 6),
    "two workers": (of_workers, 4),
}
SHORT = {name: (KINDS[name][0], 1) for name in ("simplegd", "lbfgs", "tf.data", "while saving", "the program")}
