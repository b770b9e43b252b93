"""An interrupted run ends as one that was never disturbed, bit for bit."""

import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile

import interrupted
import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import set_precision
from networks import blobs, crossentropy, dense_net, stateful_net, weights

from trainloop import ArrayData, Hook, MetricsFile, Momentum, SaveCheckpoint, SimpleGD, Status, TrainingError, TrainLoop
from trainloop.checkpoints import files as checkpoint_files
from trainloop.loop.dataset_feed import DatasetFeed
from trainloop.runs.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def lines(path):
    """What a metrics.jsonl holds, without what differs from process to process."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    differing = ("seconds", "peak_memory")
    return [{name: value for name, value in record.items() if name not in differing} for record in records]


@pytest.mark.thorough
def test_killed_at_any_moment(tmp_path):
    """All methods in one test: starting TensorFlow takes as long as three runs."""
    command = [sys.executable, interrupted.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for method in interrupted.METHODS:
        check_that_cuts_left_no_trace(tmp_path / method)


def check_that_cuts_left_no_trace(folder):
    with np.load(folder / "whole" / "final.npz") as whole, np.load(folder / "cut" / "final.npz") as cut:
        assert whole.files == cut.files
        assert len(whole.files) >= 14
        for name in whole.files:
            np.testing.assert_array_equal(cut[name], whole[name], err_msg=f"{folder.name}: {name}")
    records = lines(folder / "cut" / "metrics.jsonl")
    assert records == lines(folder / "whole" / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, 21))


# --- In one process: a run that is cut by an exception, and another loop that continues from its checkpoint ---


class Cut(Hook):
    """Ends a run the hard way after a step."""

    def __init__(self, step):
        super().__init__(step)

    def on_step(self, progress):
        raise InterruptedError


def make_loop(folder, *hooks, net=stateful_net, optimizer=None, every_steps=3, log=True, **options):
    log = [MetricsFile(folder / "metrics.jsonl")] if log else []
    hooks = [*log, SaveCheckpoint(folder / "checkpoints", every_steps=every_steps), *hooks]
    options = {"metrics": ["accuracy"], **options}
    return TrainLoop(net(), optimizer or Momentum(0.1), crossentropy(), hooks=hooks, **options)


def arrays():
    return ArrayData(*blobs(), 20)  # 4 batches of 20 and one of 16


def shuffled(count=96):
    x, y = blobs(count)
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(50, seed=3).batch(20).prefetch(2)


def cut_and_resumed(folder, data, step, run=None, **options):
    """(undisturbed loop and result, resumed loop and result)."""
    run = {"until_epoch": 3, "validation_data": blobs(), **(run or {})}
    for name in ("whole", "cut"):
        (folder / name).mkdir()
    whole = make_loop(folder / "whole", **options)
    expected = whole.run(data(), **run)
    with pytest.raises(InterruptedError):
        make_loop(folder / "cut", Cut(step), **options).run(data(), **run)
    resumed = make_loop(folder / "cut", **options)
    assert resumed.restore(folder / "cut" / "checkpoints") == step - step % 3
    return whole, expected, resumed, resumed.run(data(), **run)


@pytest.mark.parametrize(("data", "step"), [(arrays, 4), (arrays, 10), (shuffled, 5), (shuffled, 10)])
@pytest.mark.thorough_after(1)
def test_the_same_bits_logs_and_result(data, step, tmp_path):
    whole, expected, resumed, result = cut_and_resumed(tmp_path, data, step)
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))
    assert lines(tmp_path / "cut" / "metrics.jsonl") == lines(tmp_path / "whole" / "metrics.jsonl")
    assert (result.status, result.step, result.evaluations) == (Status.FINISHED, 15, expected.evaluations)
    for name in set(expected.epochs) - {"seconds"}:
        np.testing.assert_array_equal(result.epochs[name], expected.epochs[name])
    assert result.seconds > 0
    np.testing.assert_array_equal(result.history["loss"], expected.history["loss"][step - step % 3 :])


def small_batches():
    return tf.data.Dataset.range(24).shuffle(10, seed=3).batch(5)


def batches_of(feed, count):
    """The next ones, and what a checkpoint would say before each: ([epoch, index, arrays], batch as a list)."""
    found = []
    while len(found) < count:
        before = feed.state(), feed.epoch, feed.index
        batch = next(feed.source()[0], None)
        if batch is None:
            feed.advance(0, 1)
        else:
            found.append((before, batch.numpy().tolist()))
            feed.advance(1, 1)
    return found


@pytest.mark.parametrize(
    "data",
    [
        small_batches,
        lambda: small_batches().repeat(2),
        lambda: small_batches().repeat(),
        lambda: small_batches().repeat(2).filter(lambda batch: batch[0] > 2),  # of a length that is not known
        lambda: small_batches().repeat().filter(lambda batch: batch[0] > 2),
        lambda: small_batches().repeat().take(7),
    ],
)
@pytest.mark.thorough_after(1)
def test_the_batches_behind_every_cut_are_those_without_it(data):
    found = batches_of(DatasetFeed(data()), 14)
    everything = [batch for _, batch in found]
    for i in range(0, 14, 2):
        feed = DatasetFeed(data())
        feed.load_state(*found[i][0])
        assert [batch for _, batch in batches_of(feed, 14 - i)] == everything[i:]


def test_epochs_have_the_orders_of_plain_passes_however_late_a_pass_ends():
    def slow_to_say_no(_):
        return tf.while_loop(lambda i: i < 10_000, lambda i: (i + 1,), [0])[0] < 0

    nothing_more = tf.data.Dataset.range(1).filter(slow_to_say_no)

    def data():
        samples = tf.data.Dataset.range(24).shuffle(24, seed=3).concatenate(nothing_more).repeat(2)
        return samples.batch(6).apply(tf.data.experimental.assert_cardinality(8))

    passes = data()
    plain = [batch.numpy().tolist() for _ in range(3) for batch in passes]
    assert [batch for _, batch in batches_of(DatasetFeed(data()), 24)] == plain


@pytest.mark.thorough
def test_a_repeated_dataset_resumes_in_the_midst_of_a_repetition(tmp_path):
    run = {"until_epoch": None, "until_step": 13, "validation_data": None}
    whole, _, resumed, _ = cut_and_resumed(tmp_path, lambda: shuffled().repeat(), 7, run, net=dense_net)
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))


def test_a_position_that_was_never_asked_for_is_not_made_up():
    feed = DatasetFeed(small_batches())
    next(feed.source()[0])
    feed.advance(1, 1)
    with pytest.raises(ValueError, match="cannot be saved first after 1 batches of an epoch; ask for it before"):
        feed.state()


@pytest.mark.thorough
def test_xla_resumes_too(tmp_path):
    options = {"net": dense_net, "jit_compile": True}
    whole, _, resumed, _ = cut_and_resumed(tmp_path, arrays, 7, {"until_epoch": 2, "validation_data": None}, **options)
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize(
    ("goal", "step"),
    [
        ({"until_step": 7}, 7),
        ({"steps": 7}, 14),
        ({"until_epoch": 2}, 10),
        ({"epochs": 2}, 15),
        ({"epochs": 9, "until_step": 8, "steps": 4}, 8),
    ],
)
@pytest.mark.thorough_after(2)
def test_goals_count_further_or_in_total(goal, step, tmp_path):
    make_loop(tmp_path).run(arrays(), steps=7)
    loop = make_loop(tmp_path)
    assert loop.restore(tmp_path / "checkpoints") == 7
    result = loop.run(arrays(), **goal)
    assert (result.step, result.status) == (step, Status.FINISHED)
    assert list(result.history.get("step", ())) == list(range(8, step + 1))


@pytest.mark.parametrize("every_steps", [1, 4])
@pytest.mark.thorough_after(1)
def test_saving_changes_no_bit(every_steps, tmp_path):
    undisturbed = TrainLoop(stateful_net(), Momentum(0.1), crossentropy(), metrics=["accuracy"])
    expected = undisturbed.run(shuffled(), epochs=2)
    loop = make_loop(tmp_path, every_steps=every_steps)
    result = loop.run(shuffled(), epochs=2)
    np.testing.assert_array_equal(weights(loop.model), weights(undisturbed.model))
    np.testing.assert_array_equal(result.epochs["accuracy"], expected.epochs["accuracy"])


def test_two_runs_of_a_loop_share_a_folder_and_a_log(tmp_path):
    loop, data = make_loop(tmp_path), arrays()
    loop.run(data, steps=4)
    loop.run(data, steps=4)
    assert [r["step"] for r in lines(tmp_path / "metrics.jsonl") if r["kind"] == "step"] == list(range(1, 9))
    assert loop.hooks[1].folder.steps() == [4, 6, 8]


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    loop = make_loop(tmp_path)
    before = weights(loop.model)
    assert loop.restore(tmp_path / "checkpoints") is None
    np.testing.assert_array_equal(weights(loop.model), before)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": lambda: stateful_net(classes=4)}, r"another model: .*was \[8, 3\] float64, here it is \[8, 4\]"),
        ({"net": dense_net}, "another model: .*batch_normalization"),
        ({"optimizer": SimpleGD(0.1)}, "another optimizer: class was .*Momentum, here it is .*SimpleGD"),
        ({"optimizer": Momentum(0.2)}, r"another optimizer: config learning_rate was 0\.1.*, here it is 0\.2"),
        ({"metrics": ["accuracy", "mse"]}, "another set of metrics: 3 class was not there, here it is .*MeanSquared"),
        ({"metrics": [keras.metrics.BinaryAccuracy()]}, "another set of metrics: 0 config name was accuracy, here"),
    ],
)
def test_other_models_and_optimizers_are_refused(change, words, saved_run):
    loop = make_loop(saved_run, log=False, **change)
    before = weights(loop.model)
    with pytest.raises(ValueError, match=words):
        loop.restore(saved_run / "checkpoints")
    np.testing.assert_array_equal(weights(loop.model), before)


def test_metrics_with_as_many_variables_are_told_apart(tmp_path):
    def loop(metric):
        return make_loop(tmp_path, net=dense_net, log=False, metrics=[metric])

    def entropy(name="entropy", from_logits=True):
        return keras.metrics.SparseCategoricalCrossentropy(name, from_logits=from_logits)

    loop(entropy()).run(arrays(), steps=3)
    # A number behind a name, with which Keras tells several AUCs of a process apart, does not count.
    assert loop(entropy("entropy_1")).restore(tmp_path / "checkpoints") == 3
    with pytest.raises(ValueError, match=r"another set of metrics: 0 config from_logits was True, here it is False\."):
        loop(entropy(from_logits=False)).restore(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"another set of metrics: 0 class was .*Cross.*, here it is .*\.MeanSquared"):
        loop("mse").restore(tmp_path / "checkpoints")


class Warmup(Hook):
    """Begins every run with a smaller learning rate."""

    def on_start(self, loop):
        loop.optimizer.learning_rate = 0.01


def test_a_hook_may_change_the_learning_rate_before_the_first_step(tmp_path):
    hooks = [Warmup(), SaveCheckpoint(tmp_path / "checkpoints")]
    TrainLoop(dense_net(), Momentum(0.1), crossentropy(), hooks=hooks).run(arrays(), steps=3)
    assert make_loop(tmp_path, Warmup(), net=dense_net, log=False, metrics=()).restore(tmp_path / "checkpoints") == 3


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    set_precision("float64")
    folder = tmp_path_factory.mktemp("saved")
    make_loop(folder).run(arrays(), steps=6)
    return folder


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: ArrayData(*blobs(), 24), "another data set: batch_size was 20, here it is 24; fingerprint"),
        (lambda: ArrayData(*blobs(seed=1), 20), "another data set: fingerprint was"),
        (lambda: shuffled(), "another data set: kind was ArrayData, here it is Dataset"),
    ],
)
def test_other_data_is_refused(data, words, saved_run):
    loop = make_loop(saved_run, log=False)
    loop.restore(saved_run / "checkpoints")
    with pytest.raises(ValueError, match=words):
        loop.run(data(), until_epoch=3)


def test_a_dataset_that_cannot_be_saved_is_refused_at_the_start(tmp_path):
    x, y = blobs()
    data = tf.data.Dataset.from_generator(
        lambda: zip(x, y, strict=True),
        output_signature=(tf.TensorSpec([6], tf.float64), tf.TensorSpec([], tf.int32)),
    ).batch(20)
    loop = make_loop(tmp_path)
    with pytest.raises(ValueError, match="cannot be saved: PyFunc is stateful; pass an ArrayData"):
        loop.run(data, epochs=1)
    assert int(loop.optimizer.iterations) == 0


def test_a_folder_with_later_checkpoints_belongs_to_another_run(saved_run):
    with pytest.raises(ValueError, match="a checkpoint of step 3, this run stands at step 0; continue the run"):
        make_loop(saved_run, log=False).run(arrays(), steps=1)


def test_a_log_that_was_cut_is_refused(tmp_path):
    make_loop(tmp_path).run(arrays(), steps=3)
    (tmp_path / "metrics.jsonl").write_text("")
    loop = make_loop(tmp_path)
    before = weights(loop.model)
    with pytest.raises(ValueError, match="has 0 bytes, but had"):
        loop.restore(tmp_path / "checkpoints")
    np.testing.assert_array_equal(weights(loop.model), before)
    assert int(loop.optimizer.iterations) == 0


class Remember(Hook):
    """Remembers what it is given."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def state(self):
        return self.what

    def load_state(self, state):
        self.what = state


