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

import tensorflow as tf

from trainloop.vectors import linalg

# Operations behind which derivatives end.
_OPAQUE = ("StopGradient", "PyFunc", "PyFuncStateless", "EagerPyFunc")


class Linearised:
    """A function z = r(x) at one point, ready for products with its Jacobian J.

    Args:
        function: x [n] -> z, a floating tensor of any shape, or (z, anything else).
        x: [n].

    Attributes:
        z: the value.
        extra: what else the function returned, None if nothing.
    """

    def __init__(self, function, x):
        self._x = x
        with tf.GradientTape(persistent=True) as self._forward:
            self._forward.watch(x)
            result = function(x)
            self.z, self.extra = result if isinstance(result, tuple) else (result, None)
        self._weights = tf.zeros_like(self.z)
        with tf.GradientTape(persistent=True) as self._backward:
            self._backward.watch(self._weights)
            self._pulled = self.vjp(self._weights)

    def vjp(self, u):
        """J' u for u of the shape of z: [n]."""
        return self._forward.gradient(self.z, self._x, u, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def jvp(self, v):
        """J v for v [n]: the shape of z."""
        zero = tf.UnconnectedGradients.ZERO
        return self._backward.gradient(self._pulled, self._weights, v, unconnected_gradients=zero)


def value_and_grad(function, x):
    """f and its gradient, None where f does not depend on x.

    Args:
        function: x [n] -> f [].
        x: [n].

    Returns:
        (f [], g [n] or None).
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        f = function(x)
    return f, tape.gradient(f, x)


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
        except LookupError:  # an operation whose gradient has no gradient
            return _by_differences(function, x, v)

    return product


def _by_differences(function, x, v):
    def gradient(flat):
        g = value_and_grad(lambda z: function(tf.reshape(z, tf.shape(x))), flat)[1]
        return tf.zeros_like(flat) if g is None else g

    product = difference_of_gradients(gradient, tf.reshape(x, [-1]), tf.reshape(v, [-1]))
    return tf.reshape(product, tf.shape(x))


def hvp(function, x, v):
    """H v by reverse over reverse, for functions that stop no gradients.

    Args:
        function: x (any shape) -> f [].
        x, v: of the same shape.

    Returns:
        H v, of the shape of x.
    """
    with tf.GradientTape() as outer:
        outer.watch(x)
        _, g = value_and_grad(function, x)
        g = tf.zeros_like(x) if g is None else g
    return outer.gradient(g, x, v, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def difference_of_gradients(gradient, x, v):
    """H v = (g(x + h v) - g(x - h v)) / (2 h), with an error of order h^2.

    h makes the two points eps^(1/3) max(1, max |x_i|) away from x, where the errors of the formula and of rounding
    balance. In float64 that leaves some ten digits, in float32 some three or four.

    Args:
        gradient: x [n] -> g [n].
        x, v: [n].

    Returns:
        [n]; zeros for v = 0.
    """
    length = linalg.norm(v)
    unit = v / tf.where(length > 0, length, tf.ones_like(length))
    reach = linalg.eps(x.dtype) ** (1 / 3) * tf.maximum(linalg.largest(x), 1)
    # One call of the gradient in a loop of two, so that a network is traced once.
    ahead, behind = tf.unstack(
        linalg.map_rows(lambda sign: gradient(x + sign * reach * unit), tf.constant([1, -1], x.dtype))
    )
    return (ahead - behind) / (2 * reach) * length


def stops_gradients(function, x):
    """Whether second derivatives of a function by autodiff may lack something.

    That is so where `tf.stop_gradient` occurs anywhere in it, in the layers it calls too, or a Python function that
    TensorFlow cannot look into.

    Args:
        function: x [n] -> tensors. One that only runs eagerly, with a `.numpy()` in it, may lack something too.
        x: only shape and dtype are used.
    """
    spec = tf.TensorSpec(x.shape, x.dtype)
    try:
        graph = tf.function(function, autograph=False).get_concrete_function(spec).graph.as_graph_def()
    except (AttributeError, TypeError, NotImplementedError):  # what tensors without values raise
        if tf.inside_function():
            raise
        return True
    nodes = [graph.node, *(inner.node_def for inner in graph.library.function)]
    return any(node.op in _OPAQUE for part in nodes for node in part)
