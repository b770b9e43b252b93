"""Tests of trainloop.loop.engine: when steps are traced again, and what is said about it."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net

from trainloop import ArrayData, SimpleGD, TrainLoop

AGAIN = "traced again"


def loop(**options):
    return TrainLoop(dense_net(), SimpleGD(0.01), crossentropy(), **options)


def batches(count, batch_size=20, dtype="float64"):
    x, y = blobs(count)
    return tf.data.Dataset.from_tensor_slices((x.astype(dtype), y)).batch(batch_size)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.thorough_after(1)
def test_a_smaller_last_batch_and_validation_are_no_news(jit_compile, caplog):
    training = loop(jit_compile=jit_compile)
    data = ArrayData(*blobs(), 20)  # 96 samples: the last batch has 16
    with caplog.at_level(logging.WARNING, "trainloop"):
        training.run(data, epochs=2, validation_data=(blobs(30)[0], blobs(30)[1]))
    assert training.traces == (2 if jit_compile else 1)  # XLA compiles for one size at a time
    assert not caplog.records


def test_other_data_are_reported_with_what_changed(caplog):
    training = loop()
    training.run(ArrayData(*blobs(96), 20), steps=2)
    with caplog.at_level(logging.WARNING, "trainloop"):
        training.run(ArrayData(*blobs(60), 20), steps=2)
    assert training.traces == 2
    (record,) = caplog.records
    assert AGAIN in record.message
    assert "float64 (96, 6) -> float64 (60, 6)" in record.message


def test_a_dataset_of_other_elements_is_reported(caplog):
    training = loop()
    with caplog.at_level(logging.WARNING, "trainloop"):
        training.run(batches(96), epochs=2)
        training.run(batches(60), epochs=1)  # more batches of the same shape are nothing new
        assert not caplog.records
        training.run(batches(60, dtype="float32"), epochs=1)
    (record,) = caplog.records
    assert "float64 (None, 6) -> float32 (None, 6)" in record.message


def test_images_are_gathered_as_they_are():
    images = np.random.default_rng(0).normal(size=(10, 3, 4, 2))
    data = ArrayData(images, np.arange(10), 4, seed=3)
    order = data.order(0).numpy()
    for size in (4, tf.constant(4)):
        x, y = data.batch(data.order(0), tf.constant(2), size)
        np.testing.assert_array_equal(x, images[order[2:6]])
        np.testing.assert_array_equal(y, order[2:6])
