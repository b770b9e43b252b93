"""One matrix B that couples all n parameters, as a value that algorithms compute with.

An algorithm writes what its source has, `B @ g` and `B.add_symmetric(d, c)`, and does not know how B is
stored: as n x n numbers, or as the history of its changes (see `storage_spec` for what asks for one, and
`storage` for the forms).

Operations return a new value that only *describes* the change, see `changes`. The new value can be
multiplied at once. Carrying the change out is `commit`, which the optimizer base calls when a step is accepted; a
rejected step is one whose value is dropped, and costs nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.distributed.shards import Shards
from trainloop.matrices import conversion
from trainloop.matrices.changes import Change
from trainloop.matrices.dense import SMALL, Panels
from trainloop.matrices.dilation_product import DilationProduct
from trainloop.matrices.factored import StoredProduct, StoredSum
from trainloop.matrices.rank_one_sum import RankOneSum
from trainloop.matrices.rows import Rows
from trainloop.matrices.sharded_panels import ShardedPanels
from trainloop.matrices.sharded_rows import ShardedRows
from trainloop.matrices.storage import MatrixStorage
from trainloop.matrices.storage_spec import StorageChoice
from trainloop.matrices.stored_value import StoredValue
from trainloop.status import Status
from trainloop.types import Scalar

# Which operations will change B. Knowing it saves memory, and digits.
UPDATES = {
    "any": ("add_outer", "add_symmetric", "dilate", "scale", "shift", "reset"),
    "symmetric": ("add_symmetric", "scale", "shift", "reset"),
    "dilations": ("dilate", "scale", "reset"),
}

_OPERATIONS = (
    "B + c u v' is B.add_outer(u, v, c), B + c u u' is B.add_symmetric(u, c), s B is B.scale(s), "
    "B + c I is B.shift(c), and B.to_dense() is a tensor of all n x n numbers"
)

# So many changes wait beside a large dense matrix: applying them in one pass is still bound by memory.
_WAITING = 8

# `auto` is dense up to this many bytes: a step over the full matrix then takes milliseconds.
_AUTO_DENSE_BYTES = 64 * 2**20


class SharedMatrix(StoredValue):
    """A square matrix B over all parameters. `SharedMatrix.identity` builds one; operations return new ones.

    Values are immutable. They hold their stored numbers by reference: those that an optimizer passes to
    `update` are valid until that step is committed.

    Args:
        stored: the numbers, a `MatrixStorage`.
        updates: which operations may change B, see `identity`.
        change: what is to be done to them, a `Change`; None for nothing.
        reason: why this storage was chosen, for the memory plan; None where it was asked for.

    Examples:
        >>> B = SharedMatrix.identity(3, dtype="float64")
        >>> B = B.add_symmetric(tf.constant([1.0, 2.0, 0.0], tf.float64), -0.1).scale(2.0)
        >>> (B @ tf.constant([1.0, 0.0, 0.0], tf.float64)).numpy()
        array([ 1.8, -0.4,  0. ])
    """

    def __init__(
        self, stored: MatrixStorage, updates: str, change: Change | None = None, reason: str | None = None
    ) -> None:
        self._stored = stored
        self._updates = updates
        self._reason = reason  # why `auto` chose this storage
        self._change = stored.no_change if change is None else change

    @classmethod
    def identity(
        cls, n: int, *, dtype: tf.DType | str = "float32", storage: str = "auto", updates: str = "any"
    ) -> "SharedMatrix":
        """The n x n identity.

        Args:
            n: number of parameters.
            dtype: a floating dtype.
            storage: "dense", "factored", "sharded": as dense, but sharded over the devices or workers of
                `trainloop.shards`, or "auto": dense while n x n numbers take at most 64 MiB, else factored, and never
                sharded. See `storage_spec` for capacities.
            updates: which operations will change B. "symmetric": only `add_symmetric`, `scale`, `shift` and `reset`, so
                that B' = B and half of the numbers suffice. "dilations": only `dilate`, `scale` and `reset`; then no
                digits are lost where B becomes small. "any": all of them.

        Raises:
            ValueError: n < 1, a dtype that is not floating, an unknown storage, or unknown updates.
        """
        n = checks.integer("n", n, at_least=1)
        dtype = _floating(dtype)
        choice = StorageChoice.parse(storage)
        checks.choice("updates", updates, UPDATES)
        reason = None
        if choice.kind == "auto":
            small = n * n * dtype.size <= _AUTO_DENSE_BYTES
            choice = StorageChoice("dense" if small else "factored")
            reason = f"n x n numbers take {'at most' if small else 'more than'} {_AUTO_DENSE_BYTES // 2**20} MiB"
        return cls(_build(choice, n, dtype, updates), updates, reason=reason)

    @property
    def n(self) -> int:
        """Number of rows and of columns."""
        return self._stored.n

    @property
    def dtype(self) -> tf.DType:
        """The dtype of the entries."""
        return self._stored.dtype

    @property
    def storage(self) -> str:
        """How B is stored: "dense", "factored" or "sharded"."""
        return self._stored.storage

    @property
    def nbytes(self) -> int | tf.Tensor:
        """Bytes of the stored numbers in this process, without pending changes; inside a compiled function it may be a
        tensor."""
        return _bytes(self._stored.arrays)

    @property
    def nbytes_everywhere(self) -> int | tf.Tensor:
        """Bytes of the stored numbers in all processes, where a number that all of them have counts once."""
        return _bytes((*self._stored.arrays, *self._stored.elsewhere))

    @property
    def T(self) -> "_Transposed":
        """The transposed matrix, for products: `B.T @ g`."""
        return _Transposed(self)

    def _no_arithmetic(self, *_):
        raise TypeError(f"a SharedMatrix has no +, -, * and /: {_OPERATIONS}")

    # Without these, the messages of Python, NumPy and TensorFlow would name no remedy.
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __neg__ = _no_arithmetic
    __array_ufunc__ = None  # lets NumPy leave `array - B` to the matrix

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        """What TensorFlow calls where it needs a tensor, as in `tensor - B` and `tf.linalg.matvec(B, g)`.

        Args:
            dtype, name: ignored.

        Raises:
            TypeError: always; it names the operations that there are.
        """
        raise TypeError(f"a SharedMatrix is no tensor: B @ x multiplies, {_OPERATIONS}")

    def __rmatmul__(self, x: Any) -> None:
        """x' B, which is written B.T @ x.

        Raises:
            TypeError: always.
        """
        raise TypeError("a SharedMatrix is multiplied from the left: B @ x; for x' B use B.T @ x")

    def __matmul__(self, x: tf.Tensor) -> tf.Tensor:
        """B x for x of shape [n] or [n, k]."""
        return self._product(x, lambda columns: self._change.product(self._stored.product, columns))

    def _transposed_product(self, x):
        return self._product(
            x, lambda columns: self._change.transposed_product(self._stored.transposed_product, columns)
        )

    def _product(self, x, product):
        if isinstance(x, SharedMatrix):
            raise TypeError("a SharedMatrix multiplies vectors and tensors [n, k]; for B1 B2 use B1 @ B2.to_dense()")
        x = tf.convert_to_tensor(x, self.dtype)
        if x.shape.rank not in (1, 2) or x.shape[0] not in (self.n, None):
            raise ValueError(
                f"B is [{self.n}, {self.n}] and multiplies [{self.n}] or [{self.n}, k], received {x.shape}"
            )
        return product(x) if x.shape.rank == 2 else product(x[:, None])[:, 0]

    def add_outer(self, u: tf.Tensor, v: tf.Tensor, c: Scalar = 1.0) -> "SharedMatrix":
        """B + c u v'.

        Args:
            u, v: [n].
            c: [].

        Raises:
            ValueError: B was built for other updates, or a vector does not have shape [n].
        """
        self._allow("add_symmetric" if v is u else "add_outer")
        u, v = (self._vector(u),) * 2 if v is u else (self._vector(u), self._vector(v))
        return self._changed(self._change.plus(u, v, self._number(c)))

    def add_symmetric(self, u: tf.Tensor, c: Scalar = 1.0) -> "SharedMatrix":
        """B + c u u' with u [n] and c []."""
        return self.add_outer(u, u, c)

    def scale(self, s: Scalar) -> "SharedMatrix":
        """s B with s []."""
        return self._changed(self._change.scaled(self._number(s)))

    def shift(self, c: Scalar) -> "SharedMatrix":
        """B + c I with c []."""
        self._allow("shift")
        return self._changed(self._change.shifted(self._number(c)))

    def dilate(self, xi: tf.Tensor, beta: Scalar) -> "SharedMatrix":
        """B (I + (beta - 1) xi xi'): dilation along the unit vector xi [n] by beta [].   Shor (1985), section 2.1."""
        self._allow("dilate")
        return self._changed(self._change.dilated(self, self._vector(xi), self._number(beta) - 1.0))

    def reset(self, when: tf.Tensor | bool = True) -> "SharedMatrix":
        """The identity again, where `when` (bool []) holds; B elsewhere."""
        keep = 1 - tf.cast(tf.convert_to_tensor(when), self.dtype)
        return self._changed(self._change.reset(keep))

    def to_dense(self) -> tf.Tensor:
        """All n x n numbers, pending changes included, as a tensor [n, n]. They are gathered where B is sharded: n x n
        numbers in every process, a sum over the shards of as many, and the time of a product with n vectors."""
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

    def _allow(self, operation):
        allowed = UPDATES[self._updates]
        if operation not in allowed:
            raise ValueError(
                f"this matrix was built with updates={self._updates!r} and cannot {operation}; use "
                f"{', '.join(allowed[:-1])} or {allowed[-1]}, or build it with updates='any'"
            )

    def _changed(self, change):
        return SharedMatrix(self._stored, self._updates, change, self._reason)

    def as_variables(self, make_variable: Callable[[str, Any, bool], tf.Variable]) -> "SharedMatrix":
        if not self._change.nothing:
            raise ValueError("init_state must return a SharedMatrix as built, without changes; make them in update")
        return SharedMatrix(self._stored.as_variables(make_variable), self._updates, reason=self._reason)

    def wholes(self) -> dict[str, Any]:
        return self._stored.wholes()

    def describes_change_of(self, other: Any) -> bool:
        return self._stored is other._stored

    def failures(self) -> list[tuple[tf.Tensor, Status]]:
        numbers = [number for number in self._change.numbers if number is not None]
        finite = [tf.reduce_all(tf.math.is_finite(number)) for number in numbers]
        found = [(~tf.reduce_all(finite), Status.NONFINITE_STEP)] if finite else []
        full = self._stored.is_full_for(self._change)
        return found if full is None else [*found, (full, Status.HISTORY_FULL)]

    def scalars(self) -> dict[str, tf.Tensor]:
        return self._stored.scalars()

    def converted(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return conversion.convert(arrays, self._stored, self._updates == "symmetric")

    @property
    def workspace(self) -> int:
        return self._stored.workspace

    def notes(self) -> Sequence[str]:
        how = self._stored.note()
        return (f"{how}, because {self._reason}" if self._reason else how,)

    def alternatives(self) -> Sequence[tuple[str, int]]:
        several = Shards.here().strategy is not None
        specs = ("dense", *(["sharded"] if several else []), "factored:1000:restart", "factored:100:restart")
        others = {spec: _build(StorageChoice.parse(spec), self.n, self.dtype, self._updates) for spec in specs}
        sizes = {spec: SharedMatrix(stored, self._updates).nbytes for spec, stored in others.items()}
        return [(spec, nbytes) for spec, nbytes in sizes.items() if nbytes < self.nbytes]

    def commit(self) -> None:
        self._stored.commit(self._change)

    def __repr__(self):
        changed = "" if self._change.nothing else ", changed"
        return f"SharedMatrix(n={self.n}, dtype={self.dtype.name}, storage={self.storage!r}{changed})"


def _floating(dtype):
    """The `tf.DType`.

    Raises:
        ValueError: no name of a dtype, or not a floating one.
    """
    try:
        known = tf.as_dtype(dtype)
    except TypeError:
        known = None
    if known is None or not known.is_floating:
        received = dtype if known is None else known.name
        raise ValueError(f"dtype must be a floating dtype, received {received!r}; pass that of x, such as 'float32'")
    return known


def _bytes(arrays):
    nbytes = sum(_size(array) * tf.as_dtype(array.dtype).size for array in arrays)
    return int(nbytes) if tf.executing_eagerly() else nbytes


def _size(array):
    shape = tf.TensorShape(array.shape)
    return shape.num_elements() if shape.is_fully_defined() else tf.size(array, tf.int64)


class _Transposed:
    """B' of a SharedMatrix, for products only."""

    def __init__(self, matrix):
        self.T = matrix

    def __matmul__(self, x):
        return self.T._transposed_product(x)


def _build(choice, n, dtype, updates):
    """The identity in a storage.

    Args:
        choice: `StorageChoice` of kind "dense" or "factored".
        n: number of rows.
        dtype: of the entries.
        updates: "any", "symmetric" or "dilations".
    """
    symmetric, dilations = updates == "symmetric", updates == "dilations"
    dense = choice.kind == "dense"
    capacity = choice.capacity
    if dense and capacity is None:
        capacity = _WAITING if n > SMALL else 0
    if dense and not capacity:
        return _matrix(choice, n, dtype, symmetric)
    if choice.when_full == "subspace" and dilations:
        raise ValueError(
            "a product of dilations has no dominant subspace that dilations could keep; use restart, dense or error"
        )
    if choice.sharded and not dense:
        _check_can_be_sharded(choice, dilations)
    when_full = "apply" if dense else choice.when_full or "grow"
    panels = None
    if dense:
        panels = _matrix(choice, n, dtype, symmetric)
    elif when_full == "dense":
        panels = Panels.absent(n, dtype, symmetric)
    one, none = tf.ones([], dtype), tf.constant(0)
    if dilations:
        return StoredProduct(n, panels, when_full, none, one, DilationProduct.empty(n, capacity, dtype))
    diagonal = tf.zeros([], dtype) if dense else one
    sharded = choice.sharded and not dense
    zeros = functools.partial(ShardedRows.zeros, shards=Shards.here()) if sharded else Rows.zeros
    history = RankOneSum.empty(n, capacity, dtype, symmetric, zeros)
    return StoredSum(n, panels, when_full, none, one, history, diagonal)


def _matrix(choice, n, dtype, symmetric):
    """The identity as n x n numbers."""
    if choice.sharded:
        return ShardedPanels.identity(n, dtype, symmetric, Shards.here())
    return Panels.identity(n, dtype, symmetric)


def _check_can_be_sharded(choice, dilations):
    if dilations:
        raise ValueError(
            "a history of dilations is not sharded: a product would wait for one sum over the shards after the other, "
            "k / 8 of them for k dilations; use storage='sharded' or 'factored'"
        )
    if choice.when_full == "dense":
        raise ValueError(
            "a sharded history does not become dense when it is full; use storage='sharded', or 'sharded:factored:"
            f"{choice.capacity}:restart'"
        )
