"""Trace and diagonal of a symmetric matrix A from few products, with their standard errors.

    Q = an orthonormal basis of A S, S random [n, r]        where most of A lies
    P = Q Q'
    A = (P A + A P - P A P) + R,  R = (I - P) A (I - P)     the first part is known exactly, R is small
    trace(A)    = trace(Q' A Q)             + E z' R z
    diagonal(A) = diagonal(P A + A P - P A P)  + E z * R z      z with entries +1 or -1, * entry by entry

So r products make S and Q count, r give A Q, and the others are probes z of what is left. They are independent of S,
so that the mean over z has no bias, and its standard error follows from how much single probes differ.

Meyer, Musco, Musco and Woodruff (2021), Hutch++: optimal stochastic trace estimation; for the diagonal Bekas,
Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix, and Baston and Nakatsukasa (2022), Stochastic
diagonal estimation. For the diagonal they project from one side; here it is both, as for the trace.
"""

from typing import NamedTuple

import numpy as np

from trainloop import checks
from trainloop.curvatures.probes import signs
from trainloop.curvatures.watch import watched


class Estimate(NamedTuple):
    """A number or a vector that was estimated from random probes.

    Attributes:
        value: the estimate, a float or an array [n].
        standard_error: of `value`, likewise: the error is below twice as much in some 95 of 100 seeds. 0 where the
            value is exact.
        products: how many products of the matrix with a vector it took.

    Examples:
        >>> trace = curvature(model, loss, data=(x, y), kind="ggn").trace(products=30)
        >>> trace.standard_error < 0.1 * trace.value
        True
    """

    value: float | np.ndarray
    standard_error: float | np.ndarray
    products: int


def trace_of(operator, products, seed):
    """The trace as an `Estimate`; see `SymmetricOperator.trace`."""

    def known(Q, AQ):
        return np.sum(Q * AQ)

    value, error, products = _estimate(operator, products, seed, known, lambda z, Rz: np.sum(z * Rz, 0), "trace")
    return Estimate(float(value), float(error), products)


def diagonal_of(operator, products, seed):
    """The diagonal as an `Estimate`; see `SymmetricOperator.diagonal`."""

    def known(Q, AQ):
        return 2 * np.sum(Q * AQ, 1) - np.sum((Q @ (Q.T @ AQ)) * Q, 1)

    return Estimate(*_estimate(operator, products, seed, known, lambda z, Rz: z * Rz, "diagonal"))


def _estimate(operator, products, seed, known, sample, title):
    """(value, standard error, products) of known(Q, A Q) + E sample(z, R z).

    Args:
        operator: a `SymmetricOperator`.
        products: how many there may be, at least 12; with n or more the value is exact.
        seed: of S and z.
        known: function of Q and A Q, [n, r] each.
        sample: function of z and R z, [n, k] each -> [..., k].
        title: what the bar says.
    """
    products, n = checks.integer("products", products, at_least=12), operator.shape[0]
    if products >= n:
        Q = np.eye(n, dtype=operator.dtype)
        value = known(Q, operator.product(Q))
        return value, np.zeros_like(value), n
    rank = products // 3
    vectors = signs(n, products - rank, operator.dtype, seed)
    with watched(title, 3) as advance:
        Q = np.linalg.qr(operator.product(vectors[:, :rank]))[0]
        advance()
        AQ = operator.product(Q)
        advance()
        z = vectors[:, rank:]
        samples = sample(z, _without(Q, operator.product(_without(Q, z))))
    count = samples.shape[-1]
    # A few probes say little of their own spread: their mean follows Student's t, which is wider than a normal one.
    student = np.sqrt((count - 1) / (count - 3))
    error = student * np.std(samples, axis=-1, ddof=1) / np.sqrt(count)
    return known(Q, AQ) + np.mean(samples, -1), error, products


def _without(Q, V):
    """(I - Q Q') V."""
    return V - Q @ (Q.T @ V)
