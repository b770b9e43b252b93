"""Damped least-squares systems: (A + M) h = -b - A v with A = J'J [n, n], b = J'r, M diagonal and positive.

    cholesky    E (A + M) E with unit diagonal is factorised, E diagonal            A [n, n]
    qr          [R; M^(1/2)] E = Q T, T y = -Q'[q; 0], h = E y; J = Q' R, q = Q'r   R [n+1, n+1], without squaring J
    sample      h = -M^-1 J' (I + J M^-1 J')^-1 r               J [m, n] or products with it, for m < n: the same h
    cg          conjugate gradients, preconditioned by the diagonal of A + M        products with A

v [n] is zero, or a step to begin with, of which the residuals are r + J v. All of them are built once at a point and
solved for as many M as are tried there. With h exact and v zero, the model of f = r'r falls by h'(M h - b). Sources:
Nocedal and Wright (2006), section 10.3; Golub and Van Loan (2013), section 6.1.

`acceleration` is the second-order term of a step, from a system with the same matrix.
"""

import abc
import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from trainloop import checks
from trainloop.linesearch.trust_region import steihaug
from trainloop.objectives.base import Objective
from trainloop.vectors import linalg

SOLVERS = ("auto", "qr", "cholesky", "sample", "cg")

# `auto` takes the QR factorisation up to so many parameters, where it costs nothing; a matrix of A or of J J' up to so
# many rows of it, and of A up to fewer where it has to be made of n products.
_LARGEST_QR = 32
_LARGEST_MATRIX = 4000
_LARGEST_BY_PRODUCTS = 1000

# The t of second differences along a step: what Transtrum and Sethna found to matter little.
_SECOND_DIFFERENCE = 0.1


def checked_solver(solver):
    """The name as given.

    Raises:
        ValueError: none of `SOLVERS`.
    """
    return checks.choice("solver", solver, SOLVERS)


class Trial(NamedTuple):
    """A trial step of a damped method, and what became of it.

    Attributes:
        x, f, g: [n], [], [n] of the trial where it was taken, else those before.
        mu, nu: [] damping of the next trial, and the factor by which it grows where that is rejected.
        rho: [] actual over predicted decrease of f.
        taken, stalled, resolved, unbounded: bool []: it lowered f; it did not move x; it promised less than f can be
            resolved, and not because it was damped; f is -inf there, so that it is not taken.
    """

    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    mu: tf.Tensor
    nu: tf.Tensor
    rho: tf.Tensor
    taken: tf.Tensor
    stalled: tf.Tensor
    resolved: tf.Tensor
    unbounded: tf.Tensor


class Solver(NamedTuple):
    """What solves the systems of one M.

    Attributes:
        step: function (v [n], or None for zero) -> h [n].
        of_residuals: function u [m] -> -(A + M)^-1 J'u [n], which is h, were the residuals u; with "qr" from a squared
            system. None where there are no residuals, or products alone solve the systems.
    """

    step: Callable
    of_residuals: Callable | None = None


class System(abc.ABC):
    """The system at one point.

    Attributes:
        diagonal: of A [n]; None where it is not known.
        least: damping relative to `diagonal` below which rounding errors of this way of solving dominate.
        accelerates: whether its solvers have `of_residuals`.
    """

    diagonal = None
    least = 0.0
    accelerates = True

    def __init__(self, b):
        self._b = b

    @abc.abstractmethod
    def damped(self, damping):
        """A `Solver`.

        Args:
            damping: the diagonal of M [n], positive.
        """

    def solve(self, damping, v=None):
        """h [n] for a diagonal of M [n] and v [n], None for zero."""
        return self.damped(damping).step(v)

    def promised(self, h, damping):
        """How much the model of f falls at h [n], an exact solution: []."""
        return tf.tensordot(h, damping * h - self._b, 1)


