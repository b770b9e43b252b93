"""Losses with Python functions inside, which no graph tells of: taken twice, compared once."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from loss_kinds import KINDS

from trainloop import LBFGS, ArrayData, Momentum, TrainLoop

pytestmark = [
    pytest.mark.usefixtures("no_graph_rewriting"),
    pytest.mark.filterwarnings("ignore:the loss calls Python functions"),
    pytest.mark.filterwarnings("ignore:the loss stops gradients"),
]


class Counting:
    """A squared error times what a Python function returns at its k-th call."""

    def __init__(self, factor):
        self._factor, self.calls = factor, 0

    def _next(self):
        self.calls += 1
        return np.float64(self._factor(self.calls))

    def __call__(self, model, batch):
        scale = tf.ensure_shape(tf.numpy_function(self._next, [], tf.float64), [])
        return scale * tf.reduce_mean((model(batch[0], training=True) - batch[1]) ** 2)


def run(loss_fn, optimizer, steps, eager=False):
    kind = KINDS["mean squared error"]
    loop = TrainLoop(kind.make(), optimizer, loss_fn=loss_fn, eager=eager)
    return loop, lambda: loop.run(ArrayData(*kind.batch, batch_size=None), steps=steps)


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_a_python_function_with_a_state_of_its_own_is_named_before_the_first_step(eager):
    loop, train = run(Counting(lambda k: 1 + 0.1 * k), LBFGS(m=3), 2, eager)
    before = [v.numpy() for v in loop.model.trainable_variables]
    with pytest.raises(ValueError, match=r"must give the same value.*PyFunc"):
        train()
    for v, value in zip(loop.model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(v, value)


def test_rounding_is_named_in_the_log(caplog):
    _, train = run(Counting(lambda k: 1 + 1e-15 * (k % 2)), LBFGS(m=3), 2)
    with caplog.at_level(logging.WARNING, "trainloop"):
        train()
    assert [r for r in caplog.records if "f differs by rounding" in r.message and "PyFunc" in r.message]


@pytest.mark.thorough
def test_a_function_that_repeats_is_tried_in_the_first_step_only(caplog):
    """How often it is called, beyond the evaluations that are counted."""
    loss, beyond = Counting(lambda k: 1.0), []
    _, train = run(loss, LBFGS(m=3), 1)
    for _ in range(2):
        calls = loss.calls
        evaluated = train().evaluations["f"]
        beyond.append(loss.calls - calls - evaluated)
    assert beyond == [1, 0]
    assert not [r for r in caplog.records if "rounding" in r.message]


def test_optimizers_that_compare_no_values_are_left_alone():
    _, train = run(Counting(lambda k: 1 + 0.1 * k), Momentum(0.01), 3)
    assert len(train().history["loss"]) == 3
