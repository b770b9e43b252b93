"""Rows of a matrix variable, written in place.

A sliced assignment makes TensorFlow copy the whole matrix at each later read. XLA writes a row where it stands if the
assignment is part of what it compiles, so for long rows a write costs what the row takes, and no memory.

Whatever reads the matrix must be done before, else the buffer is in use and is copied after all: call this with those
results as control dependencies.
"""

import tensorflow as tf

# Shorter rows are cheaper to write by plain operations than by a call of compiled code.
_LONG = 2**10


def write_rows(matrix, first, rows):
    """matrix[first : first + r] <- rows.

    Args:
        matrix: variable [m, n]; m may be open.
        first: int32 [].
        rows: r tensors [n], r a Python number.
    """
    if matrix.shape[1] < _LONG:
        places = first + tf.range(len(rows))
        matrix.assign(tf.tensor_scatter_nd_update(matrix, places[:, None], tf.stack(rows)))
    else:
        tf.function(lambda *args: _in_place(matrix, *args), jit_compile=True, autograph=False)(first, *rows)


def _in_place(matrix, first, *rows):
    # A TensorArray is what XLA updates in place both inside of a loop and outside.
    array = tf.TensorArray(matrix.dtype, size=tf.shape(matrix)[0], element_shape=matrix.shape[1:]).unstack(matrix)
    for i, row in enumerate(rows):
        array = array.write(first + i, row)
    matrix.assign(array.stack())
