"""Near the mean of the gradients, where the loss that falls least falls most.

g = argmax_d min_i g_i'd  subject to |d - g_0| <= c |g_0|         g_0 = (1/k) sum_i g_i

Liu, Liu, Jin, Stone and Liu (2021), "Conflict-averse gradient descent for multi-task learning", equation 2. The
conditions of its solution, with multipliers y >= 0 and mu = min_i g_i'd, are

d = g_0 + G'y,   |G'y| = c |g_0|,   g_i'd = mu where y_i > 0,   g_i'd >= mu elsewhere

For a set S of positive y_i, with A = G G' and b = G g_0, they say

y_S = A_SS^-1 (mu 1 - b_S),   mu = (beta + sqrt(beta^2 - alpha (gamma - c^2 |g_0|^2))) / alpha
alpha = 1'A_SS^-1 1,   beta = 1'A_SS^-1 b_S,   gamma = b_S'A_SS^-1 b_S

so the right set is found among all of them, see `complementary`. For rows of length 1 the 1 becomes p, and b becomes h.
Where no set satisfies them the maximum is 0 and many d attain it; the nearest to g_0 is taken, its projection onto the
directions along which no loss rises.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.combiners.base import GramianCombiner
from trainloop.combiners.complementary import minimisers, tables
from trainloop.combiners.inverse_lengths import inverse_lengths
from trainloop.types import State

# A set that violates the conditions by more than this is none.
_NONE = 1e-6


class CAGrad(GramianCombiner):
    """The vector near the mean of the gradients for which the worst of all losses falls most.

    Of the size of the mean, 1/k of the gradient of f, which it is for c = 0. For c < 1 it converges to minima of f.
    Liu et al. (2021).

    Args:
        c: radius around the mean, in units of its length, at least 0 and below 1.

    Raises:
        ValueError: c is something else; more than 12 terms, when it is traced.

    Examples:
        >>> G = tf.constant([[1.0, 0.0], [-0.5, 0.5]])
        >>> g, _ = combiners.CAGrad(c=0.5).combine(tf.ones([2]), G, {})
        >>> tf.linalg.matvec(G, g).numpy().round(3)
        array([0.125, 0.125], dtype=float32)
    """

    def __init__(self, c: float = 0.5) -> None:
        self.c = checks.real("c", c, at_least=0, below=1)

    def coefficients(
        self, lengths: tf.Tensor, cosines: tf.Tensor, digits: float, state: State
    ) -> tuple[tf.Tensor, State]:
        longest, k = tf.reduce_max(lengths), lengths.shape[0]
        mean = tf.math.divide_no_nan(lengths, longest) / k  # g_0, as coefficients
        h, (p, _) = tf.linalg.matvec(cosines, mean), inverse_lengths(lengths)
        radius = self.c**2 * tf.reduce_sum(mean * h)
        return longest * (mean + _multipliers(cosines, p, h, radius, digits)), state

    def get_config(self) -> dict[str, Any]:
        return {"c": self.c}


def _multipliers(C, p, h, radius, digits):
    """y [k] for rows of length 1.

    Args:
        C: cosines [k, k].
        p, h: [k], see the top of this file.
        radius: c^2 |g_0|^2.
        digits: see `tables`.
    """
    found = tables(C, tf.stack([p, h], 1), digits)
    of_p, of_h = found.sides[:, :, 0], found.sides[:, :, 1]
    inside = tf.cast(found.inside, p.dtype)
    alpha, beta, gamma = (tf.reduce_sum(inside * a * b, 1) for a, b in ((p, of_p), (p, of_h), (h, of_h)))
    root = tf.square(beta) - alpha * (gamma - radius)
    exists = (alpha > 0) & (root >= 0)
    mu = tf.math.divide_no_nan(beta + tf.sqrt(tf.maximum(root, 0)), alpha)
    signed = found.signed(mu[:, None] * of_p - of_h)
    violation = tf.where(exists, found.violation(signed), _NONE)
    best = tf.argmin(violation)
    y = inside[best] * tf.maximum(signed[best], 0)
    return tf.where(violation[best] < _NONE, y, minimisers(C, h[:, None], digits)[:, 0])
