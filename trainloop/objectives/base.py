"""The function a step minimises, as a function of the flat vector x.

    f(x)                    value
    f(x), g(x)              value_and_grad
    H(x) v                  hvp       H = second derivatives of f
    G(x) v                  ggnvp     G = J' L J for f = loss(outputs(x)): J first derivatives of the outputs,
                                      L second derivatives of the loss;
                                      positive semidefinite for convex losses, and equal to H where outputs are linear

and where f = r'r is a sum of squares of residuals r [m] with the Jacobian J [m, n], so that g = 2 J'r and G = 2 J'J:

    r(x)                    residuals
    J(x)                    jacobian
    J(x) v, J(x)' u         jvp, vjp
    J'J, J W J', R          rows      what is made of J without holding it, see `trainloop.objectives.rows`

and where f is a sum of k terms

    l(x), G(x)              term_gradients      the terms [k] and their gradients [k, n]: f = sum l, g = G'1

The same x gives the same value, bit for bit, however often it is asked: line searches and trust regions compare
values, and a function that is drawn anew at every call cannot be compared with itself.
"""

import abc
import contextlib

import tensorflow as tf

from trainloop.objectives.rows import Rows
from trainloop.types import Evaluated
from trainloop.vectors import linalg


class Objective(abc.ABC):
    """f and its derivatives. All methods are pure functions of tensors, for use inside compiled code too.

    `FunctionObjective` makes one of any TensorFlow function, `LeastSquares` of residuals, `ModelObjective` of a
    model, a loss and a batch. A subclass of your own needs the first two methods; the others only for methods that
    ask for them.

    Attributes:
        has_residuals: whether f = r'r with residuals that `rows` knows.
        of_weights: whether x are the weights of a model, so that its entries are alike.
        term_names: of the terms whose gradients `term_gradients` gives, in their order; none where f is one number.

    Examples:
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

    has_residuals, of_weights = False, False
    term_names: tuple[str, ...] = ()

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

    def rows(self, x: tf.Tensor) -> contextlib.AbstractContextManager[Rows]:
        """A context in which there are the `Rows` at x [n]: residuals and what is made of their Jacobian."""
        raise ValueError(
            f"{type(self).__name__} has no residuals; give it some (LeastSquares, ModelObjective(residuals=...), or a "
            "mean squared error), or use an optimizer that needs none"
        )

    def residuals(self, x: tf.Tensor) -> tf.Tensor:
        """r(x) [m], with f = r'r."""
        with self.rows(x) as rows:
            return rows.residuals()

    def jacobian(self, x: tf.Tensor) -> tf.Tensor:
        """J(x) [m, n]."""
        with self.rows(x) as rows:
            return rows.residuals_and_jacobian()[1]

    def jvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """J(x) v [m], for v [n]."""
        with self.rows(x) as rows:
            return rows.linearised().jvp(v)

    def vjp(self, x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        """J(x)' u [n], for u [m]."""
        with self.rows(x) as rows:
            return rows.linearised().vjp(u)

    def term_gradients(self, x: tf.Tensor) -> Evaluated:
        """(terms of f [k], their gradients G [k, n]) at x [n]: f is their sum, g the sum of the rows."""
        raise ValueError(
            "the objective is one number without named terms; give a loss that has several: "
            "residuals={name: function}, a loss_fn or closure that returns a dict of scalars by name, a loss for each "
            "output, or an Objective with term_gradients(self, x)"
        )
