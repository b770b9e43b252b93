"""Batches as index gathers from arrays in memory.

`ArrayData` keeps the whole set as tensors and builds no pipeline: an epoch is a permutation that depends on
nothing but (seed, epoch), and a batch is `gather_batch(arrays, order, start, size)`, which works inside a
compiled function. A run can therefore stop after any step and continue from the two numbers (epoch, start)
alone, with exactly the batches it would have seen.

`load` (datasets.py) is the usual source of the arrays.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.checks import check_finite, error, one_line

ROLES = ("x", "y", "sample_weight")


def gather_batch(arrays: Any, order: tf.Tensor, start: tf.Tensor | int, size: tf.Tensor | int) -> Any:
    """The samples `order[start:start + size]` of every array.

    A function of tensors only, so a compiled function can take `arrays` as an argument instead of baking the
    data set into its graph as constants.

    Args:
        arrays: structure of tensors [N, ...].
        order: int32 [N].
        start: int or int32 scalar.
        size: an int32 scalar: a range past the end of `order` is cut short, as with any slice. Or an int: the
            batch dimension is static, as XLA wants it, and the range must lie within `order`.

    Returns:
        The structure of `arrays`, with tensors [size, ...] of the same dtypes.
    """
    # With an int no slice, because XLA would compile the function anew for every start of one.
    indices = tf.gather(order, start + tf.range(size)) if isinstance(size, int) else order[start : start + size]
    return tf.nest.map_structure(lambda array: _rows(array, indices), arrays)


def _rows(array, indices):
    """array[indices]. Every sample is one row of numbers: XLA copies those in one go, and images pixel by pixel."""
    if array.shape.rank < 3 or not array.shape[1:].is_fully_defined():
        return tf.gather(array, indices)
    rows = tf.gather(tf.reshape(array, [-1, math.prod(array.shape[1:])]), indices)
    return tf.reshape(rows, [-1 if indices.shape[0] is None else indices.shape[0], *array.shape[1:]])


class ArrayData:
    """Arrays in memory, served in batches by index.

    Args:
        x: one array [N, ...] or a nested structure (tuple, dict) of such arrays. A list counts as a structure
            too, so a list of numbers has to go through np.asarray first.
        y: targets, likewise, or None.
        batch_size: samples per batch, 1..N; None for the whole set.
        seed: non-negative integer from which every epoch's order follows.
        sample_weight: weights, likewise, or None; needs `y`.
        shuffle: False keeps the order of the arrays in every epoch.

    Attributes:
        arrays: `(x,)`, `(x, y)` or `(x, y, sample_weight)` as tensors, dtypes kept (float64 stays float64).
        size: N.
        batch_size: int, N where None was given.
        seed, shuffle: as given.

    Raises:
        ValueError: no samples, different lengths, arrays that are not numeric or not finite, or an argument
            outside the range given above.

    Examples:
        >>> data = ArrayData(x, y, batch_size=5, seed=1)
        >>> data.steps_per_epoch, data.remainder
        (3, 2)
        >>> inputs, targets = data.batch(data.order(epoch=0), start=0, size=5)
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = 64,
        seed: int = 0,
        *,
        sample_weight: Any = None,
        shuffle: bool = True,
    ) -> None:
        if sample_weight is not None and y is None:
            raise error("sample_weight", "y beside it", "y=None", "pass y, or leave the weights out")
        parts = (x, *(part for part in (y, sample_weight) if part is not None))
        self.arrays = tuple(_to_tensors(role, part) for role, part in zip(ROLES, parts, strict=False))
        self.size = _common_length(self._leaves())
        self.batch_size = self._resolve(batch_size)
        self.seed = checks.integer("seed", seed, at_least=0)
        self.shuffle = checks.flag("shuffle", shuffle)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch, a last partial one included: ceil(N / batch_size)."""
        return math.ceil(self.size / self.batch_size)

    @property
    def remainder(self) -> int:
        """Samples in the last batch of an epoch if it is a partial one, else 0."""
        return self.size % self.batch_size

    def order(self, epoch: int) -> tf.Tensor:
        """The order of the samples in `epoch` (0, 1, ...), int32 [N]: a pure function of (seed, epoch).

        There is no generator state to save, so a run resumed at any epoch sees what it would have seen
        without the interruption. One batch of the whole set keeps the order of the arrays: shuffling could
        change only the rounding of its sums.
        """
        epoch = checks.integer("epoch", epoch, at_least=0)
        if not self.shuffle or self.batch_size == self.size:
            return tf.range(self.size, dtype=tf.int32)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        return tf.constant(generator.permutation(self.size), tf.int32)

    def batch(self, order: tf.Tensor, start: tf.Tensor | int, size: tf.Tensor | int) -> Any:
        """`gather_batch` on this object's arrays: the samples `order[start:start + size]` of each."""
        return gather_batch(self.arrays, order, start, size)

    def fingerprint(self) -> str:
        """16 hexadecimal digits (of a SHA-256) over the arrays, batch_size, seed and shuffle."""
        digest = hashlib.sha256(repr((self.batch_size, self.seed, self.shuffle)).encode())
        # Sorted by name: as for tf.nest, the order in which a dict was filled makes no difference.
        for name, tensor in sorted(self._leaves(), key=lambda leaf: leaf[0]):
            digest.update(f"{name} {tensor.dtype.name} {tensor.shape.as_list()}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _leaves(self) -> list[tuple[str, tf.Tensor]]:
        named = zip(ROLES, self.arrays, strict=False)
        return [leaf for role, part in named for leaf in _named_leaves(role, part)]

    def _resolve(self, batch_size: int | None) -> int:
        if batch_size is None:
            return self.size
        batch_size = checks.integer("batch_size", batch_size, at_least=1)
        if batch_size > self.size:
            expected = f"at most the {self.size} samples there are"
            raise error("batch_size", expected, str(batch_size), "pass less, or None for the whole set")
        return batch_size


def _named_leaves(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    """Every array of a nested structure with its name, such as "x['left'][0]"."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _named_leaves(f"{name}[{key!r}]", value)
    elif isinstance(part, (tuple, list)):
        for index, value in enumerate(part):
            yield from _named_leaves(f"{name}[{index}]", value)
    else:
        yield name, part


def _to_tensors(role: str, part: Any) -> Any:
    """The structure `part` with tensors for arrays, each [N, ...], numeric and finite."""
    try:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, part)
    except (TypeError, ValueError) as fault:
        received = f"something TensorFlow cannot convert ({one_line(fault)})"
        raise error(role, "numeric arrays", received, "pass NumPy arrays or tensors") from fault
    leaves = list(_named_leaves(role, tensors))
    if not leaves:
        raise error(role, "at least one array", "an empty structure", "pass an array [N, ...]")
    for name, tensor in leaves:
        _check_tensor(name, tensor)
    return tensors


def _check_tensor(name: str, tensor: tf.Tensor) -> None:
    """ValueError unless the tensor is numeric (or bool), has a leading dimension, and is finite."""
    if tensor.dtype == tf.string or tensor.shape.rank == 0:
        received = f"{tensor.dtype.name} of shape {tensor.shape}"
        advice = "convert strings to numbers, and lists of numbers with np.asarray"
        raise error(name, "a numeric array [N, ...]", received, advice)
    if tensor.dtype.is_floating or tensor.dtype.is_complex:
        check_finite(name, tensor.numpy())


def _common_length(leaves: list[tuple[str, tf.Tensor]]) -> int:
    """N, the leading dimension that all arrays share; ValueError if they do not, or if it is 0."""
    name, tensor = leaves[0]
    length = len(tensor)
    for other, candidate in leaves[1:]:
        if len(candidate) != length:
            received = f"{length} samples in {name} and {len(candidate)} in {other}"
            raise error(f"{name}, {other}", "equal lengths", received, "give one entry per sample")
    if length == 0:
        raise error(name, "at least one sample", f"shape {tensor.shape}", "give some data")
    return length
