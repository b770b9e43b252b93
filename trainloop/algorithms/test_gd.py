"""The ellipsoid method with central cuts on the flat parameter vector, one matrix B over all n parameters.

B is the *ellipsoid matrix divided by r^2*, symmetric and positive definite with determinant 1: after every step the
minimiser of a convex f lies in

    E = { z : (z - x)' B^-1 (z - x) <= r^2 }

because it lies in the half of the old E where g'(z - x) <= 0, and the new E is the smallest ellipsoid around that half:

    d <- B g / sqrt(g' B g)
    x <- x - r / (n + 1) d
    B <- gamma (B - 2 / (n + 1) d d')             gamma = beta^(-1/n)
    r <- r n / sqrt(n^2 - 1) beta^(1/(2n))        beta  = (n - 1) / (n + 1)

beta is the factor by which B contracts along d. gamma only takes out the determinant of that contraction, so that r is
the radius of the ball with the volume of E: B and r then neither overflow nor underflow against each other, and r
shrinks with the volume, by the textbook factor

    vol(E_new) / vol(E) = (r_new / r)^n = (n / sqrt(n^2 - 1))^n sqrt((n - 1) / (n + 1)) < exp(-1 / (2 (n + 1))).

For n = 1 this is bisection: x <- x - r/2 sign(g), r <- r/2.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import State, VectorUpdate
from trainloop.vectors import linalg

_FIRST_STEP = 0.05


class TestGD(GlobalVectorOptimizer):
    """Ellipsoid method with central cuts, a matrix B over all weights.   Bland, Goldfarb and Todd (1981).

    Their equations 2.5 and 2.6 in the notation above; first by Yudin and Nemirovski (1976) and Shor (1977).

    On a network neither convexity nor an enclosing ball is given, and n is large: E hardly changes in the life of a
    run, and the steps are normalised, of length close to rad / (n + 1), turned away from the gradients seen before.

    A zero gradient, which a mini-batch may well have, changes nothing. The run ends when the step has become
    too short to change x.

    Args:
        rad: radius r of the first ball around the starting point, positive. None chooses (n + 1) 0.05, so that the
            first step has length 0.05. A small rad does not move: the first step has length rad / (n + 1).
        storage: of B, see `storage_spec`. The iterates agree to rounding.
        name, kwargs: see `GlobalVectorOptimizer`. There is no learning rate.

    Examples:
        >>> optimizer = TestGD(rad=2000.0, storage="factored")
        >>> print(optimizer.memory_plan(44_426))  # LeNet-5
    """

    __test__ = False  # the name is not meant for pytest

    def __init__(self, rad: float | None = None, storage: str = "auto", name: str = "test_gd", **kwargs: Any) -> None:
        super().__init__(None, name=name, **kwargs)
        self.rad = rad if rad is None else checks.real("rad", rad, above=0)
        self.storage = check_storage(storage)

    def init_state(self, x: tf.Tensor) -> State:
        n = x.shape[0]
        return {
            "B": SharedMatrix.identity(n, dtype=x.dtype, storage=self.storage, updates="symmetric"),
            "radius": tf.constant((n + 1) * _FIRST_STEP if self.rad is None else self.rad, x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        n = x.shape[0]
        B, radius = state["B"], state["radius"]
        length = linalg.norm(g)
        nonzero = length > 0
        direction = g / tf.where(nonzero, length, tf.ones_like(length))  # d does not change with the length of g
        Bg = B @ direction
        width = tf.tensordot(direction, Bg, 1)
        usable = width > 0
        d = Bg / tf.sqrt(tf.where(usable, width, tf.ones_like(width)))
        x_new = tf.where(usable, x - radius / (n + 1) * d, x)
        status = first_failure(
            (nonzero & ~usable, Status.MATRIX_NOT_POSITIVE),
            (nonzero & tf.reduce_all(tf.equal(x_new, x)), Status.CONVERGED),
        )

        def cut(value, otherwise):
            return tf.where(usable, tf.constant(value, x.dtype), tf.constant(otherwise, x.dtype))

        if n > 1:
            beta = (n - 1) / (n + 1)
            B = B.add_symmetric(d, cut(beta - 1, 0)).scale(cut(beta ** (-1 / n), 1))
        return x_new, {"B": B, "radius": radius * cut(_radius_factor(n), 1), "status": status}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rad": self.rad, "storage": self.storage}


def _radius_factor(n):
    """r_new / r = n / (n + 1) ((n + 1) / (n - 1))^((n - 1) / (2n)), the n-th root of the ratio of volumes."""
    return n / (n + 1) * (1.0 if n == 1 else ((n + 1) / (n - 1)) ** ((n - 1) / (2 * n)))
