"""The tutorial's program on real data, shortened: the full five epochs are five times this."""

import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from networks import crossentropy, weights

from trainloop import ArrayData, TestGD, TrainLoop, lenet5


@pytest.mark.thorough
def test_the_tutorials_program(mnist, float32):
    (x, y), (x_test, y_test) = mnist
    train_dataset = tf.data.Dataset.from_tensor_slices((x[:16000], y[:16000])).batch(64)
    test_dataset = tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(500)
    model = lenet5()
    model.compile(optimizer=TestGD(), loss=crossentropy(), metrics=["accuracy"])
    model.fit(train_dataset, epochs=2, verbose=0, shuffle=False)
    _, accuracy = model.evaluate(test_dataset, verbose=0)
    assert accuracy > 0.85


@pytest.mark.thorough
def test_loop_and_fit_agree_on_it(mnist, float32):
    (x, y), _ = mnist
    x, y = x[:3200], y[:3200]
    models = []
    for _ in range(2):
        seed_generators()
        models.append(lenet5())
    models[0].compile(optimizer=TestGD(), loss=crossentropy())
    models[0].fit(x, y, batch_size=64, epochs=1, shuffle=False, verbose=0)
    TrainLoop(models[1], TestGD(), crossentropy()).run(ArrayData(x, y, 64, shuffle=False), epochs=1)
    np.testing.assert_array_equal(weights(models[0]), weights(models[1]))
