"""Resilient propagation: a step length for every weight, from the signs of its derivative alone.

With the derivatives g_i now and h_i one step before,

    d_i <- min(1.2 d_i, largest)      where g_i h_i > 0
    d_i <- 0.5 d_i, g_i <- 0          where g_i h_i < 0
    x_i <- x_i - d_i sign(g_i)

This is the variant iRprop- of Igel and Husken (2000), Improving the Rprop learning algorithm, section 3. It is made for
full batches: on mini-batches signs change for other reasons than a minimum that was passed.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.types import State, VectorUpdate


class Rprop(GlobalVectorOptimizer):
    """Resilient propagation, iRprop-.   Igel and Husken (2000).

    Memory: 2 n numbers.

    Args:
        first_step: length of every weight's first step, positive.
        largest_step: none is longer, positive.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        >>> whole = ArrayData(x, y, batch_size=None)
        >>> result = TrainLoop(model, contrib.Rprop(), loss).run(whole, steps=5)
    """

    def __init__(self, first_step: float = 1e-3, largest_step: float = 1.0, name: str = "rprop", **kwargs: Any) -> None:
        super().__init__(None, name=name, **kwargs)
        self.first_step = checks.real("first_step", first_step, above=0)
        self.largest_step = checks.real("largest_step", largest_step, above=0)

    def init_state(self, x: tf.Tensor) -> State:
        return {"lengths": tf.fill(tf.shape(x), tf.constant(self.first_step, x.dtype)), "signs": tf.zeros_like(x)}

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        signs, lengths = tf.sign(g), state["lengths"]
        same = signs * state["signs"]  # 1, 0 or -1
        lengths = tf.where(same > 0, tf.minimum(1.2 * lengths, self.largest_step), lengths)
        lengths = tf.where(same < 0, 0.5 * lengths, lengths)
        signs = tf.where(same < 0, tf.zeros_like(signs), signs)
        return x - lengths * signs, {"lengths": lengths, "signs": signs}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "first_step": self.first_step, "largest_step": self.largest_step}
