"""What an optimizer was constructed with: to make another one, to compare two, and to be saved."""

import inspect
import warnings
from typing import Any, TypeVar

import keras

from trainloop.types import LearningRate

_Same = TypeVar("_Same", bound="Configured")


class Configured(keras.optimizers.Optimizer):
    """The part of `WholeVectorOptimizer` that tells its constructor arguments."""

    # Arguments that are newer than version 0.1, whose checkpoints know the configuration without them: `get_config`
    # leaves them out where they have their defaults.
    left_out_of_config: tuple[str, ...] = ()

    _given_rate: LearningRate | None  # as the constructor got it
    _has_rate: bool

    def fresh(self: _Same) -> _Same:
        """A new, unbuilt optimizer with the same settings."""
        return type(self).from_config(self._arguments())

    def _arguments(self):
        with warnings.catch_warnings():
            if callable(self._given_rate):  # as it is: not every function can be serialised and found again
                warnings.simplefilter("ignore")  # Keras tells it of lambdas, whose serialised form is not used
                return self.get_config() | {"learning_rate": self._given_rate}
            return self.get_config()

    def settings(self) -> tuple[Any, ...] | None:
        """The class and its arguments, equal for two optimizers that do the same; None where `get_config` lacks an
        argument of the constructor, so that it cannot tell."""
        arguments = self._arguments()
        known = {"learning_rate", *self.left_out_of_config, *arguments}
        taken = inspect.signature(type(self)).parameters.values()
        if any(argument.name not in known for argument in taken if argument.kind != argument.VAR_KEYWORD):
            return None
        return type(self), arguments

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments, as JSON-able values. Subclasses add their own."""
        config = {"name": self.name, "global_clipnorm": self.global_clipnorm}
        return config | ({"learning_rate": super().get_config()["learning_rate"]} if self._has_rate else {})
