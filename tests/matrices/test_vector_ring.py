"""Rings of vectors against rows of a NumPy matrix, in both ways of writing them."""

import numpy as np
import pytest
import tensorflow as tf

from trainloop import VectorRing
from trainloop.matrices.vector_ring import combine
from trainloop.vectors.linalg import LONG

M = 3
lengths = pytest.mark.parametrize("n", [5, LONG])  # XLA writes rows from LONG on


class Ring:
    """A ring of variables in compiled functions, next to a NumPy matrix that is treated likewise."""

    def __init__(self, n, m=M, dtype="float64"):
        self.variables = {}
        self.ring = VectorRing.empty(m, n=n, dtype=dtype).as_variables(self.make_variable)
        self.rows = np.zeros([m, n], dtype)
        self.put = tf.function(self._put, autograph=False)
        self.dots = tf.function(lambda v: self.ring.dots(v), autograph=False)
        self.combine = tf.function(self._combine, autograph=False)

    def make_variable(self, name, value, grows):
        assert not grows
        assert name not in self.variables
        self.variables[name] = tf.Variable(value, trainable=False)
        return self.variables[name]

    def _combine(self, scale, v, c, d):
        return combine(scale, v, (self.ring, c)), combine(scale, v, (self.ring, c), (self.ring, d))

    def _put(self, row, v, when):
        self.ring.put(row, v, when).commit()

    def put_in_both(self, row, v, when=True):
        self.put(tf.constant(row), tf.constant(v), tf.constant(when))
        if when:
            self.rows[row] = v

    def stored(self):
        return np.concatenate([np.atleast_2d(variable.numpy()) for variable in self.variables.values()])

    def check(self, rng):
        dtype, (m, n) = self.rows.dtype, self.rows.shape
        np.testing.assert_array_equal(self.stored(), self.rows)
        v, c, d = (rng.normal(size=k).astype(dtype) for k in (n, m, m))
        eps = np.finfo(dtype).eps
        atol = 4 * eps * np.sqrt(n) * np.linalg.norm(self.rows, axis=1).max() + eps
        np.testing.assert_allclose(self.dots(tf.constant(v)), self.rows @ v, rtol=0, atol=atol)
        one, two = self.combine(tf.constant(-2.5, dtype), tf.constant(v), tf.constant(c), tf.constant(d))
        np.testing.assert_allclose(one, -2.5 * v + c @ self.rows, rtol=0, atol=100 * eps)
        np.testing.assert_allclose(two, -2.5 * v + (c + d) @ self.rows, rtol=0, atol=100 * eps)
        assert one.dtype == dtype


@lengths
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_products_sums_and_replacements_are_those_of_a_matrix(n, dtype):
    rng = np.random.default_rng(0)
    ring = Ring(n, dtype=dtype)
    ring.check(rng)
    for step in range(M + 2):  # once round and on
        ring.put_in_both(step % M, rng.normal(size=n).astype(dtype))
        ring.check(rng)


@lengths
def test_a_vector_is_put_only_when_it_is_wanted(n):
    rng = np.random.default_rng(1)
    ring = Ring(n)
    for row, when in [(0, True), (1, False), (0, False), (2, True), (2, False)]:
        ring.put_in_both(row, rng.normal(size=n), when)
        ring.check(rng)
    ring.put_in_both(1, np.full(n, np.nan), when=False)
    ring.check(rng)


@lengths
def test_rows_that_are_not_written_keep_their_values_to_the_bit(n):
    ring = Ring(n)
    odd = np.array([-0.0, np.inf, np.nan, 5e-324])
    ring.put_in_both(1, np.resize(odd, n))
    before = ring.stored()[1].tobytes()
    for row in (0, 2, 0):
        ring.put_in_both(row, np.ones(n))
    assert ring.stored()[1].tobytes() == before


@lengths
def test_a_ring_that_was_put_into_cannot_be_read_before_it_is_committed(n):
    ring = VectorRing.empty(M, n=n, dtype="float64").as_variables(lambda name, value, grows: tf.Variable(value))
    v = tf.ones([n], tf.float64)
    pending = ring.put(0, v)
    for read in (
        lambda: pending.dots(v),
        lambda: combine(tf.ones([], tf.float64), v, (pending, tf.ones([M], tf.float64))),
        lambda: pending.as_variables(lambda name, value, grows: tf.Variable(value)),
    ):
        with pytest.raises(ValueError, match="committed"):
            read()
    np.testing.assert_array_equal(ring.dots(v), np.zeros(M))  # nothing is written yet
    pending.commit()
    np.testing.assert_array_equal(ring.dots(v), [n, 0, 0])


@lengths
def test_one_step_may_put_several_vectors(n):
    ring = Ring(n)
    put = tf.function(lambda a, b, c: ring.ring.put(2, a).put(0, b).put(1, c, False).commit(), autograph=False)
    a, b, c = np.random.default_rng(3).normal(size=[3, n])
    put(*map(tf.constant, (a, b, c)))
    ring.rows[2], ring.rows[0] = a, b
    np.testing.assert_array_equal(ring.stored(), ring.rows)


def test_a_ring_knows_what_it_was_made_of():
    rings = [VectorRing.empty(M, n=4).as_variables(lambda name, value, grows: tf.Variable(value)) for _ in range(2)]
    pending = rings[0].put(1, tf.ones([4]))
    assert pending.describes_change_of(rings[0])
    assert rings[0].describes_change_of(rings[0])
    assert not pending.describes_change_of(rings[1])
    rings[0].commit()  # nothing described, nothing done
    np.testing.assert_array_equal(rings[0].dots(tf.ones([4])), np.zeros(M))


def test_a_ring_that_is_no_variable_yet_can_be_read():
    ring = VectorRing.empty(2, n=3)
    np.testing.assert_array_equal(ring.dots(tf.ones([3])), np.zeros(2))
    np.testing.assert_array_equal(combine(tf.constant(2.0), tf.ones([3]), (ring, tf.ones([2]))), [2, 2, 2])
    assert ring.dots(tf.ones([3])).dtype == tf.float32


@lengths
def test_one_row_is_a_ring(n):
    rng = np.random.default_rng(2)
    ring = Ring(n, m=1)
    for _ in range(2):
        ring.put_in_both(0, rng.normal(size=n))
        ring.check(rng)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, None, "3"])
def test_sizes_that_are_no_numbers_of_vectors_are_refused(bad):
    with pytest.raises(ValueError, match=f"m must be an integer of at least 1, received {bad!r}"):
        VectorRing.empty(bad, n=3)
    with pytest.raises(ValueError, match=f"n must be an integer of at least 1, received {bad!r}"):
        VectorRing.empty(3, n=bad)
