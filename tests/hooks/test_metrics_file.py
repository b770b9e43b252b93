"""metrics.jsonl, written and read."""

import contextlib
import json
import os
import resource
import signal

import numpy as np
import pytest

from trainloop.hooks import patient_file
from trainloop.hooks.base import Progress
from trainloop.hooks.metrics_file import MetricsFile, append_test, read_run_log
from trainloop.results import RunResult
from trainloop.status import Status

LOGS = {"step": np.array([1, 2]), "loss": np.array([0.1, np.nan], "float32"), "samples": np.array([64, 36])}
RESULT = RunResult(Status.NONFINITE_LOSS, "too long steps", {}, {}, 2, 0.5, {"f": 2, "gradient": 2})


def write(path):
    hook = MetricsFile(path)
    progress = Progress(2, 1, 2, 2, 2, 2, 0.5, LOGS, {})
    hook.on_start(None)
    hook.on_block(progress)
    hook.on_epoch(progress, {"epoch": 1, "step": 2, "loss": 0.3})
    return hook


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path).on_end(RESULT)
    append_test(path, {"loss": np.float32(0.1), "accuracy": 0.9})
    log = read_run_log(path)
    np.testing.assert_array_equal(log.history["step"], [1, 2])
    np.testing.assert_array_equal(log.history["loss"], [0.1, np.nan])
    np.testing.assert_array_equal(log.epochs["loss"], [0.3])
    assert log.end.pop("peak_memory") > 1e7
    how = {"step": 2, "status": "NONFINITE_LOSS", "message": "too long steps", "seconds": 0.5}
    assert log.end == {**how, "evaluations/f": 2, "evaluations/gradient": 2}
    assert log.test == {"loss": 0.1, "accuracy": 0.9}


def test_a_run_that_goes_on_has_no_end_and_a_cut_off_line_is_left_out(tmp_path):
    path, cut = tmp_path / "metrics.jsonl", tmp_path / "cut.jsonl"
    hook = write(path)
    cut.write_bytes(path.read_bytes()[:-5])
    hook.on_end(RESULT)
    log = read_run_log(cut)
    assert (log.end, log.test, log.epochs) == (None, None, {})
    assert len(log.history["step"]) == 2


