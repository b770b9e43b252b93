"""A step as an optimizer proposes it and before it is taken: what hooks and inspections look at."""

import dataclasses
from typing import Any

import tensorflow as tf

from trainloop.vectors.layout import FlatLayout


@dataclasses.dataclass(frozen=True)
class ProposedStep:
    """One step of an optimizer on the flat parameter vector. Of the tensors in it nothing has been written yet.

    Attributes:
        layout: the `FlatLayout` of every vector of length n: `step.g[step.layout.span("dense/kernel")]`.
        x: [n], the point.
        f: [], the objective there.
        g: [n], its gradient as `update` gets it, that is after `global_clipnorm`.
        x_new: [n], the point that the optimizer proposes. It is not taken where `status` is negative.
        state: the new state by path ("moments/first"): tensors, and stored values such as a `SharedMatrix`, which
            can be multiplied with.
        status: int32 [], a code of `Status`.

    Examples:
        >>> optimizer = Momentum(0.1)
        >>> optimizer.build(model.trainable_variables)
        >>> step = optimizer.propose(ModelObjective(model, loss, (x, y)))
        >>> sorted(step.vectors())
        ['g', 'step', 'velocity', 'x']
    """

    layout: FlatLayout
    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    x_new: tf.Tensor
    state: dict[str, Any]
    status: tf.Tensor

    def state_vectors(self) -> dict[str, tf.Tensor]:
        """The vectors of length n among the new state, by path."""
        # Stored values have no shape: their numbers are not there to be looked at one by one.
        return {path: leaf for path, leaf in self.state.items() if getattr(leaf, "shape", None) == self.x.shape}

    def vectors(self) -> dict[str, tf.Tensor]:
        """All vectors of length n by name: "x", "g", "step" for x_new - x, and those of the state by path.

        A vector of the state with one of these three names is left out.
        """
        return {**self.state_vectors(), "x": self.x, "g": self.g, "step": self.x_new - self.x}
