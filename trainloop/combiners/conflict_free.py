"""One direction with the same cosine to all gradients, as long as the sum of their projections onto it.

g_u = U^+ 1 / |U^+ 1|           U: rows g_i / |g_i|, ^+ the pseudo-inverse, so that U g_u has equal entries
g = (sum_i g_i'g_u) g_u

Liu, Chu and Thuerey (2024), "ConFIG: Towards conflict-free training of physics informed neural networks", arXiv
2408.11104, equations 2 and 3. With C = U U' it is U^+ 1 = U'C^+ 1.
"""

import tensorflow as tf

from trainloop.combiners.base import GramianCombiner
from trainloop.types import State


class ConFIG(GramianCombiner):
    """One direction that has the same cosine to all gradients.

    Along -g all terms fall at the same rate relative to the length of their gradients, however different these are. Of
    the size of the gradient of f. Gradients that are 0 do not count; where the others are linearly dependent cosines
    are equal as far as they can be.   Liu, Chu and Thuerey (2024).

    Examples:
        >>> G = tf.constant([[3.0, 0.0], [0.0, 1.0]])
        >>> combiners.ConFIG().combine(tf.ones([2]), G, {})[0].numpy().round(6)
        array([2., 2.], dtype=float32)
    """

    def coefficients(
        self, lengths: tf.Tensor, cosines: tf.Tensor, digits: float, state: State
    ) -> tuple[tf.Tensor, State]:
        values, vectors = tf.linalg.eigh(cosines)
        counted = values > digits
        along = tf.where(counted, tf.reduce_sum(vectors, 0) / tf.where(counted, values, tf.ones_like(values)), 0.0)
        v = tf.linalg.matvec(vectors, along)  # C^+ 1
        products = tf.linalg.matvec(cosines, v)  # U (U^+ 1)
        squared = tf.reduce_sum(v * products)  # |U^+ 1|^2
        some = tf.where(squared > digits, squared, tf.ones_like(squared))
        return tf.where(squared > digits, tf.reduce_sum(lengths * products) / some, 0.0) * v, state
