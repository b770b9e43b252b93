"""The runs that faults happen to, and what is expected of them."""

import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH = 32

# Arguments of the optimizers that are not their defaults, and how many epochs they get: one for every way to work.
OPTIMIZERS = {
    "simplegd": {},
    "adam": {},
    "testgd": {"storage": "factored"},
    "lbfgs": {},
    "bfgs": {"storage": "dense"},
    "sr1": {"storage": "dense"},
    "shorr": {"storage": "factored"},
    "fullmatrixadagrad": {},
    "nonlinearcg": {},
    "newtoncg": {},
    "cmaes": {},
    "sam": {"inner": "momentum"},
    "bestsofar": {"inner": "adam"},
}
EPOCHS = {"simplegd": 40, "adam": 40, "testgd": 20}

# Seconds after which a run counts as stuck.
_LONGEST = 300


def samples():
    """(x [400, 10], y [400]) of four classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400).astype("int32")
    return (rng.normal(size=(4, 10))[y] + rng.normal(size=(400, 10))).astype("float32"), y


def dataset():
    """The same, shuffled, as a `tf.data.Dataset`."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(samples()).shuffle(100, seed=1).batch(BATCH).prefetch(1)


def make_loop(folder, method="simplegd", hooks=(), loss=None, **options):
    """A small network with everything that has a state, and its data."""
    import keras

    import trainloop as tl

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    model = keras.Sequential([keras.layers.Input((10,)), *layers, keras.layers.Dense(4)])
    log, saver = tl.MetricsFile(folder / "metrics.jsonl"), tl.SaveCheckpoint(folder / "checkpoints", every_steps=25)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    hooks = [log, saver, tl.EarlyStopping("loss", patience=10**6), tl.RestoreBest("loss"), *hooks]
    optimizer = options.pop("optimizer", None) or make_optimizer(method)
    return tl.TrainLoop(model, optimizer, loss, hooks=hooks, **options), tl.ArrayData(*samples(), BATCH)


def make_optimizer(method):
    import trainloop as tl

    known = tl.ALGORITHMS | tl.WRAPPERS
    arguments = dict(OPTIMIZERS[method])
    if "inner" in arguments:
        arguments["inner"] = known[arguments["inner"]]()
    return known[method](**arguments)


def train(folder, method="simplegd", data=None, kill=None):
    """The same command every time: begins, or goes on.

    Args:
        folder: of the run.
        method: a key of `OPTIMIZERS`.
        data: function of no arguments; None for arrays.
        kill: (what, how many times it has happened before) for a kill in the midst of saving: "array" or "rename".
    """
    if kill is not None:
        _kill_in_the_midst(*kill)
    loop, batches = make_loop(folder, method)
    if loop.restore(folder / "checkpoints") is None:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    loop.run(data() if data else batches, until_epoch=EPOCHS.get(method, 6), validation_data=batches)
    keep(loop, folder)


def train_phases(folder):
    """As `train`, a run with residuals in three phases, on points that are chosen anew on the way."""
    import keras
    import tensorflow as tf

    import trainloop as tl

    keras.utils.set_random_seed(0)
    nu = tf.Variable(0.5, name="nu")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    residuals = {
        "pde": lambda model, p: nu * model(p)[:, 0] - tf.sin(3 * p[:, 0]) * p[:, 1],
        "wall": lambda model, p: model(p),
    }
    phases = [
        tl.Phase(tl.Adam(0.01), steps=60),
        tl.Phase(tl.BFGS(storage="dense"), until=tl.Plateau("loss", patience=30)),
        tl.Phase(tl.LBFGS()),
    ]
    hooks = [
        tl.MetricsFile(folder / "metrics.jsonl"),
        tl.SaveCheckpoint(folder / "checkpoints", every_steps=10),
        tl.Resample("pde", every_steps=25, candidates=400),
    ]
    loop = tl.TrainLoop(model, phases, residuals=residuals, extra_variables=[nu], hooks=hooks)
    if loop.restore(folder / "checkpoints") is None:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    points = tl.Points({"pde": tl.Box([0, 0], [1, 1], 100), "wall": tl.Box([0, 0], [1, 0], 20)}, {"wall": 10})
    loop.run(points, until_step=400)
    keep(loop, folder)


def keep(loop, folder):
    """What a run ends with, in final.npz."""
    import numpy as np

    variables = loop.resumable().variables()
    np.savez(folder / "final.npz", **{name.replace("/", "|"): v.numpy() for name, v in variables.items()})


def _kill_in_the_midst(what, left):
    import numpy as np

    module, name = {"array": (np.lib.format, "write_array_header_1_0"), "rename": (os, "rename")}[what]
    function = getattr(module, name)

    def counting(*args, **kwargs):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **kwargs)

    setattr(module, name, counting)


def start(function, *arguments):
    """Run a function in a fork: its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    signal.alarm(_LONGEST)
    try:
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child, kill_when=None):
    """0, its exit code, or the signal that ended it. It is killed as soon as a function says so."""
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if kill_when is not None and kill_when():
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return os.WTERMSIG(ended[1]) or os.WEXITSTATUS(ended[1])


def in_a_process(function, *arguments, kill_when=None):
    """`wait` for what was started."""
    return wait(start(function, *arguments), kill_when)


def after(seconds):
    """A function that says whether so many seconds have passed since now."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def records(folder):
    """Complete lines of metrics.jsonl, without what differs from process to process."""
    path = folder / "metrics.jsonl"
    complete = [line for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []
    differing = ("seconds", "peak_memory")
    return [{name: value for name, value in json.loads(line).items() if name not in differing} for line in complete]


def steps_in(folder):
    return max((r.get("step", 0) for r in records(folder)), default=0)


def outcome(folder):
    """What a run has left: its log, and the bytes of every variable."""
    import numpy as np

    with np.load(folder / "final.npz") as final:
        return records(folder), {name: final[name].tobytes() for name in final.files}


def make_saved(folder):
    """A run of 60 steps with checkpoints of steps 25, 50 and 60, which `saved` copies."""
    loop, data = make_loop(folder)
    loop.run(data, steps=60)


def saved(folder):
    """A folder with that run: its newest checkpoint."""
    shutil.copytree(folder.parent / "saved", folder, dirs_exist_ok=True)
    return folder / "checkpoints" / "step-00000060"


def goes_on_from(folder, step):
    loop, data = make_loop(folder)
    expect(loop.restore(folder / "checkpoints") == step, f"does not continue from step {step}")
    loop.run(data, until_step=80)
    every_step_once(folder, 80)


def every_step_once(folder, count):
    steps = [r["step"] for r in records(folder) if r["kind"] == "step"]
    expect(steps == list(range(1, count + 1)), "the log has a gap or a duplicate")


def expect(condition, message):
    if not condition:
        raise RuntimeError(message)


def raises(kind, words, function):
    """Make sure that it ends with a message of one line, and return that."""
    try:
        function()
    except kind as error:
        expect(re.search(words, str(error)), f"the error does not say {words!r}: {error}")
        return str(error)
    raise RuntimeError(f"no {kind.__name__} was raised")


def tree(folder):
    """{path: bytes} of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
