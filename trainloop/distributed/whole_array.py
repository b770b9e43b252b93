"""An array of which processes have pieces, seen as a variable that can be saved and restored."""

import functools

import numpy as np
import tensorflow as tf


class WholeArray:
    """What a variable would be that had all numbers.

    Reading it gathers the pieces, so every process must read it, at the same point of its work; and every process has
    the whole for that moment. Assigning takes from the whole what belongs here.

    Attributes:
        shape: of the whole; None in it where it grows.
        dtype: of the numbers.
        pieces: (place, variable) of each piece in this process; a place is an index of NumPy, `...` for everything.
    """

    def __init__(self, shape, dtype, pieces, shards):
        self.shape, self.dtype = tf.TensorShape(shape), tf.as_dtype(dtype)
        self.pieces, self._shards = pieces, shards

    def numpy(self):
        """The whole, bit for bit."""
        shape = [size if size is not None else int(tf.shape(self.pieces[0][1])[i]) for i, size in enumerate(self.shape)]
        whole = np.zeros(shape, self.dtype.as_numpy_dtype)
        for place, variable in self.pieces:
            whole[place] = variable.numpy()
        if self._shards.strategy is None:
            return whole
        # As integers: sums of numbers would lose the sign of a zero.
        bits = tf.constant(whole.view(f"int{8 * self.dtype.size}").reshape(-1))
        total = _compiled_sum(self._shards, bits.dtype)(bits)
        return total.numpy().view(self.dtype.as_numpy_dtype).reshape(shape)

    def __array__(self, dtype=None, copy=None):
        return self.numpy().astype(dtype or self.dtype.as_numpy_dtype, copy=False)

    def assign(self, value):
        """Take what belongs here of the whole."""
        for place, variable in self.pieces:
            variable.assign(value[place])


def take_part(arrays):
    """Read what has to be read by all, in a process that does not write it: the others wait for its pieces.

    Args:
        arrays: what they write, in the same order: dict of arrays by name, of which `WholeArray`s are read.
    """
    for array in arrays.values():
        if isinstance(array, WholeArray):
            array.numpy()


@functools.lru_cache(maxsize=4)
def _compiled_sum(shards, dtype):
    return tf.function(lambda v: shards.sum([v]), input_signature=[tf.TensorSpec([None], dtype)], autograph=False)