def test_what_a_hook_remembers_comes_back_as_json_has_it(tmp_path):
    kept = Remember({"counts": {10: 1, 9: 2}, 3: (1, float("inf")), "mean": np.float64(0.5), "array": np.arange(3)})
    make_loop(tmp_path, kept, net=dense_net, log=False).run(arrays(), steps=3)
    loop = make_loop(tmp_path, Remember(None), net=dense_net, log=False)
    assert loop.restore(tmp_path / "checkpoints") == 3
    found = loop.hooks[-1].what
    np.testing.assert_array_equal(found.pop("array"), np.arange(3))
    assert found == {"counts": {"10": 1, "9": 2}, "3": [1, float("inf")], "mean": 0.5}


@pytest.mark.parametrize(
    ("what", "words"),
    [({"count": np.int64(3)}, "'count' is a int64"), ({"seen": {1, 2}}, "'seen' is a set"), ({(1, 2): 3}, "keys must")],
)
@pytest.mark.thorough_after(1)
def test_what_json_does_not_know_is_refused_by_name(what, words, tmp_path):
    loop = make_loop(tmp_path, Remember(what), net=dense_net, log=False)
    with pytest.raises(ValueError, match=rf"state\(\) of the hook Remember must return JSON-able .*{words}"):
        loop.run(arrays(), steps=3)
    assert not (tmp_path / "checkpoints").exists()


