"""The faults of `faults.py` that are not kills: functions of an empty folder that raise unless they are survived."""

import re
import resource
import shutil

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
    from trainloop import Hook

    def put_a_file_in_its_place():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "checkpoints").write_text("a file where the folder should be")

    class Loses(Hook):
        def on_step(self, progress):
            put_a_file_in_its_place()

    loop, data = faults.make_loop(folder, hooks=[Loses(every_steps=30)])
    _expect(loop.run(data, steps=60).step == 60, "the run did not go on")
    # A run that begins without a place for checkpoints would be one without any.
    (folder / "metrics.jsonl").unlink()
    put_a_file_in_its_place()
    loop, data = faults.make_loop(folder)
    _raises(ValueError, "is a file; give a folder", lambda: loop.run(data, steps=60))


def two_processes_on_one_run(folder):
    from trainloop.runs.directory import RunDirectory

    first = RunDirectory(folder / "run")
    first.begin({})
    _raises(ValueError, "in use by a run of another process", lambda: RunDirectory(folder / "run", resume=True))


def nan_in_one_batch_stopped(folder):
    from trainloop import TrainingError

    loop, data, bad = _with_a_bad_batch(folder, "stop")
    loop.run(data, steps=30)
    words = "step [34][0-9] failed.*The first layer whose output is not finite is .*dense"
    _raises(TrainingError, words, lambda: loop.run(bad, epochs=1))
    _goes_on_from(folder, 30)


def nan_in_one_batch_skipped(folder):
    loop, _, bad = _with_a_bad_batch(folder, "skip")
    _expect(loop.run(bad, epochs=2).step == 2 * bad.steps_per_epoch - 2, "the run did not go on")
    _expect(loop.optimizer.skipped_steps == 2, "the steps were not counted")
    _expect(all(np.all(np.isfinite(w)) for w in loop.model.get_weights()), "weights or averages are lost")


def _with_a_bad_batch(folder, word):
    """A loop, its data, and the same with a sample of which the first layer makes NaN."""
    import tensorflow as tf

    import trainloop as tl

    marked = 12345.0
    loop, data = faults.make_loop(folder, on_nonfinite=word)
    x, y = (array.numpy() for array in data.arrays)
    x[200, 0] = marked
    first = loop.model.layers[0]
    call = first.call
    first.call = lambda inputs, **options: call(tf.where(tf.equal(inputs, marked), np.float32(np.nan), inputs))
    return loop, data, tl.ArrayData(x, y, data.batch_size)


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
    _expect([r["kind"] for r in faults.records(folder)] == ["end"], "the log does not say that the run ended")


def exception_in_an_update(folder):
    from trainloop import SimpleGD

    class Theirs(SimpleGD):
        def update(self, x, g, state):
            raise KeyError("theirs")

    loop, data = faults.make_loop(folder, optimizer=Theirs())
    _raises(KeyError, "theirs", lambda: loop.run(data, steps=60))
    _expect([r["kind"] for r in faults.records(folder)] == ["end"], "the log does not say that the run ended")


def dataset_ends_in_the_midst_of_a_block(folder):
    batches = _batches(faults.make_loop(folder)[1]).enumerate().filter(lambda i, _: i < 7).map(lambda _, batch: batch)
    result = faults.make_loop(folder)[0].run(batches, epochs=2)
    _expect((result.step, len(result.epochs["loss"])) == (14, 2), "an epoch is not what the dataset has")


def dataset_breaks_its_promise(folder):
    import tensorflow as tf

    loop, data = faults.make_loop(folder)
    short = _batches(data).take(7).apply(tf.data.experimental.assert_cardinality(10))
    words = "contain 10 elements but contained only 7"
    _raises(tf.errors.FailedPreconditionError, words, lambda: loop.run(short, epochs=2))
    _expect(all(np.all(np.isfinite(w)) for w in loop.model.get_weights()), "the weights are lost")
    _expect(faults.records(folder) is not None, "the log is not readable")


def _batches(data):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data.arrays).batch(40)


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
            *(exception_in_a_hook, exception_in_the_loss, exception_in_an_update),
            *(dataset_ends_in_the_midst_of_a_block, dataset_breaks_its_promise),
        )
    },
}
