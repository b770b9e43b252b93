"""Where the numbers of a `SharedMatrix` are kept, and how a described change is carried out in place.

    Dense             M                              every change goes into the n x n numbers at once
    StoredSum         B = a M + d I + U' diag(c) V   changes are kept as terms beside M, or instead of it
    StoredProduct     B = a M D_1 D_2 ... D_k        dilations are kept as factors beside M, or instead of it

Without M a sum begins with d = 1, and a product with M = I.
"""

import abc
import dataclasses

import tensorflow as tf

from trainloop.matrices import rank_one_sum
from trainloop.matrices.changes import SumChange
from trainloop.matrices.dense import Panels


class MatrixStorage(abc.ABC):
    """What `SharedMatrix` asks of a storage; it is a value too: two are the same only if they are one object."""

    @property
    @abc.abstractmethod
    def arrays(self):
        """All numbers of this process: tensors or variables."""

    @property
    def elsewhere(self):
        """Those numbers that other processes have, as tensors to be."""
        return ()

    def wholes(self):
        """See `StoredValue.wholes`."""
        return {}

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

    @property
    def storage(self):
        return "sharded" if self.panels.sharded else "dense"

    @property
    def n(self):
        return self.panels.n

    @property
    def dtype(self):
        return self.panels.dtype

    @property
    def arrays(self):
        return self.panels.here

    @property
    def elsewhere(self):
        return self.panels.elsewhere

    def wholes(self):
        return self.panels.wholes()

    @property
    def workspace(self):
        return self.panels.workspace

    def in_words(self):
        return f"{self.storage}, {self.panels.in_words()}"

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
        factor, shift = tf.ones([], self.dtype) if change.factor is None else change.factor, change.shift
        if change.keep is not None:  # else the factor belongs to the identity
            forgotten = (1 - change.keep) * factor
            factor, shift = change.keep * factor, forgotten if shift is None else shift + forgotten
        self.panels.fold(factor, left, right, shift)
