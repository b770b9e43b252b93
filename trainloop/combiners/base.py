"""The contract of a combiner, and the base of those that look at lengths and angles alone.

    combine(losses [k], gradients G [k, n], state) -> (g [n], state)

Most combiners need of G only its Gramian G G' [k, k]: how long the rows are and which angles they have. It is tiny, so
what is solved with it costs next to nothing. Here it is taken apart into lengths and cosines, and the rows are scaled
by their largest entries first: a gradient of 1e-30 has a direction too, though its square is no number of float32.
"""

import abc
from typing import Any

import keras
import tensorflow as tf

from trainloop.combiners.cosines import unit_rows
from trainloop.types import State


class Combiner(abc.ABC):
    """What makes one vector of the gradients of k terms.

    Pure, as an optimizer's `update`: tensors in, tensors out, traced once; values decide through `tf.where`. Randomness
    comes from a seed in the state, through `tf.random.stateless_*`. Constructor arguments are returned by `get_config`.

    Examples:
        >>> class Largest(combiners.Combiner):
        ...     def combine(self, losses, gradients, state):
        ...         return gradients[tf.argmax(losses)], state
        ...
        >>> g, _ = Largest().combine(tf.constant([1.0, 3.0]), tf.constant([[1.0, 0.0], [0.0, 2.0]]), {})
        >>> g.numpy()
        array([0., 2.], dtype=float32)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the class known to Keras, so that a saved optimizer finds its combiner again."""
        super().__init_subclass__(**kwargs)
        package = "trainloop" if cls.__module__.startswith("trainloop.") else "Custom"
        keras.saving.register_keras_serializable(package)(cls)

    def init_state(self) -> State:
        """What the combiner remembers before its first step: nested dict of tensors, empty unless overridden."""
        return {}

    @abc.abstractmethod
    def combine(self, losses: tf.Tensor, gradients: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """One direction.

        Args:
            losses: [k], the weighted terms of f.
            gradients: G [k, n], their gradients, row by row. k is known when this is traced.
            state: what `init_state` made or the last step returned.

        Returns:
            (g [n], of the dtype of G, and the new state). The optimizer takes g for the gradient: it goes along -g.
        """

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, as JSON-able values."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Combiner":
        """The inverse of `get_config`.

        Args:
            config: what it returned.
        """
        return cls(**config)


class GramianCombiner(Combiner):
    """A combiner that needs the lengths of the gradients and the cosines between them, and no more.

        u_i = g_i / |g_i|         0 for a gradient that is 0
        g = sum_i c_i u_i         c [k] from |g_i| [k] and C = U U' [k, k]

    A subclass defines `coefficients`. They are computed in float64, whatever the precision of the gradients.

    Examples:
        >>> class Equal(combiners.GramianCombiner):
        ...     def coefficients(self, lengths, cosines, digits, state):
        ...         return tf.ones_like(lengths) * tf.reduce_mean(lengths), state
        ...
        >>> Equal().combine(tf.ones([2]), tf.constant([[1.0, 0.0], [0.0, 3.0]]), {})[0].numpy()
        array([2., 2.], dtype=float32)
    """

    @abc.abstractmethod
    def coefficients(
        self, lengths: tf.Tensor, cosines: tf.Tensor, digits: float, state: State
    ) -> tuple[tf.Tensor, State]:
        """c [k], and the new state.

        Args:
            lengths: |g_i| [k], float64.
            cosines: C [k, k], float64; row and column of a gradient that is 0 are 0.
            digits: the rounding error of C: what is smaller counts as 0.
            state: see `Combiner.combine`.
        """

    def combine(self, losses: tf.Tensor, gradients: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        lengths, units, cosines, digits = unit_rows(gradients)
        c, state = self.coefficients(lengths, cosines, digits, state)
        return tf.linalg.matvec(units, tf.cast(c, units.dtype), transpose_a=True), state
