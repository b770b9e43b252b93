"""Each gradient loses what pulls against the others, one after the other in random order; the sum is the direction.

for each i:  h = g_i;  for j != i in random order:  h <- h - min(0, h'g_j) g_j / |g_j|^2
g = sum_i h_i

Yu, Kumar, Gupta, Levine, Hausman and Finn (2020), "Gradient surgery for multi-task learning", algorithm 1. h is kept as
its coefficients with respect to the gradients of length 1, W [k, k], so that only cosines are needed.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.combiners.base import GramianCombiner
from trainloop.types import State


class PCGrad(GramianCombiner):
    """The sum of the gradients, each without its part against the others.

    For two terms no loss rises along -g, to first order; for more of them one may. Without conflict g is the gradient
    of f.   Yu et al. (2020).

    Args:
        seed: of the random orders, an integer. The order of a step depends on the seed and on how many steps there were
            before.

    Raises:
        ValueError: the seed is no integer.

    Examples:
        >>> combiner = combiners.PCGrad(seed=1)
        >>> G = tf.constant([[1.0, 0.0], [-1.0, 1.0]])
        >>> combiner.combine(tf.ones([2]), G, combiner.init_state())[0].numpy().round(6)
        array([0.5, 1.5], dtype=float32)
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = checks.integer("seed", seed)

    def init_state(self) -> State:
        return {"seed_and_step": tf.constant([self.seed, 0], tf.int64)}

    def coefficients(
        self, lengths: tf.Tensor, cosines: tf.Tensor, digits: float, state: State
    ) -> tuple[tf.Tensor, State]:
        k, seed = lengths.shape[0], state["seed_and_step"]
        order = tf.argsort(tf.random.stateless_uniform([k, k], seed))  # of row i: for the gradient i
        W, itself = tf.linalg.diag(lengths), tf.eye(k, dtype=lengths.dtype)
        for t in range(k):
            other = tf.one_hot(order[:, t], k, dtype=lengths.dtype) * (1 - itself)
            against = tf.minimum(tf.reduce_sum(tf.matmul(W, cosines) * other, 1), 0)  # h'u_j
            W -= against[:, None] * other
        return tf.reduce_sum(W, 0), {"seed_and_step": seed + tf.constant([0, 1], tf.int64)}

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
