"""How far to go at first along a direction of which nothing but its length is known."""

import math

import tensorflow as tf

from trainloop.vectors import linalg


def first_trial(x, length):
    """t0 [] of a line search along the steepest descent, d = -g, before any curvature is known:

        |t0 d| = 1                             where |d| > 1
                 |d|                           where |d| is between
                 sqrt(eps) max(1, max_i |x_i|) where |d| is less than that

    The gradient of a function of small unit is short everywhere: x - g may be x. The third line makes a step that f
    resolves; from there a search grows it.

    Args:
        x: [n], where the search begins.
        length: [], |d|. t0 = 1 where it is zero.
    """
    shortest = math.sqrt(linalg.eps(x.dtype)) * tf.maximum(linalg.largest(x), 1)
    stretched = shortest / tf.where(length > 0, length, shortest)
    return tf.where(length < shortest, stretched, 1 / tf.maximum(length, 1))
