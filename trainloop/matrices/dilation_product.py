"""A product of dilations, D_1 D_2 ... D_k with D_j = I + b_j xi_j xi_j', applied eight factors at a time.

Eight factors in a row are one matrix of rank eight (the compact form of Schreiber and Van Loan 1989, there for
reflections),

    D_1 ... D_q = I + Xi' T Xi        Xi [q, n],  T [q, q] upper triangular

where another factor on the right adds the column  b (T Xi xi, 1)  to T. Groups of eight keep the digits of the product:
a sum over all factors would cancel where B has become small along a direction. And they cost an eighth of the calls.
"""

import dataclasses

import tensorflow as tf

from trainloop.distributed.shards import ALONE
from trainloop.matrices import lazy
from trainloop.matrices.rank_one_sum import first_rows
from trainloop.matrices.rows import write_rows
from trainloop.types import Array

GROUP = 8


@dataclasses.dataclass(frozen=True, eq=False)
class DilationProduct:
    """The product as tensors or variables; factors that are not in use have zeros in their T."""

    directions: Array | lazy.Lazy  # Xi, [k / GROUP, GROUP, n]
    triangles: Array  # T, [k / GROUP, GROUP, GROUP]
    rank: Array  # number of factors, int32 []
    room: Array | int  # k: int32 [] where it grows, else a number

    @classmethod
    def empty(cls, n, capacity, dtype):
        """No factors.

        Args:
            n: length of the vectors.
            capacity: how many factors fit in, rounded up to a multiple of eight; None for a number that grows.
            dtype: of everything.
        """
        groups = -(-(capacity or first_rows(n)) // GROUP)
        directions = lazy.zeros([groups, GROUP, n], dtype)
        room = GROUP * groups if capacity else tf.constant(GROUP * groups)
        return cls(directions, tf.zeros([groups, GROUP, GROUP], dtype), tf.constant(0), room)

    shards, elsewhere = ALONE, ()  # every process has all of it

    @property
    def grows(self):
        return not isinstance(self.room, int)

    @property
    def arrays(self):
        return (self.directions, self.triangles, self.rank, *([self.room] if self.grows else []))

    def wholes(self):
        return {}

    def in_words(self):
        return "a vector"

    def as_variables(self, make_variable):
        return DilationProduct(
            make_variable("directions", self.directions, self.grows),
            make_variable("triangles", self.triangles, self.grows),
            make_variable("rank", self.rank, False),
            make_variable("room", self.room, False) if self.grows else self.room,
        )

    @property
    def capacity(self):
        """How many factors fit in; None for a growing number."""
        return None if self.grows else self.room

    def has_room_for(self, r):
        """bool []: r more factors fit in."""
        return self.rank + r <= self.room

    def product(self, columns):
        """D_1 ... D_k columns."""
        last = self._groups_in_use() - 1
        return self._over_groups(columns, lambda i: last - i, transpose=False)

    def transposed_product(self, columns):
        """D_k ... D_1 columns."""
        return self._over_groups(columns, lambda i: i, transpose=True)

    def group(self, i):
        """(Xi [GROUP, n], T) of one group."""
        return tf.gather(self.directions, i), tf.gather(self.triangles, i)  # XLA would compile anew for every index

    def _groups_in_use(self):
        return (self.rank + GROUP - 1) // GROUP

    def _over_groups(self, columns, order, transpose):
        def apply(i, columns):
            Xi, T = self.group(order(i))
            inner = tf.linalg.matmul(T, tf.linalg.matmul(Xi, columns), transpose_a=transpose)
            return i + 1, columns + tf.linalg.matmul(Xi, inner, transpose_a=True)

        groups = self._groups_in_use()
        _, columns = tf.while_loop(lambda i, _: i < groups, apply, (tf.constant(0), columns), parallel_iterations=1)
        return columns

    def append(self, dilations):
        """Multiply with factors (xi_j, b_j) on the right; there must be room."""
        for xi, b in dilations:
            group, column = self.rank // GROUP, self.rank % GROUP
            Xi, T = self.group(group)
            place = tf.one_hot(column, GROUP, dtype=T.dtype)
            new = b * (tf.linalg.matvec(T, tf.linalg.matvec(Xi, xi)) + place)
            T += new[:, None] * place
            self.triangles.assign(tf.tensor_scatter_nd_update(self.triangles, [[group]], T[None]))
            write_rows(self.directions, tf.convert_to_tensor(self.rank), [xi])
            self.rank.assign_add(1)

    def clear(self):
        self.triangles.assign(tf.zeros_like(self.triangles))
        self.rank.assign(0)

    def grow(self, r):
        """Make room for at least r more factors."""
        least = -(-max(first_rows(self.directions.shape[2]), r) // GROUP)
        more = tf.maximum(least, self.room // GROUP // 4)
        self.triangles.assign(tf.pad(self.triangles, [[0, more], [0, 0], [0, 0]]))
        self.directions.assign(tf.pad(self.directions, [[0, more], [0, 0], [0, 0]]))
        self.room.assign_add(GROUP * more)
