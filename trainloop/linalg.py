"""Small pieces of vector arithmetic that must be right at the edges of the floating-point range."""

import tensorflow as tf


def norm(v):
    """Euclidean norm that neither overflows nor underflows where the result itself is representable.

        |v| = sqrt(sum v_i^2)                 in float64, for every narrower dtype,
        |v| = m sqrt(sum (v_i / m)^2)         for float64 where the squares leave its range, with m = max |v_i|.

    In float32 the plain form overflows at |v| = 1.8e19, so that a large but finite gradient would be taken for an
    infinite one, and it loses all digits below 1e-19. The squares of every float32 number are normal in float64.

    Args:
        v: [n], any n including 0.

    Returns:
        [] of the dtype of v. NaN or infinite exactly when v has such an entry or |v| is not representable.
    """
    wide = tf.cast(v, tf.float64)
    squares = tf.tensordot(wide, wide, 1)
    if v.dtype != tf.float64:
        return tf.cast(tf.sqrt(squares), v.dtype)
    safe = (squares > _SMALLEST_SUM) & tf.math.is_finite(squares)
    return tf.cond(safe, lambda: tf.sqrt(squares), lambda: _scaled_norm(v))


# Below this some squares may have left the normal range of float64: its smallest normal number over its eps.
_SMALLEST_SUM = 1e-290


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
