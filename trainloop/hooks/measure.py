"""Quantities of a model that no step computes, in the log of the steps after which they are measured."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from trainloop.hooks.base import Hook


class Measure(Hook):
    """Numbers that are no loss: an error relative to a reference, a coefficient, an energy.

    After every `every_steps`-th step each function is called, as plain Python. Its number becomes an entry of a column
    of its own in `RunResult.history`, `metrics.jsonl`, TensorBoard, displays and figures, in the row of that step; in
    the rows between it is NaN (null in `metrics.jsonl`, nothing in TensorBoard). It describes the weights *after* the
    step, while the loss and gradient norm in the same row belong to those before.

    Args:
        every_steps: measure after each step whose number is a multiple of this.
        functions: by the name of their column: function (model) -> a number, a scalar tensor or a variable.

    Raises:
        ValueError: no functions, or something else; a name that the log has already, when the loop is made; what a
            function returns is no number.

    Examples:
        >>> hook = Measure(every_steps=2, norm=lambda model: tf.norm(model.trainable_variables[0]))
        >>> history = TrainLoop(model, Adam(), loss, hooks=[hook]).run((x, y), epochs=5).history
        >>> np.isnan(history["norm"]).tolist()
        [True, False, True, False, True]
    """

    def __init__(self, every_steps: int, **functions: Callable[[keras.Model], Any]) -> None:
        super().__init__(every_steps)
        if every_steps is None:
            raise ValueError("Measure needs every_steps, an integer of at least 1, received None")
        if not functions:
            raise ValueError("Measure needs at least one function, as in Measure(every_steps=100, rel_l2=function)")
        for name, function in functions.items():
            if not callable(function) or isinstance(function, type):
                raise ValueError(f"Measure: {name} must be a function (model) -> number, received {function!r}")
        self.functions = dict(functions)

    def measure(self, model: keras.Model) -> dict[str, float]:
        """{name: number} for the weights as they are.

        Args:
            model: of the loop.

        Raises:
            ValueError: a function returns something else than a number.
        """
        return {name: _number(name, function(model)) for name, function in self.functions.items()}


def _number(name, value):
    value = value.value if isinstance(value, keras.Variable) else value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, NotImplementedError):  # rows of different lengths, symbolic tensors
        array = np.asarray(None)
    if array.shape != () or array.dtype.kind not in "fiub":
        shown = f"an array of shape {array.shape}" if array.shape else repr(value)
        raise ValueError(
            f"Measure: the function {name!r} must return one number, received {shown}; reduce it, for example with "
            "np.mean or tf.norm"
        )
    return float(array)
