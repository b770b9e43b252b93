"""State values that are updated in place: operations record a pending change, applied when the step is committed."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop.status import Status


class StoredValue(abc.ABC):
    """A value that is too large to be returned anew by every `update`.

    Its operations return new values that refer to the same stored numbers and describe what is different. The
    optimizer base carries the change out, in place, when the step is accepted. A rejected step costs nothing.

    Examples:
        >>> B = SharedMatrix.identity(3)
        >>> isinstance(B, StoredValue), B.scale(2.0).describes_change_of(B)
        (True, True)
    """

    @abc.abstractmethod
    def as_variables(self, make_variable: Callable[[str, Any, bool], tf.Variable]) -> "StoredValue":
        """A value equal to this one whose stored numbers are variables, so that it can be committed to.

        Args:
            make_variable: function of (name, initial value, whether its first dimension grows) returning a
                variable.
        """

    @abc.abstractmethod
    def describes_change_of(self, other: Any) -> bool:
        """True when this value was derived from `other` by operations, so that it can be committed over it."""

    @abc.abstractmethod
    def commit(self) -> None:
        """Carry the described change out in the stored variables, in place."""

    def wholes(self) -> dict[str, Any]:
        """`WholeArray`s by name, to be saved instead of their pieces: arrays of which other processes have some."""
        return {}

    def converted(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Saved arrays of such a value in another form, as arrays by this one's names.

        Args:
            arrays: dict of arrays, by the names that `as_variables` gave when they were saved.

        Raises:
            ValueError: they cannot be this value's.
        """
        raise ValueError(f"a {type(self).__name__} cannot be made of {', '.join(sorted(arrays))}")

    def failures(self) -> list[tuple[tf.Tensor, Status]]:
        """Pairs (bool [], `Status`) under which the change cannot be committed."""
        return []

    def scalars(self) -> dict[str, tf.Tensor]:
        """What is worth logging about this value: dict of tensors []."""
        return {}

    @property
    def workspace(self) -> int:
        """Bytes that `commit` may take for a moment, beyond a few vectors."""
        return 0

    def notes(self) -> Sequence[str]:
        """Messages for the memory plan: how the value is stored, and why."""
        return ()

    def alternatives(self) -> Sequence[tuple[str, int]]:
        """Pairs (storage specification, bytes) of other ways to store the value."""
        return ()
