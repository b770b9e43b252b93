"""A description of a run that is not done."""

import re

from networks import dense_net, stateful_net

from trainloop import LBFGS, SAM, Adam, ArrayData, Momentum, TestGD, load
from trainloop.runs import dry_run
from trainloop.runs.directory import RunDirectory

SETTINGS = {"epochs": 3, "steps": 50, "optimizer": "mine", "options": (), "then": (), "tensorboard": True}


def described(model, optimizers, folder, **changes):
    digits = load("digits")
    batches = ArrayData(digits.x_train, digits.y_train, 100)
    return dry_run.describe(digits, batches, model, optimizers, SETTINGS | changes, RunDirectory(folder)).splitlines()


def test_the_description_has_all_a_run_depends_on(tmp_path):
    model, folder = stateful_net(), tmp_path / "run"
    text = described(model, [SAM(Momentum(0.25), rho=0.1)], folder)
    for line in (
        "data: DataSplit(digits: 1,437 training and 360 test samples of shape [28, 28, 1], 10 classes)",
        f"model: {model.name}, n = 99 trainable parameters",
        "method: SAM(name='sam', inner=Momentum(name='momentum', global_clipnorm=None, learning_rate=0.25, "
        "momentum=0.9, nesterov=False), rho=0.1)",
        "state for n = 99 parameters",
        "steps: 45 of 100 samples, 15 in an epoch",
        f"files: config.json, metrics.jsonl, curves.png, model.keras, checkpoints, tensorboard, lock in {folder}",
        '  "epochs": 3,',
    ):
        assert line in text
    assert [line for line in text if re.search(r"^  \S+/moving_mean +\[8\] +8, not trained$", line)]
    assert [line for line in text if re.search(r"^  \S+/kernel +\[6, 8\] +48$", line)]
    assert not folder.exists()


def test_each_phase_is_described_with_its_memory(tmp_path):
    optimizers = [Adam(), TestGD(storage="factored"), LBFGS()]
    text = described(dense_net(), optimizers, tmp_path, steps=5, then=("testgd:--steps=7", "lbfgs"))
    assert [line.partition("(")[0] for line in text if line.startswith("phase ")] == [
        "phase 0, 5 steps at most: Adam",
        "phase 1, 7 steps at most: TestGD",
        "phase 2, to the end of the run: LBFGS",
    ]
    assert "steps: 45 of 100 samples, 15 in an epoch" in text
    assert text.count("state for n = 53 parameters") == 3
    assert any("grows" in line for line in text)
