"""The feed of whatever a user may call data."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from trainloop.data.arrays import ArrayData
from trainloop.data.points import Points
from trainloop.loop.array_feed import ArrayFeed
from trainloop.loop.dataset_feed import DatasetFeed
from trainloop.loop.fixed_feed import FixedFeed, is_fixed
from trainloop.loop.points_feed import PointsFeed

# What can be trained on: (x, y) or (x, y, sample_weight) are arrays, a dict has the points of terms by name.
Data: TypeAlias = ArrayData | Points | tf.data.Dataset | tuple[Any, Any] | tuple[Any, Any, Any] | Mapping[str, Any]

# Samples per batch of arrays that come without one.
_TUPLE_BATCH = 64


def as_feed(data, static=False, once=False):
    """The feed of whatever a user may call data.

    Args:
        data: an `ArrayData`, a `tf.data.Dataset`, a `Points`, a dict of what `Points` takes, or a tuple (x, y) or
            (x, y, sample_weight) of arrays, taken in batches of 64.
        static: see `ArrayFeed`.
        once: see `PointsFeed`.

    Raises:
        ValueError: anything else, or a dataset where batch sizes must be static.
    """
    if isinstance(data, tf.data.Dataset):
        if is_fixed(data):
            return FixedFeed(data)
        if static:
            raise ValueError(
                "jit_compile=True needs its data in memory: XLA cannot hold a dataset's iterator; pass an "
                "ArrayData, or jit_compile=False"
            )
        return DatasetFeed(data)
    if isinstance(data, Mapping):
        data = Points(data)
    if isinstance(data, Points):
        return PointsFeed(data, once)
    data = in_batches(data)
    if not isinstance(data, ArrayData):
        raise ValueError(
            f"data must be an ArrayData, a tf.data.Dataset, a tuple (x, y), or points by name, received "
            f"{type(data).__name__}"
        )
    return ArrayFeed(data, static)


def in_batches(data):
    """The `ArrayData` of a tuple of arrays; anything else as it is."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return data
    samples = np.shape(next(iter(tf.nest.flatten(data[0])), None))[:1]  # of what is no array, nothing
    weight = {"sample_weight": data[2]} if len(data) == 3 else {}
    return ArrayData(data[0], data[1], min((_TUPLE_BATCH, *samples)) or None, **weight)


class WithFeed:
    """Data as a user gave them, and their feed.

    Args:
        data: see `as_feed`.
        feed: theirs, or None for no data.
        how: by which settings the feed came from them, to be compared.
        validation: what was split off to validate on, or None.
    """

    def __init__(self, data, feed, how=None, validation=None):
        self._parts, self.feed, self._how, self.validation = self._parts_of(data), feed, how, validation

    def is_of(self, data, how):
        """Whether these are the same objects, with the same settings."""
        parts = self._parts_of(data)
        same = len(parts) == len(self._parts) and all(a is b for a, b in zip(parts, self._parts, strict=True))
        return same and self.feed is not None and how == self._how

    @staticmethod
    def _parts_of(data):
        return data if isinstance(data, tuple) else (data,)


NO_DATA = WithFeed((), None)
