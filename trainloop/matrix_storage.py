"""Where the numbers of a `SharedMatrix` are kept, and how a described change is carried out in place.

    Dense             M                              every change goes into the n x n numbers at once
    StoredSum         B = a M + d I + U' diag(c) V   changes are kept as terms beside M, or instead of it
    StoredProduct     B = a M D_1 D_2 ... D_k        dilations are kept as factors beside M, or instead of it

Without M a sum begins with d = 1, and a product with M = I. What is kept beside or instead of M has a capacity. When it
is full,

    fold        it goes into M, all at once: M is then read and written once for many changes
    grow        it gets more room
    restart     B is the identity again
    subspace    the half of the terms that matters most is kept
    dense       M comes into being, takes everything in, and from then on it is `fold`
    error       the change is not made and the step has the status HISTORY_FULL
"""

import abc
import dataclasses

import tensorflow as tf

from trainloop import rank_one_sum
from trainloop.dilation_product import DilationProduct
from trainloop.matrix_change import ProductChange, SumChange
from trainloop.panels import SMALL, Panels
from trainloop.rank_one_sum import RankOneSum

# So many changes wait beside a large dense matrix: folding them in one pass is still bound by memory.
_WAITING = 8


def build(choice, n, dtype, updates):
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
        return Dense(Panels.identity(n, dtype, symmetric))
    if choice.when_full == "subspace" and dilations:
        raise ValueError(
            "a product of dilations has no dominant subspace that dilations could keep; use restart, dense or error"
        )
    when_full = "fold" if dense else choice.when_full or "grow"
    panels = None
    if dense:
        panels = Panels.identity(n, dtype, symmetric)
    elif when_full == "dense":
        panels = Panels.absent(n, dtype, symmetric)
    one, none = tf.ones([], dtype), tf.constant(0)
    if dilations:
        return StoredProduct(n, panels, when_full, none, one, DilationProduct.empty(n, capacity, dtype))
    diagonal = tf.zeros([], dtype) if dense else one
    return StoredSum(n, panels, when_full, none, one, diagonal, RankOneSum.empty(n, capacity, dtype, symmetric))


