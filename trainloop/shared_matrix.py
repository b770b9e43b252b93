"""One matrix B that couples all n parameters, as a value that algorithms compute with.

An algorithm writes what its source has, `B @ g` and `B.add_symmetric(d, c)`, and does not know how B is
stored:

    dense       n x n numbers
    factored    B = a I + sum_j c_j u_j v_j',  one row u_j (and v_j) per update made so far, O(n k) numbers;
                exact in exact arithmetic

Operations return a new value that only *describes* the change: the stored numbers of the old one, times a
factor, plus a few rank-one terms and a multiple of the identity. The new value can be multiplied at once.
Carrying the change out is `commit`, which the optimizer base calls when a step is accepted; a rejected step is one
whose value is dropped, and costs nothing.

Rounding: `factored` represents B as a multiple of the identity plus a sum, so directions that B has shrunk by
a factor c carry a relative error of about eps / c. That is as good as dense for the gentle factors (n - 1) /
(n + 1) of the ellipsoid method on many parameters.
"""

import pathlib

import tensorflow as tf

from trainloop import checks
from trainloop.matrix_storage import Dense, Factored
from trainloop.storage_choice import StorageChoice
from trainloop.stored import StoredValue

# Which changes B will see. Knowing it saves memory, and digits.
UPDATES = ("any", "symmetric", "dilations")

# `auto` is dense up to this many bytes: a step over the full matrix then takes milliseconds.
_AUTO_DENSE_BYTES = 64 * 2**20


