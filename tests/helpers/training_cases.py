"""Short runs of training that are to end with the same weights on one replica and on several.

Methods that converge in so few steps have a convex loss with one well-conditioned minimum. Elsewhere they would amplify
the rounding of sums that are taken in another order.
"""

import keras
import numpy as np
import tensorflow as tf
from environment import seed_generators
from networks import blobs, crossentropy

import trainloop as tl


def net(dtype="float64", normalise=False, convex=False):
    """Two dense layers, or a single one, regularised."""
    seed_generators()
    penalty = keras.regularizers.L2(1e-1 if convex else 1e-2)
    dense = {"kernel_regularizer": penalty, "bias_regularizer": penalty, "dtype": dtype}
    layers = [keras.layers.Input((6,), dtype=dtype)] + ([] if convex else [keras.layers.Dense(5, "tanh", **dense)])
    layers += [keras.layers.BatchNormalization(dtype=dtype)] if normalise else []
    return keras.Sequential([*layers, keras.layers.Dense(3, **dense)])


# name -> (method, samples per batch of 96); 40 leaves 16 in the last batch, 95 leaves one.
CONVEX = ("lbfgs", "lbfgs sharded")
STEPS = {"lbfgs sharded": 15}  # at the minimum rounding decides whether a search ends the run
CASES = {
    "simplegd": (lambda: tl.SimpleGD(0.1), 40),
    "adam": (lambda: tl.Adam(0.01), 95),
    "testgd dense": (lambda: tl.TestGD(rad=20.0, storage="dense"), 33),
    "testgd factored": (lambda: tl.TestGD(rad=20.0, storage="factored"), 32),
    "testgd sharded": (lambda: tl.TestGD(rad=20.0, storage="sharded"), 33),
    "lbfgs": (lambda: tl.LBFGS(), None),
    "lbfgs sharded": (lambda: tl.LBFGS(storage="sharded"), None),
    "newtoncg": (lambda: tl.NewtonCG(), None),
    "clipped": (lambda: tl.SimpleGD(0.1, global_clipnorm=0.05), 32),
}


def data(batch_size=None, dtype="float64", weighted=False):
    x, y = blobs()
    weight = np.linspace(0.5, 2, len(y)).astype(dtype) if weighted else None
    return tl.ArrayData(x.astype(dtype), y, batch_size, sample_weight=weight)


def trained(method, model, batches, steps=50, **arguments):
    """(weights, losses, result of the run, the loop)."""
    loop = tl.TrainLoop(model, method, arguments.pop("loss", None) or crossentropy(), **arguments)
    result = loop.run(batches, steps=steps)
    return loop.optimizer._vector.read().numpy(), result.history["loss"], result, loop


def faster_tracing():
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
