"""Remember the best point of an optimizer whose f goes up and down: subgradient, ellipsoid and momentum optimizers.

best <- x  where  f(x) < f(best)

The variables follow the inner optimizer, which depends on its own trail; the best point waits in the state.
"""

from typing import Any

import tensorflow as tf

from trainloop.objectives.base import Objective
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.optimizer.wrapper import Wrapper
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg


class BestSoFar(Wrapper):
    """Another optimizer, with a memory for the best point it has seen.

    `minimize` returns that point. After `TrainLoop.run` the model is where the inner optimizer left it; `restore_best`
    puts the best point into it. On mini-batches the best f is that of the easiest batch, so use full batches.

    Args:
        inner: any optimizer that nothing else uses.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> loop = TrainLoop(model, BestSoFar(SimpleGD(5.0)), loss)
        >>> result = loop.run((x, y), epochs=5)
        >>> loop.optimizer.restore_best()
    """

    def __init__(self, inner: WholeVectorOptimizer, name: str = "best_so_far", **kwargs: Any) -> None:
        super().__init__(inner, name=name, **kwargs)

    def init_state(self, x: tf.Tensor) -> State:
        nothing_yet = tf.constant(float("inf"), x.dtype)
        return {"best_x": tf.identity(x), "best_f": nothing_yet} | self.inner_state(x)

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        x_new, inner, evaluated = self.inner_update(x, f, g, state, objective)
        best = linalg.lower((state["best_x"], state["best_f"]), (x, f))
        if evaluated is not None:
            best = linalg.lower(best, (x_new, evaluated[0]))
        new = {"best_x": best[0], "best_f": best[1]} | inner
        return (x_new, new) if evaluated is None else (x_new, new, evaluated)

    def best_point(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        state = self.state
        return state["best_x"], state["best_f"]
