"""Where a function of one variable has its minimum, guessed from values and slopes at two points.

    parabola(a, b)    through phi(a), phi'(a), phi(b)
    secant(a, b)      zero of the straight line through phi'(a), phi'(b)
    cubic(a, b)       through phi(a), phi'(a), phi(b), phi'(b)

These are guesses and no more: where the model has no minimum, or its numbers leave the range of the dtype, the result
is NaN, infinite or anywhere. Who calls compares and falls back; a comparison with NaN is false. The arguments are
`Point`s of trainloop.line. All functions act elementwise, so they serve a thousand lines as well as one.
"""

import tensorflow as tf


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
