"""What a training pass writes besides the step, taken back where the step is not taken.

The pass that gives f and g also moves BatchNormalization averages, dropout seeds and counters of metrics. A batch whose
loss is NaN would leave NaN in the averages, and a model that is lost although its weights are not.
"""

import keras
import tensorflow as tf


class SideEffects:
    """Variables as they are before a pass. Made and used inside of compiled code.

    Args:
        variables: those that the pass may write.
    """

    def __init__(self, variables):
        self._variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        self._before = [tf.identity(v) for v in self._variables]

    def undo(self):
        """Write the values from before the pass again."""
        for variable, value in zip(self._variables, self._before, strict=True):
            variable.assign(value)
        return tf.no_op()

    def undo_where(self, failed):
        """The same where `failed`, bool [], is true."""
        if self._variables:
            tf.cond(failed, self.undo, tf.no_op)
