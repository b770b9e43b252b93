"""B = a M D_1 D_2 ... D_k: the changes of B as a product of dilations."""

import dataclasses

import tensorflow as tf

from trainloop.dilation_product import DilationProduct
from trainloop.history_storage import HistoryStorage
from trainloop.matrix_change import ProductChange


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
        self._reset(change)
        if change.factor is not None:
            self.scale.assign(change.factor * self.scale)
        if change.dilations:
            self._take(change.dilations)

    def _size(self, change):
        return len(change.dilations)

    def _scalars(self):
        return self.scale, self.times_full

    def _restart(self):
        self.history.clear()
        self.scale.assign(1)
        if self.when_full == "fold":
            self.panels.make_identity()
        elif self.panels is not None:
            tf.cond(self._has_matrix(), self.panels.make_identity, tf.no_op)
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