class Cholesky(System):
    def __init__(self, A, b, vjp=None):
        super().__init__(b)
        self._vjp, self.accelerates = vjp, vjp is not None
        # A matrix with NaN would end the process of solving in an exception; the step it gives is not taken anyway.
        n = b.shape[0]
        finite = tf.reduce_all(tf.math.is_finite(A))
        self._A = tf.where(finite, tf.ensure_shape(A, [n, n]), tf.eye(n, dtype=A.dtype))
        self.diagonal = tf.linalg.diag_part(self._A)
        self.least = n * linalg.eps(b.dtype)

    def damped(self, damping):
        diagonal = self.diagonal + damping
        scale = tf.math.rsqrt(diagonal)
        scaled = tf.linalg.set_diag(self._A * scale * scale[:, None], tf.ones_like(diagonal))
        factor = tf.linalg.cholesky(scaled)

        def solved(b):
            return -scale * tf.linalg.cholesky_solve(factor, (scale * b)[:, None])[:, 0]

        def step(v=None):
            return solved(self._b if v is None else self._b + tf.linalg.matvec(self._A, v))

        return Solver(step, None if self._vjp is None else lambda u: solved(self._vjp(u)))


class Triangular(System):
    def __init__(self, R, b, vjp):
        super().__init__(b)
        self._vjp = vjp
        n = b.shape[0]
        R = tf.where(tf.reduce_all(tf.math.is_finite(R)), R, tf.eye(n + 1, dtype=R.dtype))
        self._R, self._q = R[:n, :n], R[:n, n]
        self.diagonal = tf.reduce_sum(tf.square(self._R), 0)
        self.least = linalg.eps(b.dtype) ** 2

    def damped(self, damping):
        n = self._b.shape[0]
        scale = tf.math.rsqrt(self.diagonal + damping)
        q, t = tf.linalg.qr(tf.concat([self._R * scale, tf.linalg.diag(tf.sqrt(damping) * scale)], 0))

        def solved(rotated):
            return -scale * tf.linalg.triangular_solve(t, rotated, lower=False)[:, 0]

        def step(v=None):
            r = self._q if v is None else self._q + tf.linalg.matvec(self._R, v)
            return solved(tf.linalg.matvec(q[:n], r, transpose_a=True)[:, None])

        def of_residuals(u):
            c = (scale * self._vjp(u))[:, None]
            return solved(tf.linalg.triangular_solve(t, c, lower=False, adjoint=True))

        return Solver(step, of_residuals)


class Sample(System):
    """Holds J; the matrix that is factorised is [m, m]."""

    def __init__(self, r, J, b):
        super().__init__(b)
        # What the trace of J does not know, it would spread: at n = 1 x + h broadcasts to whatever h has.
        self._r, self._J = r, tf.ensure_shape(J, [None, b.shape[0]])
        self.diagonal = tf.reduce_sum(tf.square(self._J), 0)
        self.least = linalg.eps(b.dtype) * (r.shape[0] or b.shape[0])

    def damped(self, damping):
        scaled = self._J * tf.math.rsqrt(damping)
        kernel = tf.matmul(scaled, scaled, transpose_b=True)
        finite = tf.reduce_all(tf.math.is_finite(kernel))
        kernel = tf.where(finite, kernel, tf.zeros_like(kernel)) + tf.eye(tf.shape(self._r)[0], dtype=kernel.dtype)
        factor = tf.linalg.cholesky(kernel)

        def solved(r):
            z = tf.linalg.cholesky_solve(factor, r[:, None])[:, 0]
            return -tf.linalg.matvec(scaled, z, transpose_a=True) * tf.math.rsqrt(damping)

        return Solver(lambda v=None: solved(self._r if v is None else self._r + tf.linalg.matvec(self._J, v)), solved)


