"""Metrics against Keras's own use of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop.metrics import MetricSet


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
    metrics.update(tf.constant(targets), predictions)
    right = predictions.numpy()[:, 0] > 0.5 if kind == "binary" else predictions.numpy().argmax(1)
    assert float(metrics.results()["accuracy"]) == pytest.approx(np.mean(right == labels))


def test_counts_add_up_over_batches_and_reset():
    metrics = MetricSet([keras.metrics.MeanSquaredError(name="mse")])
    for _ in range(2):
        for values in ([1.0, 3.0], [2.0]):
            column = tf.constant(values, tf.float64)[:, None]
            metrics.update(tf.zeros_like(column), column)
        assert float(metrics.results()["mse"]) == pytest.approx(14 / 3)
        metrics.reset()


def test_a_copy_counts_for_itself():
    metrics = MetricSet(["mse", keras.metrics.MeanAbsoluteError(name="mae")])
    copy = metrics.fresh_copy()
    metrics.update(tf.zeros([1], tf.float64), tf.constant([2.0], tf.float64))
    copy.update(tf.zeros([1], tf.float64), tf.constant([4.0], tf.float64))
    assert [float(v) for v in metrics.results().values()] == [4.0, 2.0]
    assert [float(v) for v in copy.results().values()] == [16.0, 4.0]


def test_no_metrics_are_false():
    assert not MetricSet()
    assert MetricSet().results() == {}
