"""Lanczos's method with full reorthogonalisation, for several starting vectors side by side.

    A Q = Q T + beta q e_m'         Q [n, m] orthonormal, T [m, m] tridiagonal, q_1 the starting vector

The eigenvalues of T are the nodes of a Gauss quadrature and the squared first entries of its eigenvectors the weights:

    q_1' f(A) q_1 = sum_j weight_j f(node_j)        exact for polynomials f of degree up to 2 m - 1

Golub and Meurant (2010), Matrices, Moments and Quadrature, chapter 6. In floating point the q_i lose their
orthogonality as soon as an eigenvalue is found, and copies of it appear. So each one is made orthogonal to all before
it, twice (Giraud et al. 2005).
"""

import numpy as np


def quadrature(product, starts, steps, advance=lambda: None):
    """Nodes and weights of the quadratures that belong to starting vectors.

    Args:
        product: function V [n, k] -> A V [n, k].
        starts: [n, k], columns of norm 1.
        steps: m, at most n.
        advance: called after every step.

    Returns:
        (nodes [k, m] in ascending order, weights [k, m], which sum to 1 for each vector). Where a Krylov space ends
        before m steps, the nodes that are left have the weight 0.
    """
    diagonals, beside = tridiagonal(product, starts, steps, advance)
    T = np.zeros([len(diagonals), steps, steps])
    i = np.arange(steps)
    T[:, i, i] = diagonals
    T[:, i[1:], i[:-1]] = T[:, i[:-1], i[1:]] = beside
    nodes, vectors = np.linalg.eigh(T)
    return nodes, vectors[:, 0] ** 2


def tridiagonal(product, starts, steps, advance=lambda: None):
    """The entries of T for each starting vector.

    Args:
        product, starts, steps, advance: see `quadrature`.

    Returns:
        (diagonals [k, m], entries beside them [k, m-1]), float64. After the end of a Krylov space they are 0.
    """
    n, k = starts.shape
    basis = np.zeros([k, steps, n], starts.dtype)
    diagonals, beside = np.zeros([k, steps]), np.zeros([k, steps - 1])
    q, largest = np.ascontiguousarray(starts.T), np.zeros(k)
    for j in range(steps):
        basis[:, j] = q
        p = np.ascontiguousarray(product(q.T).T)
        diagonals[:, j] = np.sum(q * p, 1)
        largest = np.maximum(largest, np.linalg.norm(p, axis=1))
        if j + 1 < steps:
            q, beside[:, j] = _next(basis[:, : j + 1], p, largest)
        advance()
    return diagonals, beside


def _next(basis, p, largest):
    """(the part of p [k, n] that is orthogonal to the bases [k, j, n], of norm 1, its norm [k]); 0 where none is left.

    Args:
        largest: norms [k] of the largest products so far: below their rounding nothing is left.
    """
    for _ in range(2):
        p = p - np.matmul(np.matmul(basis, p[:, :, None])[:, None, :, 0], basis)[:, 0]
    norms = np.linalg.norm(p, axis=1)
    left = norms > 10 * np.sqrt(p.shape[1]) * np.finfo(p.dtype).eps * largest
    return np.where(left, 1 / np.where(left, norms, 1), 0).astype(p.dtype)[:, None] * p, np.where(left, norms, 0)
