"""The shortest vector in the convex hull of the gradients.

g = G'w,  w = argmin |G'w|^2  over  w >= 0, sum w = 1

Desideri (2012), "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", C. R. Acad. Sci. Paris
350. The condition on the sum goes into the function: with p_i = 1 / |g_i| up to a common factor and v_i = w_i / p_i

min |U'v|^2 + (p'v - 1)^2  over  v >= 0           U: rows of length 1

has a minimiser that is a multiple of the wanted one: the sum is the same up to a factor that scaling removes.
"""

import tensorflow as tf

from trainloop.combiners.base import GramianCombiner
from trainloop.combiners.complementary import minimisers
from trainloop.combiners.inverse_lengths import inverse_lengths
from trainloop.types import State


class MGDA(GramianCombiner):
    """The shortest convex combination of the gradients.

    Along -g all terms fall at least at the rate |g|^2. g is 0 exactly where no direction lets all terms fall, and it is
    never longer than the shortest gradient: a term that is nearly done slows all others down.   Desideri (2012).

    Raises:
        ValueError: more than 12 terms, when it is traced.

    Examples:
        >>> G = tf.constant([[2.0, 0.0], [0.0, 1.0]])
        >>> combiners.MGDA().combine(tf.ones([2]), G, {})[0].numpy().round(6)
        array([0.4, 0.8], dtype=float32)
    """

    def coefficients(
        self, lengths: tf.Tensor, cosines: tf.Tensor, digits: float, state: State
    ) -> tuple[tf.Tensor, State]:
        p, shortest = inverse_lengths(lengths)
        v = minimisers(cosines + p[:, None] * p, -p[:, None], digits)[:, 0]
        return shortest * v / tf.reduce_sum(p * v), state
