"""How large weights, gradient and step are in every layer, at every step.

    norm/x/<variable>         |x_i|             x_i = the part of x that belongs to one variable
    norm/g/<variable>         |g_i|
    norm/step/<variable>      |x_new_i - x_i|
    norm/<path>/<variable>    the same of a vector of length n in the new state
    angle/step                between -g and x_new - x, in degrees

A layer that learns nothing, or explodes, shows here long before the loss tells. The angle says what the optimizer makes
of the gradient: 0 is steepest descent, at 90 f does not change in first order, and beyond that it rises.
"""

from collections.abc import Sequence

import tensorflow as tf

from trainloop import checks
from trainloop.hooks.base import Hook
from trainloop.optimizer.proposed_step import ProposedStep
from trainloop.types import Scalar
from trainloop.vectors import linalg


class LayerNorms(Hook):
    """Euclidean norms by variable, and the angle of the step, as columns of the log of every step.

    A step of LeNet-5 takes 1.00 to 1.14 times as long with it (`scripts/benchmark.py looking`).

    Args:
        of: names of vectors: "x", "g" (as `update` gets it, so after `global_clipnorm`), "step", and paths of vectors
            of length n in the optimizer's state, such as "velocity" of `Momentum` or "inner/m" of `SAM(Adam())`.

    Raises:
        ValueError: not a list of distinct names; or, when the loop is made, a name that the optimizer does not know.

    Examples:
        >>> loop = TrainLoop(model, Momentum(), loss, hooks=[LayerNorms(of=("g", "velocity"))])
        >>> norms = loop.run((x, y), epochs=5).history["norm/velocity/mlp/dense1/kernel"]
    """

    def __init__(self, of: Sequence[str] = ("x", "g", "step")) -> None:
        super().__init__()
        named = isinstance(of, (tuple, list)) and of and all(isinstance(name, str) for name in of)
        if not named or len(set(of)) < len(of):
            raise ValueError(f"of must be a list of distinct names such as ('x', 'g', 'step'), received {of!r}")
        self._of = tuple(of)

    def watch(self, step: ProposedStep) -> dict[str, Scalar]:
        vectors = step.vectors()
        columns: dict[str, Scalar] = {}
        for name in self._of:
            vector = vectors[checks.choice("of", name, ["x", "g", "step", *step.state_vectors()])]
            norms = tf.unstack(_norms(vector, step.layout))
            columns |= {f"norm/{name}/{v}": norm for v, norm in zip(step.layout.names, norms, strict=True)}
        return {**columns, "angle/step": linalg.angle(-step.g, vectors["step"])}


def _norms(vector, layout):
    """The norm of every variable's part of a vector: [k]."""
    # In float64, where squares of float32 numbers neither overflow nor vanish: a layer's gradient may be very small.
    squares = [2 * tf.nn.l2_loss(part) for part in layout.unpack(tf.cast(vector, tf.float64))]
    return tf.cast(tf.sqrt(tf.stack(squares)), vector.dtype)
