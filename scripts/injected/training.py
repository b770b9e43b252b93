"""Faults of the training itself: NaN, exceptions of a user's code, datasets, clocks, signals."""

import os
import signal
import time

import numpy as np

from injected import each, fault
from injected.runs import (
    dataset,
    every_step_once,
    expect,
    goes_on_from,
    make_loop,
    raises,
    records,
    start,
    wait,
)


@fault
def nan_in_one_batch_stopped(folder):
    from trainloop import TrainingError

    loop, data, bad = _with_a_bad_batch(folder, "stop")
    loop.run(data, steps=30)
    words = "step [34][0-9] failed.*The first layer whose output is not finite is .*dense"
    raises(TrainingError, words, lambda: loop.run(bad, epochs=1))
    goes_on_from(folder, 30)


@fault
def nan_in_one_batch_skipped(folder):
    loop, _, bad = _with_a_bad_batch(folder, "skip")
    expect(loop.run(bad, epochs=2).step == 2 * bad.steps_per_epoch - 2, "the run did not go on")
    expect(loop.optimizer.skipped_steps == 2, "the steps were not counted")
    expect(all(np.all(np.isfinite(w)) for w in loop.model.get_weights()), "weights or averages are lost")


def _with_a_bad_batch(folder, policy, hooks=()):
    """A loop, its data, and the same with a sample of which the first layer makes NaN."""
    import tensorflow as tf

    import trainloop as tl

    marked = 12345.0
    loop, data = make_loop(folder, hooks=hooks, on_nonfinite=policy)
    x, y = (array.numpy() for array in data.arrays)
    x[200, 0] = marked
    first = loop.model.layers[0]
    call = first.call
    first.call = lambda inputs, **options: call(tf.where(tf.equal(inputs, marked), np.float32(np.nan), inputs))
    return loop, data, tl.ArrayData(x, y, data.batch_size)


@fault
def exception_in_a_hook(folder):
    from trainloop import Hook

    class Theirs(Hook):
        def on_step(self, progress):
            raise KeyError("theirs")

    loop, data = make_loop(folder, hooks=[Theirs(every_steps=40)])
    raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    goes_on_from(folder, 25)


@fault
def exception_in_the_loss(folder):
    def theirs(y, p):
        raise KeyError("theirs")

    loop, data = make_loop(folder, loss=theirs)
    raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    expect([r["kind"] for r in records(folder)] == ["end"], "the log does not say that the run ended")


@fault
def exception_in_an_update(folder):
    from trainloop import SimpleGD

    class Theirs(SimpleGD):
        def update(self, x, g, state):
            raise KeyError("theirs")

    loop, data = make_loop(folder, optimizer=Theirs())
    raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    expect([r["kind"] for r in records(folder)] == ["end"], "the log does not say that the run ended")


@fault
def dataset_ends_in_the_midst_of_a_block(folder):
    batches = _batches(make_loop(folder)[1]).enumerate().filter(lambda i, _: i < 7).map(lambda _, batch: batch)
    result = make_loop(folder)[0].run(batches, epochs=2)
    expect((result.step, len(result.epochs["loss"])) == (14, 2), "an epoch is not what the dataset has")


@fault
def dataset_breaks_its_promise(folder):
    import tensorflow as tf

    loop, data = make_loop(folder)
    short = _batches(data).take(7).apply(tf.data.experimental.assert_cardinality(10))
    words = "contain 10 elements but contained only 7"
    raises(tf.errors.FailedPreconditionError, words, lambda: loop.run(short, epochs=2))
    expect(all(np.all(np.isfinite(w)) for w in loop.model.get_weights()), "the weights are lost")
    expect(records(folder) is not None, "the log is not readable")


def _batches(data):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data.arrays).batch(40)


@fault
def nan_rolled_back_until_it_is_given_up(folder):
    from trainloop import TrainingError

    loop, _, bad = _with_a_bad_batch(folder, "rollback")
    raises(TrainingError, "failed", lambda: loop.run(bad, epochs=1))
    expect(all(np.all(np.isfinite(w)) for w in loop.model.get_weights()), "weights or averages are lost")


JUMPS = {"back": -(10**6), "forward": 10**6}


@each(JUMPS)
def clock_that_is_set(folder, jump):
    """The time of day jumps in the midst of a run."""
    import trainloop as tl

    class Sets(tl.Hook):
        def on_step(self, progress):
            now = time.time
            time.time = lambda: now() + jump

    hooks = [Sets(every_steps=30), tl.TensorBoardFile(folder / "curves"), tl.StopWhen(seconds=200)]
    loop, data = make_loop(folder, hooks=hooks)
    result = loop.run(data, steps=60)
    expect(result.step == 60, "the run did not come to its end")
    expect(0 < result.seconds < 200, "the seconds are those of the other clock")
    goes_on_from(folder, 60)


@fault
def stopped_for_a_while(folder):
    """SIGSTOP, and SIGCONT some seconds later: as if nothing had happened."""
    child = start(_long_run, folder)
    _wait_for(lambda: (folder / "checkpoints" / "step-00000050").exists())
    os.kill(child, signal.SIGSTOP)
    time.sleep(5)
    os.kill(child, signal.SIGCONT)
    expect(wait(child) == 0, "the run did not come to its end")
    every_step_once(folder, 200)


def _long_run(folder):
    loop, data = make_loop(folder, steps_per_call=5)
    loop.run(data, steps=200)


SIGNALS = {"SIGTERM_then_SIGINT": (signal.SIGTERM, signal.SIGINT), "SIGTERM_twice": (signal.SIGTERM, signal.SIGTERM)}


@each(SIGNALS)
def second_signal_leaves_at_once(folder, numbers):
    """In a block that would take minutes; the last checkpoint is whole."""
    child = start(_endless_run, folder)
    _wait_for(lambda: (folder / "blocked").exists())
    os.kill(child, numbers[0])
    time.sleep(0.3 if numbers[0] == numbers[1] else 0)
    began = time.monotonic()
    os.kill(child, numbers[1])
    expect(wait(child) in (130, 143), "it did not end by the signal")
    expect(time.monotonic() - began < 10, "it did not leave at once")
    goes_on_from(folder, 50)


def _endless_run(folder):
    import tensorflow as tf

    from trainloop import Hook
    from trainloop.runs.signals import StopOnSignals

    class Blocks(Hook):
        """Ten minutes in compiled code, where no handler of Python's runs."""

        def on_step(self, progress):
            (folder / "blocked").touch()
            tf.function(lambda: tf.while_loop(lambda i: i < 10**12, lambda i: (i + 1,), [tf.zeros([], tf.int64)]))()

    loop, data = make_loop(folder, hooks=[Blocks(every_steps=60)])
    with StopOnSignals(loop.stop):
        loop.run(data, steps=80)


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, "what was waited for did not happen")
        time.sleep(0.005)


@fault
def dataset_resumed_in_the_midst_of_an_epoch(folder):
    from trainloop import Hook

    class Theirs(Hook):
        def on_step(self, progress):
            raise KeyError("theirs")

    loop, _ = make_loop(folder, hooks=[Theirs(every_steps=40)])
    raises(KeyError, "theirs", lambda: loop.run(dataset(), steps=60))
    loop, _ = make_loop(folder)
    expect(loop.restore(folder / "checkpoints") == 25, "does not continue from step 25")
    loop.run(dataset(), until_step=60)
    every_step_once(folder, 60)
