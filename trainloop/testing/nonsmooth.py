"""Nonsmooth test problems: maxima, absolute values, and Wolfe's function of three pieces.

They are from Lukšan and Vlček (2000), "Test problems for nonsmooth unconstrained and linearly constrained
optimization", Technical report 798, Institute of Computer Science, Prague, below LV; many are also in Mäkelä and
Neittaanmäki (1992), "Nonsmooth optimization". Starting points are LV's.

Gradient descent stalls on most of them away from the minimum: near a kink the subgradient of one piece says nothing
about the others. At a kink the tape gives a subgradient: `tf.reduce_max` averages the pieces that attain the maximum,
`tf.abs` has slope 0 at 0.

Mifflin2 is marked convex although collections list it as nonconvex: it is the larger of two convex functions.
"""

import numpy as np
import tensorflow as tf

from trainloop.testing.problem import Problem


def _cb2(x):
    """max(x1^2 + x2^4, (2 - x1)^2 + (2 - x2)^2, 2 exp(x2 - x1)).   Charalambous and Bandler (1976)."""
    x1, x2 = tf.unstack(x, 2)
    return tf.reduce_max([x1**2 + x2**4, (2 - x1) ** 2 + (2 - x2) ** 2, 2 * tf.exp(x2 - x1)])


def _cb3(x):
    """max(x1^4 + x2^2, (2 - x1)^2 + (2 - x2)^2, 2 exp(x2 - x1)).   Charalambous and Bandler (1976)."""
    x1, x2 = tf.unstack(x, 2)
    return tf.reduce_max([x1**4 + x2**2, (2 - x1) ** 2 + (2 - x2) ** 2, 2 * tf.exp(x2 - x1)])


def _dem(x):
    """max(5 x1 + x2, -5 x1 + x2, x1^2 + x2^2 + 4 x2).   Demyanov and Malozemov (1974)."""
    x1, x2 = tf.unstack(x, 2)
    return tf.reduce_max([5 * x1 + x2, -5 * x1 + x2, x1**2 + x2**2 + 4 * x2])


def _ql(x):
    """x1^2 + x2^2 + 10 max(0, 4 - 4 x1 - x2, 6 - x1 - 2 x2)."""
    x1, x2 = tf.unstack(x, 2)
    return x1**2 + x2**2 + 10 * _positive_part([4 - 4 * x1 - x2, 6 - x1 - 2 * x2])


def _lq(x):
    """-x1 - x2 + max(0, x1^2 + x2^2 - 1)."""
    x1, x2 = tf.unstack(x, 2)
    return -x1 - x2 + _positive_part([x1**2 + x2**2 - 1])


def _mifflin1(x):
    """-x1 + 20 max(0, x1^2 + x2^2 - 1)."""
    x1, x2 = tf.unstack(x, 2)
    return -x1 + 20 * _positive_part([x1**2 + x2**2 - 1])


def _mifflin2(x):
    """-x1 + 2 s + 7/4 |s| = -x1 + max(15/4 s, 1/4 s),  s = x1^2 + x2^2 - 1."""
    x1, x2 = tf.unstack(x, 2)
    s = x1**2 + x2**2 - 1
    return -x1 + 2 * s + 1.75 * tf.abs(s)


def _crescent(x):
    """max(c + x2 - 1, -c + x2 + 1),  c = x1^2 + (x2 - 1)^2: the level sets are crescents.   Kiwiel (1985)."""
    x1, x2 = tf.unstack(x, 2)
    c = x1**2 + (x2 - 1) ** 2
    return tf.reduce_max([c + x2 - 1, -c + x2 + 1])


