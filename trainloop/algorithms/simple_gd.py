"""Gradient descent on the whole vector:

x <- x - t g          t = learning_rate
"""

import keras

from trainloop.optimizer import GlobalVectorOptimizer


@keras.saving.register_keras_serializable("trainloop")
class SimpleGD(GlobalVectorOptimizer):
    """Gradient descent, x <- x - t g.   Cauchy (1847).

    The same steps as `keras.optimizers.SGD`.

    Args:
        learning_rate: t, positive.
        name, **kwargs: see `GlobalVectorOptimizer`.
    """

    def __init__(self, learning_rate=0.01, name="simple_gd", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)

    def init_state(self, x):
        return {}

    def update(self, x, g, state):
        return x - self.learning_rate * g, {}
