"""How large weights, gradient and step are in every layer, at every step.

    norm/x/<variable>         |x_i|             x_i = the part of x that belongs to one variable
    norm/g/<variable>         |g_i|
    norm/step/<variable>      |x_new_i - x_i|
    norm/<path>/<variable>    the same of a vector of length n in the new state
    angle/step                between -g and x_new - x, in degrees

A layer that learns nothing, or explodes, shows here long before the loss tells. The angle says what a method makes of
the gradient: 0 is steepest descent, 90 a step along which f does not change in first order, and beyond that it rises.
"""

from collections.abc import Sequence

import tensorflow as tf

from trainloop import checks, linalg
from trainloop.hooks import Hook
from trainloop.proposed_step import ProposedStep
from trainloop.typing import Scalar

# What names of these columns begin with: too many of them to be shown one by one.
PREFIXES = ("norm/", "angle/")


class LayerNorms(Hook):
    """Euclidean norms by variable, and the angle of the step, as columns of the log of every step.

    A step of LeNet-5 takes 1.07 times as long with it (`scripts/benchmark.py looking`).

    Args:
        of: names of vectors: "x", "g" (as `update` gets it, so after `global_clipnorm`), "step", and paths of vectors
            of length n in the method's state, such as "velocity" of `Momentum` or "inner/m" of `SAM(Adam())`.

    Raises:
        ValueError: not a list of distinct names; or, when the loop is made, a name that the method does not know.

    Example:
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


def by_kind(names):
    """{kind: {variable: column}} of those among the names that are norms by variable.

    Paths of the state and names of variables both have slashes: which is which shows where x, g or step is there too.
    """
    split = [name.split("/", 2) for name in names if name.startswith("norm/") and name.count("/") > 1]
    variables = {variable for _, kind, variable in split if kind in ("x", "g", "step")}
    kinds = {}
    for _, kind, rest in split:
        path, variable = _divided(rest, variables)
        kinds.setdefault("/".join([kind, *path]), {})[variable] = f"norm/{kind}/{rest}"
    return kinds


def _divided(rest, variables):
    """(leading parts, the variable behind them) of a name; no leading parts where none of the variables is behind."""
    parts = rest.split("/")
    ends = ["/".join(parts[i:]) for i in range(len(parts))]
    first = next((i for i, end in enumerate(ends) if end in variables), 0)
    return parts[:first], ends[first]
