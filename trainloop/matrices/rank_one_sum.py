"""A sum of rank-one matrices, U' diag(c) V, one row of U [k, n] and V [k, n] for each, see `rows`.

The rows have room for k terms, of which `rank` are in use; the coefficients of the others are zero, and products take
all rows, because a slice would be a copy. Where the number of rows is open, they grow by a quarter when they are full.
"""

import dataclasses

import tensorflow as tf

from trainloop.distributed.shards import ALONE
from trainloop.matrices.rows import SpreadRows
from trainloop.types import Array
from trainloop.vectors import linalg


def first_rows(n):
    """How many rows of n numbers a growing history begins with: 64, or fewer where they are long."""
    return max(8, min(64, 2**24 // n))


@dataclasses.dataclass(frozen=True, eq=False)
class RankOneSum:
    """U' diag(c) V as tensors or variables."""

    left: SpreadRows  # U [k, n]
    right: SpreadRows  # V [k, n]; the same object as U for symmetric terms
    coefficients: Array  # c [k]
    rank: Array  # int32 []
    room: Array | int  # k: int32 [] where it grows, else a number

    @classmethod
    def empty(cls, n, capacity, dtype, symmetric, shards=ALONE):
        """No terms.

        Args:
            n: length of the vectors.
            capacity: k, or None for one that grows.
            dtype: of everything.
            symmetric: every v_j is u_j.
            shards: over which U and V are sharded.
        """
        rows = capacity or first_rows(n)
        left = SpreadRows.zeros(rows, n, dtype, shards)
        right = left if symmetric else SpreadRows.zeros(rows, n, dtype, shards)
        return cls(left, right, tf.zeros([rows], dtype), tf.constant(0), capacity or tf.constant(rows))

    @property
    def grows(self):
        return not isinstance(self.room, int)

    @property
    def arrays(self):
        rows = [piece for rows in self._sides.values() for piece in rows.here]
        return (*rows, self.coefficients, self.rank, *([self.room] if self.grows else []))

    @property
    def elsewhere(self):
        return tuple(piece for rows in self._sides.values() for piece in rows.elsewhere)

    @property
    def shards(self):
        return self.left.shards

    @property
    def _sides(self):
        return {"left": self.left} if self.right is self.left else {"left": self.left, "right": self.right}

    def wholes(self):
        return {name: whole for side, rows in self._sides.items() for name, whole in rows.wholes(side).items()}

    def in_words(self):
        vectors = "a vector" if self.right is self.left else "two vectors"
        return vectors if self.shards is ALONE else f"{vectors}, {self.shards.in_words},"

    def as_variables(self, make_variable):
        sides = {name: rows.as_variables(make_variable, name, self.grows) for name, rows in self._sides.items()}
        left, right = sides["left"], sides.get("right", sides["left"])
        coefficients = make_variable("coefficients", self.coefficients, self.grows)
        rank = make_variable("rank", self.rank, False)
        room = make_variable("room", self.room, False) if self.grows else self.room
        return RankOneSum(left, right, coefficients, rank, room)

    @property
    def capacity(self):
        """How many terms fit in; None for a growing number."""
        return None if self.grows else self.room

    def has_room_for(self, r):
        """bool []: r more terms fit in."""
        # Not read off the shape of a variable: TensorFlow orders that by no other use of the variable.
        return self.rank + r <= self.room

    def weighted(self):
        """(left, right) [k, n] with left' right = the sum; not where it is sharded."""
        left, right, c = self.left.whole, self.right.whole, tf.convert_to_tensor(self.coefficients)
        return (c[:, None] * left, right) if self.right is not self.left else _balanced(left, c)

    def product(self, columns):
        weights = tf.convert_to_tensor(self.coefficients)[:, None] * self.right.product(columns)
        return self.left.transposed_product(weights)

    def transposed_product(self, columns):
        return dataclasses.replace(self, left=self.right, right=self.left).product(columns)

    def scale(self, factor):
        self.coefficients.assign(tf.math.multiply_no_nan(self.coefficients, factor))

    def append(self, terms):
        """Write terms (u_j, v_j, c_j) behind those in use; there must be room."""
        first = tf.convert_to_tensor(self.rank)
        us, vs, cs = zip(*terms, strict=True)
        self.left.write(first, us)
        if self.right is not self.left:
            self.right.write(first, vs)
        places = first + tf.range(len(cs))
        self.coefficients.assign(tf.tensor_scatter_nd_update(self.coefficients, places[:, None], tf.stack(cs)))
        self.rank.assign_add(len(cs))

    def clear(self):
        self.coefficients.assign(tf.zeros_like(self.coefficients))
        self.rank.assign(0)

    def grow(self, r):
        """Make room for at least r more terms."""
        more = tf.maximum(max(first_rows(self.left.shape[1]), r), self.room // 4)
        for rows in self._sides.values():
            rows.replace(lambda piece: tf.pad(piece, [[0, more], [0, 0]]))
        self.coefficients.assign(tf.pad(self.coefficients, [[0, more]]))
        self.room.assign_add(more)

    def keep_largest(self, r):
        """Replace the sum by its best approximation of rank r: the r largest of its singular values.

        With U = R_u' E_u and V = R_v' E_v, the rows of E orthonormal, the sum is E_u' (R_u diag(c) R_v') E_v, and the
        matrix in the middle is k x k.
        """
        c = tf.convert_to_tensor(self.coefficients)
        root_u, basis_u = _orthonormal(self.left.gram())
        root_v, basis_v = (root_u, basis_u) if self.right is self.left else _orthonormal(self.right.gram())
        middle = tf.linalg.matmul(root_u * tf.cast(c, tf.float64), root_v, transpose_b=True)
        if self.right is self.left:
            values, vectors = tf.linalg.eigh(linalg.symmetric(middle))
            largest = tf.argsort(-tf.abs(values))[:r]
            values, turn_u = tf.gather(values, largest), tf.gather(vectors, largest, axis=1)
        else:
            values, turn_u, turn_v = tf.linalg.svd(middle)
            values, turn_u, turn_v = values[:r], turn_u[:, :r], turn_v[:, :r]
            self.right.replace(lambda rows: _kept(turn_v, basis_v, rows))
        self.left.replace(lambda rows: _kept(turn_u, basis_u, rows))
        self.coefficients.assign(tf.pad(tf.cast(values, c.dtype), [[0, c.shape[0] - r]]))
        self.rank.assign(r)


def _balanced(u, c):
    """The factors of sum_j c_j u_j u_j'. They give (i, j) and (j, i) the same bits.

    With c on one side the two would differ by a rounding, and a matrix that is off symmetry by one rounding per step
    soon is no longer positive definite.
    """
    half = tf.sqrt(tf.abs(c))[:, None] * u
    return tf.sign(c)[:, None] * half, half


def weighted(terms):
    """(left [r, n], right [r, n]) with left' right = sum_j c_j u_j v_j', for terms (u_j, v_j, c_j)."""
    us, vs, cs = zip(*terms, strict=True)
    left, right, c = tf.stack(us), tf.stack(vs), tf.stack(cs)
    if all(u is v for u, v in zip(us, vs, strict=True)):
        return _balanced(left, c)
    return c[:, None] * left, right


def _orthonormal(gram):
    """(R [k, k], W [k, k]) in float64 with rows = R' E and E = W rows, whose rows are orthonormal or zero.

    From the eigenvalues of gram = rows rows'. Directions below the rounding of the largest are left out.
    """
    values, vectors = tf.linalg.eigh(tf.cast(gram, tf.float64))
    rounding = gram.shape[0] * linalg.eps(gram.dtype)
    usable = values > rounding * tf.reduce_max(values)
    roots, directions = tf.sqrt(tf.where(usable, values, 1))[:, None], tf.transpose(vectors)
    return tf.where(usable[:, None], roots * directions, 0), tf.where(usable[:, None], directions / roots, 0)


def _kept(turn, basis, rows):
    """The rows of turn' E, E = basis rows, with zeros below: [k, n] again."""
    kept = tf.linalg.matmul(tf.cast(tf.linalg.matmul(turn, basis, transpose_a=True), rows.dtype), rows)
    return tf.pad(kept, [[0, rows.shape[0] - kept.shape[0]], [0, 0]])