@pytest.mark.parametrize(
    "line", ['{"kind": "step", "st{"kind": "end"}', "[1]", "3", '{"step": 1}', '{"kind": "new"}', ""]
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "step", "step": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 2; put it back"):
        read_run_log(path)


def test_columns_that_came_later_are_nan_before(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [{"kind": "step", "step": 1}, {"kind": "step", "step": 2, "radius": 3.0}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    np.testing.assert_array_equal(read_run_log(path).history["radius"], [np.nan, 3.0])


@contextlib.contextmanager
def full_disk(path, room=0):
    """Inside, a file cannot grow by more than some bytes."""
    before, signalled = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + room, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signalled)


def progress(first, count=3):
    step = np.arange(first, first + count)
    logs = {"step": step, "loss": 0.5 * step}
    return Progress(int(step[-1]), 1, int(step[-1]), None, int(step[-1]), None, 0.5, logs, {})


def steps_in(path):
    return read_run_log(path).history["step"].tolist()


@pytest.mark.parametrize("room", [0, 10, 60])
def test_lines_wait_for_a_disk_with_room(room, tmp_path, caplog):
    hook = write(tmp_path / "metrics.jsonl")
    with full_disk(hook.path, room):
        hook.on_block(progress(3))
        assert hook.state()["bytes"] == os.path.getsize(hook.path)
        assert steps_in(hook.path) == [1, 2]
        hook.on_block(progress(6))
    hook.on_block(progress(9))
    hook.on_end(RESULT)
    assert steps_in(hook.path) == list(range(1, 12))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert (
        "metrics.jsonl cannot be written ([Errno 27] File too large); it is tried again; the run continues" in said[0]
    )


def test_the_end_says_what_is_missing_and_the_next_run_writes_it(tmp_path, caplog):
    hook = write(tmp_path / "metrics.jsonl")
    with full_disk(hook.path):
        hook.on_block(progress(3))
        hook.on_end(RESULT)
    assert "metrics.jsonl: missing is 4 lines, which could not be written ([Errno 27]" in caplog.text
    hook.on_start(None)
    hook.on_end(RESULT)
    log = read_run_log(hook.path)
    assert (log.history["step"].tolist(), log.end["status"]) == ([1, 2, 3, 4, 5], RESULT.status.name)


def test_what_waits_has_a_limit(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(patient_file, "_MOST_WAITING", 200)
    hook = write(tmp_path / "metrics.jsonl")
    with full_disk(hook.path):
        for first in range(3, 60, 3):
            hook.on_block(progress(first))
    hook.on_end(RESULT)
    steps = steps_in(hook.path)
    assert steps[:2] == [1, 2]
    assert steps[2:] == list(range(steps[2], 60))
    assert f"missing is {steps[2] - 3} lines" in caplog.text


def test_a_file_that_is_removed_meanwhile_is_begun_anew(tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    hook = write(folder / "metrics.jsonl")
    folder.rename(tmp_path / "elsewhere")
    hook.on_block(progress(3))  # there is no folder
    folder.mkdir()
    hook.on_block(progress(6))
    hook.on_end(RESULT)
    assert steps_in(hook.path) == [3, 4, 5, 6, 7, 8]
    assert "was removed while the run went on: what was in it is lost" in caplog.text


def test_a_disk_that_comes_back_has_what_it_had(tmp_path, caplog):
    hook = write(tmp_path / "metrics.jsonl")
    content = hook.path.read_bytes()
    hook.path.unlink()
    hook.path.write_bytes(content)  # as after a new mount: the same file, but for its number
    hook.on_block(progress(3))
    hook.on_end(RESULT)
    assert steps_in(hook.path) == [1, 2, 3, 4, 5]
    assert caplog.text == ""


def test_a_test_that_cannot_be_written_leaves_no_half_line(tmp_path):
    hook = write(tmp_path / "metrics.jsonl")
    hook.on_end(RESULT)
    before = hook.path.read_bytes()
    with full_disk(hook.path, room=10), pytest.raises(OSError):  # noqa: PT011 (which one is the system's choice)
        append_test(hook.path, {"loss": 0.5})
    assert hook.path.read_bytes() == before


# --- A damaged log is found when a run goes on --------------------------------------------------------------


def resumed(path, state):
    """The steps of a log in which a run continues from a checkpoint."""
    hook = MetricsFile(path)
    hook.load_state(state)
    hook.on_start(None)
    hook.on_block(progress(6))
    hook.on_end(RESULT)
    return steps_in(path)


@pytest.fixture
def saved(tmp_path):
    """A log of five steps, and what a checkpoint remembers of it; behind that, half a line and noughts."""
    hook = write(tmp_path / "metrics.jsonl")
    hook.on_block(progress(3))
    state = hook.state()
    hook.on_end(RESULT)
    with open(hook.path, "ab") as file:
        file.write(b'{"kind": "step", "st\0\0\0\0')
    return hook.path, state


def test_an_intact_log_is_gone_on_in(saved, caplog):
    assert resumed(*saved) == list(range(1, 9))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        (b'"step": 4', b'"step\xff: 4', [1, 2, 3, 5, 6, 7, 8]),
        (b'"step": 4', b'"step":\n4', [1, 2, 3, 5, 6, 7, 8]),  # another line for the reader
        (b'{"kind": "step", "step": 4', b"[" * 26, [1, 2, 3, 5, 6, 7, 8]),
        (b'"loss": 2.0}\n', b'"loss": 2.0} ', [1, 2, 3, 6, 7, 8]),
        (b'"loss": 2.0', b'"loss": "a"', [1, 2, 3, 5, 6, 7, 8]),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_damaged_line_is_left_out_and_named(old, new, left, known, saved, caplog):
    path, state = saved
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    if not known:  # a checkpoint of version 0.1
        state = {"bytes": state["bytes"]}
    assert resumed(path, state) == left
    assert "metrics.jsonl is damaged in line 5, which is left out: " in caplog.text


def test_a_number_that_has_changed_is_said(saved, caplog):
    path, state = saved
    path.write_bytes(path.read_bytes().replace(b'"loss": 2.0', b'"loss": 9.0'))
    assert resumed(path, state) == list(range(1, 9))
    assert "has changed since the checkpoint was written: numbers in it may be wrong" in caplog.text


def test_a_byte_order_mark_is_read(tmp_path):
    hook = write(tmp_path / "metrics.jsonl")
    hook.on_end(RESULT)
    hook.path.write_bytes(b"\xef\xbb\xbf" + hook.path.read_bytes())
    assert steps_in(hook.path) == [1, 2]
