"""Names for what many signatures share, where a hint would be longer than the idea.

They tell kinds. Shapes and meanings stand in the docstrings of those who use them: for a checker a tensor of TensorFlow
is a tensor, whatever its shape.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

# A file or a folder.
Path: TypeAlias = str | os.PathLike[str]

# A number, [] where it is a tensor.
Scalar: TypeAlias = tf.Tensor | float

Variable: TypeAlias = keras.Variable | tf.Variable

# A value of a state, or the variable that keeps it.
Array: TypeAlias = tf.Tensor | tf.Variable

# What an optimizer remembers: nested, with tensors and `StoredValue`s for leaves.
State: TypeAlias = dict[str, Any]

# (f [], g [n]) at one point.
Evaluated: TypeAlias = tuple[tf.Tensor, tf.Tensor]

# What `update` returns: (x_new [n], state_new), and f and g at x_new from who knows them.
VectorUpdate: TypeAlias = tuple[tf.Tensor, State]
ObjectiveUpdate: TypeAlias = tuple[tf.Tensor, State] | tuple[tf.Tensor, State, Evaluated]

# A positive number, a schedule over the steps, or a function without arguments.
LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Scalar]

# (targets, predictions) -> a number per sample, and other words for it.
Loss: TypeAlias = str | keras.losses.Loss | Callable[[Any, Any], Any]
# For several outputs a list or dict with one for each, None for an output without a loss; nested as the outputs.
Losses: TypeAlias = Loss | Sequence[Any] | Mapping[str, Any]
LossWeights: TypeAlias = Scalar | Sequence[Any] | Mapping[str, Any]
Metric: TypeAlias = str | keras.metrics.Metric | Callable[[Any, Any], Any]

# (model, batch) -> f [] or {name: []}; or (model, batch, training).
LossFn: TypeAlias = Callable[..., Any]

# (model, points) -> r [N] or [N, c], or a dict of such functions by name.
Residuals: TypeAlias = Callable[..., tf.Tensor] | Mapping[str, Callable[..., tf.Tensor]]
