"""Gradient descent with momentum, the heavy ball and Nesterov's form of it.

    v <- m v - t g
    x <- x + v                    heavy ball
    x <- x + m v - t g            Nesterov, with v the new velocity

t is the learning rate, m the momentum.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.types import LearningRate, State, VectorUpdate


class Momentum(GlobalVectorOptimizer):
    """Gradient descent with momentum, v <- m v - t g,  x <- x + v.   Polyak (1964).

    Nesterov's form is that of Sutskever et al. (2013), equations 3 and 4.

    The same steps as `keras.optimizers.SGD(momentum=...)`: the learning rate enters the velocity, so a
    schedule acts on new gradients only.

    Args:
        learning_rate: t, positive.
        momentum: m in [0, 1).
        nesterov: take the gradient's share once more after the velocity.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        >>> optimizer = Momentum(0.1, nesterov=True)
        >>> with tf.GradientTape() as tape:
        ...     f = loss(y, model(x))
        >>> optimizer.apply(tape.gradient(f, model.trainable_variables), model.trainable_variables)
        >>> optimizer.state["velocity"].shape[0] == optimizer.layout.size
        True
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        name: str = "momentum",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = checks.real("momentum", momentum, at_least=0, below=1)
        self.nesterov = checks.flag("nesterov", nesterov)

    def init_state(self, x: tf.Tensor) -> State:
        return {"velocity": tf.zeros_like(x)}

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        pull = self.learning_rate * g
        velocity = self.momentum * state["velocity"] - pull
        step = self.momentum * velocity - pull if self.nesterov else velocity
        return x + step, {"velocity": velocity}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