def _wolfe(x):
    """5 sqrt(9 x1^2 + 16 x2^2) where x1 > |x2|;  9 x1 + 16 |x2| - min(x1, 0)^9 elsewhere.   Wolfe (1975).

    Convex, and smooth where the pieces meet at x1 = |x2|. From many starts steepest descent with exact line searches
    converges to 0, which is not even stationary.
    """
    x1, x2 = tf.unstack(x, 2)
    right = x1 > tf.abs(x2)
    squares = tf.where(right, 9 * x1**2 + 16 * x2**2, tf.ones_like(x1))  # the slope of sqrt at 0 would give NaN
    return tf.where(right, 5 * tf.sqrt(squares), 9 * x1 + 16 * tf.abs(x2) - tf.minimum(x1, 0) ** 9)


def _rosen_suzuki(x):
    """f1 + 10 max(0, f2, f3, f4): the constrained problem of Rosen and Suzuki (1965) with an exact penalty.

    f4 has x1^2 as in LV, where Rosen and Suzuki have 2 x1^2. Both have the same minimum.
    """
    x1, x2, x3, x4 = tf.unstack(x, 4)
    f1 = x1**2 + x2**2 + 2 * x3**2 + x4**2 - 5 * x1 - 5 * x2 - 21 * x3 + 7 * x4
    f2 = x1**2 + x2**2 + x3**2 + x4**2 + x1 - x2 + x3 - x4 - 8
    f3 = x1**2 + 2 * x2**2 + x3**2 + 2 * x4**2 - x1 - x4 - 10
    f4 = x1**2 + x2**2 + x3**2 + 2 * x1 - x2 - x4 - 5
    return f1 + 10 * _positive_part([f2, f3, f4])


def _shor(x):
    """max_i b_i |x - a_i|^2: the weighted smallest ball around ten points.   Shor (1985)."""
    centres, weights = tf.constant(_SHOR_CENTRES, x.dtype), tf.constant(_SHOR_WEIGHTS, x.dtype)
    return tf.reduce_max(weights * tf.reduce_sum(tf.square(x - centres), axis=1))


_SHOR_CENTRES = [
    [0, 0, 0, 0, 0],
    [2, 1, 1, 1, 3],
    [1, 2, 1, 1, 2],
    [1, 4, 1, 2, 2],
    [3, 2, 1, 0, 1],
    [0, 2, 1, 0, 1],
    [1, 1, 1, 1, 1],
    [1, 0, 1, 2, 1],
    [0, 0, 2, 1, 0],
    [1, 1, 2, 0, 0],
]
_SHOR_WEIGHTS = [1, 5, 10, 2, 4, 3, 1.7, 2.5, 6, 3.5]
_SHOR_MINIMISER = [1.1243510101866154, 0.9794615993136556, 1.4777077519642634, 0.9202334858848578, 1.124291588004843]


def _maxquad():
    """max_k x'A_k x - b_k'x,  k = 1..5,  n = 10.   Lemaréchal (1978).

        A_k[i, j] = exp(min(i, j) / max(i, j)) cos(i j) sin k    for i != j
        A_k[i, i] = i / 10 |sin k| + sum_(j != i) |A_k[i, j]|    so that A_k is positive definite
        b_k[i]    = exp(i / k) sin(i k)

    Returns:
        The function of x.
    """
    k = np.arange(1, 6)[:, np.newaxis]
    i = np.arange(1, 11)
    smaller, larger = np.minimum.outer(i, i), np.maximum.outer(i, i)
    off_diagonal = np.exp(smaller / larger) * np.cos(smaller * larger) * (1 - np.eye(10))
    A = off_diagonal * np.sin(k)[:, :, np.newaxis]  # [5, 10, 10]
    diagonal = i / 10 * np.abs(np.sin(k)) + np.abs(A).sum(axis=2)  # [5, 10]
    A += diagonal[:, :, np.newaxis] * np.eye(10)
    b = np.exp(i / k) * np.sin(i * k)  # [5, 10]

    def fun(x):
        Ax = tf.linalg.matvec(tf.constant(A, x.dtype), x)  # [5, 10]
        return tf.reduce_max(tf.linalg.matvec(Ax - tf.constant(b, x.dtype), x))

    return fun


