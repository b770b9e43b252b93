"""What version 0.1 wrote loads, restores, resumes and repeats: saved models, checkpoints of every storage, a run."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import version_0_1
from environment import ROOT

EXPECTED = json.loads((version_0_1.FOLDER / "expected.json").read_text())

# Sums may be taken in another order on another processor.
RTOL = 1e-9


# The others with the thorough tests.
FIRST = ("adam", "testgd-dense", "testgd-factored", "lbfgs")


@pytest.mark.usefixtures("no_graph_rewriting")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FIRST else pytest.mark.thorough) for name in version_0_1.OPTIMIZERS],
)
@pytest.mark.thorough_after(1)
def test_a_checkpoint_goes_on_as_it_did(name):
    loop = version_0_1.loop_of(name)
    assert loop.restore(version_0_1.FOLDER / "checkpoints" / name) == version_0_1.STEPS
    loop.run(version_0_1.batches(), until_step=version_0_1.STEPS + version_0_1.MORE_STEPS)
    np.testing.assert_allclose(version_0_1.weights(loop.model), EXPECTED["restored"][name], rtol=RTOL)


def test_a_checkpoint_with_metrics_goes_on_as_it_did():
    loop, data = version_0_1.metrics_loop()
    assert loop.restore(version_0_1.FOLDER / "checkpoints" / "metrics") == version_0_1.STEPS
    epochs = loop.run(data, until_step=version_0_1.STEPS + version_0_1.MORE_STEPS).epochs
    found = {name: values[-1] for name, values in epochs.items() if name != "seconds"}
    expected = {"mae" if name == "mean_absolute_error" else name: v for name, v in EXPECTED["metrics"].items()}
    assert found == pytest.approx(expected, rel=RTOL)  # metrics have the name now under which they were given


@pytest.mark.parametrize("name", EXPECTED["fitted"])
@pytest.mark.thorough_after(1)
def test_a_saved_model_goes_on_as_it_did(name):
    model = keras.models.load_model(version_0_1.FOLDER / "models" / f"{name}.keras")
    assert type(model.optimizer) is type(version_0_1.OPTIMIZERS[name]())
    model.fit(*version_0_1.samples(), batch_size=version_0_1.BATCH_SIZE, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(version_0_1.weights(model), EXPECTED["fitted"][name], rtol=RTOL)


def records(path):
    """The numbers of a metrics.jsonl, without what differs from process to process."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line for line in lines if line["kind"] in ("step", "epoch")]
    return [{name: value for name, value in line.items() if name not in ("kind", "seconds")} for line in kept]


def assert_same_log(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-4), other


def train(*words):
    command = [sys.executable, "scripts/train.py", "--quiet", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_a_run_is_resumed(tmp_path):
    shutil.copytree(version_0_1.FOLDER / "run", tmp_path / "run")
    train("--run-dir", tmp_path / "run", "--resume", "--epochs", version_0_1.MORE_EPOCHS)
    assert_same_log(records(tmp_path / "run" / "metrics.jsonl"), records(version_0_1.FOLDER / "whole.jsonl"))


@pytest.mark.thorough
def test_a_run_is_repeated(tmp_path):
    train("--config", version_0_1.FOLDER / "run" / "config.json", "--run-dir", tmp_path / "again")
    assert_same_log(
        records(tmp_path / "again" / "metrics.jsonl"), records(version_0_1.FOLDER / "run" / "metrics.jsonl")
    )
