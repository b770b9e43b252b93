"""The loss of one batch, in the parts that second-order optimizers and microbatches need.

    f = compare(forward(model, batch), batch) + own(model)
    compare = sum_k w_k loss_k(targets_k, predictions_k)        over the outputs k that have a loss

`forward` runs the model, `compare` turns its predictions into a number, `own` is what the layers add themselves
(regularisers, `add_loss`). The Gauss-Newton matrix needs the seam between the first two. A sum over microbatches
needs to know with which `share` each `Part` counts.
"""

import abc

import tensorflow as tf

from trainloop.data.batches import samples


class BatchLoss(abc.ABC):
    """f of a model and a batch.

    Attributes:
        composite: whether f has the seam, that is `forward` and `compare`.
        dtype: that in which Keras computes the first of the two terms, None where only the function knows.
        has_rows: whether the first term is a sum of squares, so that there are `row_terms`.
        adds_own: whether the second term is what layers add, which is taken without being asked for.
        names: of the terms that the first one is a sum of, which `terms` then gives in place of predictions; none where
            it is one number. None where a trace has to tell.
    """

    composite, dtype, has_rows, adds_own = False, None, False, True
    names: tuple[str, ...] | None = ()
    said_slow = False  # whether a warning was given that rows are computed slowly, see `sample_rows`

    def __init__(self):
        self.obstacles = {}  # {name of a term: why its rows cannot be computed one by one, or None}

    def __call__(self, model, batch, training):
        """(f [], predictions or None)."""
        compared, own, predictions = self.terms(model, batch, training)
        return compared + own, predictions

    @abc.abstractmethod
    def terms(self, model, batch, training):
        """(what `compare` gives [], what `own` gives [], predictions or None); f is the sum of the first two."""

    @property
    def term_names(self):
        """Names of the terms that `weighted_terms` gives, as far as they are known; none where f is one number."""
        return self.names or ()

    def weighted_terms(self, model, batch, training):
        """({name: term with its weight []}, what `own` gives [] or None, the third that `terms` gives)."""
        raise NotImplementedError

    def row_terms(self, model, batch, training=True):
        """The first term as a sum of mean squares: a list of `Term`s, see `residuals`."""
        raise NotImplementedError

    @abc.abstractmethod
    def share(self, part, batch, count=None):
        """By how much the first term of a part of a batch is to be multiplied, so that parts add up to the whole.

        Args:
            part, batch: nested structures of tensors.
            count: samples in the batch, if known.
        """

    @abc.abstractmethod
    def check_parts(self, predictions, batch):
        """Raise where the shares do not hold, so that parts would not add up to the whole.

        Args:
            predictions, batch: of one part.

        Raises:
            ValueError: says why, and what to do.
        """


class Part:
    """Samples that are taken at once, and with which weights their losses count; None for the whole batch."""

    def __init__(self, batch, weights):
        self.batch, self._weights = batch, weights

    @property
    def factor(self):
        """What the share of the first term has over the share of the samples."""
        share, of_samples = self._weights
        return 1.0 if share is None else tf.math.divide_no_nan(tf.cast(share, tf.float64), of_samples)

    def weighted(self, compared, own):
        return self.weighted_loss(compared) + self.weighted_own(own)

    def weighted_loss(self, compared):
        return times(self._weights[0], compared)

    def weighted_own(self, own):
        return times(self._weights[1], own)


def share_of_samples(part, batch, count=None):
    """The fraction of a batch's samples, of which there are `count`, that lie in a part of it, float64 []."""
    count = samples(batch) if count is None else count
    return tf.cast(samples(part), tf.float64) / tf.cast(count, tf.float64)


def own_losses(model, dtype):
    """The sum of what a model's layers added to the loss in its last call, []."""
    return sum((tf.cast(tf.reduce_sum(term), dtype) for term in model.losses), tf.zeros([], dtype))


def scalar(f):
    """f if it is [].

    Raises:
        ValueError: it has another shape.
    """
    if f.shape.rank != 0:
        raise ValueError(
            f"the loss of a batch must be a scalar, received shape {f.shape}; reduce it with tf.reduce_mean"
        )
    return f


def times(weight, term):
    return term if weight is None else tf.cast(weight, term.dtype) * term
