"""Lazy initial values: a large variable's initial tensor is created only when it is assigned, so it exists only once.

A variable of eight gigabytes that begins as a tensor of eight gigabytes needs sixteen. And a table of what a state will
take should take nothing.
"""

import dataclasses
import typing

import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Lazy:
    """A tensor to be: TensorFlow's operations take it and make it."""

    shape: tf.TensorShape
    dtype: tf.DType
    make: typing.Callable

    def __call__(self):
        return self.make()


def zeros(shape, dtype):
    """tf.zeros, not made yet."""
    return Lazy(tf.TensorShape(shape), tf.as_dtype(dtype), lambda: tf.zeros(shape, dtype))


tf.register_tensor_conversion_function(Lazy, lambda value, dtype=None, name=None, as_ref=False: value())
