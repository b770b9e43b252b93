"""Small models and data that several tests train."""

import keras
import numpy as np
from environment import seed_generators


def blobs(count=96, features=6, classes=3, seed=0):
    """Classes that can be told apart, but not without effort: (x [count, features], y [count])."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, features))
    return centres[y] + rng.normal(size=(count, features)), y.astype("int32")


def dense_net(features=6, classes=3, seed=0):
    """Two dense layers."""
    seed_generators(seed)
    layers = [keras.layers.Input((features,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(classes)]
    return keras.Sequential(layers)


def stateful_net(features=6, classes=3, seed=0):
    """BatchNormalization averages and a dropout seed that move at every training pass, and a regulariser."""
    seed_generators(seed)
    return keras.Sequential(
        [
            keras.layers.Input((features,)),
            keras.layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(1e-2)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=seed),
            keras.layers.Dense(classes),
        ]
    )


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def weights(model):
    """All variables, trainable or not, as one vector."""
    return np.concatenate([np.ravel(v.numpy()) for v in model.variables if v.dtype.startswith("float")])
