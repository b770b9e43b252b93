"""A matrix and the changes it has seen, kept beside it or instead of it, up to a capacity.

    StoredSum         B = a M + d I + U' diag(c) V       the changes as a sum of terms
    StoredProduct     B = a M D_1 D_2 ... D_k            the changes as a product of dilations

When the capacity is reached,

apply       they go into M, all at once: M is then read and written once for many changes
grow        they get more room
restart     B is the identity again, instead of the change
subspace    the half of the terms that matters most is kept, as soon as there is no room for as many as the last step
            had
dense       M comes into being, takes everything in, and from then on it is `apply`
error       the change is not made and the step has the status HISTORY_FULL
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from trainloop.matrices.changes import ProductChange, SumChange
from trainloop.matrices.dense import Panels
from trainloop.matrices.dilation_product import DilationProduct
from trainloop.matrices.history import History
from trainloop.matrices.rank_one_sum import RankOneSum
from trainloop.matrices.storage import MatrixStorage


@dataclasses.dataclass(frozen=True, eq=False)
class HistoryStorage(MatrixStorage):
    """M, or nothing, and a history of changes."""

    n: int
    panels: Panels | None
    when_full: str
    times_full: Any  # int32 []
    scale: Any  # a []
    history: History
    _numbers: ClassVar[Sequence[str]] = ("times_full", "scale")  # the fields that are single numbers

    @property
    def storage(self):
        if self.when_full == "apply":
            return self.panels.storage
        return "sharded" if self.history.sharded else "factored"

    @property
    def dtype(self):
        return tf.as_dtype(self.scale.dtype)

    @property
    def arrays(self):
        parts = () if self.panels is None else self.panels.arrays
        return (*parts, *self.history.arrays, *(getattr(self, name) for name in self._numbers))

    @property
    def elsewhere(self):
        return (*self.history.elsewhere, *(() if self.panels is None else self.panels.elsewhere))

    def as_variables(self, make_variable):
        return dataclasses.replace(
            self,
            panels=self.panels and self.panels.as_variables(make_variable),
            **{name: make_variable(name, getattr(self, name), False) for name in self._numbers},
            history=self.history.as_variables(make_variable),
        )

    def wholes(self):
        return self.history.wholes() | ({} if self.panels is None else self.panels.wholes())

    @property
    def workspace(self):
        # Taken when the history is full.
        rows = sum(tf.TensorShape(array.shape).num_elements() for array in self.history.arrays) * self.dtype.size
        return {"grow": rows, "subspace": rows, "dense": self.panels and self.panels.filled}.get(self.when_full, 0)

    def note(self):
        if self.when_full == "apply":
            return f"{self.panels.note()}; up to {self.history.capacity} changes wait beside it"
        if self.when_full == "grow":
            return f"factored, {self.history.in_words()} for every change"
        return f"factored, {self.history.in_words()} for up to {self.history.capacity} changes, then {self.when_full}"

    def is_full_for(self, change):
        if self.when_full != "error":
            return None
        full = ~self.history.has_room_for(len(change.parts))
        return full if change.keep is None else full & (change.keep > 0)

    def scalars(self):
        if self.when_full == "apply":
            return {}
        rank = {"rank": tf.convert_to_tensor(self.history.rank)}
        return rank if self.when_full == "grow" else rank | {"times_full": tf.convert_to_tensor(self.times_full)}

    def _take(self, changes):
        """Keep changes, after making room for them where the history is full."""
        r, capacity = len(changes), self.history.capacity
        least = 2 * r if self.when_full == "subspace" else r
        if capacity is not None and least > capacity:
            raise ValueError(
                f"an update changes the matrix {r} times, but its storage has a capacity of {capacity}; "
                f"ask for at least {least}"
            )
        if self.when_full in ("restart", "error"):  # instead of the change
            tf.cond(self.history.has_room_for(r), lambda: self._append(changes), lambda: self._make_room(r))
            return
        self._see_to_room(r)
        self._append(changes)
        if self.when_full == "subspace":  # after the change, which was made for the matrix as it is
            self._see_to_room(r)

    def _see_to_room(self, r):
        tf.cond(self.history.has_room_for(r), tf.no_op, lambda: self._make_room(r))

    def _reset(self, change):
        """B <- I where a change begins with that."""
        if change.keep is not None:
            tf.cond(change.keep > 0, tf.no_op, self._restart)

    def _append(self, changes):
        self.history.append(changes)
        return tf.no_op()

    def _make_room(self, r):
        policies = {
            "apply": self._apply_all,
            "grow": lambda: self.history.grow(r),
            "restart": self._restart,
            "subspace": lambda: self.history.keep_largest(self.history.capacity // 2),
            "dense": lambda: tf.cond(self._has_matrix(), self._apply_all, self._fill),
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
        result = tf.cond(self._has_matrix(), lambda: multiply(self.panels), otherwise)
        return tf.ensure_shape(
            result, [self.n, None]
        )  # the rows of M come later, so TensorFlow does not know their number

    def _has_matrix(self):
        """bool []. Not read off the shape of M: TensorFlow orders that by no other use of the variable."""
        return self.times_full > 0

    @abc.abstractmethod
    def _beside_transposed(self, columns):
        """The transposed product with all but M and its factor."""

    @abc.abstractmethod
    def _apply_all(self):
        """M takes everything in."""

    @abc.abstractmethod
    def _forget(self):
        """Nothing is left beside M, which has it."""

    @abc.abstractmethod
    def _restart(self):
        """B <- I."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSum(HistoryStorage):
    """B = a M + d I + U' diag(c) V, with rounding of about eps / s along directions that B has shrunk by s."""

    history: RankOneSum
    diagonal: Any  # d []
    no_change = SumChange()
    _numbers = (*HistoryStorage._numbers, "diagonal")

    def product(self, columns):
        beside = self.diagonal * columns + self.history.product(columns)
        return self._matrix_product(lambda M: self._scaled(M.product(columns)) + beside, lambda: beside)

    def transposed_product(self, columns):
        beside = self._beside_transposed(columns)
        return self._matrix_product(lambda M: self._scaled(M.transposed_product(columns)) + beside, lambda: beside)

    def _scaled(self, product):
        return tf.math.multiply_no_nan(product, self.scale)  # a factor of zero forgets everything

    def _beside_transposed(self, columns):
        return self.diagonal * columns + self.history.transposed_product(columns)

    def commit(self, change):
        self._reset(change)
        if change.factor is not None:
            self.history.scale(change.factor)
            for number in (self.scale, self.diagonal):
                number.assign(tf.math.multiply_no_nan(number, change.factor))
        if change.shift is not None:
            self.diagonal.assign_add(change.shift)
        if change.parts:
            self._take(change.parts)

    def _apply_all(self):
        left, right = self.history.weighted()
        self.panels.apply(tf.convert_to_tensor(self.scale), left, right, tf.convert_to_tensor(self.diagonal))
        self._forget()
        return tf.no_op()

    def _forget(self):
        """M has everything."""
        self.history.clear()
        self.scale.assign(1)
        self.diagonal.assign(0)

    def _restart(self):
        self.history.clear()
        self.scale.assign(0)
        self.diagonal.assign(1)
        return tf.no_op()


@dataclasses.dataclass(frozen=True, eq=False)
class StoredProduct(HistoryStorage):
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

    def commit(self, change):
        self._reset(change)
        if change.factor is not None:
            self.scale.assign(change.factor * self.scale)
        if change.parts:
            self._take(change.parts)

    def _restart(self):
        self.history.clear()
        self.scale.assign(1)
        if self.when_full == "apply":
            self.panels.make_identity()
        elif self.panels is not None:
            tf.cond(self._has_matrix(), self.panels.make_identity, tf.no_op)
        return tf.no_op()

    def _apply_all(self):
        """M <- a M + (a M Xi' T) Xi, group after group."""
        for i in range(self.history.directions.shape[0]):
            Xi, T = self.history.group(i)
            left = tf.transpose(self.panels.product(tf.linalg.matmul(Xi, T, transpose_a=True)))
            self.panels.apply(tf.ones([], self.dtype), left, Xi)
        self._forget()
        return tf.no_op()

    def _forget(self):
        """M has everything but the factor."""
        self.history.clear()
