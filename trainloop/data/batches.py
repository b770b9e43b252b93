"""Batches of any structure: as tensors, how many samples they have, and some of these.

Sparse and ragged tensors are leaves like dense ones. What they can do differs, so that nothing else has to know.
"""

from typing import Any

import tensorflow as tf

_COMPOSITE = (tf.SparseTensor, tf.RaggedTensor)


def to_tensors(batch: Any) -> Any:
    """The same structure with tensors for arrays; sparse and ragged tensors stay what they are."""
    return tf.nest.map_structure(lambda t: t if isinstance(t, _COMPOSITE) else tf.convert_to_tensor(t), batch)


def samples(batch: Any) -> tf.Tensor:
    """Number of samples in a batch, int64 [].

    Raises:
        ValueError: its first tensor has no batch dimension.
    """
    first = tf.nest.flatten(batch)[0]
    if isinstance(first, tf.RaggedTensor):
        return first.nrows(tf.int64)
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    first = tf.convert_to_tensor(first)
    if first.shape.rank == 0:
        raise ValueError(
            f"a batch needs a batch dimension, received {first.dtype.name} of shape () in its first part; call "
            "batch(...) of the dataset, or add the axis with x[None]"
        )
    return tf.shape(first, out_type=tf.int64)[0]


def between(batch: Any, begin: Any, end: Any) -> Any:
    """The samples from begin to before end.

    Args:
        batch: nested structure of tensors with a common batch dimension.
        begin, end: ints or integer tensors [].
    """
    return tf.nest.map_structure(lambda t: _between(t, begin, end), batch)


def _between(tensor, begin, end):
    if not isinstance(tensor, tf.SparseTensor):
        return tensor[begin:end]
    begin, end = tf.cast(begin, tf.int64), tf.cast(end, tf.int64)
    others = tensor.dense_shape[1:]
    start, size = tf.concat([[begin], tf.zeros_like(others)], 0), tf.concat([[end - begin], others], 0)
    part = tf.sparse.slice(tensor, start, size)
    part.set_shape([None, *tensor.shape[1:]])  # which a slice forgets, and layers need
    return part
