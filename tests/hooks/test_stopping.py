"""Hooks that end a run, and the weights it ends with."""

import fcntl
import math
import os
import signal
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights

from trainloop import (
    LBFGS,
    ArrayData,
    EarlyStopping,
    Hook,
    RestoreBest,
    SaveCheckpoint,
    SimpleGD,
    Status,
    StopWhen,
    TrainingError,
    TrainLoop,
)
from trainloop.files import RunLock
from trainloop.hooks.monitor import Monitor
from trainloop.runs.signals import StopOnSignals

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
        ([3, 2, 2, 1, 1, 1, 1, 1], {"patience": 3}, 7),
        ([3, 2, 2, 2, 1, 1, 1, 1], {"patience": 2}, 4),
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


def a_loss_of(values):
    """A loss that is values[i] at the weight i, which is one more after every step of `SimpleGD(1.0)`."""
    table = tf.constant(values, "float64")

    def loss(model, batch):
        weight = model.trainable_variables[0][0, 0]
        value = tf.gather(table, tf.cast(tf.round(weight), "int32"))
        return tf.stop_gradient(value + weight) - weight

    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    net = keras.Sequential([keras.layers.Input((6,)), layer])
    return net, loss


def run_of_losses(values, *hooks, folder=None, **options):
    net, loss = a_loss_of(values)
    loop = TrainLoop(net, SimpleGD(1.0), loss_fn=loss, hooks=hooks, **options)
    if folder:
        loop.restore(folder)
    return loop.run(ArrayData(*blobs(), 20), until_step=len(values))


