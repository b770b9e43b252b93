"""One library that trains one network with Adam at batch 64, in a process of its own: an epoch for every line it reads.

Called by `benchmark.py loop`. After an epoch that is not counted it prints "ready", and then the seconds of each epoch.
All libraries have the same network and the same arrays, and draw their batches in an order of their own.
"""

import functools
import itertools
import sys
import time

import numpy as np

BATCH = 64

# Widths of the hidden layers; None for LeNet-5.
NETWORKS = {"LeNet-5": None, "784-32-10": (32,), "784-128-10": (128,)}


def main(library, network, path):
    with np.load(path) as arrays:
        x, y = arrays["x"], arrays["y"]
    epoch = LIBRARIES[library](NETWORKS[network], x, y)
    epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        epoch()
        print(time.perf_counter() - began, flush=True)


def _keras_parts(hidden):
    from trainloop.cli.common import import_tensorflow

    import_tensorflow()
    import keras

    import trainloop as tl

    model = tl.lenet5() if hidden is None else tl.mlp(hidden=hidden)
    return model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _trainloop(hidden, x, y, jit_compile=False):
    model, loss = _keras_parts(hidden)
    import trainloop as tl

    loop = tl.TrainLoop(model, tl.Adam(), loss, metrics=["accuracy"], jit_compile=jit_compile)
    batches = tl.ArrayData(x, y, BATCH)
    return lambda: loop.run(batches, epochs=1)


def _fit(hidden, x, y, steps_per_execution=1):
    model, loss = _keras_parts(hidden)
    model.compile("adam", loss, metrics=["accuracy"], steps_per_execution=steps_per_execution)
    return lambda: model.fit(x, y, batch_size=BATCH, verbose=0)


def _step_per_batch(hidden, x, y):
    """What a custom loop looks like in the guides: a tf.function per batch over a tf.data pipeline."""
    model, loss = _keras_parts(hidden)
    import keras
    import tensorflow as tf

    optimizer, accuracy = keras.optimizers.Adam(), keras.metrics.SparseCategoricalAccuracy()
    optimizer.build(model.trainable_variables)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH).prefetch(tf.data.AUTOTUNE)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            f = loss(labels, logits)
        optimizer.apply(tape.gradient(f, model.trainable_variables))
        accuracy.update_state(labels, logits)

    def epoch():
        for images, labels in batches:
            step(images, labels)

    return epoch


def _torch(hidden, x, y):
    import torch
    from torch import nn

    images, labels = torch.from_numpy(np.moveaxis(x, -1, 1).copy()), torch.from_numpy(y.astype("int64"))
    if hidden is None:
        convolutions = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        dense = [nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
        model = nn.Sequential(*convolutions, nn.Flatten(), *dense)
    else:
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], 10))
    optimizer, loss = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()

    def epoch():
        order = torch.randperm(len(images))
        for first in range(0, len(images), BATCH):
            chosen = order[first : first + BATCH]
            optimizer.zero_grad()
            loss(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()

    return epoch


def _jax_network(hidden):
    """(first weights, function of weights and images to logits)."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    rng = np.random.default_rng(0)

    def drawn(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)

    def dense(weights, a):
        for i in range(0, len(weights), 2):
            a = a @ weights[i] + weights[i + 1]
            a = jax.nn.relu(a) if i < len(weights) - 2 else a
        return a

    def convolved(weights, a):
        for i in (0, 2):
            a = lax.conv_general_dilated(a, weights[i], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            a = jax.nn.relu(a + weights[i + 1])
            a = lax.reduce_window(a, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return a

    widths = [784, *hidden, 10] if hidden else [256, 120, 84, 10]
    first = [] if hidden else [drawn(5, 5, 1, 6), jnp.zeros(6), drawn(5, 5, 6, 16), jnp.zeros(16)]
    weights = first + [part for a, b in itertools.pairwise(widths) for part in (drawn(a, b), jnp.zeros(b))]

    def logits(weights, images):
        a = images if hidden else convolved(weights[:4], images)
        return dense(weights[len(first) :], a.reshape(len(a), -1))

    return weights, logits


def _jax(hidden, x, y, scan=False):
    import jax
    import jax.numpy as jnp

    weights, logits = _jax_network(hidden)
    images, labels, rng = jnp.asarray(x), jnp.asarray(y), np.random.default_rng(1)

    def loss(weights, images, labels):
        z = logits(weights, images)
        return jnp.mean(jax.nn.logsumexp(z, -1) - jnp.take_along_axis(z, labels[:, None], 1)[:, 0])

    def step(state, images, labels, chosen):
        weights, m, v, k = state
        f, g = jax.value_and_grad(loss)(weights, images[chosen], labels[chosen])
        k = k + 1
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        rate = 0.001 * jnp.sqrt(1 - 0.999**k) / (1 - 0.9**k)
        moved = [w - rate * a / (jnp.sqrt(b) + 1e-7) for w, a, b in zip(weights, m, v, strict=True)]
        return (moved, m, v, k), f

    zeros = [jnp.zeros_like(w) for w in weights]
    state = [(weights, zeros, zeros, jnp.float32(0))]
    one = jax.jit(step)
    # The data are arguments: what a compiled function closes over becomes a constant of it.
    many = jax.jit(
        lambda state, images, labels, order: jax.lax.scan(
            lambda s, chosen: step(s, images, labels, chosen), state, order
        )
    )

    def epoch():
        order = rng.permutation(len(x)).astype("int32")
        whole = len(x) // BATCH * BATCH if scan else 0
        if scan:
            state[0], f = many(state[0], images, labels, order[:whole].reshape(-1, BATCH))
        for first in range(whole, len(x), BATCH):
            state[0], f = one(state[0], images, labels, order[first : first + BATCH])
        f.block_until_ready()

    return epoch


LIBRARIES = {
    "trainloop": _trainloop,
    "trainloop, XLA": functools.partial(_trainloop, jit_compile=True),
    "Keras fit": _fit,
    "Keras fit, 100 per execution": functools.partial(_fit, steps_per_execution=100),
    "a tf.function per batch": _step_per_batch,
    "PyTorch eager": _torch,
    "JAX jit": _jax,
    "JAX lax.scan": functools.partial(_jax, scan=True),
}

# Modules that a library needs besides TensorFlow.
NEEDS = {"PyTorch eager": "torch", "JAX jit": "jax", "JAX lax.scan": "jax"}


if __name__ == "__main__":
    main(*sys.argv[1:])
