"""The parts of CMA-ES: its strategy parameters (`Strategy`), and its covariance in two forms (`Full`, `Separable`).

Numbers of equations and sections are those of Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772v2),
where the parameters are table 1. A covariance is a matrix C [n, n] with its symmetric root, or a diagonal [n]:

    speed(n)               what the learning rates of C are multiplied with
    identity(x)            the first C
    first_root(x)          its root
    limit(dtype)           how many times the smallest eigenvalue of C the largest may be
    axes(C)                (`Axes` of (C + shift I) / unit^2, shift, unit)
    stretched(root, z)     C^(1/2) z_k for every row z_k
    deviations(root)       [n] of the distribution, along the coordinates
    changed(C, shift, decay, rows, c)      decay (C + shift I) + sum_k c_k row_k row_k', or its diagonal

`cmaes.py` explains the symbols.
"""

import dataclasses
import math
import typing

import numpy as np
import tensorflow as tf

from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.vectors import linalg


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


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Parameters that depend on n and lambda only. `default` makes them."""

    n: int
    weights: np.ndarray  # w, [lambda]; they fall, and the last ones are negative
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float

    @classmethod
    def default(cls, n, population, speed):
        """Equations (48) to (58).

        Args:
            population: lambda, or None.
            speed: what the learning rates of C are multiplied with.
        """
        population = population or 4 + math.floor(3 * math.log(n))
        raw = math.log((population + 1) / 2) - np.log(np.arange(1, population + 1))
        positive, negative = np.maximum(raw, 0), np.minimum(raw, 0)
        mu_eff, mu_eff_negative = (np.sum(w) ** 2 / np.sum(w**2) for w in (positive, negative))
        c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
        c_1 = speed * 2 / ((n + 1.3) ** 2 + mu_eff)
        c_mu = min(1 - c_1, speed * 2 * (1 / 4 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))
        # The last of these keeps C positive definite.
        mass = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_negative / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))
        return cls(
            n=n,
            weights=positive / np.sum(positive) - mass * negative / np.sum(negative),
            mu_eff=mu_eff,
            c_sigma=c_sigma,
            d_sigma=1 + 2 * max(0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma,
            c_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),
            c_1=c_1,
            c_mu=c_mu,
        )

    @property
    def mean_length(self):
        """E|N(0, I)| = sqrt(2) Gamma((n + 1) / 2) / Gamma(n / 2)."""
        return math.sqrt(2) * math.exp(math.lgamma((self.n + 1) / 2) - math.lgamma(self.n / 2))

    @property
    def most_repeats(self):
        """Generations after one with the same best f until f counts as flat."""
        return 9 + math.ceil(30 * self.n / len(self.weights))

    @property
    def period(self):
        """Generations in which C may change by a tenth, after which its axes are worth computing anew; section B.2."""
        return max(1, math.floor(1 / (10 * self.n * (self.c_1 + self.c_mu))))

    def recombined(self, ranked):
        """Equation (41) for rows [lambda, n], the best first."""
        return tf.linalg.matvec(ranked, tf.constant(np.maximum(self.weights, 0), ranked.dtype), transpose_a=True)

    def path(self, path, c, step):
        """Equations (43) and (45)."""
        return (1 - c) * path + math.sqrt(c * (2 - c) * self.mu_eff) * step

    def step_size(self, p_sigma, generation):
        """(factor of sigma in equation (44), h)."""
        length = linalg.norm(p_sigma) / self.mean_length
        age = tf.cast(generation + 1, p_sigma.dtype)
        settled = tf.sqrt(1 - tf.pow(tf.constant(1 - self.c_sigma, age.dtype), 2 * age))
        h = tf.cast(length < (1.4 + 2 / (self.n + 1)) * settled, p_sigma.dtype)
        return tf.exp(self.c_sigma / self.d_sigma * (length - 1)), h

    def covariance_update(self, z, h):
        """Equations (46) and (47): (factor of C, coefficients [1 + lambda] of the squares of p_c and of all y)."""
        squares = tf.reduce_sum(tf.square(z), 1)
        weights = tf.constant(self.weights, z.dtype)
        active = weights * self.n / tf.where(squares > 0, squares, 1)
        coefficients = self.c_mu * tf.where(weights < 0, active, weights)
        loss = self.c_1 * (1 - (1 - h) * self.c_c * (2 - self.c_c)) + self.c_mu * float(np.sum(self.weights))
        learned = tf.cast(squares[0] > 0, z.dtype)  # not so where no point had a finite f
        return 1 - learned * loss, learned * tf.concat([tf.constant([self.c_1], z.dtype), coefficients], 0)
