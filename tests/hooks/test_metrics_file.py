"""metrics.jsonl, written and read."""

import json
import os
import resource
import signal

import numpy as np
import pytest

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


def test_a_run_after_one_that_filled_the_disk_writes_again(tmp_path):
    hook = write(tmp_path / "metrics.jsonl")
    before, unlimited = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(hook.path), before[1]))
        with pytest.raises(OSError, match="too large"):
            hook.on_end(RESULT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, unlimited)
    hook.on_start(None)
    hook.on_end(RESULT)
    assert read_run_log(hook.path).end["status"] == RESULT.status.name


def test_the_file_is_closed_also_when_the_disk_is_full(tmp_path, monkeypatch):
    hook = write(tmp_path / "metrics.jsonl")
    file = hook._file

    def full(record):
        raise OSError("no space left")

    monkeypatch.setattr(hook, "_write", full)
    with pytest.raises(OSError, match="no space left"):
        hook.on_end(RESULT)
    assert file.closed
