"""The loss of one output: whatever may be given as one, and what Keras does not check.

    values = loss.call(targets, predictions)            one per sample, [N, ...], or a number for the whole batch
    f = the reduction of w * values                     w the sample weights, masks multiplied in

Shapes that do not belong together would broadcast, integers would have no gradient, and a tuple would be stacked, all
without a word. Whether the values are one per sample decides whether a batch can be taken in parts.
"""

import inspect
import re

import keras
import tensorflow as tf

# Losses of Keras whose targets have another shape than the predictions; those of the first line are class numbers.
_OF_CLASSES = ("sparse_categorical_crossentropy", "categorical_generalized_cross_entropy")
_OF_LABELS = (*_OF_CLASSES, "circle", "ctc", "_crossentropy")


def as_loss(loss, what="loss"):
    """A `keras.losses.Loss` of what was given for one.

    Args:
        loss: a `keras.losses.Loss`, a Keras name, or a function (targets, predictions) -> one value per sample.
        what: what it is called, for messages.

    Raises:
        ValueError: something else; names the remedy.
    """
    given = loss
    if isinstance(loss, str):
        loss = _crossentropy if loss.lower() in ("crossentropy", "ce") else keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss
    if isinstance(loss, type):
        raise ValueError(f"{what} must be an object and not a class; write {what}={loss.__name__}(...)")
    if not callable(loss):
        raise ValueError(f"{what} must be a keras.losses.Loss, a Keras name or a function, received {loss!r}")
    if first_parameter(loss) == "model":
        raise ValueError(
            f"{what} must be a function of (targets, predictions), received one of {inspect.signature(loss)}; pass it "
            "as loss_fn=..."
        )
    return FunctionLoss(loss, given if isinstance(given, str) else getattr(loss, "__name__", "loss"))


def first_parameter(function):
    """The name of a function's first parameter, which tells what it is a function of; None where it has none."""
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):  # some that are not written in Python have no signature
        return None


class FunctionLoss(keras.losses.Loss):
    """A function (targets, predictions) with Keras's reduction, sample weights and masks.

    Args:
        function: as above.
        name: what it is called.
    """

    def __init__(self, function, name):
        # Keras makes a name scope of it, where "<lambda>" is not allowed.
        super().__init__(name=re.sub(r"\W", "_", name).strip("_"))
        self.fn = function

    def call(self, y_true, y_pred):
        values = self.fn(*_of_equal_rank(y_true, y_pred))
        return floating(values, f"the loss function {self.name!r}", "a tensor with one value per sample")


def floating(value, what, expected):
    """A value that a user's function returned, as a floating tensor.

    Args:
        value: as returned.
        what, expected: the function and what it should have returned, for the message.

    Raises:
        ValueError: nothing, a text, several values, or a number that is not real or not differentiable.
    """
    received, advice = None, f"return {expected}"
    if value is None:
        received, advice = "None", "end it with a return"
    elif isinstance(value, (tuple, list)):
        received, advice = (
            f"a {type(value).__name__} of {len(value)}",
            "return the loss alone, and log the rest in a hook",
        )
    elif isinstance(value, (str, bytes, dict)) or callable(value):
        received = f"a {type(value).__name__}"
    else:
        value = tf.convert_to_tensor(value)
        if not value.dtype.is_floating:
            received = f"{value.dtype.name} of shape {value.shape}"
            advice = "take tf.math.real, tf.abs or tf.cast, before it loses its gradient"
    if received is not None:
        raise ValueError(f"{what} must return {expected}, received {received}; {advice}")
    return value


def kind_of_targets(targets, predictions):
    """The rule of `model.compile`: sparse when the targets lack the class axis or have one entry in it.

    Args:
        targets, predictions: their static shapes.
    """
    if predictions.rank == 1 or predictions[-1] in (1, None):
        return "binary"
    return "sparse" if targets.rank < predictions.rank or targets[-1] == 1 else "categorical"


