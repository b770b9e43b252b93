"""A description that builds nothing, and refuses what a run would refuse."""

import re

import keras
import pytest
from networks import dense_net, stateful_net

from trainloop import LBFGS, SAM, Adam, ArrayData, Momentum, TestGD, TrainLoop, load
from trainloop.optimizer import memory_plan
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.runs import dry_run
from trainloop.runs.directory import RunDirectory

SETTINGS = {"epochs": 3, "steps": 50, "tensorboard": True}
SETTINGS |= {"jit": False, "eager": False, "microbatch": None, "on_nonfinite": "stop", "resume": False}


@pytest.fixture(autouse=True)
def _nothing_is_built(monkeypatch):
    def build(self, variables):
        raise RuntimeError("something was built")

    monkeypatch.setattr(WholeVectorOptimizer, "build", build)


def check(optimizer, folder, model=None, **changes):
    return dry_run.check(model or dense_net(), optimizer, SETTINGS | changes, RunDirectory(folder), {"parameters": 53})


def test_the_description_has_all_a_run_depends_on(tmp_path):
    digits = load("digits")
    batches = ArrayData(digits.x_train, digits.y_train, 100)
    model, method = stateful_net(), SAM(Momentum(0.25), rho=0.1)
    folder = tmp_path / "run"
    text = dry_run.describe(digits, batches, model, method, SETTINGS, RunDirectory(folder), {})
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
        assert line in text.splitlines()
    assert re.search(r"^  \S+/moving_mean +\[8\] +8, not trained$", text, re.MULTILINE)
    assert re.search(r"^  \S+/kernel +\[6, 8\] +48$", text, re.MULTILINE)
    assert not folder.exists()


def test_the_plan_is_that_of_the_method(tmp_path):
    plan = check(Adam(), tmp_path)
    assert (plan.n, plan.grows) == (53, False)
    assert plan.nbytes >= 2 * 53 * 8
    assert check(TestGD(storage="factored"), tmp_path).grows


@pytest.mark.parametrize(
    ("optimizer", "changes", "words"),
    [
        (lambda: keras.optimizers.Adam(), {}, "must be a GlobalVectorOptimizer"),
        (lambda: TestGD(storage="factored"), {"jit": True}, "storage='dense'"),
        (lambda: Adam(), {"jit": True, "microbatch": 5}, "microbatches"),
        (lambda: LBFGS(), {"on_nonfinite": "rollback"}, "no learning rate, radius or damping"),
        (lambda: Adam(), {"on_nonfinite": "hope"}, "on_nonfinite must be one of"),
    ],
)
def test_misuse_is_refused_in_the_words_of_the_loop(optimizer, changes, words, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=words) as caught:
        check(optimizer(), tmp_path, **changes)
    monkeypatch.undo()
    options = {"jit_compile": changes.get("jit", False), "microbatch_size": changes.get("microbatch")}
    options["on_nonfinite"] = changes.get("on_nonfinite", "stop")
    with pytest.raises(ValueError, match=words) as in_the_loop:
        TrainLoop(dense_net(), optimizer(), "mse", **options)
    assert str(caught.value) == str(in_the_loop.value)


@pytest.mark.parametrize("optimizer", [lambda: TestGD(), lambda: Adam(), lambda: SAM(Momentum(0.5))])
def test_a_method_that_can_shrink_its_steps_may_roll_back(optimizer, tmp_path):
    check(optimizer(), tmp_path, on_nonfinite="rollback")


def test_a_model_with_nothing_to_train_is_refused(tmp_path):
    frozen = dense_net()
    frozen.trainable = False
    with pytest.raises(ValueError, match="nothing to train"):
        check(Adam(), tmp_path, frozen)


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory", lambda: 2000)
    with pytest.raises(ValueError, match="are free"):
        check(TestGD(storage="dense"), tmp_path)


def test_a_run_with_other_settings_is_not_said_to_be_continued(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 1}')
    directory = RunDirectory(tmp_path, resume=True)
    with pytest.raises(ValueError, match="is a run with other settings"):
        dry_run.check(dense_net(), Adam(), SETTINGS | {"resume": True}, directory, {})
    assert directory._lock is None