class SharedMatrix(StoredValue):
    """A square matrix B over all parameters. `SharedMatrix.identity` builds one; operations return new ones.

    Values are immutable. They hold their stored numbers by reference: those that an optimizer passes to
    `update` are valid until that step is committed.

    Example:
        >>> B = SharedMatrix.identity(3, dtype="float64")
        >>> B = B.add_symmetric(tf.constant([1.0, 2.0, 0.0], tf.float64), -0.1).scale(2.0)
        >>> (B @ tf.constant([1.0, 0.0, 0.0], tf.float64)).numpy()
        array([ 1.8, -0.4,  0. ])
    """

    def __init__(self, stored, factor=None, terms=(), shift=None):
        self._stored = stored
        self._factor = factor  # [] or None for 1
        self._shift = shift  # [] or None for 0
        self._terms = tuple(terms)  # of (u [n], v [n], c []); v is u for a symmetric term

    @classmethod
    def identity(cls, n, *, dtype="float32", storage="auto", updates="any"):
        """The n x n identity.

        Args:
            n: number of parameters.
            dtype: a floating dtype.
            storage: "dense", "factored", or "auto": dense while the matrix takes at most 64 MiB, else
                factored. See `storage_choice` for capacities.
            updates: which operations will change B. "symmetric": only `add_symmetric`, `scale` and `shift`, so that
                B' = B. "dilations": only `dilate` and `scale`. "any": all of them.

        Raises:
            ValueError: n < 1, an unknown storage, or a dense matrix that does not fit into the free memory.
        """
        n = checks.integer("n", n, at_least=1)
        dtype = tf.as_dtype(dtype)
        storage = StorageChoice.parse(storage).kind
        symmetric = checks.choice("updates", updates, UPDATES) == "symmetric"
        nbytes = n * n * dtype.size
        if storage == "auto":
            storage = "dense" if nbytes <= _AUTO_DENSE_BYTES else "factored"
        if storage == "factored":
            return cls(Factored.identity(n, dtype, symmetric))
        _refuse_what_does_not_fit(n, nbytes)
        return cls(Dense.identity(n, dtype, symmetric))

    @property
    def n(self):
        """Number of rows and of columns."""
        return self._stored.n

    @property
    def dtype(self):
        """The dtype of the entries."""
        return self._stored.dtype

    @property
    def storage(self):
        """How B is stored: "dense" or "factored"."""
        return self._stored.storage

    @property
    def nbytes(self):
        """Bytes of the stored numbers, without pending terms; inside a compiled function a tensor."""
        return self._stored.nbytes

    @property
    def T(self):
        """The transposed matrix, for products: `B.T @ g`."""
        return _Transposed(self)

    def __matmul__(self, x):
        """B x for x of shape [n] or [n, k]."""
        return self._product(x, self._stored.product, [(u, v, c) for u, v, c in self._terms])

    def _transposed_product(self, x):
        return self._product(x, self._stored.transposed_product, [(v, u, c) for u, v, c in self._terms])

    def _product(self, x, stored_product, terms):
        x = tf.convert_to_tensor(x, self.dtype)
        if x.shape.rank not in (1, 2) or x.shape[0] not in (self.n, None):
            raise ValueError(
                f"B is [{self.n}, {self.n}] and multiplies [{self.n}] or [{self.n}, k], received {x.shape}"
            )
        columns = x if x.shape.rank == 2 else x[:, None]
        result = stored_product(columns)
        if self._factor is not None:
            result = self._factor * result
        if self._shift is not None:
            result = result + self._shift * columns
        for left, right, c in terms:
            result += c * left[:, None] * tf.linalg.matmul(right[None], columns)
        return result if x.shape.rank == 2 else result[:, 0]

    def add_outer(self, u, v, c=1.0):
        """B + c u v'.

        Args:
            u, v: [n].
            c: [].

        Raises:
            ValueError: B was declared symmetric, or a vector does not have shape [n].
        """
        if self._stored.symmetric and v is not u:
            raise ValueError("this matrix was built with updates='symmetric'; use add_symmetric, or build it without")
        return self._with_term(self._vector(u), self._vector(v), c)

    def add_symmetric(self, u, c=1.0):
        """B + c u u' with u [n] and c []."""
        u = self._vector(u)
        return self._with_term(u, u, c)

    def scale(self, s):
        """s B with s []."""
        s = self._number(s)
        factor = s if self._factor is None else s * self._factor
        shift = None if self._shift is None else s * self._shift
        return SharedMatrix(self._stored, factor, [(u, v, s * c) for u, v, c in self._terms], shift)

    def shift(self, c):
        """B + c I with c []. `B.scale(0).shift(1)` is the identity again."""
        c = self._number(c)
        return SharedMatrix(self._stored, self._factor, self._terms, c if self._shift is None else self._shift + c)

    def dilate(self, xi, beta):
        """B (I + (beta - 1) xi xi'): dilation along the unit vector xi [n] by beta [].   Shor (1985), section 2.1."""
        xi = self._vector(xi)
        return self.add_outer(self @ xi, xi, self._number(beta) - 1.0)

    def to_dense(self):
        """All n x n numbers, pending terms included, as a tensor [n, n]."""
        return self @ tf.eye(self.n, dtype=self.dtype)

    def _vector(self, u):
        u = tf.convert_to_tensor(u, self.dtype)
        if not u.shape.is_compatible_with([self.n]):
            raise ValueError(f"B is [{self.n}, {self.n}] and takes vectors of shape [{self.n}], received {u.shape}")
        return u

    def _number(self, c):
        c = tf.convert_to_tensor(c, self.dtype)
        if c.shape.rank != 0:
            raise ValueError(f"a coefficient must be a scalar of shape [], received shape {c.shape}")
        return c

    def _with_term(self, u, v, c):
        return SharedMatrix(self._stored, self._factor, [*self._terms, (u, v, self._number(c))], self._shift)

    def as_variables(self, make_variable):
        if self._terms or self._factor is not None or self._shift is not None:
            raise ValueError("init_state must return a SharedMatrix as built, without changes; make them in update")
        return SharedMatrix(self._stored.as_variables(make_variable))

    def describes_change_of(self, other):
        return self._stored is other._stored

    def commit(self):
        self._stored.commit(self._factor, self._terms, self._shift)

    def __repr__(self):
        pending = f", {len(self._terms)} pending" if self._terms else ""
        return f"SharedMatrix(n={self.n}, dtype={self.dtype.name}, storage={self.storage!r}{pending})"


class _Transposed:
    """B' of a SharedMatrix, for products only."""

    def __init__(self, matrix):
        self.T = matrix

    def __matmul__(self, x):
        return self.T._transposed_product(x)


def _refuse_what_does_not_fit(n, nbytes):
    """Say that memory will not do while building; later the system ends the process without a word."""
    # The matrix, its scaled copy and the product that is added, and some room for everything else.
    peak = int(3.2 * nbytes)
    free = _available_memory()
    if free is not None and peak > free:
        raise ValueError(
            f"a dense [{n}, {n}] matrix takes {nbytes / 2**30:.1f} GiB, during a step up to {peak / 2**30:.1f} GiB, "
            f"but {free / 2**30:.1f} GiB are free; use storage='factored', or a smaller model"
        )


def _available_memory():
    """Bytes that can be had without swapping, or None where the system does not tell."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
    return int(kilobytes["MemAvailable"]) * 1024 if "MemAvailable" in kilobytes else None