# --- Damage -----------------------------------------------------------------------------------------------


def cut_off(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("file", ["arrays.npz", "meta.json"])
@pytest.mark.parametrize("damage", [cut_off, flip, lambda content: b"", None])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(file, damage, saved_run, tmp_path, caplog):
    folder = shutil.copytree(saved_run, tmp_path / "run")
    damaged = folder / "checkpoints" / "step-00000006" / file
    if damage is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damage(damaged.read_bytes()))
    loop = make_loop(folder)
    assert loop.restore(folder / "checkpoints") == 3
    assert str(damaged) in caplog.text


def test_a_run_goes_on_behind_a_damaged_checkpoint(saved_run, tmp_path):
    folder = shutil.copytree(saved_run, tmp_path / "run")
    (folder / "checkpoints" / "step-00000006" / "arrays.npz").write_bytes(b"")
    loop = make_loop(folder)
    loop.restore(folder / "checkpoints")
    loop.run(arrays(), until_step=9)
    assert loop.hooks[1].folder.steps() == [3, 6, 9]
    assert (folder / "checkpoints" / "damaged-step-00000006").exists()
    whole = TrainLoop(stateful_net(), Momentum(0.1), crossentropy())
    whole.run(arrays(), until_step=9)
    np.testing.assert_array_equal(weights(loop.model), weights(whole.model))


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path, caplog):
    loop, data = make_loop(tmp_path), arrays()
    loop.run(data, steps=3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        assert loop.run(data, steps=8).step == 11
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the checkpoint of step 6 was not written" in caplog.text
    assert "the last one is of step 3; the run continues" in caplog.text
    assert caplog.text.count("was not written") == 1  # though it was tried three times
    assert "missing is that of step 11, the last one is of step 3" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    assert make_loop(tmp_path).restore(tmp_path / "checkpoints") == 3


def test_what_a_killed_process_left_is_removed(tmp_path):
    unfinished = tmp_path / "checkpoints" / ".unfinished-step-00000002"
    unfinished.mkdir(parents=True)
    (unfinished / "arrays.npz").write_text("half")
    loop = make_loop(tmp_path)
    assert loop.restore(tmp_path / "checkpoints") is None
    loop.run(arrays(), steps=3)
    assert not unfinished.exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int64", "bool"])
def test_arrays_of_every_dtype_come_back(dtype, tmp_path):
    arrays = {"a/b": tf.cast(tf.reshape(tf.range(6), [2, 3]), dtype), "c": tf.cast(1, dtype), "none": np.zeros((0, 3))}
    checkpoint_files.write(tmp_path / "it", arrays, {"what": float("inf")})
    with checkpoint_files.Saved(tmp_path / "it") as saved:
        assert saved.names == ["a/b", "c", "none"]
        assert saved.meta == {"format": 1, "what": float("inf")}
        for name, array in arrays.items():
            expected = array.numpy() if tf.is_tensor(array) else array
            np.testing.assert_array_equal(saved.read(name), expected)
            assert saved.read(name).dtype == expected.dtype
            assert saved.shape(name) == tuple(array.shape)


def test_a_later_format_is_not_guessed_at(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(checkpoint_files, "FORMAT", 2)
        checkpoint_files.write(tmp_path / "it", {}, {"versions": {"trainloop": "9.0"}})
    with pytest.raises(ValueError, match=r"has format 2, this version of trainloop reads format 1.*trainloop 9\.0"):
        checkpoint_files.Saved(tmp_path / "it")


def test_a_state_of_a_hook_that_lacks_something_is_one_line(saved_run, tmp_path):
    folder = shutil.copytree(saved_run, tmp_path / "run")
    newest = folder / "checkpoints" / "step-00000006"
    with checkpoint_files.Saved(newest) as saved:
        meta, everything = saved.meta, {name: saved.read(name) for name in saved.names}
    meta["hooks"]["MetricsFile"] = {}
    checkpoint_files.write(newest, everything, meta)
    loop = make_loop(folder)
    before = weights(loop.model)
    with pytest.raises(ValueError, match=r"has a state of MetricsFile that cannot be loaded: KeyError: 'bytes'; use"):
        loop.restore(folder / "checkpoints")
    np.testing.assert_array_equal(weights(loop.model), before)


def test_a_position_behind_the_end_of_an_epoch_is_refused(saved_run, tmp_path):
    folder = shutil.copytree(saved_run, tmp_path / "run")
    newest = folder / "checkpoints" / "step-00000006"
    with checkpoint_files.Saved(newest) as saved:
        meta, everything = saved.meta, {name: saved.read(name) for name in saved.names}
    meta["run"]["index"] = 10**9
    checkpoint_files.write(newest, everything, meta)
    loop = make_loop(folder)
    loop.restore(folder / "checkpoints")
    with pytest.raises(ValueError, match="stands at batch 1000000000 of an epoch, which has 5 here"):
        loop.run(arrays(), until_step=9)


# --- When -------------------------------------------------------------------------------------------------


def test_minutes_are_those_of_the_clock(tmp_path):
    now = [0.0]
    saver = SaveCheckpoint(tmp_path, every_minutes=1, clock=lambda: now[0])

    class Tick(Hook):
        def on_block(self, progress):
            now[0] += 25

    TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[Tick(), saver], steps_per_call=1).run(
        arrays(), steps=10
    )
    assert saver.folder.steps() == [6, 9, 10]  # 3 too, which was the oldest


def test_the_best_epoch_is_kept(tmp_path):
    saver = SaveCheckpoint(tmp_path, every_steps=2, keep=1, monitor="loss")

    class Worse(Hook):
        """The losses of the epochs: 3, 2, 4, 5."""

        def on_epoch(self, progress, summary):
            summary["loss"] = [3.0, 2.0, 4.0, 5.0][summary["epoch"] - 1]

    TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[Worse(), saver]).run(arrays(), epochs=4)
    assert saver.folder.steps() == [10, 20]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_steps": 0}, "every_steps must be an integer of at least 1"),
        ({"every_minutes": 0}, "every_minutes must be a finite number above 0"),
        ({"keep": 0}, "keep must be an integer of at least 1"),
        ({"monitor": "val_something"}, "set larger_is_better=True or False"),
    ],
)
def test_bad_arguments(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        SaveCheckpoint(tmp_path, **options)


def test_a_run_that_a_hook_refused_is_continued_by_the_next_try(tmp_path):
    class Late(Hook):
        ready = False

        def on_start(self, loop):
            if not self.ready:
                raise RuntimeError("not yet")

    def make_loop(*hooks):
        return TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[*hooks, SaveCheckpoint(tmp_path)])

    make_loop().run(ArrayData(*blobs(), 24), epochs=2)
    late = Late()
    loop, batches = make_loop(late), ArrayData(*blobs(), 24)
    loop.restore(tmp_path)
    with pytest.raises(RuntimeError, match="not yet"):
        loop.run(batches, until_epoch=3)
    late.ready = True
    result = loop.run(batches, until_epoch=3)
    assert (result.step, list(result.epochs["epoch"])) == (12, [1, 2, 3])


