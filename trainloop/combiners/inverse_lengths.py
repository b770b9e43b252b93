"""Reciprocals of lengths that may be 0 or differ by many powers of ten."""

import tensorflow as tf


def inverse_lengths(lengths):
    """p_i = shortest / |g_i|, in (0, 1], and 1 for a gradient that is 0; and the shortest length that is not 0.

    Args:
        lengths: [k].
    """
    is_some, one = lengths > 0, tf.ones_like(lengths)
    shortest = tf.reduce_min(tf.where(is_some, lengths, tf.reduce_max(lengths)))
    return tf.where(is_some, shortest / tf.where(is_some, lengths, one), one), shortest
