"""The n x n numbers of a dense matrix M, kept in panels of rows, and changed in place.

    panel i    rows e_i .. e_{i+1} of M; where M is symmetric, only their columns up to e_{i+1}

    any M    +----------+        symmetric    +--+
             |   P_0    |                     |P0|
             +----------+                     +--+--+
             |   P_1    |                     | P_1 |
             +----------+                     +-----+--+
             |   P_2    |                     |  P_2   |
             +----------+                     +--------+

    M x      rows e_i .. e_{i+1}:  P_i x[:width];   symmetric: and rows :e_i get  P_i[:, :e_i]' x[e_i : e_{i+1}]

So a symmetric matrix takes half of the memory, and changing it half of the time. The squares on the diagonal are kept
whole; with 16 panels they add a sixteenth to that half.

Panels may be sharded, see `shards`: every panel is whole in one of them, and a product is one sum over the
shards of n numbers per column, to which a panel contributes its rows (and where M is symmetric, or for M', a part of
other rows). There are 24 panels then, for 12 shards or fewer, so that the panels of a matrix do not depend on how many
shards have them; and they are dealt such that all shards have about as many numbers.

A change of rank k reads and writes every number once: XLA compiles it, with its assignment, into one pass that takes no
memory. Up to k = 8 or so that pass is bound by memory, so that eight changes at a time cost little more than one.
"""

import dataclasses
import functools
import itertools

import tensorflow as tf

from trainloop.distributed import shards
from trainloop.distributed.shards import ALONE, Shards, WholeArray
from trainloop.matrices import lazy
from trainloop.matrices.lazy import Lazy

# Up to this n there is one panel, changed by plain operations: calls are what costs there, not memory. Beyond, panels
# have about as many rows, but there are no more than sixteen: each is a piece of code to compile.
SMALL = 2048
_PANELS = 16

# The least number of panels of a sharded matrix: 2, 3, 4, 6, 8 and 12 shards get as many each, also of a symmetric M
# where a long one comes with a short one.
_SHARDED_PANELS = 24

# Changes of a higher rank are matrix products, which take the memory of a panel.
_LARGEST_PASS = 16


def _made_unit_rows(first, shape, dtype):
    """`_unit_rows` allocates almost no temporaries when it is not compiled by XLA."""
    rows, width = shape
    return tf.pad(tf.eye(rows, dtype=dtype), [[0, 0], [first, width - first - rows]])


