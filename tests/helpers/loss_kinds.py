"""Kinds of losses, from Keras's own to a recomputed block in a `tf.function`, each with a model and a batch.

Every one is a function of the weights. What an objective says of it is compared with *assign, run, read*: the weights
are assigned, the loss is called as its author would call it, and the weights are put back.
"""

import keras
import numpy as np
import tensorflow as tf
from environment import seed_generators

L = keras.layers


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def labels(count, classes=3, seed=1):
    return np.random.default_rng(seed).integers(0, classes, count).astype("int32")


def dense(*layers, inputs=4, outputs=3):
    seed_generators()
    return keras.Sequential([L.Input((inputs,)), L.Dense(5, "tanh"), *layers, L.Dense(outputs)])


class Kind:
    """A model, its loss, a batch, and what is known of them.

    Args:
        make: function -> model.
        batch: tuple of arrays, or an array.
        loss: name of a Keras loss, a list of names, or a function that makes a loss, in the precision of the test; or
            `loss_fn`, function (model, batch).
        parts: whether the sum over microbatches is exact; False where it must raise.
        composite: whether Gauss-Newton products exist.
        xla: whether it runs there.
        digits: those of its values; operations of TensorFlow that compute in float32 have fewer.
    """

    def __init__(self, make, batch, *, loss=None, loss_fn=None, parts=True, xla=True, digits=12):
        self._make, self.batch, self._loss, self.loss_fn = make, batch, loss, loss_fn
        self.parts, self.xla, self.digits = parts, xla, digits
        self.composite = loss is not None

    def make(self):
        """The model, with the same weights every time."""
        seed_generators()
        return self._make()

    @property
    def loss(self):
        return self._loss() if callable(self._loss) else self._loss

    def arguments(self):
        return {"loss": self.loss} if self.loss_fn is None else {"loss_fn": self.loss_fn}

    def by_hand(self, model, batch):
        """f as the author of the loss computes it in a training pass; averages and seeds move."""
        if self.loss_fn is not None:
            return self.loss_fn(model, batch)
        return self.compare(model(batch[0], training=True), batch) + sum(model.losses)

    def seam(self, model, batch):
        """What the Gauss-Newton matrix has the Jacobian of."""
        return model(batch[0], training=True)

    def compare_seam(self, z, batch):
        """f without the model's own losses, of what `seam` gave."""
        return self.compare(z, batch)

    def compare(self, predictions, batch):
        """The loss of predictions, with several outputs the sum over them."""
        losses = self.loss if isinstance(self.loss, list) else [self.loss]
        outputs, targets = tf.nest.flatten(predictions), tf.nest.flatten(batch[1])
        weight = batch[2] if len(batch) > 2 else 1.0
        values = zip(losses, targets, outputs, strict=True)
        return tf.add_n([tf.reduce_mean(weight * keras.losses.get(loss)(y, p)) for loss, y, p in values])


# --- Models and losses that are code ---


class RawVariable(L.Layer):
    """Holds weights that Keras does not know to be weights."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(normal(5, seed=3), trainable=True)

    def call(self, inputs):
        return inputs * self.scale


class CustomGradient(L.Layer):
    """y = w x with a gradient of its own that reads the weight again."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        w = self.w.value

        @tf.custom_gradient
        def scaled(x, w):
            def gradient(upstream):
                return upstream * w, tf.reduce_sum(upstream * x, 0)

            return x * w, gradient

        return scaled(inputs, tf.convert_to_tensor(w))


class Recomputed(L.Layer):
    """A block that is computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.inner = L.Dense(5, "tanh")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return tf.recompute_grad(lambda x: self.inner(x))(inputs)


class Counting(L.Layer):
    """Counts its calls in a plain variable, and puts out something else at each."""

    def __init__(self):
        super().__init__()
        self.count = tf.Variable(0.0, trainable=False, dtype="float64")

    def call(self, inputs):
        return inputs / (1 + 0.1 * self.count.assign_add(1.0))


class Unseeded(L.Layer):
    """Draws from Keras's global generator."""

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs), dtype=inputs.dtype)


