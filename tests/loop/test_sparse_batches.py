"""Batches of sparse and of ragged tensors against `model.fit`, and data that cannot be trained on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators

import trainloop as tl

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")

RNG = np.random.default_rng(0)
DENSE = np.maximum(RNG.normal(size=(12, 5)), 0)
Y = RNG.normal(size=(12, 1))
WORDS = [[1, 2], [3], [4, 5, 6], [7]] * 3


def sparse_net():
    inputs = keras.Input((5,), sparse=True)
    return keras.Model(inputs, keras.layers.Dense(1)(inputs))


def ragged_net():
    inputs = keras.Input((None,), dtype="int64", ragged=True)
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))


KINDS = {
    "sparse": (sparse_net, lambda: tf.sparse.from_dense(DENSE)),
    "ragged": (ragged_net, lambda: tf.ragged.constant(WORDS, dtype=tf.int64)),
}


def batches(kind):
    return tf.data.Dataset.from_tensor_slices((KINDS[kind][1](), Y)).batch(5)


@pytest.mark.parametrize("options", [{}, {"eager": True}, {"microbatch_size": 2}])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.thorough_after(1)
def test_they_train_as_by_fit(kind, options):
    models = []
    for _ in "ab":
        seed_generators()
        models.append(KINDS[kind][0]())
    models[0].compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    wanted = models[0].fit(batches(kind), epochs=2, shuffle=False, verbose=0).history["loss"]
    found = tl.TrainLoop(models[1], tl.SimpleGD(0.1), "mse", **options).run(batches(kind), epochs=2)
    np.testing.assert_allclose(found.epochs["loss"], wanted, rtol=1e-6)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_dataset_without_batches_is_named_before_the_first_step():
    loop = tl.TrainLoop(sparse_net(), tl.SimpleGD(0.1), "mse")
    with pytest.raises(ValueError, match=r"\[N, 5\], received \[5\]; it has no batch dimension: call batch\(...\)"):
        loop.run(tf.data.Dataset.from_tensor_slices((DENSE, Y)), epochs=1)
    assert loop.optimizer.iterations == 0


def test_a_loss_function_without_a_batch_dimension_is_named():
    loop = tl.TrainLoop(sparse_net(), tl.SimpleGD(0.1), loss_fn=lambda model, z: model(tf.fill([1, 5], z))[0, 0])
    with pytest.raises(ValueError, match=r"needs a batch dimension, received float64 of shape \(\)"):
        loop.run(tf.data.Dataset.from_tensor_slices(np.arange(3.0)), epochs=1)
