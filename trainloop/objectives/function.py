"""Objectives without a network: any TensorFlow function of x, or a sum of squares of one."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from trainloop.objectives import derivatives
from trainloop.objectives.base import Objective
from trainloop.objectives.rows import FunctionRows
from trainloop.types import Evaluated


class FunctionObjective(Objective):
    """f given by a function of the vector.

    Args:
        fun: function x [n] -> f [], differentiated here, or x -> (f [], g [n]), which may then come from
            anywhere: a hand-written gradient, `tf.numpy_function`. The same x must give the same f.

    Examples:
        >>> objective = FunctionObjective(lambda x: tf.reduce_sum(x**4))
        >>> objective.hvp(tf.constant([1.0, 2.0]), tf.constant([1.0, 1.0])).numpy()
        array([12., 48.], dtype=float32)
    """

    def __init__(self, fun: Callable[[tf.Tensor], tf.Tensor | Evaluated]) -> None:
        if not callable(fun):
            raise ValueError(f"fun must be a function of x or an Objective, received {fun!r}")
        self._fun = fun
        self._known_to_stop = None

    def value(self, x: tf.Tensor) -> tf.Tensor:
        return self._call(x)[0]

    def value_and_grad(self, x: tf.Tensor) -> Evaluated:
        with tf.GradientTape() as tape:
            tape.watch(x)
            f, g = self._call(x)
        if g is not None:
            return f, g
        g = tape.gradient(f, x, output_gradients=_one(f))
        if g is None:
            raise ValueError(
                "fun has no gradient: its result does not depend on x through TensorFlow operations "
                "(tf.numpy_function has none); use TensorFlow operations, or return (f, g)"
            )
        return f, tf.convert_to_tensor(g)

    def hvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """H(x) v by autodiff; by differences where fun stops gradients or its g cannot be differentiated."""
        product = None if self._stops_gradients(x) else self._product_by_autodiff(x, v)
        if product is None:
            return derivatives.difference_of_gradients(lambda z: self.value_and_grad(z)[1], x, v)
        return tf.convert_to_tensor(product)

    def _product_by_autodiff(self, x, v):
        try:
            with tf.GradientTape() as tape:
                tape.watch(x)
                _, g = self.value_and_grad(x)
            return tape.gradient(g, x, v)
        except derivatives.NO_GRADIENT:
            return None

    def _stops_gradients(self, x):
        if self._known_to_stop is None:
            self._known_to_stop = derivatives.stops_gradients(lambda z: self._call(z), x)
        return self._known_to_stop

    def _call(self, x):
        """(f, g or None) as tensors of the right shape and dtype."""
        returned = self._fun(x)
        pair = returned if isinstance(returned, (tuple, list)) else (returned, None)
        if len(pair) != 2:
            raise ValueError(f"fun must return f or (f, g), received {len(pair)} values")
        f, g = pair
        return _checked("f", f, x, []), None if g is None else _checked("g", g, x, x.shape)


class ValuesOnly(Objective):
    """Another objective for optimizers that never look at a gradient: it is not asked for one, and g is zero.

    Args:
        objective: any `Objective`.
    """

    def __init__(self, objective):
        self._objective = objective

    def value(self, x):
        return self._objective.value(x)

    def value_and_grad(self, x):
        return self._objective.value(x), tf.zeros_like(x)


class LeastSquares(Objective):
    """f(x) = sum_i r_i(x)^2, with g = 2 J' r and the Gauss-Newton matrix G = 2 J' J.

    Args:
        residuals: function x [n] -> r [m].

    Examples:
        >>> rosenbrock = LeastSquares(lambda x: tf.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]))
        >>> minimize(rosenbrock, [-1.2, 1.0], LevenbergMarquardt()).x.round(3)
        array([1., 1.])
    """

    has_residuals = True

    def __init__(self, residuals: Callable[[tf.Tensor], tf.Tensor]) -> None:
        if not callable(residuals):
            raise ValueError(f"residuals must be a function of x, received {residuals!r}")
        self._residuals = residuals
        self._f = FunctionObjective(lambda x: tf.reduce_sum(tf.square(self._checked_residuals(x))))

    def value(self, x: tf.Tensor) -> tf.Tensor:
        return self._f.value(x)

    def value_and_grad(self, x: tf.Tensor) -> Evaluated:
        return self._f.value_and_grad(x)

    def hvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        return self._f.hvp(x, v)

    def ggnvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        r = derivatives.Linearised(self._checked_residuals, x)
        return 2 * r.vjp(r.jvp(v))

    def ggn(self, x: tf.Tensor) -> tf.Tensor:
        with self.rows(x) as rows:
            return 2 * rows.gram()

    @contextlib.contextmanager
    def rows(self, x: tf.Tensor) -> Iterator[FunctionRows]:
        yield FunctionRows(self._checked_residuals, x)

    def _checked_residuals(self, x):
        r = tf.convert_to_tensor(self._residuals(x))
        if r.shape.rank != 1 or r.dtype != x.dtype:
            raise ValueError(
                f"residuals must return a vector [m] of dtype {x.dtype.name}, received shape {r.shape} and dtype "
                f"{r.dtype.name}"
            )
        return r


def _one(f):
    """1 [], where the derivative of f with respect to itself is taken from; NaN where f is.

    Depends on f: so the backward pass does not begin before the forward pass has ended and left its memory, and no part
    of it is a constant, which TensorFlow would compute beforehand and keep, as long as x.
    """
    return tf.where(tf.equal(f, f), tf.ones_like(f), f)


def _checked(name, value, x, shape):
    if value is None:
        raise ValueError("fun must return f or (f, g), received None; is there a return statement?")
    value = tf.convert_to_tensor(value)
    wanted = "a scalar [], such as tf.reduce_sum gives" if name == "f" else f"a vector of the shape of x, {shape}"
    if not value.shape.is_compatible_with(shape):
        raise ValueError(f"fun must return {name} as {wanted}; received shape {value.shape}")
    if value.dtype != x.dtype:
        raise ValueError(
            f"fun must return {name} in the dtype of x, {x.dtype.name}; received {value.dtype.name}; "
            "compute in x.dtype, or cast the result"
        )
    return value if value.shape.is_fully_defined() else tf.ensure_shape(value, shape)
