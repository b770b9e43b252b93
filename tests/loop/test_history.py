"""Tests of trainloop.results and loop.bookkeeping: blocks of any length become one history, epochs one summary."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from trainloop.files import plain
from trainloop.loop.bookkeeping import Recorder
from trainloop.results import RunResult
from trainloop.status import Status

EPOCHS = np.array([1, 1, 1, 1, 2, 2, 2, 2, 3])
SAMPLES = np.array([4, 4, 4, 2, 4, 4, 4, 2, 4])
LOSSES = np.array([9.0, 7.0, 5.0, 4.0, 3.5, 3.0, 2.0, 8.0, 1.0])


def logs(losses=LOSSES, dtype="float64") -> dict:
    n = len(losses)
    return {
        "step": np.arange(1, n + 1),
        "epoch": EPOCHS[:n],
        "samples": SAMPLES[:n],
        "loss": np.asarray(losses, dtype),
        "grad_norm": np.linspace(1, 2, n).astype(dtype),
        "radius": np.linspace(3, 1, n),
    }


def recorder(cuts=(), **options) -> Recorder:
    """A recorder of `logs`, cut into blocks before the steps `cuts`."""
    whole, made = logs(**options), Recorder()
    ends = [0, *cuts, len(whole["loss"])]
    for start, end in itertools.pairwise(ends):
        made.add_block({name: column[start:end] for name, column in whole.items()})
    return made


@pytest.mark.parametrize("cuts", [(), (1,), (4, 8), (2, 4, 5, 8), range(1, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_history_does_not_depend_on_the_blocks(cuts, dtype):
    history, expected = recorder(cuts, dtype=dtype).history(), logs(dtype=dtype)
    assert list(history) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(history[name], column, strict=True)


@pytest.mark.thorough
def test_many_short_blocks_take_no_more_than_their_numbers():
    """Training on all data at once has as many blocks as steps."""
    made, steps = Recorder(), 20_000
    tracemalloc.start()
    for i in range(steps):
        made.add_block({name: column[:1] + i for name, column in logs().items()})
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 2 * steps * sum(column.itemsize for column in logs().values())
    np.testing.assert_array_equal(made.history()["step"], np.arange(1, steps + 1))


def test_an_empty_run_has_an_empty_history():
    assert Recorder().history() == {}
    assert Recorder().epochs() == {}
    assert Recorder().last_finite_loss() is None


def test_epochs_become_one_array_per_name():
    made = Recorder()
    made.add_epoch({"epoch": 1, "loss": 2.0, "val_accuracy": 0.5})
    made.add_epoch({"epoch": 2, "loss": 1.0, "val_accuracy": 0.75})
    epochs = made.epochs()
    assert list(epochs) == ["epoch", "loss", "val_accuracy"]
    np.testing.assert_array_equal(epochs["epoch"], [1, 2])
    np.testing.assert_array_equal(epochs["loss"], [2.0, 1.0])
    np.testing.assert_array_equal(epochs["val_accuracy"], [0.5, 0.75])


@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3)])
@pytest.mark.parametrize(
    ("losses", "last"),
    [
        ([3.0, 2.0, 1.0, 0.5], 0.5),
        ([3.0, 2.0, 1.0, np.nan], 1.0),
        ([3.0, np.nan, np.inf, -np.inf], 3.0),
        ([np.nan, 0.0, np.nan, np.nan], 0.0),
        ([np.nan, np.inf, np.nan, np.nan], None),
    ],
)
def test_last_finite_loss_looks_back_over_blocks(cuts, losses, last):
    found = recorder(cuts, losses=losses).last_finite_loss()
    assert found == last
    assert found is None or type(found) is float


@pytest.mark.parametrize("cuts", [(4, 8), (1, 4, 6, 7, 8), range(1, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_epoch_loss_is_the_mean_over_samples(cuts, dtype, epoch):
    here = np.equal(EPOCHS, epoch)
    mean = sum(LOSSES[here] * SAMPLES[here]) / sum(SAMPLES[here])
    until = int(np.flatnonzero(here)[-1]) + 1  # the recorder is asked at the end of the epoch
    made = recorder([cut for cut in cuts if cut < until], losses=LOSSES[:until], dtype=dtype)
    assert made.epoch_loss(epoch) == pytest.approx(mean, rel=1e-15)


def result_of(made, message="done"):
    return RunResult(Status.FINISHED, message, made.history(), made.epochs(), 9, 0.1, {"f": 9})


def test_histories_become_data_frames():
    pandas = pytest.importorskip("pandas")
    made = recorder((4, 8))
    made.add_epoch({"epoch": 1, "loss": 2.0})
    made.add_epoch({"epoch": 2, "loss": 1.0})
    result = result_of(made)
    steps, epochs = pandas.DataFrame(result.history), pandas.DataFrame(result.epochs)
    assert steps.shape == (9, 6)
    assert steps["loss"].tolist() == LOSSES.tolist()
    assert epochs["loss"].tolist() == [2.0, 1.0]


def test_a_result_is_json():
    made = recorder((4, 8), losses=[np.nan, *LOSSES[1:]])
    made.add_epoch({"epoch": 1, "loss": 2.0})
    saved = json.loads(json.dumps(result_of(made).to_dict(), allow_nan=False))
    assert saved["status"] == "FINISHED"
    assert saved["history"]["loss"] == [None, *LOSSES[1:]]
    assert saved["history"]["step"] == list(range(1, 10))
    assert saved["epochs"] == {"epoch": [1], "loss": [2.0]}
    assert (saved["step"], saved["seconds"], saved["evaluations"]) == (9, 0.1, {"f": 9})


def test_numbers_keep_the_digits_of_their_precision():
    bfloat16 = tf.bfloat16.as_numpy_dtype
    values = [np.float32(0.1), np.float64(0.1), 0.1, bfloat16(0.5), np.int32(3), True, "x"]
    assert [plain(value) for value in values] == [0.1, 0.1, 0.1, 0.5, 3, True, "x"]
    assert [plain(kind(value)) for kind in (bfloat16, np.float32, float) for value in ("nan", "inf")] == [None] * 6


def test_a_result_draws_itself(tmp_path):
    made = recorder((4, 8))
    made.add_epoch({"epoch": 1, "step": 4, "loss": 2.0, "val_loss": 3.0})
    figure = result_of(made).plot(tmp_path / "curves.png", title="A run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    loss = figure.axes[0]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), LOSSES)
    assert [line.get_ydata().tolist() for line in loss.lines[1:]] == [[2.0], [3.0]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "gradient norm", "radius"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "step", "step"]


def test_losses_below_zero_are_drawn_on_a_linear_axis():
    losses = np.array([0.5, 0.0, -1.0, *LOSSES[3:]])
    figure = result_of(recorder((4, 8), losses=losses)).plot(title="of $x_$ {$.npz")
    assert figure.axes[0].get_yscale() == "linear"
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), losses)
    assert figure.png()


def test_a_notebook_shows_a_result_and_its_figure():
    shown = result_of(recorder((4, 8)), message="<done>")._repr_html_()
    assert shown.startswith("<p>step 9, 0.1 s: &lt;done&gt;</p>")
    assert "data:image/png;base64," in shown
    assert result_of(recorder((4, 8))).plot()._repr_png_().startswith(b"\x89PNG")
    assert "img" not in result_of(Recorder())._repr_html_()