_MAXQUAD_MINIMISER = [
    *(-0.12625658077472543, -0.03437830256204084, -0.0068571983269815, 0.0263606582463379, 0.06729492268974151),
    *(-0.2783995007519937, 0.07421866454469363, 0.1385240478372969, 0.08403122312533239, 0.03858030977273084),
]


def _goffin(x):
    """50 max_i x_i - sum_i x_i,  n = 50. Zero wherever all x_i are equal."""
    return 50 * tf.reduce_max(x) - tf.reduce_sum(x)


def _hilbert_times(x):
    """y_i = sum_j x_j / (i + j - 1),  n = 50."""
    i = np.arange(1, 51)
    return tf.linalg.matvec(tf.constant(1 / (i[:, np.newaxis] + i - 1), x.dtype), x)


def _l1hilb(x):
    """sum_i |sum_j x_j / (i + j - 1)|."""
    return tf.reduce_sum(tf.abs(_hilbert_times(x)))


def _mxhilb(x):
    """max_i |sum_j x_j / (i + j - 1)|.   Kiwiel (1990)."""
    return tf.reduce_max(tf.abs(_hilbert_times(x)))


def _maxq(x):
    """max_i x_i^2.   Schramm (1989)."""
    return tf.reduce_max(tf.square(x))


def _maxl(x):
    """max_i |x_i|."""
    return tf.reduce_max(tf.abs(x))


def _positive_part(pieces):
    """max(0, pieces)."""
    return tf.reduce_max([tf.zeros_like(pieces[0]), *pieces])


def _lv(number, name, fun, x0, minimum, minimiser, convex=True):
    source = f"Lukšan and Vlček (2000), nonsmooth unconstrained problem {number}"
    return Problem(name, fun, x0, minimum, smooth=False, convex=convex, minimiser=minimiser, source=source)


_UP_AND_DOWN = np.concatenate([np.arange(1, 11), -np.arange(11, 21)])

NONSMOOTH = [
    _lv(2, "crescent", _crescent, [-1.5, 2], 0.0, [0, 0], convex=False),
    _lv(3, "cb2", _cb2, [1, -0.1], 1.952224493870659, [1.1390376519926626, 0.8995599383953928]),
    _lv(4, "cb3", _cb3, [2, 2], 2.0, [1, 1]),
    _lv(5, "dem", _dem, [1, 1], -3.0, [0, -3]),
    _lv(6, "ql", _ql, [-1, 5], 7.2, [1.2, 2.4]),
    _lv(7, "lq", _lq, [-0.5, -0.5], -np.sqrt(2), [np.sqrt(0.5), np.sqrt(0.5)]),
    _lv(8, "mifflin1", _mifflin1, [0.8, 0.6], -1.0, [1, 0]),
    _lv(9, "mifflin2", _mifflin2, [-1, -1], -1.0, [1, 0]),
    _lv(10, "wolfe", _wolfe, [3, 2], -8.0, [-1, 0]),
    _lv(11, "rosen_suzuki", _rosen_suzuki, np.zeros(4), -44.0, [0, 1, 2, -1]),
    _lv(12, "shor", _shor, [0, 0, 0, 0, 1], 22.6001620957709, _SHOR_MINIMISER),
    _lv(16, "maxquad", _maxquad(), np.ones(10), -0.8414083345964148, _MAXQUAD_MINIMISER),
    _lv(19, "maxq", _maxq, _UP_AND_DOWN, 0.0, np.zeros(20)),
    _lv(20, "maxl", _maxl, _UP_AND_DOWN, 0.0, np.zeros(20)),
    _lv(22, "goffin", _goffin, np.arange(1, 51) - 25.5, 0.0, np.zeros(50)),
    _lv(23, "mxhilb", _mxhilb, np.ones(50), 0.0, np.zeros(50)),
    _lv(24, "l1hilb", _l1hilb, np.ones(50), 0.0, np.zeros(50)),
]
