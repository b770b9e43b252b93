"""Several workers that run what `test_workers` looks at.

    python workers_at_work.py FOLDER

What each worker of a scenario has to tell is in FOLDER/<scenario>/<index>.json.
"""

import json
import os
import pathlib
import signal
import sys
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import training_cases
from environment import ROOT
from networks import crossentropy
from training_cases import CASES, CONVEX, STEPS, data, net, trained

import trainloop as tl

sys.path.insert(0, str(ROOT / "scripts"))
from trainloop.cli.launch import free_ports


def equal_runs(told, strategy, folder):
    for name in told["names"]:
        make, batch_size = CASES[name]
        with strategy.scope():
            model = net(convex=name in CONVEX)
        weights, _, result, loop = trained(make(), model, data(batch_size), STEPS.get(name, 50), metrics=["accuracy"])
        reduced = loop.replicas.all_reduces, loop.replicas.numbers
        told[name] = {"weights": weights.tolist(), "accuracy": result.epochs["accuracy"][-1:].tolist()}
        told[name] |= {"reduced": reduced, "evaluations": result.evaluations}


def stopped(told, strategy, folder):
    """Only worker 1 is asked to stop, and only its clock says that blocks should be short."""

    class Ask(tl.Hook):
        def on_block(self, progress):
            if progress.step >= 6 and told["index"] == 1:
                loop.stop("a signal came to worker 1")

    with strategy.scope():
        loop = tl.TrainLoop(net(), tl.SimpleGD(0.1), crossentropy(), hooks=[Ask()])
    if told["index"] == 1:
        loop._phase.pace.observe = lambda steps, seconds: None
    result = loop.run(data(32), epochs=10_000)
    told["stopped"] = [result.step, result.message]


def mismatched(told, strategy, folder):
    for what, seed, rate in (("data", told["index"], 0.1), ("method", 0, 0.1 + told["index"])):
        with strategy.scope():
            model = net()
        loop = tl.TrainLoop(model, tl.SimpleGD(rate), crossentropy())
        batches = data(32)
        batches.seed = seed
        try:
            loop.run(batches, steps=2)
        except tl.WorkersError as error:
            told[what] = str(error)


def drifting(told, strategy, folder):
    class Push(tl.Hook):
        def on_block(self, progress):
            if told["index"] == 1:
                loop.optimizer.learning_rate = 0.2

    with strategy.scope():
        loop = tl.TrainLoop(net(), tl.SimpleGD(0.1), crossentropy(), hooks=[Push()], steps_per_call=2)
    try:
        loop.run(data(32), steps=20)
    except tl.WorkersError as error:
        told["drift"] = str(error)


def infinite(told, strategy, folder):
    batches = data(32)
    order = batches.order(0).numpy()
    x = batches.arrays[0].numpy()
    x[order[32 + 20]] = np.inf  # in the second batch, in the part of worker 1
    batches.arrays = (keras.ops.convert_to_tensor(x), batches.arrays[1])
    with strategy.scope():
        model = net(normalise=True)
    try:
        trained(tl.SimpleGD(0.1), model, batches)
    except tl.TrainingError as error:
        told["infinite"] = [error.step, error.status.name]
        told["finite"] = bool(all(np.all(np.isfinite(v.numpy())) for v in model.variables))


def rolled_back(told, strategy, folder):
    """Steps that are far too long, 32 times shorter ones too."""
    with strategy.scope():
        model = net(convex=True)
    hooks = [tl.SaveCheckpoint(folder / "back")]
    method = tl.TestGD(rad=1e200, storage="sharded")  # whose matrix all have to gather for a checkpoint
    loop = tl.TrainLoop(model, method, crossentropy(), hooks=hooks, on_nonfinite="rollback")
    try:
        loop.run(data(96), steps=9)
    except tl.TrainingError as error:
        told["rolled back"] = [loop._nonfinite.rollbacks, error.step, error.status.name]


def silent(told, strategy, folder):
    """Worker 1 is busy with other things for longer than the time-out."""

    class Sleep(tl.Hook):
        def on_block(self, progress):
            if progress.step == 2 and told["index"] == 1:
                time.sleep(3 * TIMEOUT)

    with strategy.scope():
        model = net(convex=True)
    loop = tl.TrainLoop(model, tl.SimpleGD(0.1), crossentropy(), hooks=[Sleep()], steps_per_call=1)
    began = time.monotonic()
    try:
        loop.run(data(96), steps=50)
    except tl.WorkersError as error:
        told["silent"], told["seconds"] = str(error), time.monotonic() - began


class Kill(tl.Hook):
    def __init__(self, when):
        super().__init__()
        self.on_block = lambda progress: progress.step >= when and os.kill(os.getpid(), signal.SIGKILL)


def saved(told, strategy, folder, kill=None):
    hooks = [tl.SaveCheckpoint(folder / "checkpoints", every_steps=4), tl.MetricsFile(folder / "metrics.jsonl")]
    if told["index"] == 1 and kill:
        hooks.append(Kill(kill))
    with strategy.scope():
        model = net(normalise=True)
    method = tl.TestGD(rad=20.0, storage="sharded")
    loop = tl.TrainLoop(model, method, crossentropy(), metrics=["accuracy"], hooks=hooks, steps_per_call=3)
    told["restored"] = loop.restore(folder / "checkpoints")
    try:
        loop.run(data(40), until_epoch=8, validation_data=data(96))
    except tl.WorkersError as error:
        (folder / "lost.txt").write_text(str(error))
    told["end"] = [v.numpy().tolist() for v in model.variables if v.dtype.startswith("float")]


def killed(told, strategy, folder):
    saved(told, strategy, folder, kill=10)


# Seconds, where it is to be reached.
TIMEOUT = 3

# What is run one after the other: (folder, number of workers, parts).
SCENARIOS = (
    ("two", 2, ["equal_runs", "stopped", "mismatched", "drifting", "infinite", "rolled_back", "saved"]),
    ("four", 4, ["equal_runs"]),
    ("cut", 2, ["killed"]),
    ("cut", 2, ["saved"]),
    ("silent", 2, ["silent"]),
)
EQUAL = ("simplegd", "adam", "testgd dense", "testgd factored", "testgd sharded", "lbfgs", "lbfgs sharded", "newtoncg")


def work(index, count, parts, folder):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    told = {"index": index, "names": EQUAL}
    strategy = tl.connect_workers(timeout_seconds=TIMEOUT if parts == ["silent"] else 20)
    training_cases.faster_tracing()
    for part in parts:
        globals()[part](told, strategy, folder)
    (folder / f"{index}.json").write_text(json.dumps(told))


def in_processes(count, parts, folder):
    """Start workers and wait for them. They fork after TensorFlow is imported and before it is used."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    children = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        child = os.fork()
        if child == 0:
            os.environ["TF_CONFIG"] = json.dumps(task)
            signal.alarm(400)  # nothing here should hang, and nothing that does should stay
            code = 1
            try:
                work(index, count, parts, folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def main(folder):
    for name, count, parts in SCENARIOS:
        (pathlib.Path(folder) / name).mkdir(exist_ok=True)
        in_processes(count, parts, pathlib.Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
