"""The covariance of CMA-ES in two forms: a matrix C [n, n] with its symmetric root, or a diagonal [n].

    speed(n)               what the learning rates of C are multiplied with
    identity(x)            the first C
    first_root(x)          its root
    limit(dtype)           how many times the smallest eigenvalue of C the largest may be
    axes(C)                (`Axes` of (C + shift I) / unit^2, shift, unit)
    stretched(root, z)     C^(1/2) z_k for every row z_k
    deviations(root)       [n] of the distribution, along the coordinates
    changed(C, shift, decay, rows, c)      decay (C + shift I) + sum_k c_k row_k row_k', or its diagonal

What they are for is said in `algorithms/cmaes.py`.
"""

import typing

import tensorflow as tf

from trainloop import linalg
from trainloop.shared_matrix import SharedMatrix


class Axes(typing.NamedTuple):
    """The axes of the distribution, as part of the state."""

    root: tf.Tensor  # C^(1/2), [n, n] or its diagonal [n]
    shortest: tf.Tensor  # [n], the shortest axis with its length
    axis_ratio: tf.Tensor  # [], longest over shortest


class Full:
    """C is a `SharedMatrix`, its root [n, n]."""

    @staticmethod
    def speed(n):
        return 1.0

    @staticmethod
    def identity(x):
        return SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage="dense:0", updates="symmetric")

    @staticmethod
    def first_root(x):
        return tf.eye(x.shape[0], dtype=x.dtype)

    @staticmethod
    def limit(dtype):
        """1e14 in float64; an eigenvalue that is smaller by more than that has no digits. The same in float32."""
        return 0.022 / linalg.eps(dtype)

    @staticmethod
    def axes(C):
        squares, B = tf.linalg.eigh(linalg.symmetric(C.to_dense()))
        shift, unit = _bounds(squares[0], squares[-1], Full.limit(C.dtype))
        D = tf.sqrt(squares + shift) / unit
        root = linalg.symmetric(tf.linalg.matmul(B * D, B, transpose_b=True))
        return Axes(root, D[0] * B[:, 0], D[-1] / D[0]), shift, unit

    @staticmethod
    def stretched(root, z):
        return tf.linalg.matmul(z, root)

    @staticmethod
    def deviations(root):
        return tf.sqrt(tf.reduce_sum(tf.square(root), 1))

    @staticmethod
    def changed(C, shift, decay, rows, c):
        C = C.shift(shift).scale(decay)
        for row, c_k in zip(tf.unstack(rows), tf.unstack(c), strict=True):
            C = C.add_symmetric(row, c_k)
        return C


class Separable:
    """C and its root are diagonals [n]."""

    @staticmethod
    def speed(n):
        return (n + 2) / 3

    @staticmethod
    def identity(x):
        return tf.ones_like(x)

    @staticmethod
    def first_root(x):
        return tf.ones_like(x)

    @staticmethod
    def limit(dtype):
        """1e14 in every dtype: a single variance keeps its digits."""
        return 1e14

    @staticmethod
    def axes(C):
        shift, unit = _bounds(tf.reduce_min(C), tf.reduce_max(C), Separable.limit(C.dtype))
        D = tf.sqrt(C + shift) / unit
        shortest = tf.one_hot(tf.argmin(D), C.shape[0], dtype=C.dtype) * D
        return Axes(D, shortest, tf.reduce_max(D) / tf.reduce_min(D)), shift, unit

    @staticmethod
    def stretched(root, z):
        return z * root

    @staticmethod
    def deviations(root):
        return root

    @staticmethod
    def changed(C, shift, decay, rows, c):
        return decay * (C + shift) + tf.linalg.matvec(tf.square(rows), c, transpose_a=True)


def _bounds(smallest, largest, limit):
    """(shift, unit) that bring eigenvalues between these two into the limit and the range."""
    shift = tf.maximum(largest / limit - smallest, 0)
    inside = (largest >= 1e-6) & (largest <= 1e6)
    return shift, tf.where(inside, tf.ones_like(largest), tf.sqrt(largest))
