"""Sharpness-aware minimisation: another optimizer, fed with the gradient at the worst point nearby.

e = rho g / |g|             the ascent step, to first order the largest increase of f within rho
x_new = inner(x, g(x + e))

Two gradients per step, on the same batch and with the same dropout mask.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalVectorOptimizer
from trainloop.optimizer.wrapper import Wrapper
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg


class SAM(Wrapper):
    """Sharpness-aware minimisation.   Foret, Kleiner, Mobahi and Neyshabur (2021), algorithm 1, p = 2.

    Args:
        inner: a `GlobalVectorOptimizer` that nothing else uses.
        rho: radius of the neighbourhood, positive, in units of x.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> loop = TrainLoop(model, SAM(Momentum(0.1), rho=0.05), loss)
        >>> loop.run((x, y), steps=3).evaluations["gradient"]
        6
    """

    def __init__(self, inner: GlobalVectorOptimizer, rho: float = 0.05, name: str = "sam", **kwargs: Any) -> None:
        super().__init__(inner, GlobalVectorOptimizer, name=name, **kwargs)  # type: ignore[type-abstract]  # not called
        self.rho = checks.real("rho", rho, above=0)

    def init_state(self, x: tf.Tensor) -> State:
        return self.inner_state(x)

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        length = linalg.norm(g)
        e = self.rho * g / tf.where(length > 0, length, tf.ones_like(length))
        _, g_there = objective.value_and_grad(x + e)
        x_new, new, _ = self.inner_update(x, f, g_there, state, objective)
        return x_new, new

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho}
