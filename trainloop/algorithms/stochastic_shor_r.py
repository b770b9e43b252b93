"""The r-algorithm on mini-batches: no line search, one gradient per step, one dilation of space per step.

B is a *space transformation* with determinant 1. Steps have a given length in the transformed space, and space is
shrunk along the difference of successive gradients (`shor_r` has the algorithm for functions without noise):

    x   <- x - t B B'g / |B'g|                                        t: learning rate
    xi  <- B'(g_new - g) / |B'(g_new - g)|
    B   <- alpha^(1/n) B (I + (1 / alpha - 1) xi xi')

g and g_new belong to different batches, so that their difference has the curvature along the step and the noise of
both: B shrinks where either is large. With noise alone, B B' hovers around the inverse of the covariance of the
gradients, up to a factor, the closer the smaller alpha is. The power of alpha keeps volumes as they are, so that t
keeps its meaning.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.types import LearningRate, State, VectorUpdate
from trainloop.vectors import linalg


class StochasticShorR(GlobalVectorOptimizer):
    """Space dilation along differences of mini-batch gradients.   After Shor (1985), section 3.6.

    A zero gradient changes nothing. Where rounding has ruined B, so that the step would lead uphill, x stays and B
    becomes the identity again; "restarts" counts that. The length of a gradient does not matter, only its direction, so
    the learning rate is a distance; let it decay.

    Args:
        learning_rate: t, length of a step in the transformed space.
        alpha: dilation of space, above 1. Where n is much larger than the number of steps, each direction is met once
            or twice; there 2 is not too much.
        storage: of B, see `storage_spec`.
        name, kwargs: see `GlobalVectorOptimizer`.

    Examples:
        >>> optimizer = StochasticShorR(0.1, storage="factored:40:restart")
        >>> TrainLoop(model, optimizer, loss).run((x, y), epochs=3).history["restarts"]
        array([0, 0, 0], dtype=int32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.1,
        alpha: float = 2.0,
        storage: str = "auto",
        name: str = "stochastic_shor_r",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.alpha = checks.real("alpha", alpha, above=1)
        self.storage = check_storage(storage)

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "B": SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage=self.storage, updates="dilations"),
            "g": tf.zeros_like(x),  # the last one that was not zero
            "restarts": tf.constant(0, tf.int32),
        }

    def update(self, x: tf.Tensor, g: tf.Tensor, state: State) -> VectorUpdate:
        n = x.shape[0]
        images = state["B"].T @ tf.stack([g, g - state["g"]], axis=1)
        length, size = linalg.norm(images[:, 0]), linalg.norm(images[:, 1])
        dilates = tf.reduce_any(tf.not_equal(state["g"], 0)) & (length > 0) & (size > 0)
        alpha = tf.where(dilates, tf.constant(self.alpha, x.dtype), 1)
        xi = images[:, 1] / tf.where(size > 0, size, 1)
        image = images[:, 0] + (1 / alpha - 1) * tf.tensordot(xi, images[:, 0], 1) * xi
        B = state["B"].dilate(xi, 1 / alpha).scale(alpha ** (1 / n))
        d = B @ (image / tf.where(length > 0, linalg.norm(image), 1))
        nonzero = tf.reduce_any(tf.not_equal(g, 0))
        ruined = nonzero & linalg.fails(tf.tensordot(d, g, 1) > 0)
        return tf.where(ruined, x, x - self.learning_rate * d), {
            "B": B.reset(ruined),
            "g": tf.where(nonzero, g, state["g"]),
            "restarts": state["restarts"] + tf.cast(ruined, tf.int32),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "storage": self.storage}