class MatrixStorage(abc.ABC):
    """What `SharedMatrix` asks of a storage; it is a value too: two are the same only if they are one object."""

    @property
    @abc.abstractmethod
    def arrays(self):
        """All numbers: tensors or variables."""

    @abc.abstractmethod
    def product(self, columns):
        """B columns for columns [n, k]."""

    @abc.abstractmethod
    def transposed_product(self, columns):
        """B' columns."""

    @abc.abstractmethod
    def as_variables(self, make_variable):
        """The same storage with variables for its arrays."""

    @abc.abstractmethod
    def commit(self, change):
        """Carry out a change in the variables."""

    def is_full_for(self, change):
        """bool []: the change cannot be committed; None where that cannot happen."""
        return

    def scalars(self):
        """What is worth logging: dict of tensors []."""
        return {}

    @abc.abstractmethod
    def in_words(self):
        """How B is stored."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dense(MatrixStorage):
    """M alone."""

    panels: Panels
    no_change = SumChange()
    storage = "dense"

    @property
    def n(self):
        return self.panels.n

    @property
    def dtype(self):
        return self.panels.dtype

    @property
    def arrays(self):
        return self.panels.parts

    @property
    def workspace(self):
        return self.panels.workspace

    def in_words(self):
        return f"dense, {self.panels.in_words()}"

    def product(self, columns):
        return self.panels.product(columns)

    def transposed_product(self, columns):
        return self.panels.transposed_product(columns)

    def as_variables(self, make_variable):
        return Dense(self.panels.as_variables(make_variable))

    def commit(self, change):
        if change.nothing:
            return
        nothing = tf.zeros([0, self.n], self.dtype)
        left, right = rank_one_sum.weighted(change.terms) if change.terms else (nothing, nothing)
        factor = tf.ones([], self.dtype) if change.factor is None else change.factor
        self.panels.fold(factor, left, right, change.shift)


@dataclasses.dataclass(frozen=True, eq=False)
class _WithHistory(MatrixStorage):
    """M, or nothing, and a `history` of changes: a `RankOneSum` or a `DilationProduct`."""

    n: int
    panels: Panels | None
    when_full: str
    times_full: object  # int32 []
    scale: object  # a []

    @property
    def storage(self):
        return "dense" if self.when_full == "fold" else "factored"

    @property
    def dtype(self):
        return tf.as_dtype(self.scale.dtype)

    @property
    def arrays(self):
        parts = () if self.panels is None else self.panels.parts
        return (*parts, *self.history.arrays, *self._scalars())

    @property
    def workspace(self):
        """Bytes taken for a moment when the history is full."""
        rows = sum(tf.TensorShape(array.shape).num_elements() for array in self.history.arrays) * self.dtype.size
        return {"grow": rows, "subspace": rows, "dense": self.panels and self.panels.filled}.get(self.when_full, 0)

    def in_words(self):
        if self.when_full == "fold":
            return f"dense, {self.panels.in_words()}; up to {self.history.capacity} changes wait beside it"
        if self.when_full == "grow":
            return f"factored, {self.history.in_words()} for every change"
        return f"factored, {self.history.in_words()} for up to {self.history.capacity} changes, then {self.when_full}"

    def is_full_for(self, change):
        return None if self.when_full != "error" else ~self.history.has_room_for(self._size(change))

    def scalars(self):
        if self.when_full == "fold":
            return {}
        rank = {"rank": tf.convert_to_tensor(self.history.rank)}
        return rank if self.when_full == "grow" else rank | {"times_full": tf.convert_to_tensor(self.times_full)}

    def _take(self, changes):
        """Keep changes, after making room for them where the history is full."""
        r, capacity = len(changes), self.history.capacity
        if capacity is not None and r > capacity:
            raise ValueError(
                f"an update changes the matrix {r} times, but its storage has a capacity of {capacity}; "
                f"ask for at least {r}"
            )
        room = self.history.has_room_for(r)
        if self.when_full in ("restart", "error"):  # instead of the change
            tf.cond(room, lambda: self._append(changes), lambda: self._make_room(r))
        else:
            tf.cond(room, lambda: tf.no_op(), lambda: self._make_room(r))
            self._append(changes)

    def _append(self, changes):
        self.history.append(changes)
        return tf.no_op()

    def _make_room(self, r):
        policies = {
            "fold": self._fold,
            "grow": lambda: self.history.grow(r),
            "restart": self._restart,
            "subspace": lambda: self.history.keep_largest(self.history.capacity // 2),
            "dense": lambda: tf.cond(self._has_matrix(), self._fold, self._fill),
            "error": lambda: None,
        }
        policies[self.when_full]()
        self.times_full.assign_add(1)
        return tf.no_op()

    def _fill(self):
        self.panels.fill(self._beside_transposed)
        self._forget()
        return tf.no_op()

    def _matrix_product(self, multiply, otherwise):
        """`multiply(M)`, where there is M; `otherwise()` else."""
        if self.panels is None:
            return otherwise()
        if self.when_full != "dense":
            return multiply(self.panels)
        return tf.cond(self._has_matrix(), lambda: multiply(self.panels), otherwise)

    def _has_matrix(self):
        """bool []. Not read off the shape of M: TensorFlow orders that by no other use of the variable."""
        return self.times_full > 0


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSum(_WithHistory):
    """B = a M + d I + U' diag(c) V, with rounding of about eps / s along directions that B has shrunk by s."""

    diagonal: object  # d []
    history: RankOneSum
    no_change = SumChange()

    def product(self, columns):
        beside = self.diagonal * columns + self.history.product(columns)
        return self._matrix_product(lambda M: self.scale * M.product(columns) + beside, lambda: beside)

    def transposed_product(self, columns):
        beside = self._beside_transposed(columns)
        return self._matrix_product(lambda M: self.scale * M.transposed_product(columns) + beside, lambda: beside)

    def _beside_transposed(self, columns):
        return self.diagonal * columns + self.history.transposed_product(columns)

    def as_variables(self, make_variable):
        later = self.when_full == "dense"
        return StoredSum(
            self.n,
            self.panels and self.panels.as_variables(make_variable, later=later),
            self.when_full,
            make_variable("times_full", self.times_full, False),
            make_variable("scale", self.scale, False),
            make_variable("diagonal", self.diagonal, False),
            self.history.as_variables(make_variable),
        )

    def commit(self, change):
        if change.factor is not None:
            self.history.scale(change.factor)
            for number in (self.scale, self.diagonal):
                number.assign(tf.math.multiply_no_nan(number, change.factor))
        if change.shift is not None:
            self.diagonal.assign_add(change.shift)
        if change.terms:
            self._take(change.terms)

    def _size(self, change):
        return len(change.terms)

    def _scalars(self):
        return self.scale, self.diagonal, self.times_full

    def _fold(self):
        left, right = self.history.weighted()
        self.panels.fold(tf.convert_to_tensor(self.scale), left, right, tf.convert_to_tensor(self.diagonal))
        self._forget()
        return tf.no_op()

    def _forget(self):
        """M has everything."""
        self.history.clear()
        self.scale.assign(1)
        self.diagonal.assign(0)

    def _restart(self):
        self.history.clear()
        self.diagonal.assign(1)


