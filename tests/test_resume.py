"""An interrupted run ends as one that was never disturbed, bit for bit."""

import json
import subprocess
import sys

import interrupted
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, stateful_net, weights

from trainloop import (
    ArrayData,
    Hook,
    MetricsFile,
    Momentum,
    SaveCheckpoint,
    Status,
    TrainLoop,
)


def lines(path):
    """What a metrics.jsonl holds, without the only field that a clock decides."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.mark.parametrize("method", interrupted.METHODS)
def test_killed_at_any_moment(method, tmp_path):
    command = [sys.executable, interrupted.__file__, method, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "whole" / "final.npz") as whole, np.load(tmp_path / "cut" / "final.npz") as cut:
        assert whole.files == cut.files
        assert len(whole.files) >= 14
        for name in whole.files:
            np.testing.assert_array_equal(cut[name], whole[name], err_msg=name)
    records = lines(tmp_path / "cut" / "metrics.jsonl")
    assert records == lines(tmp_path / "whole" / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, 21))


# --- In one process: a run that is cut by an exception, and another loop that goes on from its checkpoint ---


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
    run = {"epochs": 3, "validation_data": blobs(), **(run or {})}
    for name in ("whole", "cut"):
        (folder / name).mkdir()
    whole = make_loop(folder / "whole", **options)
    expected = whole.run(data(), **run)
    with pytest.raises(InterruptedError):
        make_loop(folder / "cut", Cut(step), **options).run(data(), **run)
    resumed = make_loop(folder / "cut", **options)
    assert resumed.restore(folder / "cut" / "checkpoints") == step - step % 3
    return whole, expected, resumed, resumed.run(data(), **run)


@pytest.mark.parametrize("step", [4, 5, 10])  # in the midst of an epoch, at its end and its beginning
@pytest.mark.parametrize("data", [arrays, shuffled])
def test_the_same_bits_logs_and_result(data, step, tmp_path):
    whole, expected, resumed, result = cut_and_resumed(tmp_path, data, step)
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))
    assert lines(tmp_path / "cut" / "metrics.jsonl") == lines(tmp_path / "whole" / "metrics.jsonl")
    assert (result.status, result.step, result.evaluations) == (Status.FINISHED, 15, expected.evaluations)
    for name in set(expected.epochs) - {"seconds"}:
        np.testing.assert_array_equal(result.epochs[name], expected.epochs[name])
    assert result.seconds > 0
    np.testing.assert_array_equal(result.history["loss"], expected.history["loss"][step - step % 3 :])
