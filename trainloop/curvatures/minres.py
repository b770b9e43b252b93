"""Linear systems with a symmetric matrix, definite or not: MINRES.

    x_k minimises |b - A x| over the span of b, A b, ..., A^(k-1) b

Paige and Saunders (1975), Solution of sparse indefinite systems of linear equations, section 6: Lanczos's method
reduces A to a tridiagonal T, whose QR factorisation by one rotation in each step gives x_k and the norm of its residual
without keeping the vectors. For positive definite A conjugate gradients do the same work, but their residuals may
grow on the way; these never do, so that a system which is solved in part is solved as well as it can be (Fong and
Saunders 2012, CG versus MINRES: an empirical comparison).
"""

from typing import NamedTuple

import numpy as np


class Solved(NamedTuple):
    """x [n], the number of steps, and |b - A x| / |b| as the recurrence has it."""

    x: np.ndarray
    steps: int
    residual: float


def minres(product, b, tolerance, most, advance=lambda: None):
    """Solve A x = b.

    Args:
        product: function v [n] -> A v [n].
        b: [n].
        tolerance: ends where |b - A x| is at most this multiple of |b|.
        most: ends after so many steps.
        advance: called after every step.

    Returns:
        `Solved`.
    """
    x, size = np.zeros_like(b), float(np.linalg.norm(b))
    if size == 0:
        return Solved(x, 0, 0.0)
    v_before, v, beta = np.zeros_like(b), b / size, 0.0
    w_before, w = np.zeros_like(b), np.zeros_like(b)
    rotations, largest, negligible = _Rotations(size), 0.0, 10 * float(np.finfo(b.dtype).eps)
    for step in range(1, most + 1):
        p = product(v) - beta * v_before
        alpha = float(v @ p)
        p -= alpha * v
        beta_after = float(np.linalg.norm(p))
        above, beside, pivot, phi = rotations.add(alpha, beta, beta_after)
        advance()
        largest = max(largest, abs(alpha), beta_after)
        if pivot <= negligible * largest:  # A is singular, and b not in its range: no better x is left in this space
            return Solved(x, step, abs(rotations.residual) / size)
        w_before, w = w, (v - above * w_before - beside * w) / pivot
        x += phi * w
        if beta_after <= negligible * largest or abs(rotations.residual) <= tolerance * size:
            break
        v_before, v, beta = v, p / beta_after, beta_after
    return Solved(x, step, abs(rotations.residual) / size)


class _Rotations:
    """The QR factorisation of T, column by column, and the right-hand side |b| e_1 rotated with it.

    Args:
        size: |b|.
    """

    def __init__(self, size):
        self.residual = size
        self._before, self._last = (1.0, 0.0), (1.0, 0.0)  # (cosine, sine) of the two last rotations

    def add(self, alpha, beta, beta_after):
        """One column of T: beta above alpha on the diagonal above beta_after.

        Returns:
            Of R's new column the entries two above the diagonal, one above, and on it; the new entry of the rotated
            right-hand side.
        """
        (c0, s0), (c1, s1) = self._before, self._last
        above, lower = s0 * beta, c0 * beta
        beside, diagonal = c1 * lower + s1 * alpha, -s1 * lower + c1 * alpha
        pivot = float(np.hypot(diagonal, beta_after))
        cosine, sine = (diagonal / pivot, beta_after / pivot) if pivot else (0.0, 1.0)
        phi, self.residual = cosine * self.residual, -sine * self.residual
        self._before, self._last = self._last, (cosine, sine)
        return above, beside, pivot, phi
