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

from trainloop.distributed.shards import Shards, WholeArray
from trainloop.matrices import lazy
from trainloop.matrices.rows import Rows, write_rows


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedRows(Rows):
    """R: `stored` has a tensor or a variable for every shard; what is not in this process stays lazy."""

    n: int
    shards: Shards
    sharded = True

    @classmethod
    def zeros(cls, k, n, dtype, shards):
        edges = _edges(n, shards.count)
        return cls(tuple(lazy.zeros([k, last - first], dtype) for first, last in edges), n, shards)

    @property
    def where(self):
        return self.shards.in_words

    @property
    def shape(self):
        return tf.TensorShape([self.arrays[0].shape[0], self.n])

    @property
    def dtype(self):
        return tf.as_dtype(self.stored[0].dtype)

    @property
    def arrays(self):
        return tuple(self.stored[shard] for shard in self.shards.mine)

    @property
    def elsewhere(self):
        return tuple(piece for shard, piece in enumerate(self.stored) if shard not in self.shards.mine)

    def as_variables(self, make_variable, name, grows):
        self.shards.check_no_scope()
        pieces = list(self.stored)
        for shard in self.shards.mine:
            with self.shards.on(shard):
                pieces[shard] = make_variable(f"{name}_{shard:02d}", pieces[shard], grows)
        return dataclasses.replace(self, stored=tuple(pieces))

    def wholes(self, name):
        pieces = [(np.s_[:, first:last], piece) for piece, first, last in self._mine()]
        return {name: WholeArray(self.shape, self.dtype, pieces, self.shards)}

    def summed(self, multiply, *vectors):
        return self.shards.sum(self._each(multiply, vectors))

    def joined(self, multiply, *vectors):
        padded = [
            tf.pad(part, [[first, self.n - last]] + [[0, 0]] * (part.shape.rank - 1))
            for part, (_, first, last) in zip(self._each(multiply, vectors), self._mine(), strict=True)
        ]
        return self.shards.sum(padded)

    def write(self, first, vectors, when=True):
        for piece, start, end in self._mine():
            if end > start:
                write_rows(piece, first, [v[start:end] for v in vectors], when)

    def _each(self, multiply, vectors):
        edges = _edges(self.n, self.shards.count)

        def cut(v, shard):
            return v.stored[shard] if isinstance(v, ShardedRows) else v[slice(*edges[shard])]

        return self.shards.map(lambda shard: multiply(self.stored[shard], *(cut(v, shard) for v in vectors)))

    def _mine(self):
        """(piece, first column, last column) of every piece of this process."""
        edges = _edges(self.n, self.shards.count)
        return [(self.stored[shard], *edges[shard]) for shard in self.shards.mine]


def _edges(n, count):
    return [(n * i // count, n * (i + 1) // count) for i in range(count)]
