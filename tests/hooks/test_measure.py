"""Measure: numbers of the model beside the log of every step."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainloop import (
    Adam,
    ArrayData,
    Hook,
    Measure,
    MetricsFile,
    Points,
    SaveCheckpoint,
    SimpleGD,
    TensorBoardFile,
    TrainingError,
    TrainLoop,
)
from trainloop.hooks.display import _newest
from trainloop.hooks.metrics_file import read_run_log


def norm(model):
    return tf.norm(model.trainable_variables[0])


def loop_with(*hooks, **arguments):
    return TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=list(hooks), **arguments)


class Norms(Hook):
    """The same norm after every step, by a hook of one's own."""

    def __init__(self):
        super().__init__(every_steps=1)
        self.after, self.progress = {}, None

    def on_start(self, loop):
        self.loop = loop

    def on_step(self, progress):
        self.after[progress.step] = float(norm(self.loop.model))
        self.progress = progress


def test_numbers_stand_in_the_rows_after_whose_step_they_were_measured():
    norms = Norms()
    loop = loop_with(Measure(3, norm=norm, twice=lambda model: 2 * norm(model)), Measure(5, one=lambda model: 1), norms)
    history = loop.run(ArrayData(*blobs(), 16), epochs=2).history
    measured = [s % 3 == 0 for s in history["step"]]
    expected = [norms.after[s] if s % 3 == 0 else np.nan for s in history["step"]]
    np.testing.assert_array_equal(history["norm"], expected)
    np.testing.assert_array_equal(history["twice"], 2 * np.array(expected))
    np.testing.assert_array_equal(np.isnan(history["one"]), history["step"] % 5 != 0)
    assert len(history["norm"]) == len(measured) == 12


def test_files_have_what_json_and_tensorboard_can_show(tmp_path):
    hooks = [MetricsFile(tmp_path / "log.jsonl"), TensorBoardFile(tmp_path / "tb"), Measure(4, norm=norm)]
    history = loop_with(*hooks).run(ArrayData(*blobs(), 16), epochs=2).history
    text = (tmp_path / "log.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    steps = {line["step"]: line["norm"] for line in lines if line["kind"] == "step"}
    assert [s for s, value in steps.items() if value is not None] == [4, 8, 12]
    np.testing.assert_array_equal(read_run_log(tmp_path / "log.jsonl").history["norm"], history["norm"])
    events = EventAccumulator(str(tmp_path / "tb")).Reload().Scalars("train/norm")
    assert {e.step: np.float32(e.value) for e in events} == {s: np.float32(history["norm"][s - 1]) for s in (4, 8, 12)}


def test_a_resumed_run_measures_at_the_same_steps(tmp_path):
    def hooks(folder):
        return Measure(3, norm=norm), MetricsFile(folder / "log.jsonl"), SaveCheckpoint(folder, 5)

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    data = ArrayData(*blobs(), 16)
    loop_with(*hooks(tmp_path / "whole")).run(data, steps=12)
    loop_with(*hooks(tmp_path / "cut")).run(data, steps=7)
    again = loop_with(*hooks(tmp_path / "cut"))
    assert again.restore(tmp_path / "cut") == 7
    again.run(data, until_step=12)
    whole, cut = (read_run_log(tmp_path / name / "log.jsonl").history["norm"] for name in ("whole", "cut"))
    np.testing.assert_array_equal(cut, whole)
    assert np.sum(~np.isnan(cut)) == 4


def test_displays_keep_the_newest_number():
    norms = Norms()
    loop_with(Measure(5, norm=norm, never=lambda model: np.nan), norms).run(ArrayData(*blobs(), 16), steps=7)
    assert _newest(norms.progress)["norm"] == norms.after[5]
    assert "never" not in _newest(norms.progress)


def test_a_figure_shows_points_that_no_line_would():
    powers = itertools.count()
    hooks = Measure(4, norm=norm, falling=lambda model: 10.0 ** -next(powers))
    figure = loop_with(hooks).run(ArrayData(*blobs(), 16), epochs=2).plot()
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    for heading, scale in (("norm", "linear"), ("falling (log)", "log")):
        (line,) = panels[heading].lines
        assert line.get_xdata().tolist() == [4, 8, 12]
        assert line.get_marker() == "o"
        assert panels[heading].get_yscale() == scale
    other = panels["gradient norm"]
    assert (len(other.lines[0].get_xdata()), other.get_yscale()) == (12, "linear")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), tf.constant(2.0), tf.Variable(2.0), np.array(2)])
def test_numbers_of_every_kind(value):
    assert Measure(1, two=lambda model: value).measure(None) == {"two": 2.0}


@pytest.mark.parametrize("value", [None, "2", [1.0, 2.0], np.ones([1]), tf.ones([2, 2]), [[1], [2, 3]], 1j, {"a": 1}])
@pytest.mark.thorough_after(1)
def test_a_function_that_returns_no_number_is_named(value):
    loop = loop_with(Measure(2, mine=lambda model: value))
    with pytest.raises(ValueError, match=r"the function 'mine' must return one number, received"):
        loop.run(ArrayData(*blobs(), 16), steps=2)


@pytest.mark.parametrize(
    ("every_steps", "functions", "said"),
    [
        (None, {"a": norm}, "needs every_steps"),
        (0, {"a": norm}, "every_steps must be an integer of at least 1, received 0"),
        (1, {}, "at least one function"),
        (1, {"a": 2.0}, "a must be a function .model. -> number, received 2.0"),
    ],
)
def test_bad_arguments(every_steps, functions, said):
    with pytest.raises(ValueError, match=said):
        Measure(every_steps, **functions)


@pytest.mark.parametrize("name", ["loss", "step", "accuracy"])
def test_a_name_must_be_new(name):
    with pytest.raises(ValueError, match=f"Measure must have new names; '{name}' is in the log already"):
        loop_with(Measure(1, **{name: norm}), metrics=["accuracy"])
    with pytest.raises(ValueError, match="new names; 'mine' is in the log"):
        loop_with(Measure(1, mine=norm), Measure(2, mine=norm))


def test_terms_that_only_a_trace_tells_are_taken_too():
    def terms(model, batch):
        return {"a": tf.reduce_mean(model(batch["a"]) ** 2)}

    loop = TrainLoop(dense_net(), Adam(), loss_fn=terms, hooks=[Measure(1, **{"term/a": norm})])
    with pytest.raises(ValueError, match="'term/a' is in the log already"):
        loop.run({"a": np.ones([4, 6], "float32")}, steps=1)


def test_a_failed_step_is_not_measured():
    calls = []
    model = dense_net()
    kernel = model.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan, "float32"))
    loop = TrainLoop(model, SimpleGD(0.1), crossentropy(), hooks=[Measure(1, calls=lambda m: calls.append(1) or 1)])
    with pytest.raises(TrainingError, match="step 1"):
        loop.run(ArrayData(*blobs(), 16), steps=3)
    assert calls == []


@pytest.mark.parametrize("kind", ["points", "dataset"])
def test_validation_data_that_no_epoch_would_evaluate_name_measure(kind):
    x, y = blobs()
    if kind == "points":
        loop = TrainLoop(dense_net(), Adam(), residuals={"a": lambda model, p: model(p)})
        data = Points({"a": x})
    else:
        loop = TrainLoop(dense_net(), Adam(), crossentropy())
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16).repeat()
    with pytest.raises(ValueError, match="no epoch ends; measure with the hook Measure"):
        loop.run(data, steps=2, validation_data=data if kind == "points" else (x, y))
    assert int(loop.optimizer.iterations) == 0
