"""Hooks that end a run, and the weights it ends with."""

import math
import os
import signal
import time

import numpy as np
import pytest
from networks import blobs, crossentropy, dense_net, weights

from trainloop import LBFGS, ArrayData, EarlyStopping, Hook, RestoreBest, SimpleGD, Status, StopWhen, TrainLoop
from trainloop.monitor import Monitor
from trainloop.run_lock import RunLock
from trainloop.signals import StopOnSignals

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


class Say(Hook):
    """Makes the losses of epochs what a test wants, and remembers the weights after each."""

    def __init__(self, values):
        super().__init__()
        self.values, self.weights = values, []

    def on_start(self, loop):
        self.loop = loop

    def on_epoch(self, progress, summary):
        summary["loss"] = self.values[summary["epoch"] - 1]
        self.weights.append(weights(self.loop.model))


def run(*hooks, epochs=8, optimizer=None, **options):
    loop = TrainLoop(dense_net(), optimizer or SimpleGD(0.1), crossentropy(), hooks=hooks, **options)
    return loop, loop.run(ArrayData(*blobs(), 48), epochs=epochs)


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([3, 2, 2, 2, 1, 1, 1, 1], {"patience": 2}, 4),
        ([3, 2, 2, 1, 1, 1, 1, 1], {"patience": 3}, 7),
        ([3, 2, 1.95, 1.92, 1, 1, 1, 1], {"patience": 2, "by": 0.1}, 4),
        ([math.nan, math.nan, 1, 1, 1, 1, 1, 1], {"patience": 2}, 2),
        ([1, 2, 3, 3, 3, 9, 9, 9], {"patience": 2, "larger_is_better": True}, 5),
        ([8, 7, 6, 5, 4, 3, 2, 1], {"patience": 1}, 8),
    ],
)
def test_early_stopping(values, options, epochs):
    _, result = run(Say(values), EarlyStopping("loss", **options))
    assert len(result.epochs["epoch"]) == epochs
    assert result.status == (Status.FINISHED if epochs == 8 else Status.STOPPED)


def test_the_best_weights_are_left():
    say = Say([3, 1, 2, math.nan])
    loop, _ = run(say, RestoreBest("loss"), epochs=4)
    np.testing.assert_array_equal(weights(loop.model), say.weights[1])
    assert np.any(say.weights[3] != say.weights[1])


@pytest.mark.parametrize(
    ("hook", "optimizer", "steps", "message"),
    [
        (lambda: StopWhen(f_target=0.85, every_steps=1), None, None, "the loss is at most f_target = 0.85"),
        (lambda: StopWhen(evaluations=7), None, 7, "7 evaluations"),
        (lambda: StopWhen(evaluations=7, every_steps=4), None, 8, "7 evaluations"),
        (lambda: StopWhen(evaluations=4), LBFGS, None, "4 evaluations"),
        (lambda: StopWhen(seconds=1e-9), None, 1, "1e-09 seconds are over"),
        (lambda: StopWhen(f_target=-1.0), None, 16, "the requested number"),
    ],
)
def test_stop_when(hook, optimizer, steps, message):
    _, result = run(hook(), optimizer=optimizer and optimizer(), steps_per_call=1)
    assert result.message.startswith(message)
    if steps is not None:
        assert result.step == steps
    if "f_target = 0.85" in message:
        assert result.history["loss"][-1] <= 0.85 < result.history["loss"][:-1].min()
    if optimizer is LBFGS:
        assert 4 <= result.evaluations["f"] < 16


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (StopWhen, "needs f_target=..., seconds=... or evaluations=...; received none"),
        (lambda: StopWhen(seconds=0), "seconds must be a finite number above 0"),
        (lambda: EarlyStopping(patience=0), "patience must be an integer of at least 1"),
        (lambda: EarlyStopping("cosine"), "say so with larger_is_better"),
        (lambda: run(EarlyStopping()), "no epoch's summary has 'val_loss'; it has .*is validation_data missing"),
        (lambda: Monitor("loss", larger_is_better=1), "larger_is_better must be True or False"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(("name", "larger"), [("val_loss", False), ("val_accuracy", True), ("mean_error", False)])
def test_which_way_is_better_is_in_the_name(name, larger):
    monitor = Monitor(name)
    assert monitor.is_better({name: 1.0})
    assert monitor.is_better({name: 2.0}) is larger
    assert not monitor.is_better({name: math.nan})


# --- Signals and the lock ----------------------------------------------------------------------------------


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_the_first_signal_asks_and_the_second_leaves(number, code, words, monkeypatch):
    reasons, exits = [], []
    monkeypatch.setattr(os, "_exit", exits.append)
    before = signal.getsignal(number)
    with StopOnSignals(reasons.append) as signals:
        assert (signals.received, signals.exit_code) == (None, 0)
        os.kill(os.getpid(), number)
        wait_for(lambda: reasons)
        assert reasons == [f"{words} was received"]
        assert (signals.exit_code, exits) == (code, [])
        os.kill(os.getpid(), number)
        wait_for(lambda: exits)
    assert exits == [code]
    assert signal.getsignal(number) is before


def test_a_request_to_stop_before_the_run_is_heard():
    loop = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), steps_per_call=2)
    loop.stop("already")
    result = loop.run(ArrayData(*blobs(), 20), epochs=3)
    assert (result.step, result.message) == (2, "already")
    assert loop.run(ArrayData(*blobs(), 20), epochs=1).status == Status.FINISHED


def test_a_second_process_is_refused(tmp_path):
    lock = RunLock(tmp_path / "lock")
    with pytest.raises(ValueError, match="is in use by a run of another process; wait, or give another folder"):
        RunLock(tmp_path / "lock")  # a lock belongs to an open file, so this process counts as another
    lock.release()
    RunLock(tmp_path / "lock").release()
