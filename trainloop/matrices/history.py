"""What a history of changes is, which is kept beside an n x n matrix or instead of one.

RankOneSum         U' diag(c) V       of the terms of a `SumChange`
DilationProduct    D_1 D_2 ... D_k    of the factors of a `ProductChange`
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def first_rows(n):
    """How many rows of n numbers a growing history begins with: 64, or fewer where they are long."""
    return max(8, min(64, 2**24 // n))


class History(abc.ABC):
    """Changes of one kind, in tensors or variables, with room for some.

    Whoever keeps one asks `has_room_for` before `append`, and `grow`s or `clear`s it where there is none.
    """

    rank: Any  # number of changes that are in use, int32 []
    room: Any  # number of changes that fit in: int32 [] where it grows, else a number of Python
    sharded = False  # whether the vectors are sharded

    @property
    def grows(self) -> bool:
        """Whether there is no bound on the number of changes."""
        return not isinstance(self.room, int)

    @property
    def capacity(self) -> int | None:
        """How many changes fit in; None for a number that grows."""
        return None if self.grows else self.room

    def has_room_for(self, r: int) -> tf.Tensor:
        """bool []: r more changes fit in."""
        # Not read off the shape of a variable: TensorFlow orders that by no other use of the variable.
        return self.rank + r <= self.room

    @property
    @abc.abstractmethod
    def arrays(self) -> Sequence[Any]:
        """All numbers of this process, `rank` and a `room` that grows among them."""

    @property
    def elsewhere(self) -> Sequence[Any]:
        """Those numbers that only other processes have, lazy."""
        return ()

    def wholes(self) -> dict[str, Any]:
        """See `StoredValue.wholes`."""
        return {}

    @abc.abstractmethod
    def in_words(self) -> str:
        """What a change takes: "a vector"."""

    @abc.abstractmethod
    def as_variables(self, make_variable: Callable[[str, Any, bool], tf.Variable]) -> "History":
        """The same history with variables for its arrays; arguments as in `StoredValue.as_variables`."""

    @abc.abstractmethod
    def product(self, columns: tf.Tensor) -> tf.Tensor:
        """The sum, or the product, times columns [n, k]: [n, k]."""

    @abc.abstractmethod
    def transposed_product(self, columns: tf.Tensor) -> tf.Tensor:
        """Its transposed times columns [n, k]: [n, k]."""

    @abc.abstractmethod
    def append(self, parts: Sequence[tuple]) -> None:
        """Add the `parts` of a change behind those in use; there must be room."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Forget all changes; the room stays."""

    @abc.abstractmethod
    def grow(self, r: int) -> None:
        """Make room for at least r more changes."""
