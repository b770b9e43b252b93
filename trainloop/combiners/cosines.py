"""Lengths of the rows of a matrix, and the cosines between them, at the edges of the floating-point range too."""

import tensorflow as tf

from trainloop.vectors import linalg

# Rounding errors of a sum of products, in units of the last digit: generous, because of it depends which of nearly
# parallel gradients count as one.
_ULPS = 100


def unit_rows(G):
    """What the Gramian of G [k, n] tells.

    Returns:
        (lengths [k] float64, rows of length 1 or 0 [k, n], cosines [k, k] float64, rounding error of the cosines).
    """
    largest = tf.reduce_max(tf.abs(G), 1, keepdims=True)
    scaled = tf.math.divide_no_nan(G, largest)
    length = tf.sqrt(tf.reduce_sum(tf.square(scaled), 1, keepdims=True))
    units = tf.math.divide_no_nan(scaled, length)
    lengths = tf.squeeze(tf.cast(largest, tf.float64) * tf.cast(length, tf.float64), 1)
    C = tf.cast(tf.matmul(units, units, transpose_b=True), tf.float64)
    return lengths, units, (C + tf.transpose(C)) / 2, _ULPS * linalg.eps(G.dtype)


def cosines(gradients: tf.Tensor) -> tf.Tensor:
    """The cosines between gradients: below 0 where one loss rises along the descent direction of another.

    Args:
        gradients: [k, n].

    Returns:
        [k, k]; 0 in the row and column of a gradient that is 0.

    Examples:
        >>> combiners.cosines(tf.constant([[1.0, 0.0], [-2.0, 2.0]])).numpy().round(3)
        array([[ 1.   , -0.707],
               [-0.707,  1.   ]], dtype=float32)
    """
    return tf.cast(unit_rows(gradients)[2], gradients.dtype)
