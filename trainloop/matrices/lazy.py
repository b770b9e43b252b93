"""Tensors that are made when they are needed: first values of large variables, which so exist only once.

A variable of eight gigabytes that begins as a tensor of eight gigabytes needs sixteen. And a table of what a state will
take should take nothing.
"""

import dataclasses
import typing

import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Unmade:
    """A tensor to be: TensorFlow's operations take it and make it."""

    shape: tf.TensorShape
    dtype: tf.DType
    make: typing.Callable

    def __call__(self):
        return self.make()


def zeros(shape, dtype):
    """tf.zeros, not made yet."""
    return Unmade(tf.TensorShape(shape), tf.as_dtype(dtype), lambda: tf.zeros(shape, dtype))


tf.register_tensor_conversion_function(Unmade, lambda value, dtype=None, name=None, as_ref=False: value())
