"""A training run that is killed again and again, for the tests and for scripts that count what is survived.

    python interrupted.py FOLDER

trains with every one of `METHODS`: once without a disturbance (FOLDER/METHOD/whole), and once (FOLDER/METHOD/cut) with
SIGKILL at every one of `MOMENTS`, one after the other. Every run is a process of its own. They fork after TensorFlow is
imported and before it is used, which saves its import. What is left of each is in metrics.jsonl and final.npz.
"""

import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf
from networks import blobs, crossentropy, stateful_net

import trainloop as tl
from trainloop import files
from trainloop.checkpoints import files as checkpoint_files

METHODS = {
    "simplegd": lambda: tl.SimpleGD(0.1),
    "adam": lambda: tl.Adam(0.01),
    "testgd": lambda: tl.TestGD(rad=5.0, storage="factored"),
    "lbfgs": lambda: tl.LBFGS(),
}

# What happens when: (what, how many times it has happened before).
MOMENTS = {
    "start": ("start", 0),
    "in a block": ("evaluation", 12),
    "in the midst of the arrays of a checkpoint": ("array", 14),
    "before a checkpoint gets its name": ("rename", 1),
    "in a validation": ("validation", 0),
    "in a later block": ("evaluation", 6),
}


class Killer:
    """Kills this process with SIGKILL at a moment."""

    def __init__(self, moment=None):
        self._what, self._left = moment or (None, 0)

    def __call__(self, what):
        if what == self._what:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1

    def before(self, what, function):
        def killed_first(*args, **kwargs):
            self(what)
            return function(*args, **kwargs)

        return killed_first


class Start(tl.Hook):
    def __init__(self, kill):
        super().__init__()
        self.on_start = lambda loop: kill("start")


def ticking_loss(kill):
    """Crossentropy that tells at every evaluation, inside of compiled code too."""
    compare = crossentropy()

    def loss(y, p):
        tf.numpy_function(lambda: kill("evaluation"), [], [])
        return compare(y, p)

    return loss


def train(folder, method, moment=None):
    """The same command every time: begins, or goes on."""
    kill = Killer(moment)
    files.os.rename = kill.before("rename", os.rename)
    header = "write_array_header_1_0"
    setattr(checkpoint_files.np.lib.format, header, kill.before("array", getattr(np.lib.format, header)))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # tracing takes less time
    keras.utils.set_random_seed(0)
    hooks = [tl.MetricsFile(folder / "metrics.jsonl"), tl.SaveCheckpoint(folder / "checkpoints", every_steps=4)]
    hooks += [Start(kill), tl.EarlyStopping(patience=100), tl.RestoreBest()]
    loss = ticking_loss(kill)
    loop = tl.TrainLoop(stateful_net(), METHODS[method](), loss, metrics=["accuracy"], hooks=hooks, steps_per_call=3)
    loop.evaluate = kill.before("validation", loop.evaluate)
    if loop.restore(folder / "checkpoints") is None:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    x, y = blobs()
    loop.run(tl.ArrayData(x, y, 20), until_epoch=4, validation_data=(x, y))
    variables = {name.replace("/", "|"): v.numpy() for name, v in loop.resumable().variables().items()}
    np.savez(folder / "final.npz", **variables)


def in_a_process(function, *arguments):
    """The signal that ended it, 0 where it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"a run failed: {arguments}")
    return os.WTERMSIG(status)


def kill_and_go_on(folder, method):
    whole, cut = folder / "whole", folder / "cut"
    for made in (whole, cut):
        made.mkdir(parents=True)
    in_a_process(train, whole, method)
    for name, moment in MOMENTS.items():
        if in_a_process(train, cut, method, moment) != signal.SIGKILL:
            sys.exit(f"{method}: nothing was killed {name}")
    in_a_process(train, cut, method)


def main(folder):
    for method in METHODS:
        kill_and_go_on(pathlib.Path(folder) / method, method)


if __name__ == "__main__":
    main(*sys.argv[1:])
