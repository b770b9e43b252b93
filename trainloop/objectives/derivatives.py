"""Products with derivatives of a function of one vector, without ever forming a matrix.

    J v      of r: R^n -> R^m       two reverse passes: J'u is linear in u, and its derivative along v is J v
    J' u                            one reverse pass
    H v      of f: R^n -> R         reverse over reverse, d/dx (g(x)'v)
    H v      by differences         (g(x + h v) - g(x - h v)) / (2 h)

Forward mode would be cheaper for J v, but TensorFlow's does not pass through recurrent layers.

Reverse over reverse is silently wrong where a function stops gradients. `tf.nn.moments` does: it takes the mean
for a constant inside the variance, which is right for the first derivative and loses terms of the second. So it is
with BatchNormalization in training, LayerNormalization and GroupNormalization. `stops_gradients` finds such
functions by their graph; for them the differences are the ones to take.
"""

import contextlib

import tensorflow as tf

from trainloop.objectives.finder import find
from trainloop.vectors import linalg

# What TensorFlow raises where a gradient has no gradient: softsign, bicubic resizing, recomputed blocks.
NO_GRADIENT = (LookupError, NotImplementedError)


class Sources:
    """What is differentiated with respect to, and how its gradients become one vector.

    Args:
        tensors: list of tensors or variables: the vector x itself, or its parts.
        pack: function (list of gradients, None for zeros) -> [n]; None where the only tensor is x.
    """

    def __init__(self, tensors, pack=None):
        self.tensors, self._pack = list(tensors), pack

    @contextlib.contextmanager
    def recorded(self, persistent=False):
        """A tape that watches all of them, also those that are not trainable; persistent for several gradients."""
        with tf.GradientTape(persistent=persistent) as tape:
            for tensor in self.tensors:
                tape.watch(tensor)
            yield tape

    def gradient(self, tape, target, weights=None):
        """Gradient of `target`, or of its product with `weights`, as a vector [n]; None where nothing is connected."""
        gradients = tape.gradient(target, self.tensors, weights)
        if all(gradient is None for gradient in gradients):
            return None
        return self._pack(gradients) if self._pack else tf.convert_to_tensor(gradients[0])

    def gradient_or_zeros(self, tape, target, like, weights=None):
        """The same with zeros of the shape of `like` where nothing is connected."""
        g = self.gradient(tape, target, weights)
        return tf.zeros_like(like) if g is None else g


class Linearised:
    """A function z = r(x) at one point, ready for products with its Jacobian J.

    Args:
        function: x [n] -> z, a floating tensor of any shape, or (z, anything else).
        x: [n].
        sources: the `Sources` that x consists of; None for x itself.

    Attributes:
        z: the value.
        extra: what else the function returned, None if nothing.
    """

    def __init__(self, function, x, sources=None):
        self._x, self._sources = x, sources or Sources([x])
        with tf.GradientTape(persistent=True) as self._forward:
            for tensor in self._sources.tensors:
                self._forward.watch(tensor)
            result = function(x)
            self.z, self.extra = result if isinstance(result, tuple) else (result, None)
        self._weights = tf.zeros_like(self.z)
        with tf.GradientTape(persistent=True) as self._backward:
            self._backward.watch(self._weights)
            self._pulled = self.vjp(self._weights)

    def vjp(self, u):
        """J' u for u of the shape of z: [n]."""
        return self._sources.gradient_or_zeros(self._forward, self.z, self._x, u)

    def jvp(self, v):
        """J v for v [n]: the shape of z."""
        zero = tf.UnconnectedGradients.ZERO
        return self._backward.gradient(self._pulled, self._weights, v, unconnected_gradients=zero)


def value_and_grad(function, x, sources=None):
    """f and its gradient, None where f does not depend on x.

    Args:
        function: x [n] -> f [].
        x: [n].
        sources: the `Sources` that x consists of; None for x itself.

    Returns:
        (f [], g [n] or None).
    """
    sources = sources or Sources([x])
    with sources.recorded() as tape:
        f = function(x)
    return f, sources.gradient(tape, f)


