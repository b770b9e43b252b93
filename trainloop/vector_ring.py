"""The last m vectors of a kind, for limited-memory methods: a ring in which only one slot is written per step.

    slot   0    1    2    3           m = 4, next slot 2: v_4 and v_5 have replaced v_0 and v_1, v_2 is the oldest
           v_4  v_5  v_2  v_3

Reading does not care for the order of slots: products with all of them come as [m], and sums take m coefficients.

A queue would move every vector at every step, and so would one variable [m, n] of which a row is written:
TensorFlow then copies the whole at each later read. So every slot of a long vector is a variable of its own. Short
vectors are kept in one matrix that is replaced as a whole, because there the number of operations is what costs.
"""

import dataclasses

import tensorflow as tf

from trainloop import checks
from trainloop.stored import StoredValue

# From this length on a slot is a variable of its own.
_LONG = 2**14


class VectorRing(StoredValue):
    """m slots of [n], zero until they are filled.

    Example:
        >>> ring = VectorRing.empty(4, n=3, dtype="float64")
        >>> ring.dots(tf.ones([3], tf.float64)).numpy()
        array([0., 0., 0., 0.])
    """

    def __init__(self, stored, pending=None):
        self._stored = stored
        self._pending = pending  # (slot int32 [], v [n], when bool [])

    @classmethod
    def empty(cls, m, *, n, dtype="float32"):
        """m slots of zeros.

        Args:
            m: number of slots, at least 1.
            n: length of the vectors, at least 1.
            dtype: a floating dtype.
        """
        m, n = checks.integer("m", m, at_least=1), checks.integer("n", n, at_least=1)
        if n < _LONG:
            return cls(_Stacked(tf.zeros([m, n], dtype)))
        return cls(_Slots(tuple(tf.zeros([n], dtype) for _ in range(m))))

    def dots(self, v):
        """The product of every slot with v [n]: [m]."""
        return self._readable().dots(v)

    def combine(self, coefficients, plus):
        """plus + sum_j c_j v_j for coefficients c [m] and plus [n]: [n]."""
        return self._readable().combine(coefficients, plus)

    def put(self, slot, v, when=True):
        """The ring with v in a slot.

        Args:
            slot: int32 [] in 0..m-1.
            v: [n].
            when: bool []; where it is false nothing changes.
        """
        self._readable()
        return VectorRing(self._stored, (slot, v, tf.convert_to_tensor(when)))

    def as_variables(self, make_variable):
        return VectorRing(self._readable().as_variables(make_variable))

    def describes_change_of(self, other):
        return self._stored is other._stored

    def commit(self):
        if self._pending is not None:
            self._stored.write(*self._pending)

    def _readable(self):
        if self._pending is not None:
            raise ValueError("a ring that was put into can be used again after the step is committed")
        return self._stored

    def __repr__(self):
        return f"VectorRing({self._stored!r})"


@dataclasses.dataclass(frozen=True, eq=False)
class _Stacked:
    """All slots as the rows of one matrix [m, n]."""

    rows: object

    def dots(self, v):
        return tf.linalg.matvec(self.rows, v)

    def combine(self, coefficients, plus):
        return plus + tf.linalg.matvec(self.rows, coefficients, transpose_a=True)

    def as_variables(self, make_variable):
        return _Stacked(make_variable("rows", self.rows, False))

    def write(self, slot, v, when):
        chosen = tf.equal(tf.range(self.rows.shape[0]), slot) & when
        self.rows.assign(tf.where(chosen[:, None], v, self.rows))


@dataclasses.dataclass(frozen=True, eq=False)
class _Slots:
    """One vector [n] per slot."""

    slots: tuple

    def dots(self, v):
        return tf.stack([tf.tensordot(slot, v, 1) for slot in self.slots])

    def combine(self, coefficients, plus):
        return _fused_sum(coefficients, plus, *self.slots)

    def as_variables(self, make_variable):
        return _Slots(tuple(make_variable(f"slot_{i}", slot, False) for i, slot in enumerate(self.slots)))

    def write(self, slot, v, when):
        def writes(variable):
            return lambda: _written(variable, v)

        nothing = len(self.slots)
        tf.switch_case(tf.where(when, slot, nothing), [*map(writes, self.slots), lambda: tf.no_op()])


def _written(variable, v):
    variable.assign(v)
    return tf.no_op()


# XLA makes one pass over memory of it; one operation after the other would write m intermediate vectors.
@tf.function(jit_compile=True, autograph=False)
def _fused_sum(coefficients, plus, *slots):
    return plus + sum(c * slot for c, slot in zip(tf.unstack(coefficients), slots, strict=True))
