"""Points of named terms: what residuals are taken at, whole or drawn anew in every step.

    points = Points({"pde": Box([-1, 0], [1, 1], 10_000), "initial": Box([-1, 0], [1, 0], 200), "wall": array})

Every term has as many points as it needs. A term with a batch size is taken in draws of that many of its points, with
replacement, which are a function of (seed, step) alone; so a run that is resumed sees the points that it would have
seen.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.checks import check_finite
from trainloop.data.batches import samples


class Box:
    """Points that are uniform in a box, [low, high] in each coordinate; on a face or an edge, where both are equal.

    As any sampler it is a function of (seed int32 [2], count), without a state: `Points` calls it, and so does whoever
    resamples.

    Args:
        low, high: [d] each.
        count: how many points a set of them has.
        dtype: of the points; None for `keras.config.floatx()`.

    Raises:
        ValueError: low above high, another shape, or a count that is not positive.

    Examples:
        >>> Box([-1.0, 0.0], [1.0, 0.0], 3)(seed=[0, 1], count=3).numpy()[:, 1]
        array([0., 0., 0.], dtype=float32)
    """

    def __init__(self, low: Any, high: Any, count: int, dtype: Any = None) -> None:
        self.low, self.high = (np.atleast_1d(np.asarray(ends, "float64")) for ends in (low, high))
        if self.low.shape != self.high.shape or self.low.ndim != 1:
            raise ValueError(f"low and high must be [d] each, received shapes {self.low.shape} and {self.high.shape}")
        if not np.all(np.isfinite(self.low) & np.isfinite(self.high) & (self.low <= self.high)):
            raise ValueError(f"low must be at most high and both finite, received {low!r} and {high!r}")
        self.count = checks.integer("count", count, at_least=1)
        self.dtype = tf.as_dtype(dtype or keras.config.floatx())

    def __call__(self, seed: Any, count: Any) -> tf.Tensor:
        """Points [count, d], a function of seed [2]."""
        low, high = tf.constant(self.low, self.dtype), tf.constant(self.high, self.dtype)
        unit = tf.random.stateless_uniform([count, len(self.low)], seed, dtype=self.dtype, alg="philox")
        return low + (high - low) * unit

    def __repr__(self) -> str:
        return f"Box({self.low.tolist()}, {self.high.tolist()}, {self.count})"


class Points:
    """Points of named terms.

    Args:
        points: {name: points}. These are an array [N, ...], a tuple of arrays of one length (pairs, points with data),
            or a sampler such as `Box`: a function (seed int32 [2], count) -> points with an attribute `count`.
        batch_size: {name: how many of its points a step takes}; None, or a name that is left out, for all.
        seed: non-negative integer from which samplers and draws follow.

    Attributes:
        values: {name: tensors}, the points there are now.
        samplers: {name: sampler} of the terms that have one.
        batch_sizes: {name: int or None}.
        seed: as given.

    Raises:
        ValueError: no terms, lengths that differ within one, numbers that are not finite, or a batch size that is not
            one.

    Examples:
        >>> points = Points({"pde": Box([0, 0], [1, 1], 100), "bc": np.zeros([4, 2])}, batch_size={"pde": 10})
        >>> [len(v) for v in points.values.values()]
        [100, 4]
    """

    def __init__(self, points: Mapping[str, Any], batch_size: Mapping[str, int] | None = None, seed: int = 0) -> None:
        if not isinstance(points, Mapping) or not points:
            raise ValueError(f"points must be a dict with the points of each term by name, received {points!r}")
        self.seed = checks.integer("seed", seed, at_least=0)
        self.samplers = {name: one for name, one in points.items() if callable(one) and hasattr(one, "count")}
        self.values = {name: self._tensors(i, name, points[name]) for i, name in enumerate(points)}
        self.batch_sizes = self._checked(batch_size)

    def __repr__(self) -> str:
        sizes = self.batch_sizes
        terms = [
            f"{name}: {samples(v):,}" if sizes[name] is None else f"{name}: {sizes[name]:,} of {samples(v):,}"
            for name, v in self.values.items()
        ]
        return f"Points({', '.join(terms)})"

    @property
    def size(self) -> int:
        """How many points all terms have together."""
        return sum(int(samples(values)) for values in self.values.values())

    def fingerprint(self) -> str:
        """16 hexadecimal digits (of a SHA-256) over what was given: points of samplers follow from the seed."""
        digest = hashlib.sha256(repr((self.batch_sizes, self.seed)).encode())
        for name in sorted(self.values):
            sampler = self.samplers.get(name)
            digest.update(f"{name} {type(sampler).__name__ if sampler else ''}".encode())
            for tensor in [] if sampler else tf.nest.flatten(self.values[name]):
                digest.update(f"{tensor.dtype.name} {tensor.shape.as_list()}".encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _tensors(self, index, name, given):
        if name in self.samplers:
            given = given(tf.constant([self.seed, index], tf.int32), given.count)
        elif callable(given):
            raise ValueError(
                f"points[{name!r}]: a sampler needs an attribute count, how many points there are to be; received "
                f"{given!r}"
            )
        try:
            # A list is one array here, a tuple several.
            tensors = tf.nest.map_structure(tf.convert_to_tensor, given if isinstance(given, tuple) else (given,))
        except (TypeError, ValueError) as error:
            raise ValueError(f"points[{name!r}] must be arrays of numbers, received {given!r}") from error
        for tensor in tensors:
            if tensor.shape.rank == 0 or tensor.shape[0] != tensors[0].shape[0] or not tensor.shape[0]:
                received = ", ".join(str(t.shape) for t in tensors)
                raise ValueError(f"points[{name!r}] must be arrays [N, ...] of one length, received shapes {received}")
            if tensor.dtype.is_floating:
                check_finite(f"points[{name!r}]", tensor.numpy())
        return tensors if isinstance(given, tuple) else tensors[0]

    def _checked(self, batch_size):
        given = {} if batch_size is None else batch_size
        if not isinstance(given, Mapping):
            raise ValueError(f"batch_size must be a dict with a number for each term, received {batch_size!r}")
        for name, size in given.items():
            if name not in self.values:
                raise ValueError(
                    f"batch_size has {name!r}, which no term is called{checks.near_miss(name, self.values)}"
                )
            count, size = int(samples(self.values[name])), checks.integer(f"batch_size[{name!r}]", size, at_least=1)
            if size > count:
                raise ValueError(f"batch_size[{name!r}] must be at most the {count} points there are, received {size}")
        return {name: int(given[name]) if name in given else None for name in self.values}


def draw(values: Any, sizes: Any, seed: tf.Tensor, step: tf.Tensor) -> dict[str, Any]:
    """The points of one step.

    Args:
        values: {name: tensors}.
        sizes: {name: int or None for all}.
        seed, step: int32 [].

    Returns:
        {name: tensors}, a function of the arguments alone.
    """
    drawn = {}
    for i, name in enumerate(values):
        drawn[name] = values[name]
        if sizes[name] is not None:
            several = isinstance(values[name], tuple)
            tensors = values[name] if several else (values[name],)
            key = tf.stack([seed + 7919 * (i + 1), step])
            chosen = tf.random.stateless_uniform(
                [sizes[name]], key, maxval=tensors[0].shape[0], dtype=tf.int32, alg="philox"
            )
            tensors = tuple(tf.gather(tensor, chosen) for tensor in tensors)
            drawn[name] = tensors if several else tensors[0]
    return drawn