def check_shapes(loss, targets, predictions, of=""):
    """Raise where targets and predictions do not belong together.

    Args:
        loss: a `keras.losses.Loss`.
        targets, predictions: tensors of one output.
        of: " of the output 'a'", for messages, or empty.

    Raises:
        ValueError: targets that are no real numbers, or of another shape where Keras's loss needs the same.
    """
    for name, tensor in (("targets", targets), ("predictions", predictions)):
        if not tf.is_tensor(tensor):
            raise ValueError(f"the {name}{of} must be one tensor, received a {type(tensor).__name__}")
        if tensor.dtype == tf.string or tensor.dtype.is_complex:
            raise ValueError(
                f"the {name}{of} must be real numbers, received {tensor.dtype.name}; a loss of others needs "
                "loss_fn=function(model, batch)"
            )
    if not _is_of_keras(loss) or _function_name(loss) in _OF_LABELS:
        return
    shapes = [tensor.shape for tensor in (targets, predictions)]
    if None in [shape.rank for shape in shapes]:
        return
    shorter, longer = sorted(shapes, key=lambda shape: shape.rank)
    if longer.rank == shorter.rank + 1 and longer[-1] == 1:
        longer = longer[:-1]
    fits = longer.rank == shorter.rank and all(
        1 in pair or None in pair or pair[0] == pair[1] for pair in zip(shorter, longer, strict=True)
    )
    if not fits:
        advice = "give each sample a target for every number that the model puts out"
        if len(shapes[1]) == len(shapes[0]) + 1:
            advice += ", or use a loss of class numbers, such as SparseCategoricalCrossentropy"
        raise ValueError(
            f"{_title(loss)} needs targets{of} of the shape of the predictions, {_shown(shapes[1])}, received "
            f"{_shown(shapes[0])}; {advice}"
        )


def check_weights(loss, targets, predictions, weights, of=""):
    """Raise where sample weights do not belong to the values they are to multiply.

    Args:
        loss, targets, predictions, of: see `check_shapes`.
        weights: a tensor.

    Raises:
        ValueError: their shape is neither that of the values nor [N] or [N, 1] where these are one per sample.
    """
    if not tf.is_tensor(weights) or weights.dtype == tf.string or weights.dtype.is_complex:
        received = weights.dtype.name if tf.is_tensor(weights) else f"a {type(weights).__name__}"
        raise ValueError(f"sample_weight{of} must be one tensor of real numbers, received {received}")
    if weights.shape.rank in (None, 0, 1) and predictions.shape.rank in (0, 1, 2):
        return  # one per sample in any case
    values = values_of(loss, targets, predictions)[0].shape
    if None in (values.rank, weights.shape.rank) or values.rank == 0:
        return
    shape = weights.shape
    if shape.rank == values.rank + 1 and shape[-1] == 1:
        shape = shape[:-1]
    one_more = values.rank == shape.rank + 1 and values[-1] == 1
    fits = shape.rank == values.rank and all(
        1 in pair or None in pair or pair[0] == pair[1] for pair in zip(shape[1:], values[1:], strict=True)
    )
    if not (fits or one_more):
        sides = [f"[N{''.join(f', {n}' for n in values[1:])}]"] + ["[N, 1]"] * (values.rank == 2)
        raise ValueError(
            f"sample_weight{of} must have the shape of the values of {_title(loss)}, {' or '.join(sides)}, received "
            f"{_shown(weights.shape)}"
        )


def why_no_parts(loss, targets, predictions):
    """Why the loss of a batch is no sum over its parts, None where it is one.

    Args:
        loss, targets, predictions: see `check_shapes`.

    Returns:
        A message that begins with the loss, or None.
    """
    if isinstance(loss, keras.losses.Circle):
        return f"{_title(loss)} compares the samples of a batch with each other"
    masks = [getattr(tensor, "_keras_mask", None) is not None for tensor in (predictions, targets)]
    values, masked, samples = values_of(loss, targets, predictions)
    if values.shape.rank == 0:
        return f"{_title(loss)} gives one number for a whole batch, which need not be a mean over its samples"
    if values.shape.rank is None or values.shape[0] != samples:
        return f"{_title(loss)} does not give one value per sample, but the shape {_shown(values.shape)}"
    if (any(masks) or masked) and loss.reduction != "sum":
        return f"{_title(loss)} takes the mean over what is not masked, of which each part has another number"
    return None


