"""Which loss of a batch it is: that of a model's outputs, or any function of model and batch."""

import inspect
from collections.abc import Mapping

import tensorflow as tf

from trainloop.data.batches import samples
from trainloop.objectives import keras_losses
from trainloop.objectives.batch_loss import BatchLoss, own_losses, scalar, share_of_samples
from trainloop.objectives.keras_losses import first_parameter
from trainloop.objectives.outputs import Outputs
from trainloop.objectives.residuals import ResidualLoss, checked_weights, weighted, weighted_sum
from trainloop.objectives.supervised import SupervisedLoss

__all__ = [
    "BatchLoss",
    "CustomLoss",
    "ResidualLoss",
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
        loss_fn: function (model, batch) or (model, batch, training) -> scalar tensor, or a dict of scalars by name,
            whose weighted sum is f and which are logged one by one. It adds `model.losses` itself if it wants them.
            `training` is True in steps and False in `evaluate`. Over microbatches it counts as a mean over the samples.
        loss_weights: {name: number or variable} for a dict of scalars; None, or a name that is left out, for ones.
    """

    adds_own = False

    def __init__(self, loss_fn, loss_weights=None):
        if not callable(loss_fn):
            raise ValueError(f"loss_fn must be a function (model, batch) -> scalar, received {loss_fn!r}")
        if first_parameter(loss_fn) in _TARGETS:
            raise ValueError(
                f"loss_fn must be a function of (model, batch), received one of {inspect.signature(loss_fn)}; pass it "
                "as loss=..."
            )
        self._loss_fn = loss_fn
        if loss_weights is not None and not isinstance(loss_weights, Mapping):
            raise ValueError(
                "loss_weights of a loss_fn must be a dict with a number for each of its terms by name, received "
                f"{loss_weights!r}; multiply the terms inside of loss_fn, or return a dict"
            )
        self._takes_training = "training" in inspect.signature(loss_fn).parameters
        super().__init__()
        self._weights, self.names = loss_weights, None

    def terms(self, model, batch, training):
        extra = {"training": training} if self._takes_training else {}
        returned = self._loss_fn(model, batch, **extra)
        if not isinstance(returned, Mapping):
            if self._weights is not None:
                raise ValueError(
                    "loss_weights need a loss_fn that returns a dict of scalars by name, received one value"
                )
            self.names = ()
            f = _scalar(returned, "loss_fn", "a scalar, or a dict of scalars by name")
            return f, tf.zeros_like(f), None
        values = {name: _scalar(value, f"loss_fn: {name!r}", "a scalar") for name, value in returned.items()}
        if not values or not all(isinstance(name, str) and name for name in values):
            raise ValueError(f"loss_fn must return a dict of scalars by name, received the keys {list(values)}")
        self.names = tuple(values)
        f = weighted_sum(values, checked_weights(self._weights, self.names))
        return f, tf.zeros_like(f), values

    def weighted_terms(self, model, batch, training):
        values = self.terms(model, batch, training)[2]
        return weighted(values, checked_weights(self._weights, self.names)), None, values

    def share(self, part, batch, count=None):
        """The fraction of the samples."""
        return share_of_samples(part, batch, count)

    def check_parts(self, predictions, batch):
        """Nothing to check: a loss function counts as a mean over the samples."""


def _scalar(value, what, expected):
    return scalar(keras_losses.floating(value, what, expected))


def choose(loss=None, loss_fn=None, residuals=None, loss_weights=None, model=None):
    """The batch loss of three arguments of which exactly one is given.

    Args:
        loss: see `SupervisedLoss`.
        loss_fn: see `CustomLoss`.
        residuals: see `ResidualLoss`.
        loss_weights: of outputs or terms, see there.
        model: whose outputs `loss` is of, if there is one already.

    Raises:
        ValueError: none or several of them.
    """
    if sum(given is not None for given in (loss, loss_fn, residuals)) != 1:
        raise ValueError(
            "give exactly one of loss (for batches (inputs, targets)), residuals (for sums of squares) and loss_fn "
            "(for anything else)"
        )
    if loss_fn is not None:
        return CustomLoss(loss_fn, loss_weights)
    if residuals is not None:
        return ResidualLoss(residuals, loss_weights)
    return SupervisedLoss(loss, loss_weights, None if model is None else Outputs.of(model, like=loss))


def as_batch_loss(loss, loss_fn=None, residuals=None, loss_weights=None, model=None):
    """`choose`, where `loss` may also be a `BatchLoss`, which has its weights and outputs."""
    if not isinstance(loss, BatchLoss):
        return choose(loss, loss_fn, residuals, loss_weights, model)
    if any(given is not None for given in (loss_fn, residuals, loss_weights)):
        raise ValueError(
            "a BatchLoss has its function and weights; give no loss_fn, residuals or loss_weights beside it"
        )
    return loss
