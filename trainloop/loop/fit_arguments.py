"""`validation_split` and `class_weight`, as Keras's `fit` means them."""

import logging
import math
import numbers
from collections.abc import Mapping

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.data.arrays import ArrayData
from trainloop.loop.feeds import in_batches

_LOG = logging.getLogger("trainloop")


def as_in_fit(data, split, class_weight, loss):
    """What to train on, and what is split off to validate on or None.

    Args:
        data: see `feeds.as_feed`.
        split: see `split_off`; None for no split.
        class_weight: see `with_class_weights`; None for none.
        loss: a `BatchLoss`.
    """
    trained_on, validation = data, None
    if split is not None:
        trained_on, validation = split_off(in_batches(data), split)
    if class_weight is not None:
        trained_on = with_class_weights(in_batches(trained_on), class_weight, loss)
    return trained_on, validation


def split_off(data, fraction):
    """The first samples to train on, and the last ones, before any shuffling, to validate on.

    Args:
        data: an `ArrayData`.
        fraction: of the samples to validate on, between 0 and 1.

    Returns:
        (`ArrayData`, `ArrayData`). A batch of all samples stays one of all that are left.

    Raises:
        ValueError: not arrays, no such fraction, or one of the two has no sample.
    """
    fraction = checks.real("validation_split", fraction, above=0, below=1)
    if not isinstance(data, ArrayData):
        raise ValueError(
            f"validation_split takes the last samples of arrays, received data of type {type(data).__name__}; divide "
            "them with take() and skip(), and pass validation_data"
        )
    first = math.floor(data.size * (1 - fraction))
    if not 0 < first < data.size:
        raise ValueError(
            f"validation_split={fraction:g} leaves {first} of {data.size} samples to train on and {data.size - first} "
            "to validate on; give another fraction, or validation_data"
        )
    return _part(data, slice(None, first)), _part(data, slice(first, None))


def _part(data, rows):
    """An `ArrayData` of some samples, with the settings of another one."""
    x, *rest = tf.nest.map_structure(lambda array: array[rows], data.arrays)
    y, weight = (*rest, None, None)[:2]
    size = len(tf.nest.flatten(x)[0])
    batch_size = min(data.batch_size, size)
    return ArrayData(x, y, batch_size, data.seed, sample_weight=weight, shuffle=data.shuffle)


def with_class_weights(data, weights, loss):
    """The data with a weight for each sample: that of its class, 1 where none is given.

    Args:
        data: an `ArrayData`, or a `tf.data.Dataset` of batches (inputs, targets).
        weights: {class: weight}.
        loss: a `BatchLoss`.

    Raises:
        ValueError: not a dict of weights by class; data without targets, with several, or with weights of their own;
            or a loss that takes no weights.
    """
    weights = _checked(weights)
    if not loss.composite:
        raise ValueError("class_weight needs loss, which takes weights of samples; loss_fn and residuals do not")
    if isinstance(data, ArrayData):
        x, y = _inputs_and_targets(data.arrays)
        weight = _of_samples(y, weights)
        if absent := weights.keys() - set(_labels(y).numpy().tolist()):
            _LOG.warning("class_weight names classes that no target has: %s", ", ".join(map(str, sorted(absent))))
        return ArrayData(x, y, data.batch_size, data.seed, sample_weight=weight, shuffle=data.shuffle)
    if isinstance(data, tf.data.Dataset):
        _inputs_and_targets(data.element_spec)

        def weighted(inputs, targets):
            return inputs, targets, _of_samples(targets, weights)

        return data.map(weighted)
    raise ValueError(f"class_weight is for arrays and datasets of batches, received {type(data).__name__}")


def _checked(weights):
    expected = f"class_weight must be a dict of weights by class number, received {weights!r}"
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(expected)
    for label in weights:
        if isinstance(label, bool) or not isinstance(label, numbers.Integral):
            raise ValueError(expected)
    return {int(c): checks.real(f"class_weight[{c}]", weight, at_least=0) for c, weight in weights.items()}


def _inputs_and_targets(parts):
    """(inputs, targets) of arrays or of a description of batches."""
    if not isinstance(parts, tuple) or len(parts) not in (2, 3):
        raise ValueError("class_weight needs targets, whose classes have the weights; pass (inputs, targets)")
    if len(parts) == 3:
        raise ValueError("class_weight and sample_weight exclude each other; multiply the weights of the samples")
    inputs, targets = parts
    if tf.nest.is_nested(targets):
        raise ValueError("class_weight is for models with one output; give each output its sample_weight")
    if targets.shape.rank not in (1, 2):
        raise ValueError(
            f"class_weight needs targets [N], [N, 1] or [N, classes], received {list(targets.shape)}; "
            "give sample_weight"
        )
    return inputs, targets


def _of_samples(targets, weights):
    """[N] weights."""
    labels = _labels(targets)
    found = tf.ones_like(labels, keras.config.floatx())
    for label, weight in weights.items():
        found = tf.where(labels == label, tf.cast(weight, found.dtype), found)
    return found


def _labels(targets):
    """[N] class numbers of targets [N] or [N, 1], or where targets [N, classes] are largest."""
    if targets.shape.rank == 2:
        one = targets.shape[1] == 1
        targets = tf.squeeze(targets, 1) if one else tf.argmax(targets, axis=-1)
    return tf.cast(tf.round(targets) if targets.dtype.is_floating else targets, tf.int64)