class SampleByProducts(System):
    """The same where J is too large to be held: J M^-1 J' is computed in chunks for every M."""

    def __init__(self, objective, x, rows, b):
        super().__init__(b)
        self._objective, self._x, self._r = objective, x, rows.residuals()
        self.diagonal = rows.diagonal()
        self.least = linalg.eps(b.dtype) * (self._r.shape[0] or b.shape[0])

    def damped(self, damping):
        with self._objective.rows(self._x) as rows:
            kernel = rows.kernel(1 / damping)
        factor = tf.linalg.cholesky(kernel + tf.eye(tf.shape(self._r)[0], dtype=kernel.dtype))

        def solved(r):
            return -self._objective.vjp(self._x, tf.linalg.cholesky_solve(factor, r[:, None])[:, 0]) / damping

        def step(v=None):
            return solved(self._r if v is None else self._r + self._objective.jvp(self._x, v))

        return Solver(step, solved)


class Products(System):
    accelerates = False

    def __init__(self, product, diagonal, b, max_products):
        super().__init__(b)
        self._product, self.diagonal, self._max_products = product, diagonal, max_products
        self.least = linalg.eps(b.dtype)

    def damped(self, damping):
        scale = tf.math.rsqrt(damping if self.diagonal is None else self.diagonal + damping)

        def scaled(v):
            return scale * (self._product(scale * v) + damping * scale * v)

        def step(v=None):
            b = self._b if v is None else self._b + self._product(v)
            return scale * steihaug(scaled, scale * b, None, self._max_products, accuracy=0.1).p

        return Solver(step)


def system(objective: Objective, x: tf.Tensor, g: tf.Tensor, solver: str, max_products: int) -> System:
    """The system of an objective at x.

    With residuals f = r'r; elsewhere A is half of the Gauss-Newton matrix and b half of the gradient.

    Args:
        objective: with rows, or with Gauss-Newton products.
        x, g: [n].
        solver: one of `SOLVERS`.
        max_products: of "cg".

    Raises:
        ValueError: the solver needs residuals that the objective does not have.
    """
    n, b = x.shape[0], g / 2
    if not objective.has_residuals:
        if solver in ("qr", "sample"):
            raise ValueError(
                f"solver={solver!r} needs residuals (LeastSquares, residuals=..., or a mean squared error); use "
                "'cholesky' or 'cg'"
            )
        if solver == "cholesky" or (solver == "auto" and n <= _LARGEST_BY_PRODUCTS):
            return Cholesky(objective.ggn(x) / 2, b)
        return Products(lambda v: objective.ggnvp(x, v) / 2, None, b, max_products)

    def vjp(u):
        return objective.vjp(x, u)

    with objective.rows(x) as rows:
        solver = _chosen(rows, n) if solver == "auto" else solver
        if solver == "qr":
            return Triangular(rows.triangular(), b, vjp)
        if solver == "sample":
            if not rows.fits():
                return SampleByProducts(objective, x, rows, b)
            r, J = rows.residuals_and_jacobian()
            return Sample(r, J, b)
        if solver == "cholesky":
            return Cholesky(rows.gram(), b, vjp)
        diagonal = rows.diagonal()
    return Products(lambda v: objective.ggnvp(x, v) / 2, diagonal, b, max_products)


def acceleration(objective, x, r, h, solver):
    """a [n], by which a curved path x + t h + t^2 a / 2 follows the residuals further than the line x + t h does.

        a = -(A + M)^-1 J' r''        r'' = d^2/dt^2 r(x + t h) at t = 0

    r'' is the second difference with t = 0.1. Costs two evaluations of r and a product with J'. Where residuals are far
    from linear, f has long curved valleys, and steps along a line have to be short there. Transtrum and Sethna (2012),
    Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares minimization, section 4.

    Args:
        objective: with residuals.
        x, r: [n], and the residuals [m] there.
        h: [n], the step of `solver`.
        solver: of the system at x.
    """
    t = tf.constant(_SECOND_DIFFERENCE, x.dtype)
    there, back = (objective.residuals(x + s * h) for s in (t, -t))
    return solver.of_residuals((there - 2 * r + back) / tf.square(t))


def _chosen(rows, n):
    if n <= _LARGEST_QR:
        return "qr"
    m = rows.length()
    if (math.inf if m is None else m) < n and m <= _LARGEST_MATRIX:
        return "sample"
    return "cholesky" if n <= _LARGEST_MATRIX else "cg"
