"""The terms of a loss in the log of every step: their values, without weights, at the point before the update."""

import tensorflow as tf


class TermLog:
    """Takes the terms that a first pass saw, and gives them to the log. False where there are none.

    Args:
        names: of the terms.

    Attributes:
        columns: their names in the log: "term/pde".
        variables: in which they wait.
    """

    def __init__(self, names):
        self._names, self.columns = tuple(names), [f"term/{name}" for name in names]
        self.variables = [tf.Variable(0.0, dtype=tf.float64, trainable=False, name=c) for c in self.columns]

    def __bool__(self):
        return bool(self._names)

    def begin(self):
        """Forget the last step."""
        for variable in self.variables:
            variable.assign(0.0)

    def add(self, terms, share):
        """Count a part of a batch.

        Args:
            terms: {name: []}, in the order of the names.
            share: by how much the part counts in the whole.
        """
        if tuple(terms) != self._names:
            raise ValueError(f"loss_fn must return the same terms every time, {self._names}; received {tuple(terms)}")
        for variable, value in zip(self.variables, terms.values(), strict=True):
            variable.assign_add(tf.cast(share, tf.float64) * tf.cast(value, tf.float64))

    def read(self):
        """{column: float64 []}."""
        return dict(zip(self.columns, map(tf.convert_to_tensor, self.variables), strict=True))
