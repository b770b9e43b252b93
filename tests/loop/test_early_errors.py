"""Mistakes that would show only after the first epoch, and arguments in another order: all before the first step."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net, weights

from trainloop import (
    LBFGS,
    ArrayData,
    EarlyStopping,
    Hook,
    RestoreBest,
    SaveCheckpoint,
    SimpleGD,
    TrainLoop,
    minimize,
)
from trainloop.loop.bookkeeping import summary_names
from trainloop.loop.metrics import MetricSet

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def loop(*hooks, metrics=("accuracy",), **options):
    return TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=hooks, metrics=metrics, **options)


def data():
    return ArrayData(*blobs(), 48)


def rejected_before_a_step(loop, words, **arguments):
    before = weights(loop.model)
    with pytest.raises(ValueError, match=words) as caught:
        loop.run(data(), **{"epochs": 2, **arguments})
    assert "\n" not in str(caught.value)
    assert int(loop.optimizer.iterations) == 0
    np.testing.assert_array_equal(weights(loop.model), before)


# --- Validation data -----------------------------------------------------------------------------------------


def test_validation_data_without_an_end():
    endless = tf.data.Dataset.from_tensors(blobs()).repeat()
    rejected_before_a_step(loop(), r"validation_data must end, .* bound it with take\(", validation_data=endless)
    assert "val_loss" in loop().run(data(), epochs=1, validation_data=endless.take(2)).epochs


# --- Names of numbers ----------------------------------------------------------------------------------------

MONITORING = {
    "EarlyStopping": lambda name, folder: EarlyStopping(name, larger_is_better=True),
    "RestoreBest": lambda name, folder: RestoreBest(name, mode="max"),
    "SaveCheckpoint": lambda name, folder: SaveCheckpoint(folder, monitor=name, mode="max"),
}


@pytest.mark.parametrize("hook", MONITORING)
@pytest.mark.parametrize(
    ("name", "validated", "words"),
    [
        (
            "acuracy",
            False,
            r"'acuracy', .* epoch, step, seconds, loss, accuracy \(did you mean 'accuracy'\?\)$",
        ),
        ("val_acuracy", True, r"loss, accuracy, val_loss, val_accuracy \(did you mean 'val_accuracy'\?\)$"),
        ("val_accuracy", False, r"loss, accuracy; pass validation_data to run$"),
        ("grad_norm", True, "monitors 'grad_norm'"),  # of steps, not of epochs
    ],
)
def test_a_hook_that_monitors_what_there_is_not(hook, name, validated, words, tmp_path):
    arguments = {"validation_data": blobs()} if validated else {}
    rejected_before_a_step(loop(MONITORING[hook](name, tmp_path / "c")), f"{hook} .*{words}", **arguments)
    assert not (tmp_path / "c").exists()


def test_the_names_that_are_expected_are_those_of_the_summaries():
    def distance(targets, predictions):
        return tf.abs(tf.cast(targets, predictions.dtype) - predictions[:, 0])

    class Remember(Hook):
        adds = ("twice",)

        def on_epoch(self, progress, summary):
            summary["twice"] = 2 * summary["loss"]

    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy("top", from_logits=True), distance]
    hooks = [Remember(), EarlyStopping("twice", mode="min"), RestoreBest("val_top", mode="max")]
    result = loop(*hooks, metrics=metrics).run(data(), epochs=1, validation_data=blobs())
    expected = ["epoch", "step", "seconds", "loss", "accuracy", "top", "distance"]
    expected += ["val_loss", "val_accuracy", "val_top", "val_distance", "twice"]
    assert list(result.epochs) == expected
    assert summary_names(MetricSet(metrics), True, hooks) == expected
    without = loop(metrics=None).run(data(), epochs=1)
    assert list(without.epochs) == summary_names(MetricSet(), False) == expected[:4]


@pytest.mark.parametrize(
    ("name", "near"),
    [("acuracy", "accuracy"), ("mean_square_error", "mean_squared_error"), ("hinje", "hinge")],
)
def test_a_misspelt_metric(name, near):
    with pytest.raises(ValueError, match=rf"'{name}' is no metric of Keras \(did you mean '{near}\w*'\?\); known are"):
        loop(metrics=[name])


@pytest.mark.parametrize("name", ["accuracy", "acc", "mse", "MeanSquaredError", "mean_absolute_error"])
def test_names_of_keras_are_metrics(name):
    assert TrainLoop(dense_net(classes=1), SimpleGD(), "mse", metrics=[name])


def test_a_checkpoint_of_the_best_epoch_by_a_number_of_ones_own(tmp_path):
    def psnr(targets, predictions):
        return -keras.losses.sparse_categorical_crossentropy(targets, predictions, from_logits=True)

    with pytest.raises(ValueError, match="cannot tell from the name 'psnr'"):
        SaveCheckpoint(tmp_path, monitor="psnr")
    saver = SaveCheckpoint(tmp_path, monitor="psnr", larger_is_better=True)
    result = loop(saver, metrics=[psnr]).run(data(), epochs=3)
    best = int(np.argmax(result.epochs["psnr"]))
    assert saver.state()["best_step"] == result.epochs["step"][best]


# --- None, and other orders ----------------------------------------------------------------------------------


def test_none_is_no_hooks_and_no_metrics():
    none = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=None, metrics=None)
    empty = TrainLoop(dense_net(), SimpleGD(0.1), crossentropy(), hooks=[], metrics=[])
    assert none.hooks == ()
    assert list(none.run(data(), epochs=1).epochs) == list(empty.run(data(), epochs=1).epochs)
    np.testing.assert_array_equal(weights(none.model), weights(empty.model))


def bowl(x):
    return tf.reduce_sum(x**2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TrainLoop(SimpleGD(), dense_net(), "mse"), r"swapped; write TrainLoop\(\w+, SimpleGD\(...\), ...\)"),
        (lambda: TrainLoop(keras.optimizers.SGD(), dense_net(), "mse"), "swapped"),
        (lambda: minimize([1.0, 2.0], bowl, LBFGS()), r"expected minimize\(fun, x0, optimizer\), received list as fun"),
        (lambda: minimize(bowl, LBFGS(), [1.0, 2.0]), "received function as fun and LBFGS as x0"),
        (lambda: minimize(LBFGS(), bowl, [1.0, 2.0]), "received LBFGS as fun and function as x0"),
    ],
)
def test_swapped_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.thorough
def test_functions_of_every_kind_are_functions():
    class Bowl:
        def __call__(self, x):
            return bowl(x)

    for fun in (bowl, functools.partial(bowl), Bowl(), tf.function(bowl)):
        assert minimize(fun, tf.Variable([1.0, 2.0], dtype="float64"), LBFGS()).f < 1e-12