@pytest.mark.parametrize("steps_per_call", [1, 2, 4])
@pytest.mark.thorough_after(1)
def test_a_target_met_between_two_looks_is_not_forgotten(steps_per_call, tmp_path):
    losses = [9.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    result = run_of_losses(losses, StopWhen(f_target=2, every_steps=4), steps_per_call=steps_per_call)
    np.testing.assert_array_equal(result.history["loss"], losses[:4])
    assert result.message == "the loss is at most f_target = 2"

    class Cut(Hook):
        def on_step(self, progress):
            raise InterruptedError

    saver = SaveCheckpoint(tmp_path, every_steps=3)
    with pytest.raises(InterruptedError):
        run_of_losses(losses, StopWhen(f_target=2, every_steps=4), saver, Cut(4), steps_per_call=steps_per_call)
    assert saver.folder.steps() == [3]
    hooks = StopWhen(f_target=2, every_steps=4), SaveCheckpoint(tmp_path)
    assert run_of_losses(losses, *hooks, folder=tmp_path).step == 4


def test_a_target_that_an_earlier_run_met_is_not_that_of_the_next():
    net, loss = a_loss_of([1.0, *[9.0] * 8])
    loop = TrainLoop(net, SimpleGD(1.0), loss_fn=loss, hooks=[StopWhen(f_target=2, every_steps=4)])
    data = ArrayData(*blobs(), 20)
    assert loop.run(data, steps=2).step == 2
    assert loop.run(data, steps=6).status == Status.FINISHED


def test_a_failed_run_says_why_it_failed():
    class Stop(Hook):
        def on_start(self, loop):
            self.loop = loop

        def on_block(self, progress):
            self.loop.stop("enough")

    with pytest.raises(TrainingError) as caught:
        run_of_losses([5.0, -math.inf, 5.0], StopWhen(f_target=2), Stop(), steps_per_call=2)
    assert caught.value.result.status == Status.NONFINITE_LOSS
    assert caught.value.result.message == Status.NONFINITE_LOSS.message


def test_an_infinite_loss_meets_no_target():
    hook, reasons = StopWhen(f_target=2), []
    hook.on_start(types.SimpleNamespace(stop=reasons.append))
    for loss in (-math.inf, math.nan, 1.0):
        hook.on_block(types.SimpleNamespace(step=1, seconds=1.0, logs={"step": np.ones(1), "loss": np.array([loss])}))
        assert bool(reasons) == (loss == 1.0)


def test_the_best_weights_keep_their_order():
    """Also where there are more than a thousand arrays."""
    before, after = RestoreBest("loss"), RestoreBest("loss")
    values = [np.array(i) for i in range(1012)]
    before.on_start(types.SimpleNamespace(extra_variables=(), model=types.SimpleNamespace(get_weights=lambda: values)))
    before.on_epoch(None, {"loss": 1.0})
    after.load_state(before.state())
    restored = []
    after.on_start(types.SimpleNamespace(extra_variables=(), model=types.SimpleNamespace(set_weights=restored.extend)))
    after.on_end(None)
    np.testing.assert_array_equal(restored, values)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (StopWhen, "needs f_target=..., seconds=... or evaluations=...; received none"),
        (lambda: StopWhen(seconds=0), "seconds must be a finite number above 0"),
        (lambda: EarlyStopping(patience=0), "patience must be an integer of at least 1"),
        (lambda: EarlyStopping("cosine"), "check its spelling, or set larger_is_better"),
        (lambda: run(EarlyStopping()), "'val_loss', which no epoch's summary will have; .*; pass validation_data"),
        (lambda: Monitor("loss", larger_is_better=1), "larger_is_better must be True or False"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "make", [lambda name: EarlyStopping(name, patience=2), lambda name: RestoreBest(name), lambda name: Monitor(name)]
)
def test_the_best_value_of_another_number_is_not_taken_over(make):
    """A run is continued with another monitor, or the hooks of one class have changed places."""
    before, same, other = make("loss"), make("loss"), make("accuracy")
    monitor = getattr(before, "_monitor", before)
    assert monitor.is_better({"loss": 0.25})
    state = {**before.state(), "epochs": 1, "weights_000": np.ones(2)}
    for hook, best in ((same, 0.25), (other, None)):
        hook.load_state(state if isinstance(hook, Monitor) else {**hook.state(), **state})
        assert hook.state()["best"] == best
        assert ("weights_000" in hook.state()) == (isinstance(hook, RestoreBest) and hook is same)
        assert hook.state().get("epochs", hook is same) == (hook is same)


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


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_two_signals_that_do_not_coalesce_come_one_after_the_other(numbers, monkeypatch):
    """Of one number the system keeps only one until it is delivered; of two numbers both."""
    reasons, exits = [], []
    monkeypatch.setattr(os, "_exit", exits.append)
    with StopOnSignals(reasons.append) as signals:
        for number in numbers:
            os.kill(os.getpid(), number)
        wait_for(lambda: exits)
    assert len(reasons) == 1
    assert {exits[0], signals.exit_code} == {128 + number for number in numbers}


def test_a_terminal_that_takes_nothing_keeps_no_signal_waiting(monkeypatch):
    reasons, exits = [], []
    monkeypatch.setattr(os, "_exit", exits.append)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, bytes(4096))  # nobody reads it
    before = os.dup(2)
    os.dup2(writer, 2)
    try:
        with StopOnSignals(reasons.append):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(lambda: reasons)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(lambda: exits)
    finally:
        os.dup2(before, 2)
        for descriptor in (before, writer, reader):
            os.close(descriptor)
    assert exits == [143]


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


def test_keras_names_mean_the_same():
    ours, theirs = EarlyStopping("x", 3, 0.5, True), EarlyStopping("x", 3, min_delta=0.5, mode="max")
    for value in (1.0, 1.4, 1.6, 1.0):
        summary = {"x": value}
        assert ours._monitor.is_better(summary) == theirs._monitor.is_better(summary)
    assert RestoreBest("x", mode="min")._monitor.larger_is_better is False
    assert RestoreBest("val_loss", mode="auto")._monitor.larger_is_better is False
    with pytest.raises(ValueError, match="mode must be one of auto, min, max; received 'higher'"):
        EarlyStopping("x", mode="higher")
    with pytest.raises(ValueError, match="larger_is_better and mode are two names of one argument"):
        EarlyStopping("x", larger_is_better=True, mode="min")
