"""Each gradient is projected onto the directions along which no loss rises; their mean is the direction.

K = {v: G v >= 0}                     the dual cone of the gradients: along -v no loss rises, to first order
g = (1/k) sum_i P_K(g_i)              P_K(g_i) = g_i + G'u,  u = argmin |g_i + G'u|^2 over u >= 0

The projection is a small quadratic program in the Gramian. With A = G G' and v = e_i + u it is min v'A v, v >= e_i.
Quinton and Rey (2024), "Jacobian descent for multi-objective optimization", arXiv 2406.16232, section 3 and
proposition 1. Scaling a gradient moves no face of K, so the programs are solved for rows of length 1.
"""

import tensorflow as tf

from trainloop.combiners.base import GramianCombiner
from trainloop.combiners.complementary import minimisers
from trainloop.types import State


class UPGrad(GramianCombiner):
    """The mean of the gradients, each projected onto the directions along which no loss rises.

    Along -g no term rises, to first order: G g >= 0. Without conflict g is the mean of the gradients, 1/k of the
    gradient of f; so is the length of a step of gradient descent. A larger term has a larger say.   Quinton and Rey
    (2024).

    Raises:
        ValueError: more than 12 terms, when it is traced.

    Examples:
        >>> G = tf.constant([[1.0, 0.0], [-1.0, 1.0]])
        >>> combiners.UPGrad().combine(tf.ones([2]), G, {})[0].numpy().round(6)
        array([0.25, 0.75], dtype=float32)
    """

    def coefficients(
        self, lengths: tf.Tensor, cosines: tf.Tensor, digits: float, state: State
    ) -> tuple[tf.Tensor, State]:
        u = minimisers(cosines, cosines, digits)  # column i belongs to the projection of u_i
        return (lengths + tf.linalg.matvec(u, lengths)) / lengths.shape[0], state
