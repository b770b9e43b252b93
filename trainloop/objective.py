"""The objective a step minimises: f on one batch, regularisation included, and its gradient g.

The first pass over a batch is an ordinary Keras training pass at the point the variables hold:
BatchNormalization averages and dropout seeds advance once, exactly as `model.fit` would advance them. It also
keeps the predictions, so that metrics cost no second pass.
"""

import inspect
import re
import warnings

import keras
import tensorflow as tf


class ModelObjective:
    """A model, a loss and one batch.

    Args:
        model: a Keras model.
        batch_loss: function (model, batch, training) -> (f [], predictions or None), from `supervised` or
            `custom`.
        vector: the `VariableVector` of the trainable variables.
        batch: nested structure of tensors.

    Attributes:
        predictions: what the model put out in the first pass; None before it, and for a custom loss.
    """

    def __init__(self, model, batch_loss, vector, batch):
        self.model, self.batch_loss, self.vector, self.batch = model, batch_loss, vector, batch
        self.predictions = None

    def first_pass(self):
        """f and its gradient where the variables are, with the side effects of a training pass.

        Returns:
            f [] and g [n], both at the point before any update.

        Raises:
            ValueError: the loss is not a scalar, or depends on none of the variables.
        """
        with tf.GradientTape() as tape:
            f, self.predictions = self.batch_loss(self.model, self.batch, training=True)
        gradients = tape.gradient(f, self.vector.variables)
        return f, pack_gradients(self.vector.layout, gradients)


def pack_gradients(layout, gradients):
    """g from the gradients of all variables, with a warning that names those the loss does not depend on.

    Args:
        layout: a `FlatLayout`.
        gradients: one per name; None stands for zeros.

    Returns:
        [n].
    """
    missing = [name for name, gradient in zip(layout.names, gradients, strict=True) if gradient is None]
    if 0 < len(missing) < len(layout.names):
        warnings.warn(
            f"the loss does not depend on {', '.join(missing)}; their gradient is taken as zero", stacklevel=2
        )
    return layout.pack(gradients)


def supervised(loss):
    """The loss of batches (inputs, targets[, sample_weight]).

        f = loss(targets, model(inputs)) + sum of the model's own losses (regularisers, add_loss)

    Args:
        loss: a `keras.losses.Loss`, a Keras name such as "mse", or a function (targets, predictions) -> one
            value per sample.

    Returns:
        function (model, batch, training) -> (f [], predictions).

    Raises:
        ValueError: nothing known under that name.
    """
    loss = _as_loss(loss)

    def batch_loss(model, batch, training):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(
                "a Keras loss needs batches (inputs, targets) or (inputs, targets, sample_weight), received "
                f"{_structure(batch)}; for other batches pass loss_fn=function(model, batch)"
            )
        inputs, targets, *weight = batch
        predictions = model(inputs, training=training)
        f = loss(targets, predictions, sample_weight=weight[0] if weight else None)
        return _scalar(f) + _own_losses(model, f.dtype), predictions

    return batch_loss


def custom(loss_fn):
    """Any scalar of a model and a batch: two models, several outputs, losses that are not (inputs, targets).

    Args:
        loss_fn: function (model, batch) or (model, batch, training) -> scalar tensor. It adds `model.losses`
            itself if it wants them. `training` is True in steps and False in `evaluate`.

    Returns:
        function (model, batch, training) -> (f [], None).
    """
    takes_training = "training" in inspect.signature(loss_fn).parameters

    def batch_loss(model, batch, training):
        extra = {"training": training} if takes_training else {}
        return _scalar(tf.convert_to_tensor(loss_fn(model, batch, **extra))), None

    return batch_loss


class _FunctionLoss(keras.losses.Loss):
    """A function (targets, predictions) with Keras's reduction, sample weights and masks."""

    def __init__(self, function):
        # Keras makes a name scope of it, where "<lambda>" is not allowed.
        super().__init__(name=re.sub(r"\W", "_", getattr(function, "__name__", "loss")).strip("_"))
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def _as_loss(loss):
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss
    if not callable(loss):
        raise ValueError(f"loss must be a keras.losses.Loss, a Keras name or a function, received {loss!r}")
    return _FunctionLoss(loss)


def _own_losses(model, dtype):
    return sum((tf.cast(tf.reduce_sum(term), dtype) for term in model.losses), tf.zeros([], dtype))


def _scalar(f):
    if f.shape.rank != 0:
        raise ValueError(
            f"the loss of a batch must be a scalar, received shape {f.shape}; reduce it with tf.reduce_mean"
        )
    return f


def _structure(batch):
    if isinstance(batch, (tuple, list)):
        return f"{len(batch)} parts"
    return type(batch).__name__
