"""The loss of batches (inputs, targets[, sample_weight]): one of Keras's for every output that has one.

    f = sum_k w_k loss_k(targets_k, predictions_k) + sum of the model's own losses      over the outputs k

As `model.compile` and `model.fit` understand it; what belongs to which output is found in `outputs`, and what Keras
does not check is checked in `keras_losses`.
"""

import functools
import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainloop import checks
from trainloop.objectives import keras_losses
from trainloop.objectives.batch_loss import BatchLoss, own_losses, scalar, share_of_samples
from trainloop.objectives.inputs import check_inputs
from trainloop.objectives.outputs import Outputs, is_nested
from trainloop.objectives.residuals import Term


class OutputLoss(NamedTuple):
    """The loss of one output: its place among the flat outputs, its weight or None, and what its number is called."""

    output: int
    loss: keras.losses.Loss
    weight: Any
    name: str


class SupervisedLoss(BatchLoss):
    """Keras losses of batches (inputs, targets[, sample_weight]).

        f = sum_k w_k loss_k(targets_k, model(inputs)_k) + sum of the model's own losses

    Args:
        loss: a `keras.losses.Loss`, a Keras name such as "mse", or a function (targets, predictions) -> one
            value per sample. For several outputs one for all of them, or a list or dict with one for each, nested as
            the outputs; None for an output without a loss.
        loss_weights: w, a number, or a list or dict of numbers; None for ones. A variable may be changed during a run.
        outputs: the `Outputs` of the model, as far as they are known.

    Raises:
        ValueError: nothing known under that name, or losses and weights that do not fit the outputs.
    """

    composite = True

    def __init__(self, loss, loss_weights=None, outputs=None):
        super().__init__()
        self._loss, self.outputs = tf.nest.map_structure(_as_loss_or_none, loss), outputs or Outputs()
        given = [one for one in tf.nest.flatten(self._loss) if one is not None]
        if not given:
            raise ValueError(f"loss must have at least one loss, received {loss!r}")
        # The last digits are those of the loss that has the fewest.
        self.dtype = min((one.dtype for one in given), key=lambda dtype: tf.as_dtype(dtype).size)
        self._weights = tf.nest.map_structure(_as_weight, loss_weights)
        self._without_parts = {}
        if self.outputs.structure is not None:
            self.of_outputs(self.outputs.structure)

    def terms(self, model, batch, training):
        predictions = self.forward(model, batch, training)
        f = self.compare(predictions, batch)
        return f, own_losses(model, f.dtype), predictions

    def forward(self, model, batch, training):
        """The model's predictions: a tensor, or several in the structure that the model gives them."""
        inputs = _supervised_parts(batch)[0]
        check_inputs(model, inputs)
        return model(inputs, training=training)

    def compare(self, predictions, batch):
        """The loss of predictions, []."""
        terms = list(self._weighted_by_output(predictions, batch).values())
        return terms[0] if len(terms) == 1 else tf.add_n(terms)

    def _weighted_by_output(self, predictions, batch):
        """{name: loss of an output with its weight []}, all of the widest dtype."""
        values = self.by_output(predictions, batch)
        dtype = max((value.dtype for _, value in values), key=lambda dtype: dtype.size)
        return {
            of.name: tf.cast(value, dtype) if of.weight is None else tf.cast(of.weight, dtype) * tf.cast(value, dtype)
            for of, value in values
        }

    @property
    def term_names(self):
        """Names of the outputs, where several have a loss."""
        names = tuple(of.name for of in self.known_outputs())
        return names if len(names) > 1 else ()

    def weighted_terms(self, model, batch, training):
        predictions = self.forward(model, batch, training)
        terms = self._weighted_by_output(predictions, batch)
        own = own_losses(model, next(iter(terms.values())).dtype) if model.losses else None
        return terms, own, predictions

    def by_output(self, predictions, batch):
        """[(`OutputLoss`, its value without its weight [])] in the order of the outputs."""
        values = []
        for of, targets, predicted, weights in self.parts(predictions, batch):
            where = f" of the output {of.name!r}" if is_nested(predictions) else ""
            keras_losses.check_shapes(of.loss, targets, predicted, where)
            if weights is not None:
                keras_losses.check_weights(of.loss, targets, predicted, weights, where)
            values.append((of, scalar(of.loss(targets, predicted, sample_weight=weights))))
        return values

    def of_outputs(self, like):
        """The `OutputLoss`es of outputs.

        Args:
            like: the outputs, or something of their structure.

        Raises:
            ValueError: losses or weights do not fit them.
        """
        names = self.outputs.loss_names(like)
        several = is_nested(self._loss)
        losses = self.outputs.align(self._loss, like, "loss") if several else [self._loss] * len(names)
        weights = self._weights
        if is_nested(weights):
            weights = self.outputs.align(weights, like, "loss_weights", [one is None for one in losses])
        elif weights is not None and several and len(tf.nest.flatten(self._loss)) > 1:
            raise ValueError("loss_weights must have a number for each loss, as a list or dict; received one")
        else:
            weights = [weights] * len(names)
        for given, what in ((losses, "loss"), (weights, "loss_weights")):
            if any(map(is_nested, given)):
                raise ValueError(
                    f"{what} must have one entry for an output, received a list; add losses up in a function"
                )
        entries = [
            OutputLoss(i, loss, weight, names[i] or loss.name)
            for i, (loss, weight) in enumerate(zip(losses, weights, strict=True))
            if loss is not None
        ]
        return _told_apart(entries)

    def known_outputs(self):
        """The `OutputLoss`es as far as they are known before the model runs."""
        like = self.outputs.structure
        return self.of_outputs((self._loss if is_nested(self._loss) else 0) if like is None else like)

    def share(self, part, batch, count=None):
        """1 for a sum, the fraction of the samples for a mean, that of their weights for a weighted mean."""
        reductions = {one.reduction for one in tf.nest.flatten(self._loss) if one is not None}
        kinds = {"sum" if r == "sum" else "weights" if r == "mean_with_sample_weight" else "mean" for r in reductions}
        if "weights" in kinds and len(batch) != 3:
            kinds = kinds - {"weights"} | {"mean"}
        weights = tf.nest.flatten(batch[2]) if "weights" in kinds else []
        if len(kinds) > 1 or len(weights) > 1:
            raise ValueError(
                "parts of a batch would count differently for each output, because the reductions of the losses differ "
                "or each output has sample weights of its own with reduction='mean_with_sample_weight'; use "
                "microbatch_size=None and one replica, or one reduction"
            )
        if kinds == {"sum"}:
            return 1.0
        if kinds == {"weights"}:
            return tf.math.divide_no_nan(tf.reduce_sum(tf.nest.flatten(part[2])[0]), tf.reduce_sum(weights[0]))
        return share_of_samples(part, batch, count)

    @property
    def has_rows(self):
        """Whether every output's loss is a mean of squares over samples."""
        return all(
            keras_losses.known_function(of.loss) == "mean_squared_error"
            and of.loss.reduction in ("sum_over_batch_size", "mean")
            for of in self.known_outputs()
        )

    def row_terms(self, model, batch, training=True):
        """One `Term` for every output that has a loss, r = sqrt(sample weight) (predictions - targets)."""
        return [
            Term(of.name, functools.partial(self._errors, model, training, of), tuple(batch), of.weight)
            for of in self.known_outputs()
        ]

    def _errors(self, model, training, of, batch):
        parts = self.parts(self.forward(model, batch, training), batch)
        targets, predicted, weights = next(rest for other, *rest in parts if other.output == of.output)
        keras_losses.check_shapes(of.loss, targets, predicted, "")
        errors = predicted - tf.reshape(tf.cast(targets, predicted.dtype), tf.shape(predicted))
        if weights is not None:
            keras_losses.check_weights(of.loss, targets, predicted, weights, "")
            errors *= tf.sqrt(_by_entry(tf.cast(weights, errors.dtype), errors.shape))
        return tf.reshape(errors, [-1, math.prod(predicted.shape[1:])])

    def check_parts(self, predictions, batch):
        for of, targets, predicted, _ in self.parts(predictions, batch):
            key = id(of.loss), of.output, str(predicted.shape), getattr(predicted, "_keras_mask", None) is None
            if key not in self._without_parts:  # found by tracing, once for all evaluations
                self._without_parts[key] = keras_losses.why_no_parts(of.loss, targets, predicted)
            if self._without_parts[key]:
                raise ValueError(
                    f"{self._without_parts[key]}, so the loss of a batch is not the sum of those of its parts; use "
                    "microbatch_size=None and one replica, or a loss with one value per sample"
                )

    def check_labels(self, targets):
        """Raise where class numbers in memory are none of those that the model has outputs for.

        Args:
            targets: nested structure of arrays.

        Raises:
            ValueError: says which.
        """
        like = targets if self.outputs.structure is None else self.outputs.structure
        flat, known = tf.nest.flatten(like), self.of_outputs(like)
        optional = [i not in {of.output for of in known} for i in range(len(flat))]
        aligned = self.outputs.align(targets, like, "targets", optional)
        for of in known:
            sparse, ignored = keras_losses.labels_of(of.loss)
            shape = getattr(flat[of.output], "shape", None)
            classes = shape[-1] if self.outputs.structure is not None and shape else None
            if sparse and tf.is_tensor(aligned[of.output]) and aligned[of.output].dtype != tf.string:
                _check_labels(aligned[of.output].numpy(), classes, ignored, of.name if len(flat) > 1 else None)

    def parts(self, predictions, batch):
        """(`OutputLoss`, targets, predictions, sample weights or None) of each output that has a loss."""
        _, targets, *weights = _supervised_parts(batch)
        known, flat = self.of_outputs(predictions), tf.nest.flatten(predictions)
        optional = [i not in {of.output for of in known} for i in range(len(flat))]
        targets = self.outputs.align(targets, predictions, "targets", optional)
        weights = self.outputs.weights(weights[0] if weights else None, predictions, optional)
        for of in known:
            yield of, *(_as_tensor(parts[of.output]) for parts in (targets, flat, weights))


