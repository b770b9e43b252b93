"""The terms of a loss in the log of every step: their values, without weights, at the point before the update.

A step that is handed f and g makes no first pass, which would see the terms. They are known all the same where the last
evaluation was that of the point where the step before ended, as line searches do it.
"""

import numpy as np
import tensorflow as tf


class TermLog:
    """Takes the terms that a first pass saw, and gives them to the log.

    Args:
        names: of the terms.

    Attributes:
        columns: their names in the log: "term/pde".
        variables: in which they wait.
    """

    def __init__(self, names):
        self._names, self.columns = tuple(names), [f"term/{name}" for name in names]
        self.variables = [tf.Variable(0.0, dtype=tf.float64, trainable=False, name=c) for c in self.columns]

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

    def put(self, values):
        """Take the terms of a whole batch, float64 [k]."""
        for variable, value in zip(self.variables, tf.unstack(values, len(self._names)), strict=True):
            variable.assign(value)


class NotedTerms:
    """The terms at the point that was evaluated last, and those at the point where the last step ended.

    Args:
        size: n.
        dtype: of x.
        count: of terms.
    """

    def __init__(self, size, dtype, count):
        zeros = tf.zeros([size], dtype), tf.zeros([count], tf.float64), False
        self._x, self._noted, self._fresh = (tf.Variable(value, trainable=False) for value in zeros)
        self.kept = tf.Variable(tf.fill([count], tf.constant(np.nan, tf.float64)), trainable=False)

    def begin(self):
        """Before a step: nothing is evaluated yet."""
        self._fresh.assign(False)

    def note(self, x, terms):
        """An evaluation.

        Args:
            x: [n].
            terms: [k].
        """
        self._x.assign(x)
        self._noted.assign(tf.cast(terms, tf.float64))
        self._fresh.assign(True)

    def keep(self, x):
        """After a step that ended at x [n]: the terms there, NaN where the last evaluation was elsewhere."""
        known = tf.convert_to_tensor(self._fresh) & tf.reduce_all(tf.equal(self._x, x))
        self.kept.assign(tf.where(known, self._noted, tf.constant(np.nan, tf.float64)))

    def known(self):
        """Whether `kept` has the terms, bool []. Terms that are NaN themselves are taken anew."""
        return ~tf.reduce_any(tf.math.is_nan(self.kept))
