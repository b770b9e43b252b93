"""Gradient descent on the flat vector.

    x <- x - t g

with t the learning rate, a number or a schedule.
"""

from typing import Any

import tensorflow as tf

from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.types import LearningRate, State, VectorUpdate


class SimpleGD(GlobalVectorOptimizer):
    """Gradient descent, x <- x - t g.   Cauchy (1847).

    The same steps as `keras.optimizers.SGD`.

    Args:
        learning_rate: t, positive.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        >>> model.compile(optimizer=SimpleGD(0.1), loss=loss)
        >>> history = model.fit(x, y, epochs=2, verbose=0)
    """

    def __init__(self, learning_rate: LearningRate = 0.01, name: str = "simple_gd", **kwargs: Any) -> None:
        super().__init__(learning_rate, name=name, **kwargs)

    def init_state(self, x: tf.Tensor) -> State:
        return {}

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        return x - self.learning_rate * g, {}
