"""A data set as the batches that it is summed over, always the same ones.

    arrays      in their order, batch_size samples at a time, the last batch as it comes
    dataset     its elements
    points      all points of all terms as one batch

f is a sum over the batches, f = sum_b share_b compare_b + sum_b (n_b / N) own_b. For a loss that is a mean over samples
the share is n_b / N, so a last batch that is smaller counts by its samples; see `BatchLoss.share`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from trainloop.data.arrays import ArrayData
from trainloop.data.batches import between, samples, to_tensors
from trainloop.data.points import Points

Data: TypeAlias = ArrayData | Points | tf.data.Dataset | tuple[Any, Any] | tuple[Any, Any, Any] | Mapping[str, Any]

# Samples per batch of arrays that come without one.
_TUPLE_BATCH = 256


class WholeData:
    """Batches of anything that a user may call data.

    Args:
        data: an `ArrayData`, a `tf.data.Dataset`, a `Points` or a dict of what it takes, or a tuple of arrays (x, y) or
            (x, y, sample_weight).

    Attributes:
        size: number of samples, N.
        count: number of batches.
        first: one batch, for what has to be traced.

    Raises:
        ValueError: something else, an infinite dataset, or one without elements.
    """

    def __init__(self, data):
        if isinstance(data, Mapping):
            data = Points(data)
        if isinstance(data, tuple) and len(data) in (2, 3):
            data = _in_batches(*data)
        if not isinstance(data, (ArrayData, Points, tf.data.Dataset)):
            raise ValueError(
                "data must be an ArrayData, a tf.data.Dataset, a tuple (x, y) or (x, y, sample_weight), or points by "
                f"name, received {type(data).__name__}"
            )
        if isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "data must have an end, received an infinite dataset; leave out repeat(), or add take(...)"
            )
        self._data, self.size = data, None
        self.first = next(iter(self), None)
        if self.first is None:
            raise ValueError("data must have at least one batch, received an empty dataset")
        self.size, self.count, self._weight = self._measured()

    def __iter__(self):
        data = self._data
        if isinstance(data, Points):
            yield dict(data.values)
        elif isinstance(data, ArrayData):
            for begin in range(0, data.size, data.batch_size):
                yield between(data.arrays, begin, min(begin + data.batch_size, data.size))
        else:
            yield from self._checked(map(to_tensors, data))

    def spec(self):
        """What a compiled function of a batch is traced for: the first one, of any length where there are more."""
        return tf.nest.map_structure(self._spec_of, self.first)

    def shares(self, batch, loss):
        """By how much a batch and its regularization count: (share_b, n_b / N), float64 [] each; None where it is all.

        Args:
            batch: one of these.
            loss: a `BatchLoss`.
        """
        if self.count == 1:
            return None
        whole = batch if self._weight is None else (*batch[:2], self._weight)  # only its sum is used
        share = loss.share(batch, whole, self.size)
        return tf.cast(share, tf.float64), tf.cast(samples(batch), tf.float64) / self.size

    def _checked(self, batches):
        """The batches of a dataset, which have as many samples as in the first pass.

        Raises:
            ValueError: they have more or fewer, so that products would be of another matrix each time.
        """
        seen = 0
        for batch in batches:
            seen += self._samples(batch)
            yield batch
        if self.size not in (None, seen):
            raise ValueError(
                f"data must have the same samples in each pass, received {self.size:,} and then {seen:,}; take what is "
                "drawn anew in each pass out of the dataset, or cache() it"
            )

    def _measured(self):
        """(samples, batches, sum of the sample weights where there are some for one output)."""
        size, count, weight = 0, 0, 0.0
        for batch in self:
            size, count = size + self._samples(batch), count + 1
            weights = tf.nest.flatten(batch[2]) if isinstance(batch, tuple) and len(batch) == 3 else []
            weight = weight + tf.reduce_sum(tf.cast(weights[0], tf.float64)) if len(weights) == 1 else None
        return size, count, weight

    def _samples(self, batch):
        if isinstance(self._data, Points):
            return self._data.size
        return int(samples(batch))

    def _spec_of(self, tensor):
        if self.count == 1 or not isinstance(tensor, tf.Tensor):
            return tf.type_spec_from_value(tensor)
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def _in_batches(x, y, sample_weight=None):
    """The `ArrayData` of a tuple of arrays."""
    length = np.shape(next(iter(tf.nest.flatten(x)), None))[:1]  # of what is no array, nothing
    return ArrayData(x, y, min((_TUPLE_BATCH, *length)) or None, sample_weight=sample_weight, shuffle=False)