class Softsigned(L.Layer):
    def call(self, inputs):
        return tf.nn.softsign(inputs)


class Shared(keras.Model):
    """One layer used twice, nested in a subclassed model."""

    def __init__(self):
        super().__init__()
        self.twice, self.last = L.Dense(4, "tanh"), L.Dense(3)

    def build(self, shape):
        self.twice.build(shape)
        self.last.build((None, 4))
        self.built = True

    def call(self, inputs):
        return self.last(self.twice(self.twice(inputs)))


def shared():
    seed_generators()
    model = Shared()
    model.build((None, 4))
    return model


@tf.function
def residual(model, x, y):
    return model(x, training=True) - y


def partly_compiled(model, batch):
    return tf.reduce_mean(residual(model, *batch) ** 2) + 1e-2 * tf.reduce_sum(model.trainable_variables[0] ** 2)


@tf.function
def wholly_compiled(model, batch):
    return tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)


@tf.function(jit_compile=True)
def compiled_by_xla(model, batch):
    return tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)


def with_input_derivatives(model, x):
    """The loss of a differential equation: u'' along the first coordinate, by nested tapes."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            u = model(x, training=True)
        slope = inner.gradient(u, x)[:, 0]
    return tf.reduce_mean((outer.gradient(slope, x)[:, 0] + tf.reduce_sum(u, 1)) ** 2)


def with_branches(model, batch):
    predictions = model(batch[0], training=True)
    error = tf.reduce_mean((predictions - batch[1]) ** 2)
    return tf.cond(error > 1.0, lambda: error, lambda: error**2)


def with_a_loop(model, batch):
    def body(i, total):
        return i + 1, total + tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2) / 3

    return tf.while_loop(lambda i, _: i < 3, body, (0, tf.zeros([], tf.float64)), maximum_iterations=3)[1]


def with_a_norm_of_weights(model, batch):
    norms = [tf.norm(v) for v in model.trainable_variables if v.shape.rank == 2]
    return tf.reduce_mean(model(batch[0], training=True) ** 2) + tf.add_n(norms)


def with_an_assertion(model, batch):
    """Fails at weights of a large norm."""
    size = tf.reduce_sum(model.trainable_variables[0] ** 2)
    with tf.control_dependencies([tf.debugging.assert_less(size, tf.constant(1e4, size.dtype), "too large")]):
        return tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)


# --- The table ---

X, Y, T = normal(12, 4), labels(12), normal(12, 3, seed=2)
ONE_HOT = np.eye(3)[Y]
IMAGES = normal(6, 6, 6, 1)


def convolutional(*layers):
    seed_generators()
    return keras.Sequential([L.Input((6, 6, 1)), L.Conv2D(2, 3, activation="tanh"), *layers, L.Flatten(), L.Dense(3)])


def recurrent():
    seed_generators()
    return keras.Sequential([L.Input((5, 4)), L.LSTM(3, unroll=True), L.Dense(3)])


def embedding():
    seed_generators()
    return keras.Sequential([L.Input((5,), dtype="int32"), L.Embedding(7, 3), L.GlobalAveragePooling1D(), L.Dense(3)])


def two_outputs():
    seed_generators()
    inputs = keras.Input((4,))
    return keras.Model(inputs, [L.Dense(3, name="a")(inputs), L.Dense(3, name="b")(inputs)])


def sparse(from_logits=True):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


KINDS = {
    "crossentropy of logits": Kind(dense, (X, Y), loss=sparse),
    "squared error of softmax": Kind(lambda: dense(L.Dense(3, "softmax"), L.Identity()), (X, T), loss="mse"),
    "mean squared error": Kind(dense, (X, T), loss="mse"),
    "weighted samples": Kind(dense, (X, T, np.linspace(0.5, 2, 12)), loss="mse"),
    "huber": Kind(dense, (X, T), loss=keras.losses.Huber),
    "log cosh": Kind(dense, (X, T), loss="log_cosh"),
    "cosine similarity": Kind(dense, (X, T), loss=keras.losses.CosineSimilarity),
    "categorical, smoothed": Kind(
        dense,
        (X, ONE_HOT),
        loss=lambda: keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    ),
    "regularised": Kind(
        lambda: dense(L.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1), activity_regularizer="l2")),
        (X, T),
        loss="mse",
        parts=False,  # by hand the activity regulariser divides by the samples of its part
    ),
    "batch normalisation": Kind(lambda: dense(L.BatchNormalization()), (X, T), loss="mse", parts=False),
    "layer normalisation": Kind(lambda: dense(L.LayerNormalization()), (X, T), loss="mse"),
    "dropout": Kind(lambda: dense(L.Dropout(0.4, seed=1)), (X, T), loss="mse", parts=False),
    "gaussian noise": Kind(lambda: dense(L.GaussianNoise(0.1, seed=1)), (X, T), loss="mse", parts=False),
    "unseeded noise": Kind(lambda: dense(Unseeded()), (X, T), loss="mse", parts=False),
    "a counter in a plain variable": Kind(lambda: dense(Counting()), (X, T), loss="mse", parts=False),
    "a raw variable": Kind(lambda: dense(RawVariable()), (X, T), loss="mse"),
    "a custom gradient": Kind(lambda: dense(CustomGradient()), (X, T), loss="mse"),
    "a recomputed block": Kind(lambda: dense(Recomputed()), (X, T), loss="mse"),
    "softsign": Kind(lambda: dense(Softsigned()), (X, T), loss="mse"),
    "bilinear resizing": Kind(
        lambda: convolutional(L.UpSampling2D(2, interpolation="bilinear")),
        (IMAGES, labels(6)),
        loss=sparse,
        digits=6,
        xla=False,
    ),
    "bicubic resizing": Kind(
        lambda: convolutional(L.UpSampling2D(2, interpolation="bicubic")),
        (IMAGES, labels(6)),
        loss=sparse,
        digits=6,
        xla=False,
    ),
    "pooling": Kind(lambda: convolutional(L.AveragePooling2D(2)), (IMAGES, labels(6)), loss=sparse),
    "recurrent": Kind(recurrent, (normal(6, 5, 4), labels(6)), loss=sparse),
    "embedding": Kind(embedding, (labels(30, 7).reshape(6, 5), labels(6)), loss=sparse),
    "a shared layer in a subclassed model": Kind(shared, (X, T), loss="mse"),
    "two outputs": Kind(two_outputs, (X, (T, 2 * T)), loss=["mse", "mse"]),
    "partly a tf.function": Kind(dense, (X, T), loss_fn=partly_compiled),
    "wholly a tf.function": Kind(dense, (X, T), loss_fn=wholly_compiled),
    "compiled by XLA": Kind(dense, (X, T), loss_fn=compiled_by_xla),
    "derivatives by the inputs": Kind(dense, X, loss_fn=with_input_derivatives),
    "branches": Kind(dense, (X, T), loss_fn=with_branches, parts=False),
    "a loop": Kind(dense, (X, T), loss_fn=with_a_loop),
    "norms of weights": Kind(dense, (X, T), loss_fn=with_a_norm_of_weights),
    "a recomputed block in a tf.function": Kind(
        lambda: dense(Recomputed(), RawVariable()), (X, T), loss_fn=partly_compiled
    ),
    "an assertion": Kind(dense, (X, T), loss_fn=with_an_assertion),
}

# What one device can do and several replicas cannot: a part of the message that each gets.
ON_ONE_DEVICE = {
    "a counter in a plain variable": "must not write variables of its own",
    "unseeded noise": "must not write variables of its own",
}
