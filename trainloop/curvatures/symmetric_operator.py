"""A symmetric matrix that is known by its products alone, and what can be learned of it from them.

    top         the largest eigenvalues and their eigenvectors      see `eigenpairs`
    spectrum    the density of all eigenvalues                      see `spectrum`
    trace, diagonal                                                 see `estimates`
    solve       (A + damping I) x = b                               see `minres`

It knows nothing of models. Everything here is NumPy; only products may be anything else inside.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.curvatures.eigenpairs import largest_of
from trainloop.curvatures.estimates import Estimate, diagonal_of, trace_of
from trainloop.curvatures.minres import solution_of
from trainloop.curvatures.spectrum import Spectrum, spectrum_of
from trainloop.errors import needed_for

# A dense matrix of more rows than this is no small one: 5,000 of them take 200 MB in float64, and 5,000 products.
_MOST_DENSE = 5_000


class SymmetricOperator:
    """A symmetric matrix A [n, n] behind its products.

    Args:
        matmat: function V [n, k] -> A V [n, k], of NumPy arrays.
        n: number of rows and columns.
        dtype: of the products, float32 or float64.

    Attributes:
        shape: (n, n).
        dtype: a NumPy dtype.

    Raises:
        ValueError: n is no positive integer, or another dtype.

    Examples:
        >>> A = SymmetricOperator(lambda V: np.arange(1.0, 101.0)[:, None] * V, 100)
        >>> A.top(2)[0].round(6)
        array([100.,  99.])
        >>> A.trace(products=100).value
        5050.0
    """

    def __init__(self, matmat: Callable[[np.ndarray], np.ndarray], n: int, dtype: Any = "float64") -> None:
        n = checks.integer("n", n, at_least=1)
        self.shape, self.dtype, self._matmat = (n, n), np.dtype(dtype), matmat
        if self.dtype not in (np.dtype("float32"), np.dtype("float64")):
            raise ValueError(f"dtype must be float32 or float64, received {self.dtype}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]:,} x {self.shape[0]:,}, {self.dtype})"

    def __matmul__(self, V: Any) -> Any:
        """A v [n] or A V [n, k], a tensor where `V` is one, else a NumPy array.

        All columns of V are taken together: that is faster than one after the other.

        Raises:
            ValueError: V has another number of rows, or this is called inside of a compiled function.
        """
        if not tf.executing_eagerly():
            raise ValueError(
                "products over a data set run outside of compiled functions; take C @ V outside of tf.function, or "
                "ModelObjective.hvp for one batch inside"
            )
        given = np.asarray(V, self.dtype)
        if given.ndim not in (1, 2) or given.shape[0] != self.shape[0]:
            raise ValueError(f"the operator takes [{self.shape[0]}] or [{self.shape[0]}, k], received {given.shape}")
        result = self.product(given if given.ndim == 2 else given[:, None])
        result = result if given.ndim == 2 else result[:, 0]
        return tf.constant(result) if tf.is_tensor(V) else result

    def product(self, V: np.ndarray) -> np.ndarray:
        """A V [n, k] of an array V [n, k] of the operator's dtype; what every other method takes products by."""
        return np.asarray(self._matmat(V), self.dtype)

    def to_scipy(self, advance: Callable[[], Any] = lambda: None) -> Any:
        """The same as a `scipy.sparse.linalg.LinearOperator`.

        Args:
            advance: called after every product.

        Raises:
            ImportError: SciPy is not installed.
        """
        with needed_for("a LinearOperator", "data"):
            from scipy.sparse.linalg import LinearOperator

        def product(V):
            result = self @ V
            advance()
            return result

        return LinearOperator(self.shape, product, product, product, dtype=self.dtype, rmatmat=product)

    def to_dense(self) -> np.ndarray:
        """A itself [n, n], symmetric to the last bit, from n products.

        Raises:
            ValueError: n is above 5,000.
        """
        n = self.shape[0]
        if n > _MOST_DENSE:
            raise ValueError(
                f"a dense matrix is for n up to {_MOST_DENSE:,}, received n = {n:,}; use products (C @ v), top, "
                "spectrum, trace or diagonal"
            )
        A = self.product(np.eye(n, dtype=self.dtype))
        return (A + A.T) / 2

    def top(self, k: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The k largest eigenvalues, in descending order, and their eigenvectors: by ARPACK.

        Largest means farthest to the right, so that negative ones are not among them. The smallest one is near the
        smallest node of `spectrum()`.

        Args:
            k: how many.
            seed: of the vector it starts from.

        Returns:
            (eigenvalues [k], eigenvectors [n, k] of norm 1).

        Raises:
            ValueError: k outside of 1..n.
            ImportError: SciPy is not installed.
            RuntimeError: ARPACK has not found all of them.
        """
        return largest_of(self, k, seed)

    def spectrum(self, probes: int = 5, steps: int = 80, width: float | None = None, seed: int = 0) -> Spectrum:
        """The density of all eigenvalues, by stochastic Lanczos quadrature (Lin, Saad and Yang 2016).

        Args:
            probes: random vectors. More of them make it more exact.
            steps: of Lanczos's method from each; the more, the finer the resolution. Each is a product.
            width: standard deviation of the normal distribution that each node becomes; None for 1/200 of the distance
                of the outermost nodes.
            seed: of the vectors.

        Raises:
            ValueError: a width below 1/4,000 of that distance, or another argument outside of its range.
        """
        return spectrum_of(self, probes, steps, width, seed)

    def trace(self, products: int = 60, seed: int = 0) -> Estimate:
        """The sum of the eigenvalues, by Hutch++ (Meyer et al. 2021).

        Args:
            products: with a vector, at least 12. A third of them finds where the largest eigenvalues are. From n on the
                trace is exact.
            seed: of the random vectors.
        """
        return trace_of(self, products, seed)

    def diagonal(self, products: int = 60, seed: int = 0) -> Estimate:
        """The diagonal [n], by Hutch++'s decomposition (Baston and Nakatsukasa 2022).

        Args:
            products, seed: see `trace`.
        """
        return diagonal_of(self, products, seed)

    def solve(self, b: Any, damping: float = 0.0, tolerance: float = 1e-6, steps: int | None = None) -> Any:
        """x [n] with (A + damping I) x = b, by MINRES (Paige and Saunders 1975), for definite and indefinite A.

        Where the tolerance is not reached, a warning has the residual, and x is the best that was found.

        Args:
            b: [n], a tensor or an array; x is the same.
            damping: added to each eigenvalue, at least 0.
            tolerance: of |b - (A + damping I) x| / |b|.
            steps: at most so many products; None for n, but no less than 100 and no more than 1,000.

        Raises:
            ValueError: an argument outside of its range, or b of another shape.
        """
        right = np.asarray(b, self.dtype)
        if right.shape != self.shape[:1]:
            raise ValueError(f"b must have shape [{self.shape[0]}], received {list(right.shape)}")
        x = solution_of(self, right, damping, tolerance, steps)
        return tf.constant(x) if tf.is_tensor(b) else x
