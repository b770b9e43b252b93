"""Where the numbers of a `SharedMatrix` are kept, and how a described change is carried out in place.

A storage multiplies columns [n, k] from the left, turns into variables, and commits

    B <- factor B + shift I + sum_j c_j u_j v_j'

for a factor [] (None for 1), a shift [] (None for 0) and terms (u_j [n], v_j [n], c_j []). It is a
value too: two storages are the same only if they are one object.
"""

import dataclasses

import tensorflow as tf

# A row is written into the smallest block; a full block moves into the next. See Factored.
_BLOCK_ROWS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """All n x n numbers."""

    matrix: object  # [n, n] tensor or variable
    symmetric: bool
    storage = "dense"

    @classmethod
    def identity(cls, n, dtype, symmetric):
        return cls(tf.eye(n, dtype=dtype), symmetric)

    @property
    def n(self):
        return self.matrix.shape[0]

    @property
    def dtype(self):
        return tf.as_dtype(self.matrix.dtype)

    @property
    def nbytes(self):
        return self.n * self.n * self.dtype.size

    def product(self, columns):
        return tf.linalg.matmul(self.matrix, columns)

    def transposed_product(self, columns):
        return tf.linalg.matmul(self.matrix, columns, transpose_a=not self.symmetric)

    def as_variables(self, make_variable):
        return Dense(make_variable("matrix", self.matrix, False), self.symmetric)

    def commit(self, factor, terms, shift=None):
        new = self.matrix if factor is None else factor * self.matrix
        if terms:
            left, right = zip(*(_balanced(*term) for term in terms), strict=True)
            new = new + tf.linalg.matmul(tf.stack(left), tf.stack(right), transpose_a=True)
        if shift is not None:
            new = tf.linalg.set_diag(new, tf.linalg.diag_part(new) + shift)
        if new is not self.matrix:
            self.matrix.assign(new)


def _balanced(u, v, c):
    """The two factors of c u v'. For c u u' they give (i, j) and (j, i) the same bits.

    With c on one side the two would differ by a rounding, and a matrix that is off symmetry by one rounding per step
    soon is no longer positive definite.
    """
    if u is not v:
        return c * u, v
    half = tf.sqrt(tf.abs(c)) * u
    return tf.sign(c) * half, half


@dataclasses.dataclass(frozen=True, eq=False)
class Factored:
    """B = a I + sum over blocks of U' diag(c) V: the history of all updates, one row of U and V each.

    Rows enter block 0. When it is full its rows move to the end of block 1, and so on; the last block has no limit.
    The reason is the cost of writing: TensorFlow can only replace a variable as a whole without slowing down every
    later read of it, so a long history must be written rarely. With 16 and 256 rows in the two small blocks, the
    long one is copied once in 256 steps.
    """

    diagonal: object  # a, []
    blocks: tuple  # of _Block
    n: int
    symmetric: bool
    storage = "factored"

    @classmethod
    def identity(cls, n, dtype, symmetric):
        blocks = tuple(_Block.empty(n, dtype, symmetric) for _ in range(3))
        return cls(tf.ones([], dtype), blocks, n, symmetric)

    @property
    def dtype(self):
        return tf.as_dtype(self.diagonal.dtype)

    @property
    def rank(self):
        """Number of rows kept, int32 []."""
        return tf.add_n([block.rows for block in self.blocks])

    @property
    def nbytes(self):
        numbers = 1 + tf.cast(self.rank, tf.int64) * (1 + self.n * (1 if self.symmetric else 2))
        nbytes = numbers * self.dtype.size
        return int(nbytes) if tf.executing_eagerly() else nbytes

    def product(self, columns):
        return self.diagonal * columns + tf.add_n([block.product(columns) for block in self.blocks])

    def transposed_product(self, columns):
        return self.diagonal * columns + tf.add_n([block.flipped().product(columns) for block in self.blocks])

    def as_variables(self, make_variable):
        blocks = [block.as_variables(f"block_{i}", make_variable) for i, block in enumerate(self.blocks)]
        return Factored(make_variable("diagonal", self.diagonal, False), tuple(blocks), self.n, self.symmetric)

    def commit(self, factor, terms, shift=None):
        if factor is not None:
            self.diagonal.assign(factor * self.diagonal)
            for block in self.blocks:
                block.scale(factor)
        if shift is not None:
            self.diagonal.assign_add(shift)
        if terms:
            self.blocks[0].append(_Block.of(terms, self.symmetric))
            self._move_full_blocks(len(terms))

    def _move_full_blocks(self, new_rows):
        """Empty every block that has no room for another update of this size into the next one."""
        for i, (block, larger) in enumerate(zip(self.blocks, self.blocks[1:], strict=False)):
            full = block.rows + new_rows > _BLOCK_ROWS ** (i + 1)
            tf.cond(full, lambda block=block, larger=larger: block.move_to(larger), lambda: tf.no_op())


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """U' diag(c) V for k rows. Its variables are always replaced as a whole."""

    left: object  # U [k, n]
    right: object  # V [k, n]; the same object as U for symmetric updates
    coefficients: object  # c [k]

    @classmethod
    def empty(cls, n, dtype, symmetric):
        left = tf.zeros([0, n], dtype)
        return cls(left, left if symmetric else tf.zeros([0, n], dtype), tf.zeros([0], dtype))

    @classmethod
    def of(cls, terms, symmetric):
        left = tf.stack([u for u, _, _ in terms])
        right = left if symmetric else tf.stack([v for _, v, _ in terms])
        return cls(left, right, tf.stack([c for _, _, c in terms]))

    @property
    def rows(self):
        return tf.shape(self.coefficients)[0]

    def product(self, columns):
        weights = tf.linalg.matmul(self.right, columns)  # V x [k, columns]
        return tf.linalg.matmul(self.left, tf.convert_to_tensor(self.coefficients)[:, None] * weights, transpose_a=True)

    def flipped(self):
        return _Block(self.right, self.left, self.coefficients)

    def as_variables(self, name, make_variable):
        left = make_variable(f"{name}/left", self.left, True)
        right = left if self.right is self.left else make_variable(f"{name}/right", self.right, True)
        return _Block(left, right, make_variable(f"{name}/coefficients", self.coefficients, True))

    def scale(self, factor):
        self.coefficients.assign(factor * self.coefficients)

    def append(self, other):
        self.left.assign(tf.concat([self.left, other.left], 0))
        if self.right is not self.left:
            self.right.assign(tf.concat([self.right, other.right], 0))
        self.coefficients.assign(tf.concat([self.coefficients, other.coefficients], 0))

    def move_to(self, larger):
        larger.append(self)
        self.left.assign(self.left[:0])
        if self.right is not self.left:
            self.right.assign(self.right[:0])
        self.coefficients.assign(self.coefficients[:0])
        return tf.no_op()
