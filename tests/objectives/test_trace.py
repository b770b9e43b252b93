"""Traced losses as functions of the values of variables: what they give, and that they leave variables alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from environment import seed_generators
from loss_kinds import KINDS

from trainloop import ModelObjective
from trainloop.objectives.trace import PureTrace

pytestmark = pytest.mark.usefixtures("no_graph_rewriting")


def traced(function, *variables):
    """`PureTrace` of a function without arguments."""
    graph = tf.function(function, autograph=False).get_concrete_function().graph
    return PureTrace(graph, [v.handle for v in variables])


def numbers(*values):
    return tf.constant(values, tf.float64)


def test_reads_and_assignments_take_place_in_their_order():
    """w = (1, 2), then c = 3 w_1 + c, w = c w: the result is read before, between and after."""
    w, c = tf.Variable(numbers(9, 9)), tf.Variable(numbers(9)[0])

    def function():
        first = w.read_value()
        c.assign(3 * w[0] + c)
        w.assign(c * w)
        second = w.read_value()
        w.assign(tf.zeros_like(second))
        return first, second, c.read_value()

    pure = traced(function, w, c)
    assert pure.exists
    for _ in range(2):
        first, second, third = pure([numbers(1, 2), numbers(4)[0]])
        np.testing.assert_array_equal(first, [1, 2])
        np.testing.assert_array_equal(second, [7, 14])
        assert float(third) == 7
    np.testing.assert_array_equal(w, [9, 9])
    assert float(c) == 9


def test_other_variables_are_read_where_they_are():
    w, other = tf.Variable(numbers(1, 2)), tf.Variable(5.0, dtype="float64")
    pure = traced(lambda: other * w, w)
    np.testing.assert_array_equal(pure([numbers(3, 4)]), [[15, 20]])
    other.assign(2.0)
    np.testing.assert_array_equal(pure([numbers(3, 4)]), [[6, 8]])


def test_what_fails_in_the_loss_fails_here():
    w = tf.Variable(numbers(1, 2))

    def function():
        with tf.control_dependencies([tf.debugging.assert_less(w, numbers(5)[0], "too large")]):
            return tf.identity(w)

    pure = traced(function, w)
    np.testing.assert_array_equal(pure([numbers(3, 4)]), [[3, 4]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        pure([numbers(3, 40)])


def in_a_loop(w):
    return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s + w), (0, tf.zeros([2], tf.float64)))[1]


@pytest.mark.parametrize(
    "function",
    [
        in_a_loop,
        tf.function(lambda w: 2 * w),
        lambda w: tf.cond(tf.reduce_all(w > 0), lambda: 2 * w, lambda: tf.identity(w)),
        lambda w: w.assign_add(numbers(1, 1)),
        lambda w: w.sparse_read([0]),
    ],
    ids=["loop", "inner function", "branch", "addition in place", "gather"],
)
def test_other_uses_of_a_variable_are_left_to_the_variable(function):
    w = tf.Variable(numbers(1, 2))
    assert not traced(lambda: function(w), w).exists


def test_a_variable_that_is_not_in_the_graph_is_not_overlooked():
    """It might be read by another handle; whoever knows that it is unused says so."""
    w, other = tf.Variable(numbers(1, 2)), tf.Variable(5.0, dtype="float64")
    graph = tf.function(lambda: 2 * w, autograph=False).get_concrete_function().graph
    assert not PureTrace(graph, [w.handle, other.handle]).exists
    assert not PureTrace(graph, [w.handle, None]).exists
    pure = PureTrace(graph, [w.handle, other.handle], unused={1})
    np.testing.assert_array_equal(pure([numbers(3, 4), numbers(1)[0]]), [[6, 8]])


def test_an_evaluation_at_another_point_writes_nothing_where_the_loss_allows_it():
    """Averages and the seed of a dropout layer included, in the graph that an optimizer compiles."""
    seed_generators()
    extra = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3, seed=1)]
    model = keras.Sequential([keras.layers.Input((4,)), *extra, keras.layers.Dense(3)])
    objective = ModelObjective(model, "mse", KINDS["mean squared error"].batch)
    x = objective.vector.read()
    for function in (objective.value, objective.value_and_grad):
        graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph
        assert not {op.type for op in graph.get_operations()} & {"AssignVariableOp", "ReadVariableOp"}
