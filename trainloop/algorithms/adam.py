"""Adam with decoupled weight decay, as one update of the flat vector:

    k <- k + 1
    m <- b1 m + (1 - b1) g
    v <- b2 v + (1 - b2) g^2
    x <- x - t w M x - t sqrt(1 - b2^k) / (1 - b1^k)  m / (sqrt(v) + eps)

M is the diagonal 0/1 matrix that leaves biases and normalisation weights out of the decay.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.types import LearningRate, State, VectorUpdate

# Last parts of the names under which Keras layers keep offsets and normalisation factors.
_NOT_DECAYED = ("bias", "gamma", "beta", "scale")


class Adam(GlobalVectorOptimizer):
    """Adam: adaptive moments, decoupled weight decay.   Kingma and Ba (2015), algorithm 1, end of section 2.

    The decay is that of Loshchilov and Hutter (2019), algorithm 2.

    The same steps as `keras.optimizers.Adam`, eps included, which here stands beside the uncorrected sqrt(v).

    Args:
        learning_rate: t, positive.
        beta_1, beta_2: decay of the two moments, in [0, 1).
        epsilon: eps, positive.
        weight_decay: w, at least 0. Each step takes t w x away from the weights (the gradient never sees it),
            except from entries of variables named bias, gamma, beta or scale.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        >>> decay = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=1000)
        >>> loop = TrainLoop(model, Adam(decay, weight_decay=0.1), loss)
        >>> loop.run((x, y), epochs=2).step
        2
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.beta_1 = checks.real("beta_1", beta_1, at_least=0, below=1)
        self.beta_2 = checks.real("beta_2", beta_2, at_least=0, below=1)
        self.epsilon = checks.real("epsilon", epsilon, above=0)
        self.weight_decay = checks.real("weight_decay", weight_decay, at_least=0)

    def init_state(self, x: tf.Tensor) -> State:
        return {"m": tf.zeros_like(x), "v": tf.zeros_like(x), "updates": tf.constant(0, tf.int64)}

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        updates = state["updates"] + 1
        k = tf.cast(updates, x.dtype)
        b1, b2 = tf.constant(self.beta_1, x.dtype), tf.constant(self.beta_2, x.dtype)
        rate = self.learning_rate * tf.sqrt(1 - tf.pow(b2, k)) / (1 - tf.pow(b1, k))
        m = state["m"] + (g - state["m"]) * (1 - self.beta_1)
        v = state["v"] + (tf.square(g) - state["v"]) * (1 - self.beta_2)
        x_new = self._decayed(x) - rate * m / (tf.sqrt(v) + self.epsilon)
        return x_new, {"m": m, "v": v, "updates": updates}

    def _decayed(self, x):
        if self.weight_decay == 0:
            return x
        shrink = tf.cast(self.layout.mask(_is_decayed), x.dtype) * (self.learning_rate * self.weight_decay)
        return x - shrink * x

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("beta_1", "beta_2", "epsilon", "weight_decay")}
        return {**super().get_config(), **own}


def _is_decayed(name):
    return name.rsplit("/", 1)[-1] not in _NOT_DECAYED
