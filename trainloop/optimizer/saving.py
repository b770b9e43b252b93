"""What a saved optimizer consists of, variable by variable, and the way back, also in the midst of a run."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainloop.optimizer.state import Memory, load_state

# Names of what decides on the length of steps: proportional to the first two, damped by the last.
SHRINKABLE = ("learning_rate", "radius", "damping")


class SavedVariables(keras.optimizers.Optimizer):
    """The part of `WholeVectorOptimizer` that saves and loads."""

    _memory: Memory  # holds the state
    _skipped_steps: keras.Variable
    _last_failure: keras.Variable
    _load_when_built: Callable[[], None] | None  # values that were loaded before there were variables

    def _saved_variables(self):
        """Everything a saved optimizer consists of, by name."""
        rate = super().learning_rate
        own = {"iterations": self.iterations} | ({"learning_rate": rate} if isinstance(rate, keras.Variable) else {})
        return {name.replace("/", "."): variable for name, variable in (own | self._memory.variables).items()}

    def resumable_variables(self) -> dict[str, Any]:
        """Everything that an interrupted run needs of this optimizer to continue exactly, by name: what is saved, and
        the record of failed steps."""
        return self._saved_variables() | {"skipped_steps": self._skipped_steps, "last_failure": self._last_failure}

    def shrink_steps(self, factor: float) -> list[str]:
        """Take shorter steps from now on: learning rates and radii times a factor, damping divided by it.

        These are variables of the optimizer and entries of the state with the names "learning_rate", "radius" and
        "damping", those of an optimizer inside of this one included.

        Args:
            factor: in (0, 1); 1 changes nothing.

        Returns:
            Names of what is changed: none for optimizers that have nothing of the kind.
        """
        factors = dict(zip(SHRINKABLE, (factor, factor, 1 / factor), strict=True))
        found = [(name, v, name.rpartition(".")[2]) for name, v in self._saved_variables().items()]
        found = [(name, v, factors[kind]) for name, v, kind in found if kind in factors]
        for _, variable, times in found:
            variable.assign(variable * tf.cast(times, variable.dtype))
        return [name for name, *_ in found]

    def save_own_variables(self, store: Any) -> None:
        """Write every variable into a Keras store under its own name."""
        for name, variable in self._saved_variables().items():
            store[name] = np.asarray(variable)

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote. Before it is built, an optimizer keeps the values until it is.

        Raises:
            ValueError: the store belongs to another optimizer or another model.
        """
        saved = {name: np.asarray(store[name]) for name in store.keys()}  # noqa: SIM118 (a Keras store only has keys())
        if self.built:
            self._load_state(saved)
        else:
            self._load_when_built = functools.partial(self._load_state, saved)

    def _load_state(self, saved):
        ours = {name: array for name, array in saved.items() if name.startswith("state.")}
        ours = self._memory.converted({name.replace(".", "/"): array for name, array in ours.items()})
        saved = {name: array for name, array in saved.items() if not name.startswith("state.")}
        saved |= {name.replace("/", "."): array for name, array in ours.items()}
        load_state(type(self).__name__, self._saved_variables(), saved)
        self._memory.begin({})
