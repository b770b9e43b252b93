"""A test problem: a function, the point to start from, and the minimum that an optimizer should find.

The function is plain TensorFlow on one vector, so the same problem serves an eager check against NumPy, a compiled
loop and a SciPy solver. It takes any floating dtype and computes in it. Nothing is counted or cached here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """min f(x) over all x of n numbers, with a known answer.

    Attributes:
        name: its key in `trainloop.testing.problems`.
        fun: x [n] -> f [] in the dtype of x. At a kink the tape gives some subgradient of a convex f.
        x0: float64 NumPy [n], the standard starting point; read-only, as everybody shares it.
        minimum: the smallest value of f.
        smooth: whether f is continuously differentiable, apart from a discontinuity that its source names.
        convex: whether f is convex on the whole space.
        residuals: x [n] -> r [m] with f = sum r_i^2, without a factor 1/2; None where f is no sum of squares.
        minimiser: float64 NumPy [n] with f(minimiser) = minimum; None where only the value is known. There may be
            others.
        other_minima: values at which a descent method may rightly end instead: of a local minimiser, approached at
            infinity, or of a saddle that the gradients from x0 cannot tell from a minimiser.
        source: where the problem is from.

    Examples:
        >>> f = lambda x: tf.reduce_sum(x**2)
        >>> bowl = testing.Problem("bowl", f, np.ones(2), minimum=0.0, smooth=True, convex=True)
        >>> minimize(bowl.fun, bowl.x0, SimpleGD(0.5)).f - bowl.minimum
        0.0
    """

    name: str
    fun: Callable[[tf.Tensor], tf.Tensor]
    x0: np.ndarray
    minimum: float
    smooth: bool
    convex: bool
    residuals: Callable[[tf.Tensor], tf.Tensor] | None = None
    minimiser: np.ndarray | None = None
    other_minima: tuple[float, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        # A frozen dataclass sets a field this way.
        object.__setattr__(self, "x0", _frozen(self.x0))
        if self.minimiser is not None:
            object.__setattr__(self, "minimiser", _frozen(self.minimiser))

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.x0.size


def least_squares(
    name: str,
    residuals: Callable[[tf.Tensor], tf.Tensor],
    x0: Any,
    minimum: float = 0.0,
    *,
    convex: bool = False,
    **kwargs: Any,
) -> Problem:
    """The smooth problem  f(x) = sum r_i(x)^2.

    Args:
        name, x0, minimum, convex, kwargs: see `Problem`.
        residuals: x [n] -> r [m].
    """

    def fun(x):
        return tf.reduce_sum(tf.square(residuals(x)))

    return Problem(name, fun, x0, minimum, smooth=True, convex=convex, residuals=residuals, **kwargs)


def _frozen(values):
    array = np.array(values, np.float64)  # a copy: what the caller holds stays writable
    array.setflags(write=False)
    return array
