"""Rows of n numbers, R [k, n], in pieces of columns: one for every shard, see `shards`.

    shard     0          1          2
            +----------+----------+---------+
        R   |  R_0     |  R_1     |  R_2    |      columns e_i .. e_(i+1) in shard i
            +----------+----------+---------+

    R v     = sum_i R_i v[e_i : e_(i+1)]           a sum over the shards of k numbers
    R' c    has the rows R_i' c one below the other    a sum over the shards of n numbers, each with zeros elsewhere

A row is written, and rows are made room for, without any traffic: every shard cuts its columns out of the vector.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from trainloop import unmade
from trainloop.row_writing import write_rows
from trainloop.shards import ALONE, Shards
from trainloop.whole_array import WholeArray


@dataclasses.dataclass(frozen=True, eq=False)
class SpreadRows:
    """R, of tensors or variables; what is not in this process stays unmade. One piece where nothing is spread."""

    pieces: tuple
    n: int
    shards: Shards = ALONE

    @classmethod
    def zeros(cls, k, n, dtype, shards=ALONE):
        edges = _edges(n, shards.count)
        return cls(tuple(unmade.zeros([k, last - first], dtype) for first, last in edges), n, shards)

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
        """[k, n], where nothing is spread."""
        (piece,) = self.pieces
        return tf.convert_to_tensor(piece)

    def as_variables(self, make_variable, name, grows):
        pieces = list(self.pieces)
        if self.shards is not ALONE:
            self.shards.refuse_scopes()
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
            *vectors: [n] or [n, c], or other rows that are spread alike.
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
