"""Which loss of a batch it is: that of a model's outputs, or any function of model and batch."""

import inspect

import tensorflow as tf

from trainloop.data.batches import samples
from trainloop.objectives import keras_losses
from trainloop.objectives.batch_loss import BatchLoss, own_losses, scalar, share_of_samples
from trainloop.objectives.keras_losses import first_parameter
from trainloop.objectives.outputs import Outputs
from trainloop.objectives.supervised import SupervisedLoss

__all__ = [
    "BatchLoss",
    "CustomLoss",
    "SupervisedLoss",
    "as_batch_loss",
    "choose",
    "first_parameter",
    "own_losses",
    "samples",
    "share_of_samples",
]

# What people call the first argument of a function of targets and predictions.
_TARGETS = ("targets", "target", "labels", "y_true")


class CustomLoss(BatchLoss):
    """Any scalar of a model and a batch: two models, several outputs, losses that are not (inputs, targets).

    Args:
        loss_fn: function (model, batch) or (model, batch, training) -> scalar tensor. It adds `model.losses`
            itself if it wants them. `training` is True in steps and False in `evaluate`. Over microbatches it
            counts as a mean over the samples.
    """

    def __init__(self, loss_fn):
        if not callable(loss_fn):
            raise ValueError(f"loss_fn must be a function (model, batch) -> scalar, received {loss_fn!r}")
        if first_parameter(loss_fn) in _TARGETS:
            raise ValueError(
                f"loss_fn must be a function of (model, batch), received one of {inspect.signature(loss_fn)}; pass it "
                "as loss=..."
            )
        self._loss_fn = loss_fn
        self._takes_training = "training" in inspect.signature(loss_fn).parameters

    def terms(self, model, batch, training):
        extra = {"training": training} if self._takes_training else {}
        f = self._loss_fn(model, batch, **extra)
        f = scalar(keras_losses.floating(f, "loss_fn", "a scalar"))
        return f, tf.zeros_like(f), None

    def share(self, part, batch, count=None):
        """The fraction of the samples."""
        return share_of_samples(part, batch, count)

    def check_parts(self, predictions, batch):
        """Nothing to check: a loss function counts as a mean over the samples."""


def choose(loss=None, loss_fn=None, loss_weights=None, model=None):
    """The batch loss of a pair of arguments of which exactly one is given.

    Args:
        loss, loss_weights: see `SupervisedLoss`.
        loss_fn: see `CustomLoss`.
        model: whose outputs `loss` is of, if there is one already.

    Raises:
        ValueError: both or neither, or weights without losses.
    """
    if (loss is None) == (loss_fn is None):
        raise ValueError("give exactly one of loss (for batches (inputs, targets)) and loss_fn (for anything else)")
    if loss_fn is None:
        return SupervisedLoss(loss, loss_weights, None if model is None else Outputs.of(model, like=loss))
    if loss_weights is not None:
        raise ValueError("loss_weights belong to the losses of outputs, loss=...; multiply the terms inside of loss_fn")
    return CustomLoss(loss_fn)


def as_batch_loss(loss, loss_fn=None, loss_weights=None, model=None):
    """`choose`, where `loss` may also be a `BatchLoss`, which has its weights and outputs."""
    if not isinstance(loss, BatchLoss):
        return choose(loss, loss_fn, loss_weights, model)
    if loss_fn is not None or loss_weights is not None:
        raise ValueError("a BatchLoss has its function and weights; give neither loss_fn nor loss_weights beside it")
    return loss
