"""Event files, read back with TensorBoard itself."""

import re
import resource
import shutil
import signal
import sys

import numpy as np
import pytest
from networks import blobs, crossentropy, dense_net
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainloop import ArrayData, Hook, MetricsFile, SaveCheckpoint, SimpleGD, TensorBoardFile, TrainLoop
from trainloop.hooks.base import Progress
from trainloop.hooks.metrics_file import read_run_log


def block(first, last, factor=1.0):
    """A block of steps whose loss is the factor times the step."""
    step = np.arange(first, last + 1)
    logs = {"step": step, "epoch": step * 0 + 1, "samples": step * 0 + 64, "loss": (factor * step).astype("float32")}
    logs |= {"B/rank": step.astype("int32"), "status": step * 0}
    return Progress(last, 1, last, None, last, None, 1.0, logs, {})


def summary(step):
    return {"epoch": step // 10, "step": step, "seconds": 0.5, "loss": 2.0 * step, "val_accuracy": 0.25}


def reader(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0})


def curve(read, tag):
    """{step: value}, after checking that every step is there once and in order."""
    events = read.Reload().Scalars(tag)
    steps = [event.step for event in events]
    assert steps == sorted(set(steps))
    return {event.step: event.value for event in events}


@pytest.fixture
def interrupted(tmp_path):
    """A run that was saved after step 20 and killed after step 27, in the midst of writing: (folder, state)."""
    hook = TensorBoardFile(tmp_path)
    hook.on_start(None)
    for first in (1, 11):
        hook.on_block(block(first, first + 9))
        hook.on_epoch(block(first, first + 9), summary(first + 9))
    state = hook.state()
    hook.on_block(block(21, 27))
    (path,) = tmp_path.iterdir()
    with open(path, "ab") as file:
        file.write(b"\x18\0\0")  # the first bytes of a record
    return tmp_path, state


def resumed(folder, state, factor=-1.0):
    hook = TensorBoardFile(folder)
    if state is not None:
        hook.load_state(state)
    hook.on_start(None)
    hook.on_block(block(21, 25, factor))
    hook.on_end(None)