def values_of(loss, targets, predictions):
    """What `loss.call` gives, found by tracing it, without computing anything.

    Args:
        loss, targets, predictions: see `check_shapes`.

    Returns:
        (its `tf.TensorSpec`, whether it comes with a mask, the number of samples that was assumed: one that no other
        axis has).
    """
    taken = {n for tensor in (targets, predictions) for n in (tensor.shape[1:] if tensor.shape.rank else ())}
    samples = next(n for n in (7, 11, 13, 17, 19, 23, 29, 31, 37, 41) if n not in taken)
    masked = []

    def call(targets, predictions):
        values = loss.call(*(keras.ops.cast(tensor, loss.dtype) for tensor in (targets, predictions)))
        masked.append(getattr(values, "_keras_mask", None) is not None)
        return values

    specs = [
        tf.TensorSpec([samples, *tensor.shape[1:]] if tensor.shape.rank else tensor.shape, tensor.dtype)
        for tensor in (targets, predictions)
    ]
    traced = tf.function(call, autograph=False).get_concrete_function(*specs)
    return tf.nest.flatten(traced.structured_outputs)[0], masked[0], samples


def labels_of(loss):
    """(whether the targets are class numbers, the one that is ignored or None)."""
    sparse = _function_name(loss) in _OF_CLASSES
    return sparse, loss.get_config().get("ignore_class") if sparse and not isinstance(loss, FunctionLoss) else None


def known_function(loss):
    """The name of the function behind a loss, where Keras or this package wrote all of it; else empty."""
    function = getattr(loss, "fn", None)
    modules = [getattr(function, "__module__", None) or "", type(loss).__module__]
    known = all(module.startswith("keras.") or module == __name__ for module in modules)
    return _function_name(loss) if known else ""


def _crossentropy(targets, predictions):
    """The one of the crossentropies that fits the shapes, as `model.compile(loss="crossentropy")` has it."""
    kind = kind_of_targets(targets.shape, predictions.shape)
    if kind == "binary":
        return keras.losses.binary_crossentropy(targets, predictions)
    if kind == "sparse":
        return keras.losses.sparse_categorical_crossentropy(targets, predictions)
    return keras.losses.categorical_crossentropy(targets, predictions)


def _of_equal_rank(targets, predictions):
    """[N] beside [N, 1] becomes [N, 1], as in `model.compile`: without a word their difference would be [N, N]."""
    if not (tf.is_tensor(targets) and tf.is_tensor(predictions)):
        return targets, predictions
    ranks = targets.shape.rank, predictions.shape.rank
    if None in ranks or abs(ranks[0] - ranks[1]) != 1:
        return targets, predictions
    shorter, longer = sorted((targets, predictions), key=lambda tensor: tensor.shape.rank)
    if longer.shape[-1] == 1 and shorter.shape.rank == 1:
        shorter = tf.expand_dims(shorter, -1)
    elif longer.shape[-1] == 1:
        longer = tf.squeeze(longer, -1)
    return (shorter, longer) if ranks[0] < ranks[1] else (longer, shorter)


def _is_of_keras(loss):
    code = loss.fn if isinstance(loss, FunctionLoss) else type(loss)
    return (getattr(code, "__module__", None) or "").startswith("keras.")


def _function_name(loss):
    return getattr(getattr(loss, "fn", None), "__name__", "")


def _title(loss):
    return f"the loss {loss.name!r}" if isinstance(loss, FunctionLoss) else f"the loss {type(loss).__name__}"


def _shown(shape):
    return f"[{', '.join('N' if n is None else str(n) for n in shape)}]" if shape.rank is not None else "of any rank"
