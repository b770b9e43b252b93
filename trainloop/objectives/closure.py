"""f of any program over any variables: a function without arguments, and the variables that it reads."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainloop.objectives.model import ModelObjective
from trainloop.objectives.residuals import Term
from trainloop.objectives.rows import FunctionRows
from trainloop.types import LossWeights, Variable
from trainloop.vectors.layout import native


class ClosureObjective(ModelObjective):
    """A function without arguments over variables: of a `tf.Module`, a Gaussian process, a distribution, a network.

        f(x) = closure() where the variables hold x, laid end to end

    Evaluated as every model is, see `trainloop.objectives.model`: x is written into the variables, the closure runs,
    and everything that it writes is put back.

    Args:
        closure: function () -> f [], or a dict of scalars by name, whose weighted sum is f.
        variables: what x consists of, in this order: `tf.Variable`s and Keras variables, also both.
        residuals: instead of `closure`: function () -> r of any shape, or a dict of such functions by name, with
            f = r'r, the plain sum of all squares.
        loss_weights: {name: w} for a dict of scalars.

    Attributes:
        definition: the arguments, with the `tf.Variable`s behind the variables.

    Raises:
        ValueError: not exactly one of `closure` and `residuals`, no variables, or one that is no floating variable.

    Examples:
        >>> a, b = tf.Variable(1.0), tf.Variable([0.0, 3.0])
        >>> objective = ClosureObjective(lambda: a**2 + tf.reduce_sum(b**2), [a, b])
        >>> float(objective.value(tf.constant([2.0, 1.0, 0.0]))), float(a)
        (5.0, 1.0)
    """

    of_weights = False

    def __init__(
        self,
        closure: Callable[[], Any] | None = None,
        variables: Sequence[Variable] = (),
        *,
        residuals: Callable[[], Any] | dict[str, Callable[[], Any]] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        if (closure is None) == (residuals is None):
            raise ValueError("give exactly one of closure (a function () -> f) and residuals (a function () -> r)")
        if residuals is not None and loss_weights is not None:
            raise ValueError(
                "residuals are taken as they are, f = r'r; multiply them inside, and leave loss_weights out"
            )
        for function in [closure] if closure else tf.nest.flatten(residuals):
            if isinstance(function, type) or not callable(function):
                raise ValueError(f"closure and residuals must be functions without arguments, received {function!r}")
        self._residuals = residuals
        module = _Variables(checked_variables(variables))
        self.definition = closure, [native(v) for v in module.variables], residuals, loss_weights
        super().__init__(
            module, loss_fn=self._f if closure is None else lambda *_: closure(), batch=(), loss_weights=loss_weights
        )

    @property
    def has_residuals(self) -> bool:  # type: ignore[override]
        return self._residuals is not None

    @contextlib.contextmanager
    def rows(self, x: tf.Tensor) -> Iterator[FunctionRows]:
        if self._residuals is None:
            raise ValueError("the closure has no residuals; pass residuals=... in its place")
        with self.at(x) as sources:
            yield FunctionRows(lambda _: self._vector_of_residuals(), x, sources)

    def ggnvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        with self.rows(x) as rows:
            r = rows.linearised()
            return 2 * r.vjp(r.jvp(v))

    def ggn(self, x: tf.Tensor) -> tf.Tensor:
        with self.rows(x) as rows:
            return 2 * rows.gram()

    def terms(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """The residuals at x [n] by name."""
        if not isinstance(self._residuals, dict):
            raise ValueError("terms(x) needs residuals by name, residuals={name: function}")
        with self.at(x):
            return {name: tf.convert_to_tensor(function()) for name, function in self._residuals.items()}

    def _f(self, *_):
        return tf.reduce_sum(tf.square(self._vector_of_residuals()))

    def _vector_of_residuals(self):
        functions = self._residuals if isinstance(self._residuals, dict) else {None: self._residuals}
        parts = []
        for name, function in functions.items():
            r = Term(name, lambda _, function=function: function(), (), None).floating("a tensor of any shape")
            parts.append(tf.reshape(tf.cast(r, self.vector.layout.dtype), [-1]))
        return tf.concat(parts, 0)


def checked_variables(variables):
    """The variables as a list.

    Raises:
        ValueError: none, or something else than floating variables.
    """
    variables = [variables] if isinstance(variables, (tf.Variable, keras.Variable)) else list(variables)
    if not variables:
        raise ValueError("variables must have at least one variable, received none; pass module.trainable_variables")
    for variable in variables:
        if not isinstance(variable, (tf.Variable, keras.Variable)):
            raise ValueError(f"variables must be tf.Variables or Keras variables, received {variable!r}")
        if not tf.as_dtype(variable.dtype).is_floating:
            raise ValueError(f"variables must be floating, received {variable.name!r} of dtype {variable.dtype}")
    return variables


class _Variables:
    """What a model is to its objective: variables to train."""

    built, losses, non_trainable_variables = True, (), ()

    def __init__(self, variables):
        self.trainable_variables = self.variables = variables
