"""The squared error of an image against NumPy."""

import keras
import numpy as np
import pytest

from trainloop import ReconstructionError


def test_mean_over_images_of_the_sum_over_pixels():
    rng = np.random.default_rng(0)
    x, z = rng.random((5, 4, 3, 2)), rng.normal(size=(5, 4, 3, 2))
    metric = ReconstructionError()
    metric.update_state(x[:2], z[:2])
    metric.update_state(x[2:], z[2:])
    expected = np.sum((1 / (1 + np.exp(-z)) - x) ** 2) / 5
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_it_is_made_again_from_its_config_and_starts_anew():
    metric = ReconstructionError()
    metric.update_state(np.ones((1, 2)), np.zeros((1, 2)))
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.name == "reconstruction_error"
    assert float(again.result()) == 0
    assert float(metric.result()) == pytest.approx(0.5)
