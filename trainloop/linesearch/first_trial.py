"""How far to go at first along a direction of which nothing but its length is known."""

import math

import tensorflow as tf

from trainloop.linesearch.line import least_ratio
from trainloop.vectors import linalg


def first_trial(x, d):
    """t0 [] of a line search along the steepest descent, d = -g, before any curvature is known:

        t0 = max(min(1, 1 / |d|),  sqrt(eps) / |d|,  sqrt(eps) min_i |x_i| / |d_i|)

    The gradient of a function of small unit is short everywhere: x - g may be x. The second and third numbers make a
    step that changes some coordinate by half of its digits, so that f resolves it; from there a search grows it.

    Args:
        x, d: [n]. t0 = 1 where d is zero.
    """
    length, finest = linalg.norm(d), math.sqrt(linalg.eps(x.dtype))
    resolved = tf.maximum(finest / tf.where(length > 0, length, 1), finest * least_ratio(x, d))
    return tf.where(length > 0, tf.maximum(1 / tf.maximum(length, 1), resolved), 1)
