"""Small pieces of vector arithmetic that must be right at the edges of the floating-point range."""

import tensorflow as tf


def norm(v):
    """Euclidean norm that neither overflows nor underflows where the result itself is representable.

        |v| = sqrt(sum v_i^2)                 when the sum of squares is a normal number,
        |v| = m sqrt(sum (v_i / m)^2)         otherwise, with m = max |v_i|.

    In float32 the plain form overflows at |v| = 1.8e19, so that a large but finite gradient would be taken
    for an infinite one, and it loses all digits below 1e-19.

    Args:
        v: [n], any n including 0.

    Returns:
        [] of the dtype of v. NaN or infinite exactly when v has such an entry or |v| is not representable.
    """
    squares = tf.tensordot(v, v, 1)
    safe = (squares > _smallest_sum(v.dtype)) & tf.math.is_finite(squares)
    return tf.cond(safe, lambda: tf.sqrt(squares), lambda: _scaled_norm(v))


def _smallest_sum(dtype):
    """Below this some squares may have left the normal range of the dtype: the smallest normal number over eps."""
    return tf.constant({tf.float16: 0.06, tf.float64: 1e-290}.get(dtype, 1e-30), dtype)


def _scaled_norm(v):
    largest = tf.reduce_max(tf.abs(v), keepdims=True)  # [1]; -inf when v is empty
    scale = tf.where(tf.math.is_finite(largest) & (largest > 0), largest, tf.ones_like(largest))
    return scale[0] * tf.sqrt(tf.reduce_sum(tf.square(v / scale)))


def clip_norm(v, length, limit):
    """v shortened to `limit` where it is longer:  v min(1, limit / |v|).

    Args:
        v: [n].
        length: [], its norm, which the caller has already.
        limit: a positive float, or None for no limit.

    Returns:
        [n].
    """
    if limit is None:
        return v
    limit = tf.constant(min(limit, float(v.dtype.max)), v.dtype)
    return tf.where(length > limit, v / length * limit, v)
