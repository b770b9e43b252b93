"""Metrics against Keras's own use of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop import SimpleGD, TrainLoop
from trainloop.loop.metrics import MetricSet


def outputs(classes):
    rng = np.random.default_rng(0)
    return tf.constant(rng.normal(size=(40, classes))), rng.integers(0, max(classes, 2), 40)


@pytest.mark.parametrize("kind", ["sparse", "sparse column", "categorical", "binary"])
def test_accuracy_fits_the_targets(kind):
    classes = 1 if kind == "binary" else 4
    predictions, labels = outputs(classes)
    targets = {
        "sparse": labels,
        "sparse column": labels[:, None],
        "categorical": np.eye(4)[labels] if classes == 4 else None,
        "binary": labels[:, None].astype(float),
    }[kind]
    metrics = MetricSet(["accuracy"])
    metrics.update((None, tf.constant(targets)), predictions)
    right = predictions.numpy()[:, 0] > 0.5 if kind == "binary" else predictions.numpy().argmax(1)
    assert float(metrics.results()["accuracy"]) == pytest.approx(np.mean(right == labels))


def test_counts_add_up_over_batches_and_reset():
    metrics = MetricSet([keras.metrics.MeanSquaredError(name="mse")])
    for _ in range(2):
        for values in ([1.0, 3.0], [2.0]):
            column = tf.constant(values, tf.float64)[:, None]
            metrics.update((None, tf.zeros_like(column)), column)
        assert float(metrics.results()["mse"]) == pytest.approx(14 / 3)
        metrics.reset()


def test_a_copy_counts_for_itself():
    metrics = MetricSet(["mse", keras.metrics.MeanAbsoluteError(name="mae")])
    copy = metrics.fresh_copy()
    metrics.update((None, tf.zeros([1, 1], tf.float64)), tf.constant([[2.0]], tf.float64))
    copy.update((None, tf.zeros([1, 1], tf.float64)), tf.constant([[4.0]], tf.float64))
    assert [float(v) for v in metrics.results().values()] == [4.0, 2.0]
    assert [float(v) for v in copy.results().values()] == [16.0, 4.0]


def far(targets, predictions):
    return tf.abs(targets - predictions) > 1


@pytest.mark.parametrize("options", [{}, {"eager": True}, {"jit_compile": True}])
@pytest.mark.thorough_after(1)
def test_functions_are_metrics_as_in_fit(options):
    x, y = np.arange(10.0)[:, None], np.zeros([10, 1])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    loop = TrainLoop(model, SimpleGD(1e-9), "mse", metrics=[far], **options)
    assert loop.evaluate((x, y))["far"] == pytest.approx(0.8)
    result = loop.run((x, y), epochs=1, validation_data=(x, y))
    assert result.epochs["far"] == result.epochs["val_far"] == pytest.approx(0.8)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.thorough
def test_predictions_without_an_axis_of_classes_are_binary(static):
    """Compiled by XLA or in Python the length of a batch is known, and must not be taken for a number of classes."""
    metrics = MetricSet(["accuracy"])
    spec = tf.TensorSpec([4 if static else None])
    update = tf.function(lambda y, z: metrics.update((None, y), z), input_signature=[spec, spec])
    update([0.0, 1.0, 1.0, 0.0], [0.2, 0.7, 0.1, 0.3])
    assert float(metrics.results()["accuracy"]) == 0.75


def meanGap(targets, predictions):
    return tf.abs(targets - predictions)


def test_metrics_have_the_names_that_fit_gives_them():
    x, y = np.arange(8.0)[:, None], np.zeros([8, 1])
    given = ["mae", "mean_squared_error", "MeanSquaredLogarithmicError", meanGap, keras.metrics.LogCoshError()]
    models = [keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")]) for _ in "ab"]
    models[0].compile(loss="mse", metrics=given, jit_compile=False)
    wanted = models[0].evaluate(x, y, verbose=0, return_dict=True)
    assert TrainLoop(models[1], SimpleGD(0.1), "mse", metrics=given).evaluate((x, y)) == pytest.approx(wanted, rel=1e-6)


class OfTwo(keras.metrics.Mean):
    """One without `get_config`."""

    def __init__(self, limit):
        super().__init__(name="of_two")


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["accuracy", "accuracy"], "two numbers called 'accuracy'"),
        ([keras.metrics.Mean(name="loss")], "two numbers called 'loss'"),
        ([OfTwo], r"a metric must be .*; write OfTwo\(\)"),
        ([OfTwo(1)], "let get_config return all arguments"),
        ([keras.metrics.F1Score(name="f1")], r"'f1' must have one number as its result, received shape \(3,\)"),
    ],
)
def test_what_cannot_be_a_column_of_the_log_is_refused(metrics, words):
    x, y = outputs(3)[0], np.eye(3)[outputs(3)[1]]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=words):
        TrainLoop(model, SimpleGD(0.1), "mse", metrics=metrics).evaluate((x, y))


def test_metrics_of_one_output_do_not_measure_several():
    outputs = {"a": tf.zeros([2, 3]), "b": tf.zeros([2, 3])}
    with pytest.raises(ValueError, match="this model has several"):
        MetricSet(["accuracy"]).update((None, outputs), outputs)


def test_no_metrics_are_false():
    assert not MetricSet()
    assert MetricSet().results() == {}
