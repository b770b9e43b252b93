"""Whether inputs fit a model that says what it takes, in one line before Keras says it in many."""

from collections.abc import Mapping

import tensorflow as tf


def check_inputs(model, inputs):
    """Raise where the inputs of a batch are not what a functional or sequential model takes.

    Args:
        model: a Keras model; others than those two are not looked at, because they take what their code takes.
        inputs: nested structure of tensors.

    Raises:
        ValueError: says what was expected and received: no batch dimension, another shape, or no real numbers.
    """
    for name, expected, given in _pairs(model, inputs):
        _check_dtype(name, expected, given)
        shape = tf.TensorShape(given.shape)
        if shape.rank is not None and not _fits(expected.shape, shape):
            advice = ""
            if shape.rank < len(expected.shape) and _fits(expected.shape, [1, *shape]):
                advice = "; it has no batch dimension: call batch(...) of the dataset, or add the axis with x[None]"
            raise ValueError(
                f"the input {name!r} of the model must have shape {_shown(expected.shape)}, received "
                f"{_shown(shape)}{advice}"
            )


def _pairs(model, inputs):
    """(name, what the model expects, what is given), where it is clear what belongs together."""
    expected = getattr(model, "inputs", None) or []
    if isinstance(inputs, Mapping):
        by_name = {tensor.name: tensor for tensor in expected}
        pairs = [(name, by_name.get(name), given) for name, given in inputs.items()]
    else:
        flat = tf.nest.flatten(inputs)
        if len(flat) != len(expected):
            return []
        pairs = [(tensor.name, tensor, given) for tensor, given in zip(expected, flat, strict=True)]
    return [(name, tensor, given) for name, tensor, given in pairs if tensor is not None and hasattr(given, "shape")]


def _check_dtype(name, expected, given):
    wants, has = tf.as_dtype(expected.dtype), tf.as_dtype(given.dtype)
    if (has == tf.string) != (wants == tf.string) or (has.is_complex and not wants.is_complex):
        advice = "split it into real and imaginary parts" if has.is_complex else "convert it first"
        raise ValueError(f"the input {name!r} of the model must be {wants.name}, received {has.name}; {advice}")


def _fits(expected, given):
    """Whether shapes agree but for an axis of length one at the end, which Keras adds or drops."""
    expected, given = list(expected), list(given)
    if not given:
        return False
    if len(given) == len(expected) + 1 and given[-1] == 1:
        given = given[:-1]
    elif len(given) + 1 == len(expected) and expected[-1] == 1:
        expected = expected[:-1]
    return len(given) == len(expected) and all(
        None in pair or pair[0] == pair[1] for pair in zip(expected, given, strict=True)
    )


def _shown(shape):
    return f"[{', '.join('N' if n is None else str(n) for n in shape)}]"
