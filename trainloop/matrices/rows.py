"""Rows of n numbers, R [k, n], in pieces of columns: one for every shard, see `shards`.

    shard     0          1          2
            +----------+----------+---------+
        R   |  R_0     |  R_1     |  R_2    |      columns e_i .. e_(i+1) in shard i
            +----------+----------+---------+

    R v     = sum_i R_i v[e_i : e_(i+1)]           a sum over the shards of k numbers
    R' c    has the rows R_i' c one below the other    a sum over the shards of n numbers, each with zeros elsewhere

A row is written, and rows are made room for, without any traffic: every shard cuts its columns out of the vector.

How a row is written in place (`write_rows`): a sliced assignment makes TensorFlow copy the whole matrix at each later
read. XLA writes a row where it stands if the assignment is part of what it compiles, so for long rows a write costs
what the row takes, and no memory. Whatever reads the matrix must be done before, else the buffer is in use and is
copied after all: call this with those results as control dependencies.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from trainloop.distributed.shards import ALONE, Shards, WholeArray
from trainloop.matrices import lazy


@dataclasses.dataclass(frozen=True, eq=False)
class SpreadRows:
    """R, of tensors or variables; what is not in this process stays lazy. One piece where nothing is sharded."""

    pieces: tuple
    n: int
    shards: Shards = ALONE

    @classmethod
    def zeros(cls, k, n, dtype, shards=ALONE):
        edges = _edges(n, shards.count)
        return cls(tuple(lazy.zeros([k, last - first], dtype) for first, last in edges), n, shards)

    @property
    def shape(self):
        """[k, n]; k is None where it grows."""
        return tf.TensorShape([self.pieces[self.shards.mine[0]].shape[0], self.n])

    @property
    def dtype(self):
        return tf.as_dtype(self.pieces[0].dtype)

    @property
    def here(self):
        """The pieces of this process."""
        return tuple(self.pieces[shard] for shard in self.shards.mine)

    @property
    def elsewhere(self):
        """The pieces of other processes."""
        return tuple(piece for shard, piece in enumerate(self.pieces) if shard not in self.shards.mine)

    @property
    def whole(self):
        """[k, n], where nothing is sharded."""
        (piece,) = self.pieces
        return tf.convert_to_tensor(piece)

    def as_variables(self, make_variable, name, grows):
        pieces = list(self.pieces)
        if self.shards is not ALONE:
            self.shards.check_no_scope()
        for shard in self.shards.mine:
            with self.shards.on(shard):
                pieces[shard] = make_variable(self._name(name, shard), pieces[shard], grows)
        return dataclasses.replace(self, pieces=tuple(pieces))

    def wholes(self, name):
        """R by its name as one array, so that what is saved does not tell how many shards there were."""
        if self.shards is ALONE:
            return {}
        pieces = [(np.s_[:, first:last], piece) for piece, first, last in self._mine()]
        return {name: WholeArray(self.shape, self.dtype, pieces, self.shards)}

    def summed(self, multiply, *vectors):
        """The sum over the shards of `multiply(R_i, *parts)`, of a shape that does not depend on the shard.

        Args:
            multiply: function of a piece and the part of each of `vectors` that belongs to it.
            *vectors: [n] or [n, c], or other rows that are sharded alike.
        """
        return self.shards.sum(self._each(multiply, vectors))

    def joined(self, multiply, *vectors):
        """The rows `multiply(R_i, *parts)`, [e_(i+1) - e_i, ...], of all shards: [n, ...]. Arguments as in `summed`."""
        parts = self._each(multiply, vectors)
        if len(self.pieces) == 1:
            return parts[0]
        padded = [
            tf.pad(part, [[first, self.n - last]] + [[0, 0]] * (part.shape.rank - 1))
            for part, (_, first, last) in zip(parts, self._mine(), strict=True)
        ]
        return self.shards.sum(padded)

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
        for piece, start, end in self._mine():
            if end > start:
                write_rows(piece, first, vectors if end - start == self.n else [v[start:end] for v in vectors], when)

    def replace(self, change):
        """R_i <- change(R_i)."""
        for piece in self.here:
            piece.assign(change(tf.convert_to_tensor(piece)))

    def _each(self, multiply, vectors):
        def cut(v, shard):
            if isinstance(v, SpreadRows):
                return v.pieces[shard]
            first, last = _edges(self.n, len(self.pieces))[shard]
            return v if len(self.pieces) == 1 else v[first:last]

        return self.shards.map(lambda shard: multiply(self.pieces[shard], *(cut(v, shard) for v in vectors)))

    def _mine(self):
        """(piece, first column, last column) of every piece of this process."""
        edges = _edges(self.n, len(self.pieces))
        return [(self.pieces[shard], *edges[shard]) for shard in self.shards.mine]

    def _name(self, name, shard):
        return name if self.shards is ALONE else f"{name}_{shard:02d}"


def _edges(n, count):
    return [(n * i // count, n * (i + 1) // count) for i in range(count)]


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
