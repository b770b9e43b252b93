"""The largest eigenvalues of a symmetric matrix and their eigenvectors.

ARPACK, as SciPy has it, is Lanczos's method with implicit restarts (Lehoucq, Sorensen and Yang 1998, ARPACK users'
guide). It takes one product at a time and some 2 k vectors of memory. A small matrix is computed as a whole.
"""

import numpy as np

from trainloop import checks
from trainloop.curvatures.probes import signs
from trainloop.curvatures.watch import watched
from trainloop.errors import needed_for

# ARPACK keeps at least so many vectors, so a matrix that is no larger is one pass for it.
_SMALL = 20


def largest_of(operator, k, seed):
    """(eigenvalues [k] in descending order, eigenvectors [n, k]); see `SymmetricOperator.top`.

    Raises:
        ValueError: k outside of 1..n.
        RuntimeError: ARPACK has not found them all.
    """
    k, n = checks.integer("k", k, at_least=1), operator.shape[0]
    if k > n:
        raise ValueError(f"k must be at most n = {n:,}, received {k}")
    if n <= max(_SMALL, 2 * k + 1):
        values, vectors = np.linalg.eigh(operator.to_dense())
    else:
        values, vectors = _arpack(operator, k, seed)
    order = np.argsort(values)[::-1][:k]
    return values[order], vectors[:, order]


def _arpack(operator, k, seed):
    with needed_for("eigenvectors of large matrices", "data"):
        from scipy.sparse.linalg import ArpackNoConvergence, eigsh
    start = signs(operator.shape[0], 1, operator.dtype, seed)[:, 0]
    with watched(f"{k} eigenvalues, products") as advance:
        try:
            # Products have the rounding of long sums, which the last digits would wait for in vain.
            tolerance = float(np.finfo(operator.dtype).eps) ** (2 / 3)
            return eigsh(operator.to_scipy(advance), k, which="LA", v0=start, tol=tolerance)
        except ArpackNoConvergence as error:
            raise RuntimeError(
                f"ARPACK found {len(error.eigenvalues)} of {k} eigenvalues; ask for fewer, or compute in float64"
            ) from error