def _unit_rows(first, shape, dtype):
    rows, width = shape
    return tf.cast(tf.equal(first + tf.range(rows)[:, None], tf.range(width)), dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Panels:
    """M, built from tensors or variables; what is not in this process stays lazy."""

    parts: tuple
    n: int
    symmetric: bool
    shards: Shards = ALONE

    @classmethod
    def identity(cls, n, dtype, symmetric, shards=ALONE):
        parts = [
            Lazy(tf.TensorShape(shape), dtype, functools.partial(_made_unit_rows, first, shape, dtype))
            for first, shape in _places(n, symmetric, _count(n, shards))
        ]
        return cls(tuple(parts), n, symmetric, shards)

    @classmethod
    def absent(cls, n, dtype, symmetric):
        """Panels without rows, which `fill` may give them later."""
        places = _places(n, symmetric, _count(n, ALONE))
        return cls(tuple(lazy.zeros([0, width], dtype) for _, (_, width) in places), n, symmetric)

    @property
    def dtype(self):
        return tf.as_dtype(self.parts[0].dtype)

    @property
    def sharded(self):
        """Whether M was asked to be sharded, be it over one shard."""
        return self.shards is not ALONE

    @property
    def here(self):
        """The parts that are in this process."""
        return tuple(part for shard in self.shards.mine for part, *_ in self._placed(shard))

    @property
    def elsewhere(self):
        """The parts that are in other processes."""
        return tuple(part for part, owner in zip(self.parts, self._owners(), strict=True) if not self._is_mine(owner))

    @property
    def workspace(self):
        """Bytes that a change takes for a moment."""
        return (2 if self.n <= SMALL else 0) * sum(part.shape.num_elements() for part in self.here) * self.dtype.size

    @property
    def filled(self):
        """Bytes of all panels when they have rows, and what `fill` takes for a moment."""
        largest = max(rows for _, (rows, _) in self._places()) * self.n
        return (sum(rows * width for _, (rows, width) in self._places()) + 3 * largest) * self.dtype.size

    def in_words(self):
        how = (
            "n x n numbers"
            if not self.symmetric or len(self.parts) == 1
            else "half of n x n numbers, B being symmetric"
        )
        return f"{how}, {self.shards.in_words}" if self.sharded else how

    def as_variables(self, make_variable, *, later=False):
        if self.sharded:
            self.shards.check_no_scope()
        parts = list(self.parts)
        for i, (name, owner) in enumerate(zip(self.widths(), self._owners(), strict=True)):
            if self._is_mine(owner):
                with self.shards.on(owner):
                    parts[i] = make_variable(name, parts[i], later)
        return dataclasses.replace(self, parts=tuple(parts))

    def wholes(self):
        """The panels of all processes by name, see `WholeArray`; nothing where all of them are here."""
        if self.shards.strategy is None:
            return {}
        owners = [self._is_mine(owner) for owner in self._owners()]
        return {
            name: WholeArray(part.shape, self.dtype, [(..., part)] if mine else [], self.shards)
            for name, part, mine in zip(self.widths(), self.parts, owners, strict=True)
        }

    def product(self, columns):
        """M columns, for columns [n, k]."""
        return self._summed(self._symmetric_product if self.symmetric else self._product, columns)

    def transposed_product(self, columns):
        """M' columns."""
        return self._summed(self._symmetric_product if self.symmetric else self._transposed_product, columns)

    def _summed(self, multiply, columns):
        return self.shards.sum(self.shards.map(lambda shard: multiply(self._placed(shard), columns)))

    def _product(self, placed, columns):
        """M columns, where other rows of M than those of the panels are zero."""
        blocks, end = [], 0
        for part, first, (rows, width) in placed:
            blocks += [tf.zeros_like(columns[end:first])] if first > end else []
            blocks.append(tf.linalg.matmul(part, columns[:width]))
            end = first + rows
        blocks += [tf.zeros_like(columns[end:])] if end < self.n else []
        return tf.concat(blocks, 0)

    def _transposed_product(self, placed, columns):
        """M' columns, where other rows of M are zero."""
        products = [_transposed(part, columns[first : first + rows]) for part, first, (rows, _) in placed]
        return tf.add_n(products) if products else tf.zeros_like(columns)

    def _symmetric_product(self, placed, columns):
        """M columns, where other rows of M than those of the panels, and the columns that mirror them, are zero."""
        above = [
            tf.pad(_transposed(part, columns[first : first + rows])[:first], [[0, self.n - first], [0, 0]])
            for part, first, (rows, _) in placed
            if first
        ]
        return tf.add_n([self._product(placed, columns), *above])

    def fold(self, scale, left, right, shift=None):
        """M <- scale M + left' right + shift I, in place.

        Args:
            scale: [].
            left, right: [k, n], k a Python number.
            shift: [], or None for 0.
        """
        change = _replace if self.n <= SMALL or left.shape[0] > _LARGEST_PASS else _replace_in_one_pass

        def change_panels(shard):
            for part, first, (rows, width) in self._placed(shard):
                change(part, (first, (rows, width)), scale, left[:, first : first + rows], right[:, :width], shift)

        self.shards.map(change_panels)

    def fill(self, transposed_product):
        """M <- the matrix with this product with its transposed, a panel at a time."""
        for part, (_, rows) in zip(self.parts, self.filled_with(transposed_product), strict=True):
            part.assign(rows)

    def filled_with(self, transposed_product):
        """(name, rows) of every panel, one after the other, of the matrix with this product with its transposed.

        Args:
            transposed_product: function from [n, k] to [n, k].
        """
        for (name, width), (first, (rows, _)) in zip(self.widths().items(), self._places(), strict=True):
            units = tf.transpose(_unit_rows(first, (rows, self.n), self.dtype))
            yield name, tf.transpose(transposed_product(units))[:, :width]

    def widths(self):
        """Columns of every panel by name."""
        return {f"panel_{i:02d}": width for i, (_, (_, width)) in enumerate(self._places())}

    def make_identity(self):
        """M <- I, in place."""
        none = tf.zeros([0, self.n], self.dtype)
        self.fold(tf.zeros([], self.dtype), none, none, tf.ones([], self.dtype))
        return tf.no_op()

    def _placed(self, shard):
        """(part, first row, (rows, width)) of every panel of a shard."""
        everywhere = zip(self.parts, self._places(), self._owners(), strict=True)
        return [(part, *place) for part, place, owner in everywhere if owner == shard]

    def _places(self):
        return _places(self.n, self.symmetric, len(self.parts))

    def _owners(self):
        """The shard of every panel."""
        return shards.deal([rows * width for _, (rows, width) in self._places()], self.shards.count)

    def _is_mine(self, owner):
        return owner in self.shards.mine


def _count(n, where):
    """How many panels there are."""
    if where is ALONE:
        return min(_PANELS, max(1, n // SMALL))
    count = _SHARDED_PANELS
    while count < 2 * where.count:
        count *= 2
    return min(count, n)


def _places(n, symmetric, panels):
    """(first row, (rows, width)) of every panel."""
    edges = [n * i // panels for i in range(panels + 1)]
    return [(first, (last - first, last if symmetric else n)) for first, last in itertools.pairwise(edges)]


def _transposed(part, columns):
    return tf.linalg.matmul(part, columns, transpose_a=True)


def _replace(part, place, scale, u, v, shift):
    new = tf.math.multiply_no_nan(tf.convert_to_tensor(part), scale)  # a factor of zero forgets everything
    if u.shape[0]:
        new = new + tf.linalg.matmul(u, v, transpose_a=True)
    part.assign(_shifted(new, place, shift))


def _replace_in_one_pass(part, place, *change):
    """The same, compiled so that every number is read and written once and nothing is allocated."""

    def replace(scale, u, v, shift=None):
        new = tf.math.multiply_no_nan(tf.convert_to_tensor(part), scale)
        for left, right in zip(tf.unstack(u), tf.unstack(v), strict=True):
            new = new + left[:, None] * right
        part.assign(_shifted(new, place, shift))

    tf.function(replace, jit_compile=True, autograph=False)(*change)


def _shifted(matrix, place, shift):
    # The place and not the shape of the matrix: that is open where the rows come later.
    return matrix if shift is None else matrix + shift * _unit_rows(*place, matrix.dtype)