def test_a_file_is_no_folder_of_checkpoints(tmp_path):
    (tmp_path / "file").write_text("")
    training = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[SaveCheckpoint(tmp_path / "file")])
    with pytest.raises(ValueError, match="is a file; give a folder for checkpoints"):
        training.run(ArrayData(*blobs(), 24), steps=1)


# --- The folder belongs to one run, and the best epoch to one number --------------------------------------


def test_a_rollback_goes_to_the_checkpoint_of_its_own_run(tmp_path):
    def infinite(targets, predictions):
        return tf.reduce_sum(predictions, -1) * float("inf")

    def weights_after(first):
        model = dense_net()
        model.set_weights([np.full_like(w, first) for w in model.get_weights()])
        hooks = [SaveCheckpoint(tmp_path / "checkpoints")]
        training = TrainLoop(model, SimpleGD(0.1), infinite, hooks=hooks, on_nonfinite="rollback")
        with pytest.raises(TrainingError):
            training.run(ArrayData(*blobs(), 20), epochs=1)
        return model.get_weights()[0]

    np.testing.assert_array_equal(weights_after(3.0), 3.0)
    np.testing.assert_array_equal(weights_after(7.0), 7.0)


def test_a_best_epoch_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    class Full(Hook):
        """From the second epoch on the disk is full."""

        def on_epoch(self, progress, summary):
            if progress.epoch == 2:
                monkeypatch.setattr(checkpoint_files, "write", self.fail)

        def fail(self, *_):
            raise OSError("no space left")

    saver = SaveCheckpoint(tmp_path / "checkpoints", every_steps=1, keep=1, monitor="loss")
    training = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[Full(), saver], steps_per_call=1)
    data = ArrayData(*blobs(), 24)  # four steps an epoch, each epoch better than the one before
    training.run(data, epochs=2)
    assert saver.state()["best_step"] == 4
    monkeypatch.undo()
    training.run(data, steps=1)
    assert saver.state()["best_step"] == 4
    assert saver.folder.steps() == [4, 9]


