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

A change of rank k reads and writes every number once: XLA compiles it, with its assignment, into one pass that takes no
memory. Up to k = 8 or so that pass is bound by memory, so that eight changes at a time cost little more than one.
"""

import dataclasses
import functools
import itertools

import tensorflow as tf

from trainloop.matrices import lazy
from trainloop.matrices.changes import SumChange, weighted
from trainloop.matrices.lazy import Lazy
from trainloop.matrices.storage import MatrixStorage

# Up to this n there is one panel, changed by plain operations: calls are what costs there, not memory. Beyond, panels
# have about as many rows, but there are no more than sixteen: each is a piece of code to compile.
SMALL = 2048
_PANELS = 16

# Changes of a higher rank are matrix products, which take the memory of a panel.
_LARGEST_PASS = 16


def _made_unit_rows(first, shape, dtype):
    """`_unit_rows` allocates almost no temporaries when it is not compiled by XLA."""
    rows, width = shape
    return tf.pad(tf.eye(rows, dtype=dtype), [[0, 0], [first, width - first - rows]])


def _unit_rows(first, shape, dtype):
    rows, width = shape
    return tf.cast(tf.equal(first + tf.range(rows)[:, None], tf.range(width)), dtype)


def unit_panels(n, dtype, symmetric, count):
    """The n x n identity in so many panels, lazy."""
    return tuple(
        Lazy(tf.TensorShape(shape), dtype, functools.partial(_made_unit_rows, first, shape, dtype))
        for first, shape in places(n, symmetric, count)
    )


def places(n, symmetric, count):
    """(first row, (rows, width)) of every panel of so many."""
    edges = [n * i // count for i in range(count + 1)]
    return [(first, (last - first, last if symmetric else n)) for first, last in itertools.pairwise(edges)]


@dataclasses.dataclass(frozen=True, eq=False)
class Panels(MatrixStorage):
    """M, of tensors or variables; all of it on the device that TensorFlow takes."""

    parts: tuple
    n: int
    symmetric: bool
    no_change = SumChange()

    @classmethod
    def identity(cls, n, dtype, symmetric):
        return cls(unit_panels(n, dtype, symmetric, _count(n)), n, symmetric)

    @classmethod
    def absent(cls, n, dtype, symmetric):
        """Panels without rows, which `fill` may give them later."""
        widths = [width for _, (_, width) in places(n, symmetric, _count(n))]
        return cls(tuple(lazy.zeros([0, width], dtype) for width in widths), n, symmetric)

    @property
    def storage(self):
        return "dense"

    @property
    def dtype(self):
        return tf.as_dtype(self.parts[0].dtype)

    @property
    def arrays(self):
        return self.parts

    @property
    def workspace(self):
        return (2 if self.n <= SMALL else 0) * sum(part.shape.num_elements() for part in self.arrays) * self.dtype.size

    @property
    def filled(self):
        """Bytes of all panels when they have rows, and what `fill` takes for a moment."""
        sizes = [rows * width for _, (rows, width) in self._places()]
        largest = max(rows for _, (rows, _) in self._places()) * self.n
        return (sum(sizes) + 3 * largest) * self.dtype.size

    def in_words(self):
        halved = self.symmetric and len(self.parts) > 1
        return "half of n x n numbers, B being symmetric" if halved else "n x n numbers"

    def note(self):
        return f"{self.storage}, {self.in_words()}"

    def as_variables(self, make_variable):
        # Panels without rows get them later.
        named = zip(self.widths(), self.parts, strict=True)
        parts = tuple(make_variable(name, part, part.shape[0] == 0) for name, part in named)
        return dataclasses.replace(self, parts=parts)

    def product(self, columns):
        return self._product(self._placed(), columns)

    def transposed_product(self, columns):
        return self._transposed_product(self._placed(), columns)

    def _product(self, placed, columns):
        product = tf.concat(self._blocks(placed, columns), 0)
        if not self.symmetric:
            return product
        above = [
            tf.pad(_transposed(part, columns[first : first + rows])[:first], [[0, self.n - first], [0, 0]])
            for part, first, (rows, _) in placed
            if first
        ]
        return tf.add_n([product, *above])

    def _blocks(self, placed, columns):
        """P_i columns[:width] of every panel."""
        return [tf.linalg.matmul(part, columns[:width]) for part, _, (_, width) in placed]

    def _transposed_product(self, placed, columns):
        if self.symmetric:
            return self._product(placed, columns)
        return tf.add_n([_transposed(part, columns[first : first + rows]) for part, first, (rows, _) in placed])

    def commit(self, change):
        if change.nothing:
            return
        nothing = tf.zeros([0, self.n], self.dtype)
        left, right = weighted(change.parts) if change.parts else (nothing, nothing)
        factor, shift = tf.ones([], self.dtype) if change.factor is None else change.factor, change.shift
        if change.keep is not None:  # else the factor belongs to the identity
            forgotten = (1 - change.keep) * factor
            factor, shift = change.keep * factor, forgotten if shift is None else shift + forgotten
        self.apply(factor, left, right, shift)

    def apply(self, scale, left, right, shift=None):
        """M <- scale M + left' right + shift I, in place.

        Args:
            scale: [].
            left, right: [k, n], k a Python number.
            shift: [], or None for 0.
        """
        self._apply_to(self._placed(), scale, left, right, shift)

    def _apply_to(self, placed, scale, left, right, shift):
        change = _replace if self.n <= SMALL or left.shape[0] > _LARGEST_PASS else _replace_in_one_pass
        for part, first, (rows, width) in placed:
            change(part, (first, (rows, width)), scale, left[:, first : first + rows], right[:, :width], shift)

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
        self.apply(tf.zeros([], self.dtype), none, none, tf.ones([], self.dtype))
        return tf.no_op()

    def _placed(self):
        """(part, first row, (rows, width)) of every panel."""
        return [(part, *place) for part, place in zip(self.parts, self._places(), strict=True)]

    def _places(self):
        return places(self.n, self.symmetric, len(self.parts))


def _count(n):
    """How many panels there are."""
    return min(_PANELS, max(1, n // SMALL))


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
