"""The function a step minimises, as a function of the whole vector x.

    f(x)                    value
    f(x), g(x)              value_and_grad
    H(x) v                  hvp       H = second derivatives of f
    G(x) v                  ggnvp     G = J' L J for f = loss(outputs(x)): J first derivatives of the outputs,
                                      L second derivatives of the loss;
                                      positive semidefinite for convex losses, and equal to H where outputs are linear

The same x gives the same value, bit for bit, however often it is asked: line searches and trust regions compare
values, and a function that is drawn anew at every call cannot be compared with itself.
"""

import abc

import tensorflow as tf

from trainloop.types import Evaluated
from trainloop.vectors import linalg


class Objective(abc.ABC):
    """f and its derivatives. All methods are pure functions of tensors, for use inside compiled code too.

    `FunctionObjective` makes one of any TensorFlow function, `LeastSquares` of residuals, `ModelObjective` of a
    model, a loss and a batch. A subclass of your own needs the first two methods; the others only for methods that
    ask for them.

    Example:
        >>> class Bowl(Objective):
        ...     def value(self, x):
        ...         return tf.reduce_sum(x**2)
        ...
        ...     def value_and_grad(self, x):
        ...         return self.value(x), 2 * x
        ...
        >>> minimize(Bowl(), [1.0, 2.0], Momentum(0.1), f_target=1e-3).f < 1e-3
        True
    """

    @abc.abstractmethod
    def value(self, x: tf.Tensor) -> tf.Tensor:
        """f [] at x [n]."""

    @abc.abstractmethod
    def value_and_grad(self, x: tf.Tensor) -> Evaluated:
        """(f [], g [n]) at x [n]."""

    def first_pass(self) -> Evaluated:
        """(f [], g [n]) where the variables of a model are, as the ordinary pass of a training step.

        The only evaluation whose side effects (averages, seeds, counters) stay.
        """
        raise ValueError(f"{type(self).__name__} has no variables that hold x; call value_and_grad(x)")

    def hvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """H(x) v [n], for x and v [n]."""
        raise ValueError(f"{type(self).__name__} has no Hessian products; define hvp(self, x, v)")

    def ggnvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """G(x) v [n], for x and v [n]."""
        raise ValueError(
            f"{type(self).__name__} has no Gauss-Newton products; give it residuals (LeastSquares), or choose "
            "curvature='hessian'"
        )

    def ggn(self, x: tf.Tensor) -> tf.Tensor:
        """G(x) [n, n], for small n: n products."""
        return linalg.symmetric(linalg.map_rows(lambda v: self.ggnvp(x, v), tf.eye(x.shape[0], dtype=x.dtype)))
