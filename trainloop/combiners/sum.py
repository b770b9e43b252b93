"""The sum of the gradients: what training without a combiner does."""

import tensorflow as tf

from trainloop.combiners.base import Combiner
from trainloop.types import State


class Sum(Combiner):
    """The sum of the gradients, which is the gradient of f: to compare others with.

    Examples:
        >>> combiners.Sum().combine(tf.ones([2]), tf.constant([[1.0, 0.0], [0.0, 2.0]]), {})[0].numpy()
        array([1., 2.], dtype=float32)
    """

    def combine(self, losses: tf.Tensor, gradients: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        return tf.reduce_sum(gradients, 0), state
