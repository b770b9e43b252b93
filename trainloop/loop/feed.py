"""Where a run stands in its data, and how a compiled block gets its next batch.

A feed has two halves. Outside compiled code it knows the epoch and how many batches of it are taken. Inside
it is a pair of pure pieces: `source`, tensors (or an iterator) handed to the block as arguments, and
`batch(source, i)`, which finds the block's i-th batch in them: all of it, or the share of one replica.

    arrays      (arrays, order of the epoch, first sample)      gather order[first + i b : first + (i+1) b]
    dataset     (iterator,)                                     the iterator's next element, if there is one

`hold` is for looking at the next batch without taking it: until `advance`, every source begins with it.
"""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


class Batch:
    """One batch of a feed; only the requested part of it is computed or copied.

    Args:
        whole: function without arguments -> all of it, a nested structure of tensors [samples, ...]; for a Keras loss
            (inputs, targets[, sample_weight]).
        samples: function without arguments -> how many it has, int or int32 [].
        part: function (begin, end) -> the samples from begin to before end.
        fixed: whether every step has this batch, see `Feed.fixed`.
    """

    def __init__(
        self,
        whole: Callable[[], Any],
        samples: Callable[[], int | tf.Tensor],
        part: Callable[[tf.Tensor, tf.Tensor], Any],
        fixed: bool = False,
    ) -> None:
        self._whole, self._samples, self._part, self.fixed = whole, samples, part, fixed

    def __call__(self, share: Any = None) -> Any:
        """The share of one replica, a `Share`; None for all."""
        return self._whole() if share is None else self._part(*share(self._samples())[:2])

    def samples(self) -> tf.Tensor:
        """How many samples all of it has, int32 []."""
        return tf.convert_to_tensor(self._samples(), tf.int32)


class Feed(abc.ABC):
    """A position in data that are passed over again and again, and the batches from there on.

    The loop asks `available`, hands `source` to a compiled block, which calls `batch` for each of its steps, and then
    tells `advance` how many steps there were. `batch` and `signature` are static, because a block is traced once for a
    kind of feed and not for each feed.

    For data of another kind: define what is abstract here, keep `epoch` and `index` up to date in `advance` and
    `load_state`, and let `feeds.as_feed` make it.

    Args:
        infinite: whether an epoch has no end.
        steps_per_epoch: how many batches it has, None where that is not known.

    Attributes:
        infinite, steps_per_epoch: as given.
        epoch: epochs that are over.
        index: batches of the present epoch that are taken.
        fixed: whether all steps have the same batch, as long as `version` is the same.
        version: a number that a feed changes with its data.
    """

    def __init__(self, infinite: bool, steps_per_epoch: int | None) -> None:
        self.infinite, self.steps_per_epoch = infinite, steps_per_epoch
        self.epoch, self.index, self.fixed, self.version = 0, 0, False, 0

    # --- In Python, between two blocks ---

    @abc.abstractmethod
    def available(self) -> int | None:
        """How many steps the next block may take at most, None when the length is not known."""

    @abc.abstractmethod
    def source(self) -> tuple[Any, ...]:
        """Arguments of the next block: tensors or an iterator, by which the batch after the last `advance` is found.

        A Python number among them is a constant of the trace: another one is another trace.
        """

    @abc.abstractmethod
    def advance(self, taken: int, wanted: int) -> bool:
        """Account for a block of `taken` out of `wanted` steps. Returns whether the epoch is over.

        Fewer than wanted mean that the data came to their end, or that the last step failed.
        """

    @abc.abstractmethod
    def again(self, i: int) -> Any:
        """The i-th batch of the block that has just run, before `advance`; None where it cannot be found again."""

    @abc.abstractmethod
    def hold(self) -> None:
        """Allow the next batch to be read repeatedly without advancing.

        Raises:
            ValueError: there is no next batch in this epoch.
        """

    # --- Inside of a block ---

    @staticmethod
    @abc.abstractmethod
    def batch(source: Any, i: tf.Tensor) -> tuple[bool | tf.Tensor, Batch]:
        """(whether there is one, bool [] or True where there always is; the block's i-th batch).

        Args:
            source: what `source` returned.
            i: int32 [].
        """

    @staticmethod
    @abc.abstractmethod
    def signature(source: Any) -> dict[str, str]:
        """What a trace depends on: texts by name, see `Engine`; mostly the `specs` of a batch."""

    # --- For checkpoints ---

    @abc.abstractmethod
    def description(self) -> dict[str, Any]:
        """What a checkpoint says of these data: a JSON-able dict, equal for equal ones."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides epoch and index to find the next batch: dict of arrays by name.

        Raises:
            ValueError: the position in these data cannot be saved.
        """

    @abc.abstractmethod
    def load_state(self, state: dict[str, np.ndarray], epoch: int, index: int) -> None:
        """Continue with batch `index` of an epoch, from what `state` returned."""


def specs(parts):
    """{"part 0": "float32 [96, 6]", ...} of tensors or their specs."""
    leaves = tf.nest.flatten(parts)
    return {f"part {i}": f"{leaf.dtype.name} {leaf.shape}" for i, leaf in enumerate(leaves)}
