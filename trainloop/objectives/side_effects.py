"""What a training pass writes besides the step, taken back where the step is not taken.

The pass that gives f and g also moves BatchNormalization averages, dropout seeds and counters of metrics. A batch whose
loss is NaN would leave NaN in the averages, and a model that is lost although its weights are not.

    SideEffects     inside of compiled code, for a step with a negative status
    LastStep        outside of it, for an operation that fails inside: a Cholesky factorisation, a label out of range
"""

import contextlib

import keras
import tensorflow as tf

from trainloop.distributed.replicas import without_strategy
from trainloop.objectives.placement import read, write


class SideEffects:
    """Variables as they are before a pass. Made and used inside of compiled code.

    Args:
        variables: those that the pass may write.
    """

    def __init__(self, variables):
        self._variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        self._before = read(self._variables)

    def undo(self):
        """Write the values from before the pass again."""
        write(self._variables, self._before)
        return tf.no_op()

    def undo_where(self, failed):
        """The same where `failed`, bool [], is true."""
        if self._variables:
            tf.cond(failed, self.undo, tf.no_op)


class LastStep:
    """x and what the loss writes, as they were when the last step began.

    Optimizers that evaluate the objective have a trial point in the variables while they do. Where an operation fails
    there, compiled code ends at once, and nothing inside of it can put anything back. Costs one vector [n], into which
    every step writes the buffer that it has read anyway.

    Args:
        vector: the `VariableVector` of x.
    """

    def __init__(self, vector):
        self._vector = vector
        self._x = tf.Variable(vector.read(), trainable=False, name="last_step")
        self._written, self._values = [], []

    def begin(self, written):
        """In compiled code, when a step begins.

        Args:
            written: the variables besides x that the loss writes.
        """
        if _handles(written) != _handles(self._written):
            self._written = list(written)
            self._values = without_strategy(lambda: [tf.Variable(value, trainable=False) for value in read(written)])
        self._x.assign(self._vector.read())
        write(self._values, read(self._written))

    @contextlib.contextmanager
    def put_back(self):
        """Outside: an exception inside leaves the variables as they were when the last step began."""
        self._x.assign(self._vector.read())
        write(self._values, read(self._written))
        try:
            yield
        except BaseException:
            self._vector.assign(self._x.read_value())
            write(self._written, read(self._values))
            raise


def _handles(variables):
    """ids, of the first copy where there are several: objects may differ that stand for one variable."""
    return [id(getattr(v, "values", [v])[0].handle) for v in variables]
