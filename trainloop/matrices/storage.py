"""What a form of storage is, in which the numbers of a `SharedMatrix` B are kept.

    Panels            B = M                          every change goes into the n x n numbers at once
    StoredSum         B = a M + d I + U' diag(c) V   changes are kept as terms beside M, or instead of it
    StoredProduct     B = a M D_1 D_2 ... D_k        dilations are kept as factors beside M, or instead of it

Without M a sum begins with d = 1, and a product with M = I.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trainloop.matrices.changes import Change


class MatrixStorage(abc.ABC):
    """What `SharedMatrix` asks of a storage; it is a value too: two are the same only if they are one object.

    To add one: define what is abstract here, and let `SharedMatrix.identity` build it. The numbers begin as tensors;
    `as_variables` gives the storage that an optimizer keeps, and `commit` writes into that.
    """

    n: int  # number of rows and of columns
    no_change: Change  # of the kind that `commit` carries out, with nothing to carry out

    @property
    @abc.abstractmethod
    def dtype(self) -> tf.DType:
        """Of the entries of B."""

    @property
    @abc.abstractmethod
    def storage(self) -> str:
        """The name for users: "dense", "factored" or "sharded"."""

    @property
    @abc.abstractmethod
    def arrays(self) -> Sequence[Any]:
        """All numbers of this process: tensors or variables of any shape, each once."""

    @abc.abstractmethod
    def product(self, columns: tf.Tensor) -> tf.Tensor:
        """B columns, [n, k], for columns [n, k]."""

    @abc.abstractmethod
    def transposed_product(self, columns: tf.Tensor) -> tf.Tensor:
        """B' columns, [n, k], for columns [n, k]."""

    @abc.abstractmethod
    def as_variables(self, make_variable: Callable[[str, Any, bool], tf.Variable]) -> "MatrixStorage":
        """The same storage with variables for its arrays; arguments as in `StoredValue.as_variables`."""

    @abc.abstractmethod
    def commit(self, change: Any) -> None:
        """Carry out a change of the kind of `no_change` in the variables, in place."""

    @abc.abstractmethod
    def note(self) -> str:
        """For the memory plan: how B is stored."""

    # --- What may be left as it is ---

    @property
    def elsewhere(self) -> Sequence[Any]:
        """Those numbers that only other processes have, lazy."""
        return ()

    def wholes(self) -> dict[str, Any]:
        """See `StoredValue.wholes`."""
        return {}

    @property
    def workspace(self) -> int:
        """Bytes that `commit` may take for a moment, beyond a few vectors."""
        return 0

    def is_full_for(self, change: Any) -> tf.Tensor | None:
        """bool []: the change cannot be committed; None where that cannot happen."""
        return None

    def scalars(self) -> dict[str, tf.Tensor]:
        """What is worth logging: dict of tensors []."""
        return {}
