"""Looks of hooks into the compiled step: what they see becomes columns of its log.

The log has a fixed set of columns, so the hooks are asked once before the first step, on the point where the variables
are, and their names and dtypes are kept.
"""

import numpy as np
import tensorflow as tf

from trainloop.hooks.base import Hook
from trainloop.optimizer import state as states
from trainloop.optimizer.proposed_step import ProposedStep
from trainloop.status import Status


class Watches:
    """The hooks that define `watch`, as one function of a `ProposedStep`; false where there are none.

    Args:
        hooks: of a loop.
        optimizer: built.
        vector: its `VariableVector`.
        taken: names that the log has already.
        eager: ask without tracing, because the steps will not be traced either.

    Attributes:
        columns: NumPy dtypes by name.

    Raises:
        ValueError: a hook returns something else than a dict of scalars, or a name that is taken.
    """

    def __init__(self, hooks, optimizer, vector, taken, eager=False):
        self._hooks = [hook for hook in hooks if getattr(hook.watch, "__func__", None) is not Hook.watch]
        self._taken = dict.fromkeys((*taken, *states.RESERVED), "the log of every step")
        self.columns = None if self._hooks else {}

        def ask():
            seen = self(_any_step(optimizer, vector.read()))
            self.columns = {name: np.dtype(tensor.dtype.as_numpy_dtype) for name, tensor in seen.items()}

        if self._hooks:
            ask() if eager else tf.function(ask, autograph=False).get_concrete_function()

    def __bool__(self):
        return bool(self._hooks)

    def __call__(self, step):
        """What all hooks see of a step: dict of tensors []."""
        seen, owners = {}, dict(self._taken)
        for hook in self._hooks:
            where = f"{type(hook).__name__}.watch"
            for name, value in _checked_dict(where, hook.watch(step)).items():
                if name in owners:
                    raise ValueError(f"{where} must return new names; {name!r} is taken by {owners[name]}; rename it")
                seen[name], owners[name] = _checked_scalar(f"{where}: {name!r}", value), where
        if self.columns is not None and seen.keys() != self.columns.keys():
            changed = ", ".join(sorted(seen.keys() ^ self.columns.keys()))
            raise ValueError(f"watch must return the same names for every step; it did not for {changed}")
        return seen


def _any_step(optimizer, x):
    """A step that goes nowhere: for the shapes and dtypes."""
    zero, status = tf.zeros([], x.dtype), tf.constant(Status.RUNNING, tf.int32)
    return ProposedStep(optimizer.layout, x, zero, tf.zeros_like(x), x, states.flatten(optimizer.state), status)


def _checked_dict(where, returned):
    if not isinstance(returned, dict):
        raise ValueError(f"{where} must return a dict of scalars by name, received {type(returned).__name__}")
    for name in returned:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where} must return a dict whose keys are non-empty strings, received {name!r}")
    return returned


def _checked_scalar(where, value):
    expected = f"{where} must be a tensor of numbers of shape []"
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}, received {value!r}: {error}") from error
    numeric = tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool
    if tensor.shape.rank != 0 or not numeric:
        raise ValueError(
            f"{expected}, received shape {tensor.shape} and dtype {tensor.dtype.name}; reduce it, for example with "
            "tf.norm or tf.reduce_max"
        )
    return tensor
