"""Small pieces of vector arithmetic: right at the edges of the floating-point range, and kind to memory.

TensorFlow runs one operation after the other, and each writes a new vector. For long vectors that is what a step
costs: `x + t * d` of two million numbers takes twice the memory and three times the time of one pass. `fused` functions
are compiled by XLA into that one pass; for short vectors they stay as they are, because there calls are what costs.
"""

import functools

import numpy as np
import tensorflow as tf

from trainloop.vectors import xla

# From this length on a vector counts as long: a pass over it takes longer than starting one.
LONG = 2**14

# From this length on, a pass over it takes longer than a branch or a call of compiled code on the way of every step.
VERY_LONG = 2**17


def fused(function):
    """The function, compiled by XLA where one of its arguments is a long vector.

    Args:
        function: of tensors, pure, in TensorFlow operations.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*tensors):
        # Not the variables themselves: the compiled function would keep them alive as long as it lives.
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        return compiled(*tensors) if any(map(_is_long, tensors)) else function(*tensors)

    return call


@fused
def along(x, t, d):
    """x + t d, for x and d [n] and t []."""
    return x + t * d


def choose(condition, a, b):
    """a where the condition [] holds, else b. A long vector is handed on, a short one selected."""
    return choose_all(condition, [a], [b])[0]


def choose_all(condition, a, b):
    """`choose` for every pair of two lists of tensors: with one branch for all that are long."""
    pairs = list(zip(a, b, strict=True))
    long = [pair for pair in pairs if _is_long(pair[0])]
    handed_on = iter(())
    if long:
        taken = tf.cond(condition, lambda: [first for first, _ in long], lambda: [second for _, second in long])
        handed_on = iter(tf.nest.flatten(taken))
    return [next(handed_on) if _is_long(pair[0]) else tf.where(condition, *pair) for pair in pairs]


def is_very_long(v):
    """Whether v [n] is so long that a pass over it is what costs."""
    return v.shape.rank == 1 and (v.shape[0] or 0) >= VERY_LONG


def _is_long(tensor):
    return tensor.shape.rank == 1 and (tensor.shape[0] or 0) >= LONG


def fails(comparison):
    """True where a comparison does not hold, as it never does with NaN.

    TensorFlow's graph optimiser takes ~(a < b) for a >= b, and that does not hold with NaN either.
    """
    return tf.where(comparison, False, True)


def eps(dtype):
    """The distance from 1 to the next number of a floating dtype."""
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def tiny(dtype):
    """The smallest normal number of a floating dtype."""
    return float(np.finfo(dtype.as_numpy_dtype).tiny)


def lower(best: tuple[tf.Tensor, tf.Tensor], candidate: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """The one of two points (x [n], f []) with the smaller f; the first where f of the second is NaN."""
    return tuple(choose(candidate[1] < best[1], new, old) for new, old in zip(candidate, best, strict=True))


def largest(v):
    """max_i |v_i| [], NaN if an entry is (not under XLA, where a maximum may lose NaN)."""
    return tf.maximum(tf.reduce_max(v), -tf.reduce_min(v))


def row_norms(parts):
    """|a_i| [m] of the rows of a matrix [m, n]; scaled as in `norm` where squares would leave the range of the dtype.

    Args:
        parts: the matrix cut into blocks of columns, a list of [m, n_k].
    """

    def scaled():
        A = tf.concat(parts, 1)
        largest = tf.reduce_max(tf.abs(A), 1, keepdims=True)
        return tf.squeeze(largest, 1) * tf.sqrt(tf.reduce_sum(tf.square(tf.math.divide_no_nan(A, largest)), 1))

    squares, dtype = tf.add_n([tf.reduce_sum(tf.square(part), 1) for part in parts]), parts[0].dtype
    safe = (squares > tiny(dtype) / eps(dtype)) & tf.math.is_finite(squares)
    return tf.cond(tf.reduce_all(safe), lambda: tf.sqrt(squares), scaled)


def norm(v):
    """Euclidean norm that neither overflows nor underflows where the result itself is representable.

        |v| = m sqrt(sum (v_i / m)^2)

    with m the greatest power of two that is at most max |v_i|, so that the division changes no digit. In float32 the
    plain form, m = 1, overflows at |v| = 1.8e19, so that a large but finite gradient would be taken for an infinite
    one, and it loses all digits below 1e-19. But it is one pass over v on all cores, which the other is not: a long v
    is scaled only where the plain sum is not well inside of the range of the dtype.

    Args:
        v: [n], any n including 0.

    Returns:
        [] of the dtype of v. NaN or infinite exactly when v has such an entry or |v| is not representable.
    """
    if v.dtype.size < tf.float32.size:
        return tf.cast(norm(tf.cast(v, tf.float32)), v.dtype)
    if not _is_long(v):
        return _scaled_norm(v)
    squares = _sum_of_squares(v)
    # Below tiny / eps some squares may have left the normal range.
    safe = (squares > tiny(v.dtype) / eps(v.dtype)) & tf.math.is_finite(squares)
    return tf.cond(safe, lambda: tf.sqrt(squares), lambda: _scaled_norm(v))


def _sum_of_squares(v):
    # For long vectors one operation on all cores that writes no squares. XLA would take a product entry by entry.
    return 2 * tf.nn.l2_loss(v) if _is_long(v) else tf.tensordot(v, v, 1)


def _scaled_norm(v):
    m = power_of_two(tf.reduce_max(tf.abs(v)))
    return m * tf.sqrt(_sum_of_squares(v / m))


def power_of_two(number):
    """The greatest one up to a number [], and no less than the smallest normal one. Infinite for NaN and infinity.

    To divide by it changes no digit: it is the number's exponent alone.
    """
    number = tf.maximum(number, tiny(number.dtype))
    integer = tf.int64 if number.dtype == tf.float64 else tf.int32
    exponent = np.array(np.inf, number.dtype.as_numpy_dtype).view(integer.as_numpy_dtype)
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(number, integer), exponent), number.dtype)


def all_finite(v):
    """Whether no entry of v is NaN or infinite: bool [].

    Args:
        v: [n], of any floating dtype.
    """
    # Not by the largest entry: compiled by XLA, a maximum may lose NaN.
    if not _is_long(v) or xla.is_tracing():
        return tf.reduce_all(tf.math.is_finite(v))
    # One pass on all cores, and no vector of answers; only where squares overflow, the entries themselves are read.
    squares_are = tf.math.is_finite(_sum_of_squares(v))
    return tf.cond(squares_are, lambda: tf.constant(True), lambda: tf.reduce_all(tf.math.is_finite(v)))


def map_rows(function, rows, parallel_iterations=10):
    """function(row) for each row, stacked.

    What `tf.map_fn` does. That leaves a mark on TensorFlow when the function raises while it is traced, and then no
    strategy of `tf.distribute` can be entered any more.

    Args:
        function: of a tensor [...] -> a tensor of the same dtype.
        rows: [k, ...].
        parallel_iterations: how many may be computed at the same time.
    """
    count, shape = tf.shape(rows)[0], tf.TensorShape(None)

    def one(i, results):
        nonlocal shape
        value = function(tf.gather(rows, i))
        shape = value.shape
        return i + 1, results.write(i, value)

    start = tf.constant(0), tf.TensorArray(rows.dtype, count)
    _, results = tf.while_loop(lambda i, _: i < count, one, start, parallel_iterations=parallel_iterations)
    return tf.ensure_shape(results.stack(), rows.shape[:1].concatenate(shape))


def symmetric(matrix):
    """(A + A') / 2, symmetric to the bit as factorisations want it, for a matrix that is symmetric but for rounding."""
    return (matrix + tf.transpose(matrix)) / 2


def angle(u, v):
    """The angle between u and v [n] in degrees, 0 to 180: []; NaN where one of them is zero or not finite.

        2 atan2(|a - b|, |a + b|)    with a = u / |u|, b = v / |v|                   Kahan (2006), section 12

    An arc cosine of a'b would lose half of the digits near 0 and 180.
    """
    a, b = u / norm(u), v / norm(v)
    return tf.atan2(norm(a - b), norm(a + b)) * tf.constant(360 / np.pi, u.dtype)


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