def test_the_best_of_another_number_is_not_compared(tmp_path):
    first = SaveCheckpoint(tmp_path / "checkpoints", monitor="loss")
    TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[first]).run(ArrayData(*blobs(), 24), epochs=1)
    for monitor in (None, "accuracy"):
        second = SaveCheckpoint(tmp_path / "checkpoints", monitor=monitor)
        training = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[second])
        assert training.restore(tmp_path / "checkpoints") == 4
        assert second.state()["best_step"] is None
        assert second.state().get("best") is None


def test_a_folder_of_checkpoints_without_its_configuration_is_not_touched(tmp_path):
    (tmp_path / "checkpoints" / "step-00000010").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has checkpoints but no config\.json to compare with; put it back"):
        RunDirectory(tmp_path, resume=True).resume({}, lambda folder: None)
    assert (tmp_path / "checkpoints" / "step-00000010").exists()


@pytest.mark.parametrize(("half", "words"), [(False, "came to its end"), (True, "has a damaged model.keras")])
def test_a_complete_run_without_checkpoints_is_not_begun_again(half, words, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as model:
        model.writestr("weights", "precious" * 100)
    if half:
        os.truncate(tmp_path / "model.keras", 300)
    with pytest.raises(ValueError, match=f"{words}, and has no checkpoints to resume from"):
        RunDirectory(tmp_path, resume=True).resume({}, lambda folder: None)
    assert (tmp_path / "model.keras").exists()
    with pytest.raises(ValueError, match="already holds a run") as caught:
        RunDirectory(tmp_path)
    assert ("it did not come to its end" in str(caught.value)) == half


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "metrics.jsonl", "model.keras", "curves.png"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_start_removes_nothing(name, resume, tmp_path):
    """Neither a plain one, nor --resume where no config.json says that it is this run."""
    folder = tmp_path / name if "." not in name else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("precious")
    words = "no config.json to compare with" if resume else "already holds a run"
    with pytest.raises(ValueError, match=f"{words}.*--overwrite"):
        RunDirectory(tmp_path, resume=resume).resume({}, lambda folder: None)
    assert (folder / name).read_text() == "precious"


def test_a_run_that_was_begun_and_ended_meanwhile_stays(tmp_path):
    late, early = RunDirectory(tmp_path), RunDirectory(tmp_path)
    early.begin({"of": "the other"})
    early.release()
    with pytest.raises(ValueError, match="already holds a run"):
        late.begin({})
    assert json.loads((tmp_path / "config.json").read_text())["of"] == "the other"


def test_overwriting_removes_what_a_run_writes_and_nothing_else(saved_run, tmp_path):
    folder = shutil.copytree(saved_run, tmp_path / "run")
    (folder / "config.json").write_text("{}")
    (folder / "tensorboard").mkdir()
    ours = [folder / "tensorboard" / "events.out.tfevents.0000000001.trainloop", folder / ".unfinished-model.keras"]
    theirs = [folder / "notes.txt", folder / "tensorboard" / "events.other", folder / "checkpoints" / "other.ckpt"]
    theirs += [folder / ".unfinished-thesis"]
    for path in (*ours, *theirs):
        path.write_text("kept")
    RunDirectory(folder, overwrite=True).begin({"new": 1})
    assert [path.exists() for path in ours] == [False, False]
    assert [path.read_text() for path in theirs] == ["kept"] * len(theirs)
    assert os.listdir(folder / "checkpoints") == ["other.ckpt"]
    assert json.loads((folder / "config.json").read_text())["new"] == 1


def test_all_damaged_says_how_to_begin_anew(saved_run, tmp_path):
    folder = shutil.copytree(saved_run, tmp_path / "run")
    (folder / "config.json").write_text("{}")
    for path in (folder / "checkpoints").glob("*/meta.json"):
        path.write_text("{}")
    with pytest.raises(ValueError, match=r"are damaged, nothing was removed: .*, or begin again with --overwrite"):
        RunDirectory(folder, resume=True).resume({}, make_loop(folder).restore)
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_a_damaged_configuration_is_named(tmp_path):
    for content in ("{", "[1]", "3"):
        (tmp_path / "config.json").write_text(content)
        directory = RunDirectory(tmp_path, resume=True)
        with pytest.raises(ValueError, match=r"config\.json is damaged; put it back"):
            directory.resume({}, lambda folder: None)
        directory.release()


def test_a_refusal_holds_no_lock(tmp_path):
    first = RunDirectory(tmp_path)
    first.begin({})
    with pytest.raises(ValueError, match="in use by a run"):
        RunDirectory(tmp_path)
    first.release()
    with pytest.raises(ValueError, match="already holds a run"):
        RunDirectory(tmp_path)
    RunDirectory(tmp_path, resume=True).release()
