"""The loss of each sample of a batch alone, so that their mean is the loss of the batch.

    l_i = sum_k w_k mean over the entries of sample i of (sample weight * values_k)     over the outputs k

Regularization is no part of it: it belongs to no sample.
"""

import keras
import tensorflow as tf

_MEANS = ("sum_over_batch_size", "mean")


def sample_losses(model, loss, batch):
    """l [N], in the dtype of the loss.

    Args:
        model: a Keras model.
        loss: an `InferenceLoss`.
        batch: (inputs, targets[, sample_weight]).

    Raises:
        ValueError: it is no loss with one value per sample, or no mean over these.
    """
    if not loss.composite:
        raise ValueError(
            "the empirical Fisher matrix needs the loss of each sample: pass loss=... (a Keras loss or a function of "
            "targets and predictions); with loss_fn or residuals choose kind='hessian' or 'ggn'"
        )
    predictions = loss.forward(model, batch, training=False)
    loss.check_parts(predictions, batch)
    parts = loss.given.parts(predictions, batch)
    return tf.add_n([_of_output(of, targets, predicted, weights) for of, targets, predicted, weights in parts])


def _of_output(of, targets, predicted, weights):
    if of.loss.reduction not in _MEANS:
        raise ValueError(
            f"the empirical Fisher matrix needs a mean over samples, received the loss {of.name!r} with "
            f"reduction={of.loss.reduction!r}; use reduction='sum_over_batch_size'"
        )
    # Converted as Keras does it: a tensor that changes nothing stays the same, beside which Keras may keep its logits.
    values = of.loss.call(*(keras.ops.convert_to_tensor(t, dtype=of.loss.dtype) for t in (targets, predicted)))
    if weights is not None:
        rank = values.shape.rank
        shape = tf.shape(weights)[:rank]
        missing = [1] * max(0, rank - weights.shape.rank)
        values *= tf.cast(tf.reshape(weights, tf.concat([shape, missing], 0)), values.dtype)
    if values.shape.rank > 1:
        values = tf.reduce_mean(values, list(range(1, values.shape.rank)))
    return values if of.weight is None else tf.cast(of.weight, values.dtype) * values
