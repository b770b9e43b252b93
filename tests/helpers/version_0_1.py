"""Makes the files of tests/version_0_1: what version 0.1 wrote, which every later version has to read.

    python tests/helpers/version_0_1.py FOLDER

They were made by the last commit in which the package was one flat folder, on TensorFlow 2.21 and Keras 3.15. The same
program run by a later version shows what it writes today; the files that are kept here are never made anew.
"""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np

import trainloop as tl

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "version_0_1"

# name -> a new optimizer; every storage of a matrix and of a history, and two wrappers.
OPTIMIZERS = {
    "adam": lambda: tl.Adam(0.05),
    "bfgs-dense": lambda: tl.BFGS(storage="dense"),
    "bfgs-dense-at-once": lambda: tl.BFGS(storage="dense:0"),
    "testgd-dense": lambda: tl.TestGD(rad=20.0, storage="dense"),
    "testgd-factored": lambda: tl.TestGD(rad=20.0, storage="factored"),
    "testgd-restart": lambda: tl.TestGD(rad=20.0, storage="factored:4:restart"),
    "testgd-subspace": lambda: tl.TestGD(rad=20.0, storage="factored:4:subspace"),
    "testgd-then-dense": lambda: tl.TestGD(rad=20.0, storage="factored:4:dense"),
    "testgd-sharded": lambda: tl.TestGD(rad=20.0, storage="sharded"),
    "testgd-sharded-factored": lambda: tl.TestGD(rad=20.0, storage="sharded:factored"),
    "shorr-factored": lambda: tl.ShorR(storage="factored"),
    "sr1-dense": lambda: tl.SR1(storage="dense"),
    "lbfgs": lambda: tl.LBFGS(m=3),
    "lbfgs-sharded": lambda: tl.LBFGS(m=3, storage="sharded"),
    "sam": lambda: tl.SAM(inner=tl.Momentum(0.05)),
    "bestsofar": lambda: tl.BestSoFar(inner=tl.Adam(0.05)),
}
STEPS, MORE_STEPS, BATCH_SIZE = 8, 4, 12

TRAIN = ("--dataset", "wine", "--model", "softmax_regression", "--optimizer", "testgd", "-o", "rad=50", "--seed", "3")
EPOCHS, MORE_EPOCHS = 2, 4


def net():
    """A small network in float64 with a seed and averages, and its loss."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Input((3,), dtype="float64"),
        keras.layers.Dense(4, "tanh", dtype="float64"),
        keras.layers.BatchNormalization(dtype="float64"),
        keras.layers.Dropout(0.2, seed=1, dtype="float64"),
        keras.layers.Dense(2, dtype="float64"),
    ]
    return keras.Sequential(layers), keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def samples():
    """Two classes of 36 samples, in batches."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 36).astype("int32")
    return rng.normal(size=(36, 3)) + y[:, None], y


def loop_of(name, *hooks):
    model, loss = net()
    return tl.TrainLoop(model, OPTIMIZERS[name](), loss, hooks=hooks)


def batches():
    return tl.ArrayData(*samples(), BATCH_SIZE, seed=5)


def weights(model):
    return [float(value) for v in model.variables for value in np.ravel(v.numpy())]


def make_checkpoint(folder, name):
    """A checkpoint after `STEPS`, and the weights after `MORE_STEPS`."""
    loop = loop_of(name, tl.SaveCheckpoint(folder / "checkpoints" / name, keep=1))
    loop.run(batches(), steps=STEPS)
    onwards = loop_of(name)
    onwards.restore(folder / "checkpoints" / name)
    onwards.run(batches(), until_step=STEPS + MORE_STEPS)
    return weights(onwards.model)


def metrics_loop(*hooks):
    """Pictures of 3 pixels and their reconstruction, with metrics of Keras and of this package."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(3)])
    metrics = ["mae", tl.ReconstructionError()]
    pictures = np.random.default_rng(0).uniform(size=(36, 3))
    loop = tl.TrainLoop(model, tl.Momentum(0.05), "mse", metrics=metrics, hooks=hooks)
    return loop, tl.ArrayData(pictures, pictures, BATCH_SIZE, seed=5)


def make_metrics(folder):
    """The same with a loop that has metrics."""
    loop, data = metrics_loop(tl.SaveCheckpoint(folder / "checkpoints" / "metrics", keep=1))
    loop.run(data, steps=STEPS)
    onwards, data = metrics_loop()
    onwards.restore(folder / "checkpoints" / "metrics")
    result = onwards.run(data, until_step=STEPS + MORE_STEPS)
    return {name: float(values[-1]) for name, values in result.epochs.items() if name != "seconds"}


def make_model(folder, name):
    """A model that `fit` has trained, in Keras's own file."""
    model, loss = net()
    model.compile(OPTIMIZERS[name](), loss=loss)
    model.fit(*samples(), batch_size=BATCH_SIZE, epochs=2, shuffle=False, verbose=0)
    path = folder / "models" / f"{name}.keras"
    path.parent.mkdir(exist_ok=True)
    model.save(path)
    model = keras.models.load_model(path)  # which does not know where its dropout was
    model.fit(*samples(), batch_size=BATCH_SIZE, epochs=1, shuffle=False, verbose=0)
    return weights(model)


def train(*words):
    root = pathlib.Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "scripts/train.py", *TRAIN, "--quiet", *words], cwd=root, check=True)


def make_run(folder):
    """A run of `EPOCHS`, and the log of one of `MORE_EPOCHS`."""
    train("--run-dir", folder / "run", "--epochs", str(EPOCHS), "--keep", "1")
    train("--run-dir", folder / "whole", "--epochs", str(MORE_EPOCHS))
    (folder / "run" / "curves.png").unlink()
    (folder / "whole" / "metrics.jsonl").rename(folder / "whole.jsonl")


def main(folder):
    keras.config.set_floatx("float64")  # losses too
    expected = {name: make_checkpoint(folder, name) for name in OPTIMIZERS}
    models = {name: make_model(folder, name) for name in ("adam", "testgd-dense")}
    everything = {"restored": expected, "fitted": models, "metrics": make_metrics(folder)}
    (folder / "expected.json").write_text(json.dumps(everything) + "\n")
    make_run(folder)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
