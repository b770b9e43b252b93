"""Whether a method remembers NaN: looked for once per block of steps, because a look costs a pass over the state.

A step whose f, g or x is not finite is never taken. But a method may put NaN into a vector that it uses only later, and
then every later step fails, and every checkpoint is poisoned. Scalars may be NaN on purpose, as "not known yet", and a
`SharedMatrix` refuses a change that is not finite by itself.
"""

import functools

import tensorflow as tf

from trainloop import state as states


class NanInState:
    """Looks into the state of an optimizer.

    Args:
        optimizer: built.
    """

    def __init__(self, optimizer):
        # A partial, because TensorFlow takes the same method of many loops for one that is traced again and again.
        self._count = tf.function(functools.partial(_counts, optimizer), autograph=False)

    def __call__(self):
        """A sentence that names what has NaN, or None."""
        found = {path: (int(count), size) for path, (count, size) in self._count().items()}
        named = [f"{path} ({count:,} of {int(size):,} numbers)" for path, (count, size) in found.items() if count]
        return f"the method's state has NaN in {', '.join(named)}" if named else None


def _counts(optimizer):
    """(how many numbers are NaN [], how many there are []) by path."""
    return {
        path: (tf.math.count_nonzero(tf.math.is_nan(leaf)), tf.size(leaf))
        for path, leaf in states.flatten(optimizer.state).items()
        if tf.is_tensor(leaf) and leaf.dtype.is_floating and leaf.shape.rank != 0
    }
