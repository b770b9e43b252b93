"""A function of n variables along a line: phi(t) = f(x + t d), and where its minimum may be.

The rules of the line searches (`_more_thuente`, `_hager_zhang`, `_backtracking`) see only the scalars defined here; the
vectors stay with the caller, `searches`. Guesses from values and slopes at two points:

    parabola(a, b)    through phi(a), phi'(a), phi(b)
    secant(a, b)      zero of the straight line through phi'(a), phi'(b)
    cubic(a, b)       through phi(a), phi'(a), phi(b), phi'(b)

These are guesses and no more: where the model has no minimum, or its numbers leave the range of the dtype, the result
is NaN, infinite or anywhere. Who calls compares and falls back; a comparison with NaN is false. The arguments are
`Point`s. All functions act elementwise, so they serve a thousand lines as well as one.
"""

from typing import NamedTuple

import tensorflow as tf

from trainloop.vectors import linalg

# Two values of phi are equal but for rounding when they differ by no more than this many units in the last place.
_ULPS = 100.0


class Point(NamedTuple):
    """phi at one step length.

    Attributes:
        t: [] step length.
        f: [] phi(t) = f(x + t d); +inf where phi or its slope is not finite.
        slope: [] phi'(t) = g(x + t d)'d; 0 where phi or its slope is not finite.
    """

    t: tf.Tensor
    f: tf.Tensor
    slope: tf.Tensor


class Line(NamedTuple):
    """What is known before the first trial.

    Attributes:
        origin: the `Point` at t = 0.
        longest: [] no step can be longer, lest x + t d leave the range of the dtype.
        finest: [] steps that differ by less lead to the same x + t d.
        noise: [] values of phi that differ by no more are equal but for rounding.
    """

    origin: Point
    longest: tf.Tensor
    finest: tf.Tensor
    noise: tf.Tensor


def line_through(x, f, g, d):
    """The line x + t d.

        longest = max / (4 max_i |d_i|)        finest = eps/2 min_i |x_i| / |d_i|        noise = 100 eps |f|

    with eps and max of the dtype of x.

    Args:
        x, g, d: [n], all of one dtype.
        f: [] f(x), of the same dtype.

    Returns:
        a `Line`.
    """
    largest, eps = float(x.dtype.max), linalg.eps(x.dtype)
    longest = tf.minimum(0.25 * largest / linalg.largest(d), largest)
    origin = Point(tf.zeros_like(f), f, tf.tensordot(g, d, 1))
    return Line(origin, longest, 0.5 * eps * least_ratio(x, d), _ULPS * eps * tf.abs(f))


@linalg.fused
def least_ratio(x, d):
    """min_i |x_i| / |d_i|; a coordinate that does not move resolves nothing and does not count.

    Part after part where x is long: XLA writes all of what it takes the least of into memory, a vector more. The last
    part begins early enough to be as long as the others.
    """

    def of_part(x, d):
        return tf.reduce_min(tf.where(tf.equal(d, 0), x.dtype.max, tf.abs(x) / tf.abs(d)))

    n, size = x.shape[0], linalg.LONG
    if n is None or n < size:
        return of_part(x, d)

    def with_next(i, least):
        begin = [tf.minimum(i * size, n - size)]
        return i + 1, tf.minimum(least, of_part(tf.slice(x, begin, [size]), tf.slice(d, begin, [size])))

    start = tf.constant(0), tf.constant(x.dtype.max, x.dtype)
    return tf.while_loop(lambda i, _: i < -(-n // size), with_next, start)[1]


def can_descend(line, t0):
    """Whether a search may begin: f is finite, d is a direction of descent and t0 [] a positive finite step.

    A slope that is finite also tells that g and d are, because no product with NaN or infinity is finite.
    """
    _, f, slope = line.origin
    return tf.math.is_finite(f) & tf.math.is_finite(slope) & (slope < 0) & tf.math.is_finite(t0) & (t0 > 0)


def point(t, f, slope):
    """A `Point`, with f = +inf and slope = 0 where one of the two is not finite."""
    finite = tf.math.is_finite(f) & tf.math.is_finite(slope)
    return Point(t, tf.where(finite, f, float("inf")), tf.where(finite, slope, 0.0))


def select(condition, a, b):
    """Point a where the condition holds, else b."""
    return Point(*(tf.where(condition, p, q) for p, q in zip(a, b, strict=True)))


def inside(t, a, b, margin):
    """Whether t lies between a and b, in whatever order, and not within the margin of an end; False for NaN."""
    return (t - margin > tf.minimum(a, b)) & (t + margin < tf.maximum(a, b))


def parabola(a, b):
    """Minimiser of the parabola with value and slope of phi at a, and its value at b.

    Nocedal and Wright (2006), equation 3.58.
    """
    h = b.t - a.t
    bend = (b.f - a.f) / h - a.slope  # 0 on a straight line
    return a.t - 0.5 * h * (a.slope / bend)


def secant(a, b):
    """Zero of the straight line through phi'(a) and phi'(b).   Hager and Zhang (2005), section 4."""
    return a.t - (b.t - a.t) * (a.slope / (b.slope - a.slope))


def cubic(a, b):
    """Minimiser of the cubic with values and slopes of phi at a and b.   Nocedal and Wright (2006), equation 3.59.

        z = phi'(a) + phi'(b) - 3 (phi(b) - phi(a)) / (b - a)
        w = sign(b - a) sqrt(z^2 - phi'(a) phi'(b))
        t = b - (b - a) (phi'(b) + w - z) / (phi'(b) - phi'(a) + 2 w)

    z is d_1 of the book and w its d_2. NaN where the cubic has no minimum.
    """
    h = b.t - a.t
    z = a.slope + b.slope - 3.0 * ((b.f - a.f) / h)
    # Divided by the largest of the three, the squares neither overflow nor all underflow.
    scale = tf.maximum(tf.abs(z), tf.maximum(tf.abs(a.slope), tf.abs(b.slope)))
    root = scale * tf.sqrt(tf.square(z / scale) - (a.slope / scale) * (b.slope / scale))
    w = tf.where(h < 0, -root, root)
    return b.t - h * ((b.slope + w - z) / (b.slope - a.slope + 2.0 * w))


def nearer(t, candidate, other):
    """Of two candidates the one nearer to t; the other where the candidate is NaN."""
    return tf.where(tf.abs(candidate - t) < tf.abs(other - t), candidate, other)


def farther(t, candidate, other):
    """Of two candidates the one farther from t; the other where the candidate is NaN."""
    return tf.where(tf.abs(candidate - t) > tf.abs(other - t), candidate, other)
