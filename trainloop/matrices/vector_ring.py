"""The last m vectors of a kind, for limited-memory optimizers: a matrix [m, n] in which one row is written per step.

    row   0    1    2    3           m = 4, next row 2: v_4 and v_5 have replaced v_0 and v_1, v_2 is the oldest
          v_4  v_5  v_2  v_3

Reading does not care for the order of rows: products with all of them come as [m], and sums take m coefficients.

A queue would move every vector at every step. Here a step writes n numbers where they stand, see `rows`.

The rows may be sharded, see `sharded_rows`: products with all of them are then one sum over the shards of m
numbers, and sums of them one of n.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.distributed.shards import Shards
from trainloop.matrices.rows import Rows
from trainloop.matrices.sharded_rows import ShardedRows
from trainloop.matrices.stored_value import StoredValue
from trainloop.vectors import linalg

STORAGES = ("dense", "sharded")


class VectorRing(StoredValue):
    """m rows of n numbers, zero until they are written. `VectorRing.empty` builds one.

    Args:
        rows: `Rows` [m, n].
        pending: (row int32 [], v [n], when bool []) for each vector that waits to be written.

    Examples:
        >>> ring = VectorRing.empty(4, n=3, dtype="float64")
        >>> ring.dots(tf.ones([3], tf.float64)).numpy()
        array([0., 0., 0., 0.])
    """

    def __init__(self, rows: Any, pending: tuple = ()) -> None:
        self._rows, self._pending = rows, pending

    @classmethod
    def empty(cls, m: int, *, n: int, dtype: tf.DType | str = "float32", storage: str = "dense") -> "VectorRing":
        """m rows of zeros.

        Args:
            m: number of rows, at least 1.
            n: length of the vectors, at least 1.
            dtype: a floating dtype.
            storage: "dense", or "sharded": sharded over the devices or workers of `trainloop.shards`.
        """
        m, n = checks.integer("m", m, at_least=1), checks.integer("n", n, at_least=1)
        sharded = checks.choice("storage", storage, STORAGES) == "sharded"
        return cls(ShardedRows.zeros(m, n, dtype, Shards.here()) if sharded else Rows.zeros(m, n, dtype))

    def dots(self, v: tf.Tensor) -> tf.Tensor:
        """The product of every row with v [n]: [m]."""
        # As a row v' R': TensorFlow copies v first for the column R v.
        return self._readable().summed(lambda piece, part: tf.matmul(part[None, :], piece, transpose_b=True)[0], v)

    def put(self, row: tf.Tensor | int, v: tf.Tensor, when: tf.Tensor | bool = True) -> "VectorRing":
        """The ring with another vector in one row. One step may put several, each in a row of its own.

        Args:
            row: int32 [] in 0..m-1.
            v: [n].
            when: bool []; where it is false nothing changes.
        """
        return VectorRing(self._rows, (*self._pending, (row, v, tf.convert_to_tensor(when))))

    def as_variables(self, make_variable: Callable[[str, Any, bool], tf.Variable]) -> "VectorRing":
        return VectorRing(self._readable().as_variables(make_variable, "rows", False))

    def wholes(self) -> dict[str, Any]:
        return self._rows.wholes("rows")

    def notes(self) -> Sequence[str]:
        return (f"sharded, {self._rows.where}",) if self._rows.sharded else ()

    def alternatives(self) -> Sequence[tuple[str, int]]:
        shards = Shards.here()
        if self._rows.sharded or shards.strategy is None:
            return ()
        m, n = self._rows.shape
        (rows,) = ShardedRows.zeros(m, n, self._rows.dtype, shards).arrays
        return (("sharded", rows.shape.num_elements() * rows.dtype.size),)

    def describes_change_of(self, other: Any) -> bool:
        return self._rows is other._rows

    def commit(self) -> None:
        for row, v, when in self._pending:
            self._rows.write(row, [v], when)

    def _readable(self):
        if self._pending:
            raise ValueError("this ring has pending writes; it can be read after the step is committed")
        return self._rows

    def __repr__(self):
        return (
            f"VectorRing(m={self._rows.shape[0]}, n={self._rows.shape[1]}, dtype={tf.as_dtype(self._rows.dtype).name})"
        )


def combine(scale, v, *rings_and_coefficients):
    """scale v + sum over all rows of several rings of c_j v_j, in one pass over memory.

    Args:
        scale: [].
        v: [n].
        *rings_and_coefficients: pairs (`VectorRing`, [m]); all rings of the same storage.

    Returns:
        [n].
    """
    rings, coefficients = zip(*rings_and_coefficients, strict=True)
    first, *others = (ring._readable() for ring in rings)
    return first.joined(lambda piece, v, *pieces: _sum(scale, v, piece, *pieces, *coefficients), v, *others)


@linalg.fused
def _sum(scale, v, *matrices_and_coefficients):
    half = len(matrices_and_coefficients) // 2
    matrices, coefficients = matrices_and_coefficients[:half], matrices_and_coefficients[half:]
    terms = [
        c * row
        for C, rows in zip(coefficients, matrices, strict=True)
        for c, row in zip(tf.unstack(C), tf.unstack(rows), strict=True)
    ]
    return scale * v + sum(terms)
