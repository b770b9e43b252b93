"""The reference of every test of an objective: *assign, run, read*, by hand, and central differences.

It never uses the objective: it assigns weights, calls the loss as its author would, takes a plain tape or central
differences, and puts every variable back.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf


def native(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


class Reference:
    """f and its derivatives of a kind by hand, at weights that are assigned."""

    def __init__(self, kind):
        self.kind, self.model = kind, kind.make()
        self.batch = tf.nest.map_structure(tf.constant, kind.batch)
        keras.utils.set_random_seed(5)
        self.trained = [native(v) for v in self.model.trainable_variables]
        layers = self.model._flatten_layers() if hasattr(self.model, "_flatten_layers") else []
        raw = [v for layer in layers for v in vars(layer).values() if isinstance(v, tf.Variable)]
        self.all = list({id(v): v for v in [*map(native, self.model.variables), *raw]}.values())
        self.x = self.flat(self.trained)
        rng = np.random.default_rng(7)
        self.point, self.v = self.x + 0.1 * rng.normal(size=self.x.shape), rng.normal(size=self.x.shape)

    def flat(self, tensors):
        return np.concatenate([np.ravel(tf.convert_to_tensor(t)) for t in tensors])

    def values(self):
        return [v.numpy() for v in self.all]

    @contextlib.contextmanager
    def at(self, x):
        before = self.values()
        keras.utils.set_random_seed(5)  # the generator of layers without a seed begins anew
        offset = 0
        for v in self.trained:
            size = int(np.prod(v.shape))
            v.assign(np.reshape(x[offset : offset + size], v.shape))
            offset += size
        try:
            yield
        finally:
            for v, value in zip(self.all, before, strict=True):
                v.assign(value)

    def f(self, x):
        with self.at(x):
            return float(self.kind.by_hand(self.model, self.batch))

    def gradient(self, x):
        with self.at(x):
            with tf.GradientTape() as tape:
                f = self.kind.by_hand(self.model, self.batch)
            gradients = tape.gradient(f, self.trained, unconnected_gradients="zero")
            return self.flat(gradients)

    def differences(self, function, x, v):
        h = 10 ** (-self.kind.digits * 0.4) / np.linalg.norm(v)
        return (function(x + h * v) - function(x - h * v)) / (2 * h)

    def predictions(self, x):
        with self.at(x):
            return self.flat(tf.nest.flatten(self.kind.seam(self.model, self.batch)))

    def own(self, x):
        """Gradient of the model's own losses."""
        with self.at(x):
            with tf.GradientTape() as tape:
                self.model(self.batch[0], training=True)
                own = tf.add_n(self.model.losses)
            return self.flat(tape.gradient(own, self.trained, unconnected_gradients="zero"))

    def gauss_newton_product(self, x, v):
        """J' L J v + R v: J v and L by differences, J' by a plain tape."""
        jv = self.differences(self.predictions, x, v)
        with self.at(x), tf.GradientTape(persistent=True) as tape:
            outputs = self.kind.seam(self.model, self.batch)
            own = bool(self.model.losses)
        flat, structure = tf.nest.flatten(outputs), outputs
        shapes, sizes = [o.shape for o in flat], [int(np.prod(o.shape)) for o in flat]

        def slope(p):
            parts = [tf.reshape(q, s) for q, s in zip(tf.split(tf.constant(p), sizes), shapes, strict=True)]
            with tf.GradientTape() as inner:
                inner.watch(parts)
                f = self.kind.compare_seam(tf.nest.pack_sequence_as(structure, parts), self.batch)
            return self.flat(inner.gradient(f, parts, unconnected_gradients="zero"))

        ljv = self.differences(slope, self.flat(flat), jv)
        parts = [tf.reshape(q, s) for q, s in zip(tf.split(tf.constant(ljv), sizes), shapes, strict=True)]
        with self.at(x):  # a recomputed block reads the weights again
            product = self.flat(tape.gradient(flat, self.trained, parts, unconnected_gradients="zero"))
        return product + (self.differences(self.own, x, v) if own else 0)


def close(found, expected, tolerance):
    scale = max(1e-8, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def accuracy(reference):
    """Of values that are computed twice in different orders; of derivatives by central differences."""
    return 100 * 10**-reference.kind.digits, 10 ** (-reference.kind.digits * 0.4)


def check_value(reference, objective):
    f = objective.value(tf.constant(reference.point))
    assert float(f) == pytest.approx(reference.f(reference.point), rel=accuracy(reference)[0])


def check_same(reference, f, g):
    """f and g at the point, against the loss by hand."""
    exact, _ = accuracy(reference)
    assert float(f) == pytest.approx(reference.f(reference.point), rel=exact)
    close(g, reference.gradient(reference.point), 10 * exact)


def check_gradient(reference, objective):
    f, g = objective.value_and_grad(tf.constant(reference.point))
    check_same(reference, f, g)
    slope = reference.differences(lambda x: np.array(reference.f(x)), reference.point, reference.v)
    close(np.dot(g, reference.v), slope, accuracy(reference)[1])


def check_hessian(reference, objective):
    product = objective.hvp(tf.constant(reference.point), tf.constant(reference.v))
    expected = reference.differences(reference.gradient, reference.point, reference.v)
    close(product, expected, accuracy(reference)[1])


def check_gauss_newton(reference, objective):
    arguments = tf.constant(reference.point), tf.constant(reference.v)
    if not reference.kind.composite:
        with pytest.raises(ValueError, match="Gauss-Newton products need a loss of the model's predictions"):
            objective.ggnvp(*arguments)
        return
    product = objective.ggnvp(*arguments)
    close(product, reference.gauss_newton_product(reference.point, reference.v), accuracy(reference)[1])
