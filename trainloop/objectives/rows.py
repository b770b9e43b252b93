"""Residuals r [m] of an objective at one point x, and what is made of their Jacobian J [m, n].

    J                                   rows are residuals, columns are entries of x
    J'J [n, n]                          `gram`, and its diagonal alone
    J W J' [m, m], W diagonal           `kernel`; for W = I the neural tangent kernel
    R [n+1, n+1] upper triangular       `triangular`: R'R = [J r]'[J r], by QR factorisations, without squaring J

`FunctionRows` are those of any function of x. Those of a model are in `sample_rows`.
"""

import abc
from typing import Any, NamedTuple

import tensorflow as tf

from trainloop.objectives import derivatives
from trainloop.vectors import linalg

# Memory that rows which are computed at once may need, unless an objective says otherwise.
ROWS_BYTES = 2**28


class Chunks(NamedTuple):
    """How `count` samples of `outputs` residuals are taken: in `number` chunks of `size`. The last reaches back."""

    count: Any
    size: Any
    number: Any
    outputs: int

    @classmethod
    def of(cls, count, most, outputs):
        """Chunks of equal length, of at most so many samples."""
        if isinstance(count, int):
            number = max(1, -(-count // most))
            return cls(count, -(-count // number), number, outputs)
        size = tf.minimum(most, count)
        return cls(count, size, -(-count // tf.maximum(size, 1)), outputs)

    def place(self, i):
        """(where chunk i begins, how many of its samples belong to the one before)."""
        begin = tf.minimum(i * self.size, self.count - self.size)
        return begin, i * self.size - begin

    def without_repeated(self, stacked):
        """The rows of all chunks end to end, from those of each [number, size outputs, ...]."""
        rows = tf.reshape(stacked, [-1, *stacked.shape[2:]])
        before, repeated = ((k * self.outputs) for k in ((self.number - 1) * self.size, self.place(self.number - 1)[1]))
        return tf.concat([rows[:before], rows[before + repeated :]], 0)


class Rows(abc.ABC):
    """Residuals at x and what is made of their rows.

    Args:
        x: [n].
    """

    def __init__(self, x):
        self._x = x

    @abc.abstractmethod
    def residuals(self):
        """r [m]."""

    @abc.abstractmethod
    def length(self):
        """m, or None where it is not known while a graph is traced."""

    @abc.abstractmethod
    def linearised(self):
        """r and products with J and J': a `Linearised`."""

    @abc.abstractmethod
    def residuals_and_jacobian(self):
        """(r [m], J [m, n])."""

    def accumulated(self, add, total):
        """add(total, r, J) over parts of the rows, of which there may be one."""
        return add(total, *self.residuals_and_jacobian())

    def gram(self):
        """J'J [n, n]."""
        n = self._x.shape[0]
        zeros = tf.zeros([n, n], self._x.dtype)
        return self.accumulated(lambda total, r, J: total + tf.matmul(J, J, transpose_a=True), zeros)

    def diagonal(self):
        """The diagonal of J'J [n]."""
        return self.accumulated(lambda total, r, J: total + tf.reduce_sum(J * J, 0), tf.zeros_like(self._x))

    def triangular(self):
        """R [n+1, n+1]."""
        n = self._x.shape[0] + 1

        def add(R, r, J):
            stacked = tf.concat([R, tf.concat([J, r[:, None]], 1)], 0)
            return tf.ensure_shape(
                tf.linalg.qr(stacked).r, [n, n]
            )  # which is not known where the number of rows is not

        return self.accumulated(add, tf.zeros([n, n], self._x.dtype))

    def fits(self):
        """Whether J may be held."""
        return True

    def kernel(self, weights):
        """J W J' [m, m], W diagonal with `weights` [n]."""
        _, J = self.residuals_and_jacobian()
        return tf.matmul(J * weights, J, transpose_b=True)


class FunctionRows(Rows):
    """Rows of a function of x.

    Args:
        function: x [n] -> r [m].
        x: [n].
        sources: the `Sources` of x; None for x itself.
    """

    def __init__(self, function, x, sources=None):
        super().__init__(x)
        self._function, self._sources = function, sources
        self._known = None

    def residuals(self):
        return self._function(self._x)

    def length(self):
        return self.linearised().z.shape[0]

    def linearised(self):
        self._known = self._known or derivatives.Linearised(self._function, self._x, self._sources)
        return self._known

    def residuals_and_jacobian(self):
        """Products with J or J', whichever are fewer."""
        r, n = self.linearised(), self._x.shape[0]
        m = r.z.shape[0]
        if m is None or m > n:
            try:
                return r.z, tf.transpose(linalg.map_rows(r.jvp, tf.eye(n, dtype=r.z.dtype)))
            except derivatives.NO_GRADIENT:
                pass
        return r.z, linalg.map_rows(r.vjp, tf.eye(tf.size(r.z) if m is None else m, dtype=r.z.dtype))


def in_chunks(chunks, rows, dtype, parts=1):
    """The rows of all chunks end to end.

    Args:
        chunks: `Chunks`.
        rows: function (where a chunk begins) -> list of tensors with rows of its samples, [size outputs, ...].
        dtype: of these.
        parts: how many tensors.
    """
    if isinstance(chunks.number, int) and chunks.number == 1:
        return rows(0)
    arrays = [tf.TensorArray(dtype, chunks.number) for _ in range(parts)]

    def one(i, arrays):
        written = [a.write(i, t) for a, t in zip(arrays, rows(chunks.place(i)[0]), strict=True)]
        return i + 1, written

    _, arrays = tf.while_loop(lambda i, _: i < chunks.number, one, (tf.constant(0), arrays), parallel_iterations=1)
    return [chunks.without_repeated(array.stack()) for array in arrays]
