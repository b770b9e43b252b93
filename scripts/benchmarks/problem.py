"""What an optimizer is measured on: a network, residuals, points, and the error that counts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass
class Problem:
    """One problem with one start.

    Args:
        model: a Keras model, at its start.
        residuals: {term: function (model, points) -> r}.
        points: a `Points` with these terms.
        error: function () -> the relative error of the model as it is.
        adam, after: steps of Adam and of the method that finishes, in a full budget.
        weights: {term: by how much its mean of squares counts}; None for ones.
        extra: variables that are trained besides the model's.
        resample: keyword arguments of `Resample`; None where points stay.
        rate: function of Adam's steps -> learning rate.
        jit: compile with XLA, ours and the function that other libraries call.
        logarithm: minimise the logarithm of the loss, where an optimizer does not ask for residuals.
    """

    model: Any
    residuals: dict[str, Callable]
    points: Any
    error: Callable[[], float]
    adam: int
    after: int
    weights: dict[str, float] | None = None
    extra: tuple = ()
    resample: dict[str, Any] | None = None
    rate: Callable[[int], Any] = lambda steps: falling(5e-3)
    jit: bool = False
    logarithm: bool = False

    def value(self):
        """The loss, or its logarithm, in plain TensorFlow."""
        return self.of_batch(self.model, self._points())

    def of_batch(self, model, batch, training=True):
        """The same of points by term, as a `loss_fn`."""
        import tensorflow as tf

        del training
        means = {name: tf.reduce_mean(tf.square(r(model, batch[name]))) for name, r in self.residuals.items()}
        f = sum((self.weights or {}).get(name, 1.0) * mean for name, mean in means.items())
        return tf.math.log(f) if self.logarithm else f

    def stacked(self, rows):
        """Residuals with these numbers [k], counted over all terms; the sum of squares of all of them is the loss."""
        import tensorflow as tf

        parts, first = [], 0
        for weight, residual, p, size in self._terms():
            own = tf.boolean_mask(rows, (rows >= first) & (rows < first + size)) - first
            own = tf.concat([own, [0]], 0)  # no term is empty, which tape.jacobian cannot vectorise
            r = residual(self.model, tf.nest.map_structure(lambda values, own=own: tf.gather(values, own), p))
            parts.append(np.sqrt(weight / size) * tf.reshape(r, [-1])[:-1])
            first += size
        return tf.concat(parts, 0)

    @property
    def count(self):
        """How many residuals there are: one for each point."""
        return sum(size for *_, size in self._terms())

    def _terms(self):
        """(weight, function for residuals, points, how many) of each term."""
        import tensorflow as tf

        points = self._points()
        for term, residual in self.residuals.items():
            size = tf.nest.flatten(points[term])[0].shape[0]
            yield (self.weights or {}).get(term, 1.0), residual, points[term], size

    def _points(self):
        """The points of each term: of one with batches as many as a batch has, taken from all of them."""
        import tensorflow as tf

        def chosen(values, size):
            return values if size is None else values[:: len(values) // size][:size]

        sizes = self.points.batch_sizes
        return {
            term: tf.nest.map_structure(lambda values, size=sizes[term]: chosen(values, size), self.points.values[term])
            for term in self.residuals
        }


def falling(first):
    """A learning rate that loses two per cent in every 1,000 steps."""
    import keras

    return keras.optimizers.schedules.ExponentialDecay(first, 1_000, 0.98)


def dense(inputs, widths, seed, scale=None):
    """A tanh network; all of its weights normal with this scale, or Keras's own."""
    import keras

    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(width, "tanh") for width in widths]
    model = keras.Sequential([keras.Input([inputs]), *hidden, keras.layers.Dense(1)])
    if scale:
        rng = np.random.default_rng(seed)
        model.set_weights([scale * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def relative_error(model, p, u):
    """Function () -> |model(p) - u| / |u|, for points p [N, d] and values u [N] or [N, 1]."""
    import tensorflow as tf

    p, u = tf.constant(np.asarray(p)), np.asarray(u).ravel()
    predict = tf.function(lambda: model(p)[:, 0], autograph=False)
    return lambda: float(np.linalg.norm(predict().numpy() - u) / np.linalg.norm(u))