def test_every_step_and_every_epoch_can_be_read_back(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # writing needs none of it
    hook = TensorBoardFile(tmp_path / "made" / "here")
    hook.on_start(None)
    hook.on_block(block(1, 10))
    hook.on_epoch(block(1, 10), summary(10))
    monkeypatch.undo()
    read = reader(hook.folder).Reload()  # during the run
    assert read.Tags()["scalars"] == ["train/loss", "train/B/rank", "epoch/seconds", "epoch/loss", "epoch/val_accuracy"]
    for tag in ("train/loss", "train/B/rank"):
        assert curve(read, tag) == {step: float(step) for step in range(1, 11)}
    assert curve(read, "epoch/loss") == {10: 20.0}
    hook.on_end(None)


def test_numbers_that_float32_does_not_have(tmp_path):
    hook = TensorBoardFile(tmp_path)
    hook.on_start(None)
    logs = {"step": np.arange(1, 4), "loss": np.array([np.nan, -np.inf, 1e300])}
    hook.on_block(Progress(3, 1, 3, None, 3, None, 1.0, logs, {}))
    hook.on_end(None)
    np.testing.assert_array_equal(list(curve(reader(tmp_path), "train/loss").values()), [np.nan, -np.inf, np.inf])


def test_a_killed_run_that_is_resumed_shows_every_step_once(interrupted):
    folder, state = interrupted
    running = reader(folder)  # a TensorBoard that has seen what is taken back
    assert list(curve(running, "train/loss")) == list(range(1, 28))
    resumed(folder, state)
    expected = {step: float(step if step <= 20 else -step) for step in range(1, 26)}
    for read in (running, reader(folder)):
        assert curve(read, "train/loss") == expected
        assert list(curve(read, "epoch/loss")) == [10, 20]


def test_without_the_newer_files_nothing_of_them_is_left(interrupted):
    folder, state = interrupted
    resumed(folder, state, factor=5.0)
    resumed(folder, state)
    assert len(list(folder.iterdir())) == 2
    assert curve(reader(folder), "train/loss")[25] == -25.0


def test_what_was_not_saved_is_taken_back_all_the_same(interrupted):
    folder, _ = interrupted
    resumed(folder, None)
    assert list(curve(reader(folder), "train/loss").values())[18:] == [19.0, 20.0, -21.0, -22.0, -23.0, -24.0, -25.0]


def test_a_run_that_goes_back_goes_on_in_another_file(tmp_path):
    hook = TensorBoardFile(tmp_path)
    hook.on_start(None)
    hook.on_block(block(1, 20))
    state = hook.state()
    hook.on_block(block(21, 27))
    hook.load_state(state)
    hook.on_block(block(21, 24, -1.0))
    hook.on_end(None)
    assert curve(reader(tmp_path), "train/loss") == {
        step: float(step if step <= 20 else -step) for step in range(1, 25)
    }


def test_a_folder_that_is_removed_meanwhile_does_not_stop_checkpoints(tmp_path):
    hook = TensorBoardFile(tmp_path / "curves")
    hook.on_start(None)
    hook.on_block(block(1, 20))
    shutil.rmtree(hook.folder)
    assert hook.state() == {"bytes": {}}
    hook.on_end(None)


def test_files_of_others_and_files_that_got_lost_do_not_matter(interrupted):
    folder, state = interrupted
    others = folder / "events.out.tfevents.1700000000.host.1.v2"
    others.write_bytes(b"")
    (ours,) = (path for path in folder.iterdir() if path != others)
    ours.unlink()
    resumed(folder, state)
    assert others.exists()
    assert ours.exists()  # its number is free again


@pytest.mark.parametrize("room", [0, 30, 200])
def test_a_full_disk_costs_the_steps_that_did_not_fit(room, tmp_path, caplog):
    hook = TensorBoardFile(tmp_path)
    hook.on_start(None)
    hook.on_block(block(1, 10))
    (path,) = tmp_path.iterdir()
    before, signalled = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
        for first in (11, 111):
            hook.on_block(block(first, first + 99))
            hook.on_epoch(block(first, first + 99), summary(first + 99))
            assert set(hook.state()["bytes"]) >= {path.name}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signalled)
    hook.on_block(block(211, 220))
    hook.on_end(None)
    seen = curve(reader(tmp_path), "train/loss")
    assert [step for step in seen if step <= 10 or step > 210] == [*range(1, 11), *range(211, 221)]
    assert all(value == step for step, value in seen.items())
    assert caplog.text.count("cannot be written") == 1
    assert re.search(r"missing is \d+ steps and epochs", caplog.text)


def test_a_folder_that_is_removed_is_begun_anew(tmp_path, caplog):
    hook = TensorBoardFile(tmp_path / "curves")
    hook.on_start(None)
    hook.on_block(block(1, 10))
    shutil.rmtree(hook.folder)
    for first in (11, 21):
        hook.on_block(block(first, first + 9))
    hook.on_end(None)
    assert list(curve(reader(hook.folder), "train/loss")) == list(range(21, 31))
    assert "missing is 10 steps and epochs" in caplog.text


class Cut(Hook):
    def on_step(self, progress):
        raise InterruptedError


@pytest.mark.thorough
def test_a_loop_that_is_cut_and_goes_on(tmp_path, no_graph_rewriting):
    def make(*more):
        hooks = [MetricsFile(tmp_path / "metrics.jsonl"), TensorBoardFile(tmp_path / "curves")]
        hooks += [SaveCheckpoint(tmp_path / "checkpoints", every_steps=3), *more]
        return TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), metrics=["accuracy"], hooks=hooks)

    data = ArrayData(*blobs(), 20)
    with pytest.raises(InterruptedError):
        make(Cut(8)).run(data, epochs=3)
    loop = make()
    assert loop.restore(tmp_path / "checkpoints") == 6
    loop.run(data, until_epoch=3)
    log = read_run_log(tmp_path / "metrics.jsonl")
    history, epochs = log.history, log.epochs
    read = reader(tmp_path / "curves")
    for group, numbers in (("train", history), ("epoch", epochs)):
        for name in set(numbers) - {"step", "epoch", "samples"}:
            seen = curve(read, f"{group}/{name}")
            assert list(seen) == list(numbers["step"])
            np.testing.assert_allclose(list(seen.values()), numbers[name], rtol=1e-6)
