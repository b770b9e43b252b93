"""B = a M + d I + U' diag(c) V: the changes of B as a sum of terms."""

import dataclasses

import tensorflow as tf

from trainloop.history_storage import HistoryStorage
from trainloop.matrix_change import SumChange
from trainloop.rank_one_sum import RankOneSum


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSum(HistoryStorage):
    """B = a M + d I + U' diag(c) V, with rounding of about eps / s along directions that B has shrunk by s."""

    diagonal: object  # d []
    history: RankOneSum
    no_change = SumChange()

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
        self._reset(change)
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
        self.scale.assign(0)
        self.diagonal.assign(1)
        return tf.no_op()