@dataclasses.dataclass(frozen=True, eq=False)
class StoredProduct(_WithHistory):
    """B = a M D_1 ... D_k, as accurate as n x n numbers."""

    history: DilationProduct
    no_change = ProductChange()

    def product(self, columns):
        dilated = self.history.product(columns)
        return self.scale * self._matrix_product(lambda M: M.product(dilated), lambda: dilated)

    def transposed_product(self, columns):
        outer = self._matrix_product(lambda M: M.transposed_product(columns), lambda: columns)
        return self.scale * self._beside_transposed(outer)

    def _beside_transposed(self, columns):
        return self.history.transposed_product(columns)

    def as_variables(self, make_variable):
        later = self.when_full == "dense"
        return StoredProduct(
            self.n,
            self.panels and self.panels.as_variables(make_variable, later=later),
            self.when_full,
            make_variable("times_full", self.times_full, False),
            make_variable("scale", self.scale, False),
            self.history.as_variables(make_variable),
        )

    def commit(self, change):
        if change.keep is not None:
            tf.cond(change.keep > 0, lambda: tf.no_op(), self._restarted)
        if change.factor is not None:
            self.scale.assign(change.factor * self.scale)
        if change.dilations:
            self._take(change.dilations)

    def _size(self, change):
        return len(change.dilations)

    def _scalars(self):
        return self.scale, self.times_full

    def _restarted(self):
        self._restart()
        return tf.no_op()

    def _restart(self):
        self.history.clear()
        self.scale.assign(1)
        if self.when_full == "fold":
            self.panels.make_identity()
        elif self.panels is not None:
            tf.cond(self._has_matrix(), self._identity_again, tf.no_op)

    def _identity_again(self):
        self.panels.make_identity()
        return tf.no_op()

    def _fold(self):
        """M <- a M + (a M Xi' T) Xi, group after group."""
        for i in range(self.history.directions.shape[0]):
            Xi, T = self.history.group(i)
            left = tf.transpose(self.panels.product(tf.linalg.matmul(Xi, T, transpose_a=True)))
            self.panels.fold(tf.ones([], self.dtype), left, Xi)
        self._forget()
        return tf.no_op()

    def _forget(self):
        """M has everything but the factor."""
        self.history.clear()
