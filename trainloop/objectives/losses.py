"""The loss of one batch, in the parts that second-order methods and microbatches need.

    f = compare(forward(model, batch), batch) + own(model)

`forward` runs the model, `compare` turns its predictions into a number, `own` is what the layers add themselves
(regularisers, `add_loss`). The Gauss-Newton matrix needs the seam between the first two. A sum over microbatches
needs to know with which `share` each part counts.
"""

import abc
import inspect
import re

import keras
import tensorflow as tf

# What people call the first argument of a function of targets and predictions.
_TARGETS = ("targets", "target", "labels", "y_true")


class BatchLoss(abc.ABC):
    """f of a model and a batch.

    `composite` says whether f has the seam, that is `forward` and `compare`; `dtype` is that in which Keras computes
    the first of the two terms, None where nobody but the function knows.
    """

    composite, dtype = False, None

    def __call__(self, model, batch, training):
        """(f [], predictions or None)."""
        compared, own, predictions = self.terms(model, batch, training)
        return compared + own, predictions

    @abc.abstractmethod
    def terms(self, model, batch, training):
        """(what `compare` gives [], what `own` gives [], predictions or None); f is the sum of the first two."""

    @abc.abstractmethod
    def share(self, part, batch, count=None):
        """By how much the first term of a part of a batch is to be multiplied, so that parts add up to the whole.

        Args:
            part, batch: nested structures of tensors.
            count: samples in the batch, if known.
        """

    def adds_up(self, predictions):
        """Whether the shares hold for these predictions of a part."""
        return True


class SupervisedLoss(BatchLoss):
    """A Keras loss of batches (inputs, targets[, sample_weight]).

        f = loss(targets, model(inputs)) + sum of the model's own losses

    Args:
        loss: a `keras.losses.Loss`, a Keras name such as "mse", or a function (targets, predictions) -> one
            value per sample.

    Raises:
        ValueError: nothing known under that name.
    """

    composite = True

    def __init__(self, loss):
        self._loss = _as_loss(loss)
        self.dtype = self._loss.dtype

    def terms(self, model, batch, training):
        predictions = self.forward(model, batch, training)
        f = self.compare(predictions, batch)
        return f, own_losses(model, f.dtype), predictions

    def forward(self, model, batch, training):
        """The model's predictions."""
        return model(_supervised_parts(batch)[0], training=training)

    def compare(self, predictions, batch):
        """The loss of predictions, []."""
        _, targets, *weight = _supervised_parts(batch)
        return _scalar(self._loss(targets, predictions, sample_weight=weight[0] if weight else None))

    def share(self, part, batch, count=None):
        """1 for a sum, the fraction of the samples for a mean, that of their weights for a weighted mean."""
        reduction = self._loss.reduction
        if reduction == "sum":
            return 1.0
        if reduction == "mean_with_sample_weight" and len(batch) == 3:
            return tf.math.divide_no_nan(tf.reduce_sum(part[2]), tf.reduce_sum(batch[2]))
        return share_of_samples(part, batch, count)

    def adds_up(self, predictions):
        # Keras hangs the mask of a sequence on the tensor, and divides by the number of what is not masked.
        return self._loss.reduction == "sum" or getattr(predictions, "_keras_mask", None) is None


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
        f = _scalar(tf.convert_to_tensor(self._loss_fn(model, batch, **extra)))
        return f, tf.zeros_like(f), None

    def share(self, part, batch, count=None):
        """The fraction of the samples."""
        return share_of_samples(part, batch, count)


def choose(loss=None, loss_fn=None):
    """The batch loss of a pair of arguments of which exactly one is given.

    Args:
        loss: see `SupervisedLoss`.
        loss_fn: see `CustomLoss`.

    Raises:
        ValueError: both or neither.
    """
    if (loss is None) == (loss_fn is None):
        raise ValueError("give exactly one of loss (for batches (inputs, targets)) and loss_fn (for anything else)")
    return SupervisedLoss(loss) if loss_fn is None else CustomLoss(loss_fn)


def first_parameter(function):
    """The name of a function's first parameter, which tells what it is a function of; None where it has none."""
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):  # some that are not written in Python have no signature
        return None


def samples(batch):
    """Number of samples in a batch, int64 []."""
    return tf.shape(tf.nest.flatten(batch)[0], out_type=tf.int64)[0]


def share_of_samples(part, batch, count=None):
    """The fraction of a batch's samples, of which there are `count`, that lie in a part of it, float64 []."""
    count = samples(batch) if count is None else count
    return tf.cast(samples(part), tf.float64) / tf.cast(count, tf.float64)


def own_losses(model, dtype):
    """The sum of what a model's layers added to the loss in its last call, []."""
    return sum((tf.cast(tf.reduce_sum(term), dtype) for term in model.losses), tf.zeros([], dtype))


class _FunctionLoss(keras.losses.Loss):
    """A function (targets, predictions) with Keras's reduction, sample weights and masks."""

    def __init__(self, function):
        # Keras makes a name scope of it, where "<lambda>" is not allowed.
        super().__init__(name=re.sub(r"\W", "_", getattr(function, "__name__", "loss")).strip("_"))
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(*_of_equal_rank(y_true, y_pred))


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


def _as_loss(loss):
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss
    if not callable(loss):
        raise ValueError(f"loss must be a keras.losses.Loss, a Keras name or a function, received {loss!r}")
    if first_parameter(loss) == "model":
        raise ValueError(
            f"loss must be a function of (targets, predictions), received one of {inspect.signature(loss)}; pass it as "
            "loss_fn=..."
        )
    return _FunctionLoss(loss)


def _supervised_parts(batch):
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(
            "a Keras loss needs batches (inputs, targets) or (inputs, targets, sample_weight), received "
            f"{_structure(batch)}; for other batches pass loss_fn=function(model, batch)"
        )
    return batch


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
