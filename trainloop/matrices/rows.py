"""Rows of n numbers, R [k, n], that are written in place.

A sliced assignment makes TensorFlow copy the whole matrix at each later read. XLA writes a row where it stands if the
assignment is part of what it compiles, so for long rows a write costs what the row takes, and no memory
(`write_rows`). Whatever reads the matrix must be done before, else the buffer is in use and is copied after all: call
this with those results as control dependencies.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from trainloop.matrices import lazy


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """R, a tensor or a variable, in one piece. `ShardedRows` has the same methods."""

    stored: Any
    sharded = False
    where = ""  # for people: over what the rows are sharded

    @classmethod
    def zeros(cls, k, n, dtype):
        return cls(lazy.zeros([k, n], dtype))

    @property
    def shape(self):
        """[k, n]; k is None where it grows."""
        return tf.TensorShape(self.stored.shape)

    @property
    def dtype(self):
        return tf.as_dtype(self.stored.dtype)

    @property
    def arrays(self):
        """The pieces of this process."""
        return (self.stored,)

    @property
    def elsewhere(self):
        """The pieces of other processes, lazy."""
        return ()

    @property
    def whole(self):
        """[k, n], where nothing is sharded."""
        return tf.convert_to_tensor(self.stored)

    def as_variables(self, make_variable, name, grows):
        return Rows(make_variable(name, self.stored, grows))

    def wholes(self, name):
        """R by its name as one array, so that what is saved does not tell how many shards there were."""
        return {}

    def summed(self, multiply, *vectors):
        """The sum over the pieces of `multiply(R_i, *parts)`, of a shape that does not depend on the piece.

        Args:
            multiply: function of a piece and the part of each of `vectors` that belongs to it.
            *vectors: [n] or [n, c], or other rows that are stored alike.
        """
        return multiply(self.stored, *(v.stored if isinstance(v, Rows) else v for v in vectors))

    def joined(self, multiply, *vectors):
        """The rows `multiply(R_i, *parts)` of all pieces, together [n, ...]. Arguments as in `summed`."""
        return self.summed(multiply, *vectors)

    def product(self, columns):
        """R columns, [k, c], for columns [n, c]."""
        return self.summed(tf.linalg.matmul, columns)

    def transposed_product(self, weights):
        """R' weights, [n, c], for weights [k, c]."""
        return self.joined(lambda piece: tf.linalg.matmul(piece, weights, transpose_a=True))

    def gram(self):
        """R R', [k, k]."""
        return self.summed(lambda piece: tf.linalg.matmul(piece, piece, transpose_b=True))

    def write(self, first, vectors, when=True):
        """Put vectors [n] into the rows from `first` on, see `write_rows`."""
        write_rows(self.stored, first, vectors, when)

    def replace(self, change):
        """R_i <- change(R_i)."""
        for piece in self.arrays:
            piece.assign(change(tf.convert_to_tensor(piece)))


# Shorter rows are cheaper to write by plain operations than by a call of compiled code.
_LONG = 2**10


def write_rows(matrix, first, rows, when=True):
    """matrix[first : first + r] <- rows.

    Args:
        matrix: variable [m, n], or rows in groups [m / k, k, n]; the first dimension may be open.
        first: int32 [].
        rows: r tensors [n], r a Python number.
        when: bool []; where it is false nothing changes.
    """
    if matrix.shape[-1] < _LONG:
        _by_copy(matrix, first, tf.convert_to_tensor(when), rows)
    elif when is True:
        _in_place(matrix, first, *rows)
    else:
        # Not a choice between the new row and the old one: that would be a row more in memory.
        tf.cond(when, lambda: _in_place(matrix, first, *rows), lambda: None)


def _by_copy(matrix, first, when, rows):
    whole, places = _rows(matrix), first + tf.range(len(rows))
    rows = tf.where(when, tf.stack(rows), tf.gather(whole, places))
    _assign(matrix, tf.tensor_scatter_nd_update(whole, places[:, None], rows))


def _in_place(matrix, first, *rows):
    @tf.function(jit_compile=True, autograph=False)
    def write(first, *rows):
        whole = _rows(matrix)
        # A TensorArray is what XLA updates in place both inside of a loop and outside.
        array = tf.TensorArray(matrix.dtype, size=tf.shape(whole)[0], element_shape=whole.shape[1:]).unstack(whole)
        for i, row in enumerate(rows):
            array = array.write(first + i, row)
        _assign(matrix, array.stack())

    write(first, *rows)


def _rows(matrix):
    return tf.reshape(matrix, [-1, matrix.shape[-1]])


def _assign(matrix, rows):
    matrix.assign(tf.reshape(rows, tf.shape(matrix)))
