"""Linear systems with a symmetric matrix, definite or not: MINRES.

    x_k minimises |b - A x| over the span of b, A b, ..., A^(k-1) b

Paige and Saunders (1975), Solution of sparse indefinite systems of linear equations, section 6: Lanczos's method
reduces A to a tridiagonal T, whose QR factorisation by one rotation in each step gives x_k and the norm of its residual
without keeping the vectors. For positive definite A conjugate gradients do the same work, but their residuals may
grow on the way; these never do, so that a system which is solved in part is solved as well as it can be (Fong and
Saunders 2012, CG versus MINRES: an empirical comparison).
"""

import warnings
from typing import NamedTuple

import numpy as np

from trainloop import checks
from trainloop.curvatures.watch import watched

# The residual that is computed at the end may be this much larger than the one of the recurrence.
_SLACK = 10


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


def solution_of(operator, b, damping, tolerance, steps):
    """x [n] with (A + damping I) x = b [n]; see `SymmetricOperator.solve`."""
    damping, n = checks.real("damping", damping, at_least=0), len(b)
    tolerance = checks.real("tolerance", tolerance, above=0, below=1)
    most = min(max(n, 100), 1_000) if steps is None else checks.integer("steps", steps, at_least=1)

    def shifted(v):
        return operator @ v + b.dtype.type(damping) * v

    with watched("solve, products") as advance:
        x, taken, _ = minres(shifted, b, tolerance, most, advance)
    left = np.linalg.norm(b - shifted(x)) / max(np.linalg.norm(b), np.finfo(b.dtype).tiny)
    if not left <= _SLACK * tolerance:
        warnings.warn(
            f"solve has not converged: after {taken} steps |b - (A + damping I) x| is {left:.1e} |b|, wanted "
            f"{tolerance:.1e}; give more steps, or more damping than {damping:g}",
            stacklevel=3,
        )
    return x


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