def _as_loss_or_none(loss):
    return None if loss is None else keras_losses.as_loss(loss)


def _as_weight(weight):
    if weight is None or isinstance(weight, (tf.Variable, keras.Variable)) or tf.is_tensor(weight):
        return weight
    return checks.real("loss_weights", weight)


def _as_tensor(value):
    return value if value is None or is_nested(value) else tf.convert_to_tensor(value)


def _by_entry(weights, shape):
    """Sample weights that multiply the squares of errors of a shape [N, ..., k], whose means over k Keras weights.

    Raises:
        ValueError: the errors are [N], whose mean is one number that Keras multiplies by the mean of the weights.
    """
    if shape.rank == 1:
        raise ValueError(
            "a mean squared error of predictions [N] is one number for the whole batch, so sample weights cannot weigh "
            "its samples; end the model with predictions [N, 1]"
        )
    missing = shape.rank - weights.shape.rank
    return tf.reshape(weights, tf.concat([tf.shape(weights), tf.ones([missing], tf.int32)], 0)) if missing else weights


def _told_apart(entries):
    """The same with a number behind names that are there already, as Keras does it for metrics."""
    names = [of.name for of in entries]
    counts = [names[:i].count(name) for i, name in enumerate(names)]
    return [of._replace(name=f"{of.name}_{n}" if n else of.name) for of, n in zip(entries, counts, strict=True)]


def _check_labels(labels, classes, ignored, name):
    where = "targets" if name is None else f"targets of the output {name!r}"
    bad = (labels < 0) | ((labels >= classes) if classes is not None else False)
    bad &= labels != ignored if ignored is not None else True
    if np.any(bad):
        index = checks.first(np.asarray(bad))
        expected = "class numbers from 0" if classes is None else f"class numbers in 0..{classes - 1}"
        received = f"{labels[index]} at index {index}"
        advice = "number the classes from 0, and give the model an output for each"
        raise checks.error(where, expected, received, advice)


def _supervised_parts(batch):
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(
            "a Keras loss needs batches (inputs, targets) or (inputs, targets, sample_weight), received "
            f"{_structure(batch)}; for other batches pass loss_fn=function(model, batch)"
        )
    return batch


def _structure(batch):
    if isinstance(batch, (tuple, list)):
        return f"{len(batch)} parts"
    return type(batch).__name__
