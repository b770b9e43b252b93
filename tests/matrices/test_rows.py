"""Rows written into a matrix variable, in both ways of writing them, against slices of a NumPy matrix."""

import numpy as np
import pytest
import tensorflow as tf

from trainloop.matrices import rows as row_writing
from trainloop.matrices.rows import write_rows

M, N = 6, 5
compiled_or_not = pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
shapes = pytest.mark.parametrize(
    ("shape", "open_shape"),
    [((M, N), None), ((M, N), (None, N)), ((M // 2, 2, N), None), ((M // 2, 2, N), (None, 2, N))],
)


@pytest.fixture(autouse=True, params=[N + 1, N], ids=["by copy", "in place"])
def _both_ways(request, monkeypatch):
    monkeypatch.setattr(row_writing, "_LONG", request.param)


def matrix(shape=(M, N), open_shape=None, dtype="float64"):
    return tf.Variable(np.arange(np.prod(shape), dtype=dtype).reshape(shape), shape=open_shape)


@compiled_or_not
@pytest.mark.parametrize("r", [1, 2, M])
def test_rows_are_written_at_every_position_where_they_are_wanted(jit_compile, r):
    variable, rng = matrix(), np.random.default_rng(0)
    expected = variable.numpy()
    write = tf.function(
        lambda first, rows, when: write_rows(variable, first, tf.unstack(rows), when),
        jit_compile=jit_compile,
        autograph=False,
    )
    for first in range(M - r + 1):
        for when in (False, True):
            rows = rng.normal(size=(r, N)) if when else np.full((r, N), np.nan)
            write(tf.constant(first), tf.constant(rows), tf.constant(when))
            if when:
                expected[first : first + r] = rows
            np.testing.assert_array_equal(variable, expected)


@shapes
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_may_come_in_groups_and_in_an_open_number(shape, open_shape, dtype):
    variable, row = matrix(shape, open_shape, dtype), np.full(N, -1, dtype)
    expected = variable.numpy()
    expected.reshape(M, N)[3:5] = row
    write_rows(variable, tf.constant(3), [tf.constant(row)] * 2)
    np.testing.assert_array_equal(variable.numpy(), expected, strict=True)


@compiled_or_not
def test_a_loop_writes_a_row_per_turn_and_reads_what_it_wrote(jit_compile):
    """v_{i+1} = 2 v_i + 1 from row to row; odd turns write nothing, so that their rows stay as they were."""
    variable = matrix()
    expected = variable.numpy()
    for i in range(0, M - 1, 2):
        expected[i + 1] = 2 * expected[i] + 1

    def turn(i):
        write_rows(variable, i + 1, [2 * variable[i] + 1], tf.equal(i % 2, 0))
        return i + 1

    run = tf.function(
        lambda turns: tf.while_loop(lambda i: i < turns, turn, [tf.constant(0)]),
        jit_compile=jit_compile,
        autograph=False,
    )
    run(tf.constant(M - 1))
    np.testing.assert_array_equal(variable, expected)
