"""The faults of `faults.py` that are not kills: functions of an empty folder that raise unless they are survived."""

import contextlib
import re
import resource

import faults
import numpy as np


def _saved(folder):
    """A run of 60 steps with checkpoints of steps 25, 50 and 60; the newest one."""
    loop, data = faults.make_loop(folder)
    loop.run(data, steps=60)
    return folder / "checkpoints" / "step-00000060"


def _goes_on_from(folder, step):
    loop, data = faults.make_loop(folder)
    _expect(loop.restore(folder / "checkpoints") == step, f"does not go on from step {step}")
    loop.run(data, steps=80)
    steps = [r["step"] for r in faults.records(folder) if r["kind"] == "step"]
    _expect(steps == list(range(1, 81)), "the log has a gap or a duplicate")


def _expect(condition, message):
    if not condition:
        raise RuntimeError(message)


def _damage(file, change):
    def fault(folder):
        path = _saved(folder) / file
        content = path.read_bytes()
        path.write_bytes(change(content))
        _goes_on_from(folder, 50)

    return fault


def _half(content):
    return content[: len(content) // 2]


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def missing_arrays(folder):
    (_saved(folder) / "arrays.npz").unlink()
    _goes_on_from(folder, 50)


def disk_full_while_saving(folder):
    loop, data = faults.make_loop(folder)
    loop.run(data, steps=30)
    room = (folder / "metrics.jsonl").stat().st_size + 8000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    loop.run(data, steps=30)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    _goes_on_from(folder, 30)


def folder_of_checkpoints_not_writable(folder):
    (folder / "checkpoints").write_text("a file where the folder should be")
    loop, data = faults.make_loop(folder)
    _expect(loop.run(data, steps=60).step == 60, "the run did not go on")


def two_processes_on_one_run(folder):
    from trainloop.run_directory import RunDirectory

    first = RunDirectory(folder / "run")
    first.begin({})
    _raises(ValueError, "in use by a run of another process", lambda: RunDirectory(folder / "run", resume=True))


def nan_in_one_batch_stopped(folder):
    from trainloop import TrainingError

    loop, data = _with_a_bad_batch(folder, "stop")
    _raises(
        TrainingError, "step 31 failed.*the first layer whose output is not finite", lambda: loop.run(data, steps=60)
    )
    _goes_on_from(folder, 25)


def nan_in_one_batch_skipped(folder):
    loop, data = _with_a_bad_batch(folder, "skip")
    _expect(loop.run(data, steps=60).step == 60, "the run did not go on")
    _expect(loop.optimizer.skipped_steps == 1, "the step was not counted")


def _with_a_bad_batch(folder, word):
    import tensorflow as tf

    loop, data = faults.make_loop(folder, on_nonfinite=word)
    at = tf.Variable(0, dtype=tf.int64)
    first = loop.model.layers[0]
    call = first.call

    def spoilt(x, **kwargs):
        at.assign_add(1)
        return call(tf.where(tf.equal(at, 31), np.inf * x, x), **kwargs)

    first.call = spoilt
    return loop, data


def exception_in_a_hook(folder):
    from trainloop import Hook

    class Theirs(Hook):
        def on_step(self, progress):
            raise KeyError("theirs")

    loop, data = faults.make_loop(folder, hooks=[Theirs(every_steps=40)])
    _raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    _goes_on_from(folder, 25)


def exception_in_the_loss(folder):
    def theirs(y, p):
        raise KeyError("theirs")

    loop, data = faults.make_loop(folder, loss=theirs)
    _raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    _expect(faults.records(folder) == [], "the log is not readable")


def exception_in_an_update(folder):
    from trainloop import SimpleGD

    class Theirs(SimpleGD):
        def update(self, x, g, state):
            raise KeyError("theirs")

    loop, data = faults.make_loop(folder, optimizer=Theirs())
    _raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    _expect(faults.records(folder) == [], "the log is not readable")


def dataset_ends_early(folder):
    import tensorflow as tf

    loop, data = faults.make_loop(folder)
    batches = tf.data.Dataset.from_tensor_slices(data.arrays).batch(40)
    short = batches.take(7).apply(tf.data.experimental.assert_cardinality(10))
    with contextlib.suppress(tf.errors.FailedPreconditionError):  # TensorFlow itself may notice the broken promise
        loop.run(short, epochs=2)
    _expect(np.all(np.isfinite(loop.model.get_weights()[0])), "the weights are lost")
    _expect(len(faults.records(folder)) >= 7, "the log is not readable")


def _raises(kind, words, function):
    try:
        function()
    except kind as error:
        _expect(re.search(words, str(error)), f"the error does not say {words!r}: {error}")
    else:
        raise RuntimeError(f"no {kind.__name__} was raised")


FAULTS = {
    "arrays_cut_off": _damage("arrays.npz", _half),
    "arrays_with_a_flipped_bit": _damage("arrays.npz", _flip),
    "meta_cut_off": _damage("meta.json", _half),
    "meta_with_a_flipped_bit": _damage("meta.json", _flip),
    "arrays_empty": _damage("arrays.npz", lambda content: b""),
    **{
        fault.__name__: fault
        for fault in (
            *(missing_arrays, disk_full_while_saving, folder_of_checkpoints_not_writable, two_processes_on_one_run),
            *(nan_in_one_batch_stopped, nan_in_one_batch_skipped),
            *(exception_in_a_hook, exception_in_the_loss, exception_in_an_update, dataset_ends_early),
        )
    },
}