def hessian(function, x):
    """v -> H v at x, by the way that is right for the function.

    Args:
        function: x (any shape) -> f [].
        x: the point.

    Returns:
        function of v, of the shape of x.
    """
    if stops_gradients(function, x):
        return lambda v: _by_differences(function, x, v)

    def product(v):
        try:
            return hvp(function, x, v)
        except NO_GRADIENT:
            return _by_differences(function, x, v)

    return product


def _by_differences(function, x, v):
    def gradient(flat):
        g = value_and_grad(lambda z: function(tf.reshape(z, tf.shape(x))), flat)[1]
        return tf.zeros_like(flat) if g is None else g

    product = difference_of_gradients(gradient, tf.reshape(x, [-1]), tf.reshape(v, [-1]))
    return tf.reshape(product, tf.shape(x))


def hvp(function, x, v, sources=None):
    """H v by reverse over reverse, for functions that stop no gradients.

    Args:
        function: x (any shape) -> f [].
        x, v: of the same shape.
        sources: the `Sources` that x consists of; None for x itself.

    Returns:
        H v, of the shape of x.

    Raises:
        LookupError, NotImplementedError: the gradient of an operation has no gradient.
    """
    return hessian_product(function, x, sources)(v)


def hessian_product(function, x, sources=None):
    """v -> H v as `hvp` has it, with f and its gradient computed once for all v.

    Args:
        function, x, sources: see `hvp`.
    """
    sources = sources or Sources([x])
    with sources.recorded(persistent=True) as outer:
        _, g = value_and_grad(function, x, sources)
        g = tf.zeros_like(x) if g is None else g
    return lambda v: sources.gradient_or_zeros(outer, g, x, v)


def difference_of_gradients(gradient, x, v, digits=None):
    """H v = (g(x + h v) - g(x - h v)) / (2 h), with an error of order h^2.

    h makes the two points eps^(1/3) max(1, max |x_i|) away from x, where the errors of the formula and of rounding
    balance. In float64 that leaves some ten digits, in float32 some three or four. With the outputs z(x) in place of
    the gradient it is J v.

    Args:
        gradient: x [n] -> g [n], or a tensor of any other shape.
        x, v: [n].
        digits: dtype in which the gradient is computed, if it has fewer digits than x.

    Returns:
        of the shape of g; zeros for v = 0.
    """
    length = linalg.norm(v)
    unit = v / tf.where(length > 0, length, tf.ones_like(length))
    reach = linalg.eps(digits or x.dtype) ** (1 / 3) * tf.maximum(linalg.largest(x), 1)
    # One call of the gradient in a loop of two, so that a network is traced once.
    ahead, behind = tf.unstack(
        linalg.map_rows(lambda sign: gradient(x + sign * reach * unit), tf.constant([1, -1], x.dtype))
    )
    return (ahead - behind) / (2 * reach) * length


def stops_gradients(function, x):
    """Whether second derivatives of a function by autodiff may lack something.

    That is so where `tf.stop_gradient` occurs anywhere in it or in its gradient, in the layers it calls too, a gradient
    that has no gradient and says nothing (bilinear resizing), or a Python function that TensorFlow cannot look into.

    Args:
        function: x [n] -> tensors. One that only runs eagerly, with a `.numpy()` in it, may lack something too.
        x: only shape and dtype are used.
    """

    graph = gradient_graph(function, x)
    return graph is None or loses_second_derivatives(find(graph))


def gradient_graph(function, x):
    """The graph of a function and its gradient; None where it only runs as Python or has none.

    Args:
        function, x: see `stops_gradients`.
    """

    def differentiated(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = [tensor for tensor in tf.nest.flatten(function(x)) if tensor is not None and tensor.dtype.is_floating]
        return y, tape.gradient(y, x)

    try:
        traced = tf.function(differentiated, autograph=False)
        return traced.get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph
    except (AttributeError, TypeError, *NO_GRADIENT):  # also what tensors without values raise
        if tf.inside_function():
            raise
        return None


def loses_second_derivatives(found):
    """Whether what was `Found` in a function and its gradient says so."""
    return bool(found.stopped or found.opaque or found.soft_targets or not found.traced)
