"""Rows of a matrix variable, written in place.

A sliced assignment makes TensorFlow copy the whole matrix at each later read. XLA writes a row where it stands if the
assignment is part of what it compiles, so for long rows a write costs what the row takes, and no memory.

Whatever reads the matrix must be done before, else the buffer is in use and is copied after all: call this with those
results as control dependencies.
"""

import tensorflow as tf

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
