"""What fails inside of compiled code and is known for what it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainloop import LBFGS, Momentum, TrainLoop

LOGITS = (None, lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True))
PROBABILITIES = ("softmax", lambda: "sparse_categorical_crossentropy")


@pytest.mark.parametrize("wrong", [3, -1])
@pytest.mark.parametrize(
    ("optimizer", "activation", "loss"),
    [(lambda: Momentum(0.1), *LOGITS), (lambda: LBFGS(m=2), *LOGITS), (lambda: Momentum(0.1), *PROBABILITIES)],
    ids=["first order", "evaluating", "probabilities"],
)
@pytest.mark.thorough_after(1)
def test_class_numbers_of_a_dataset_are_named_where_their_batch_is_taken(optimizer, activation, loss, wrong):
    """Batches are those of one sample: the third is the first with a wrong number, two steps are taken."""
    x, y = np.random.default_rng(0).normal(size=(4, 2)), np.array([0, 2, wrong, 1], "int32")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3, activation=activation)])
    loop = TrainLoop(model, optimizer(), loss(), steps_per_call=1)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    with pytest.raises(ValueError, match=rf"targets: expected class numbers in 0\.\.2, received {wrong}; number the"):
        loop.run(data, epochs=1)
    assert int(loop.optimizer.iterations) == 2
    assert all(np.all(np.isfinite(v)) for v in model.trainable_variables)


def test_other_failures_stay_what_they_are():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])

    def loss_fn(model, batch):
        with tf.control_dependencies([tf.debugging.assert_less(batch, tf.constant(0.0, batch.dtype), "too large")]):
            return tf.reduce_mean(model(batch) ** 2)

    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        TrainLoop(model, Momentum(0.1), loss_fn=loss_fn).run(
            tf.data.Dataset.from_tensors(tf.ones([1, 2], tf.float64)), steps=1
        )
