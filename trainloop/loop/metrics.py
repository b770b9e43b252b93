"""Keras metrics as a set that a compiled block can update, read and reset; and a metric for autoencoders.

Of a model with several outputs each has metrics of its own, named as `model.fit` names them: "a_mae" of the output a.
Beside them the loss of each output is counted, "a_loss", as a mean over samples without its weight:

    total += n c loss(targets, predictions),  count += n        n samples in a part of a batch

c is 1, or what the part's share of the batch has over its share of the samples, so that parts add up to the batch.
"""

import collections
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainloop.data.batches import samples
from trainloop.objectives.keras_losses import kind_of_targets
from trainloop.objectives.outputs import Outputs

# Beside the metrics, an epoch's summary has these.
_TAKEN = ("epoch", "step", "seconds", "loss")


class _Entry(NamedTuple):
    """A metric, or for "accuracy" one of each kind; the place of its output; its name; whether it takes weights."""

    output: int
    kinds: Any
    name: str
    weighted: bool


class MetricSet:
    """Metrics over (targets, predictions), and the losses of several outputs.

    Args:
        metrics: Keras metric objects, names, or functions (targets, predictions) -> one value per sample. "accuracy"
            becomes sparse, categorical or binary accuracy, whichever fits the first batch. For several outputs a list
            or dict with such a list, or a single metric, for each of them, nested as the outputs.
        weighted: the same for metrics in which sample weights count. Where there is one of its name already, such a
            metric is called "weighted_mae", as in `model.fit`.
        loss: the `SupervisedLoss` whose values are counted where there are several; None for no losses.
        outputs: the `Outputs` of the model, as far as they are known.

    Raises:
        ValueError: something else, a name Keras does not know, an output that the model does not have, or two metrics
            of the same name.
    """

    def __init__(self, metrics=(), weighted=(), loss=None, outputs=None):
        self._loss, self._outputs = loss, outputs or Outputs()
        self._given = {
            "metrics": _as_list(metrics, "metrics"),
            "weighted_metrics": _as_list(weighted, "weighted_metrics"),
        }
        self._like = 0 if self._outputs.structure is None else self._outputs.structure
        # Counters are variables; creating one while a function is traced would trace the function twice.
        self._entries = self._all_entries()
        known = loss.known_outputs() if loss else []
        self._losses = [keras.metrics.Mean(name=f"{of.name}_loss") for of in known] if len(known) > 1 else []
        self._chosen = {}
        names = [*_TAKEN, *(entry.name for entry in self._entries), *(metric.name for metric in self._losses)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"there are two numbers called {twice!r}; give the metric another name=...")

    def __bool__(self):
        return bool(self._entries or self._losses)

    def fresh_copy(self):
        """The same metrics with counters of their own."""
        copies = tf.nest.map_structure(lambda m: _copy(m) if isinstance(m, keras.metrics.Metric) else m, self._given)
        return MetricSet(copies["metrics"], copies["weighted_metrics"], self._loss, self._outputs)

    def update(self, batch, predictions, factor=1.0):
        """Count one batch, or a part of one. Sample weights enter losses and weighted metrics, as in `model.compile`.

        Args:
            batch: (inputs, targets[, sample_weight]).
            predictions: of the model.
            factor: c, see above.
        """
        for metric, arguments in self._updates(batch, predictions, factor):
            metric.update_state(*arguments)

    @property
    def size(self):
        """k, how many numbers all counters together have."""
        return sum(math.prod(v.shape) for v in self.variables)

    def measure(self, batch, predictions, factor=1.0):
        """What one batch adds to the counters, without adding it.

        Args:
            batch, predictions, factor: see `update`.

        Returns:
            [k], all counters end to end. Counters of Keras metrics are sums, so those of parts of a batch add up.
        """
        updates, added = dict(self._updates(batch, predictions, factor)), []
        for metric in self.all():
            zeros = [tf.zeros(v.shape, v.dtype) for v in metric.variables]
            added += metric.stateless_update_state(zeros, *updates[metric]) if metric in updates else zeros
        return tf.concat([tf.reshape(tf.cast(a, self._dtype()), [-1]) for a in added], 0)

    def add(self, measured):
        """Count what `measure` returned, or a sum of such."""
        pieces = tf.split(measured, [math.prod(v.shape) for v in self.variables])
        for variable, piece in zip(self.variables, pieces, strict=True):
            variable.assign_add(tf.cast(tf.reshape(piece, variable.shape), variable.dtype))

    def results(self):
        """Values by name, tensors inside a compiled function."""
        return {name: _number(name, metric.result()) for name, metric in self._chosen.items()}

    def reset(self):
        """Forget all batches."""
        for metric in self.all():
            metric.reset_state()

    @property
    def variables(self):
        """The counters of all metrics."""
        return [variable for metric in self.all() for variable in metric.variables]

    def all(self):
        """All metrics in a fixed order; for "accuracy", one of each kind. Losses of outputs come last."""
        for entry in self._entries:
            yield from entry.kinds.values() if isinstance(entry.kinds, dict) else [entry.kinds]
        yield from self._losses

    def names(self):
        """Under which `results` has values."""
        return list(
            dict.fromkeys([*(entry.name for entry in self._entries), *(metric.name for metric in self._losses)])
        )

    def former_names(self):
        """{name that version 0.1 gave a metric: its name}, where these differ."""
        named = {
            entry.kinds.name: entry.name for entry in self._entries if isinstance(entry.kinds, keras.metrics.Metric)
        }
        return {former: name for former, name in named.items() if former != name and former not in named.values()}

    def _all_entries(self):
        """An `_Entry` for each metric, named as Keras does it, with a number behind a repeated name."""
        prefixes, seen, entries = self._outputs.metric_names(self._like), collections.Counter(), []
        for what, given in self._given.items():
            weighted = what == "weighted_metrics"
            for output, metric in self._by_output(given, what, len(prefixes)):
                prefix = "" if prefixes[output] is None else f"{prefixes[output]}_"
                name = prefix + _name(metric)
                if weighted and name in seen:
                    name = f"{prefix}weighted_{_name(metric)}"
                # Two unweighted metrics of one output and one name are a mistake, which `__init__` says.
                number = seen[name] if weighted or len(prefixes) > 1 else 0
                seen[name] += 1
                entries.append(_Entry(output, _candidates(metric), f"{name}_{number}" if number else name, weighted))
        return entries

    def _by_output(self, given, what, count):
        """(place of an output, metric) for each metric."""
        if count == 1:
            aligned = [[m for one in _values(given) for m in (one if isinstance(one, (list, tuple)) else [one])]]
        else:
            # As for `model.compile`, a dict may leave outputs out.
            optional = [isinstance(given, Mapping)] * count
            aligned = self._outputs.align(given, self._like, what, optional) if given else []
        for output, metrics in enumerate(aligned):
            metrics = () if metrics is None else metrics if isinstance(metrics, (list, tuple)) else [metrics]
            yield from ((output, metric) for metric in metrics)

    def _updates(self, batch, predictions, factor):
        """[(metric, arguments of its `update_state`)] for one batch."""
        flat = tf.nest.flatten(predictions)
        expected = len(tf.nest.flatten(self._like))
        if self._entries and len(flat) != expected:
            raise ValueError(
                f"metrics are for {expected} output{'s' if expected > 1 else ''}, and this model has several, "
                f"{len(flat)}; give losses and metrics as a list or dict with an entry for each"
            )
        targets = self._targets(batch[1], predictions, len(flat)) if self._entries else []
        weights = self._weights(batch, predictions, len(flat))
        chosen, self._chosen = [], {}
        for output, kinds, name, weighted in self._entries:
            if isinstance(kinds, dict):
                kinds = kinds[kind_of_targets(targets[output].shape, flat[output].shape)]
            chosen.append((kinds, (targets[output], flat[output], *([weights[output]] if weighted else []))))
            self._chosen[name] = kinds
        if self._losses:
            weight = tf.cast(samples(batch), "float64")
            for metric, (_, value) in zip(self._losses, self._loss.by_output(predictions, batch), strict=True):
                chosen.append((metric, (tf.cast(value, "float64") * tf.cast(factor, "float64"), weight)))
                self._chosen[metric.name] = metric
        return chosen

    def _targets(self, targets, predictions, count):
        measured = {entry.output for entry in self._entries}
        aligned = self._outputs.align(targets, predictions, "targets", [i not in measured for i in range(count)])
        return [tf.convert_to_tensor(t) if i in measured else None for i, t in enumerate(aligned)]

    def _weights(self, batch, predictions, count):
        """The sample weights of each output that has a weighted metric, None for none."""
        measured = {entry.output for entry in self._entries if entry.weighted}
        if not measured or len(batch) < 3:
            return [None] * count
        return self._outputs.weights(batch[2], predictions, [i not in measured for i in range(count)])

    def _dtype(self):
        return "float64" if any(v.dtype == "float64" for v in self.variables) else "float32"


def _as_list(metrics, what):
    if isinstance(metrics, (str, keras.metrics.Metric)):
        raise ValueError(f"{what} must be a list, received {metrics!r}; write [{metrics!r}]")
    return metrics if isinstance(metrics, Mapping) else tuple(metrics or ())


def _values(nested):
    return nested.values() if isinstance(nested, Mapping) else nested


def _candidates(metric):
    """A metric, or for "accuracy" one of each kind, because the shapes that decide are not known yet."""
    if isinstance(metric, keras.metrics.Metric):
        return metric
    if not isinstance(metric, str):
        if isinstance(metric, type) or not callable(metric):
            advice = f"; write {metric.__name__}()" if isinstance(metric, type) else ""
            raise ValueError(
                f"a metric must be a keras.metrics.Metric, a name or a function, received {metric!r}{advice}"
            )
        return keras.metrics.MeanMetricWrapper(metric, name=getattr(metric, "__name__", "metric"))
    if metric.lower() in ("accuracy", "acc"):
        return {
            "binary": keras.metrics.BinaryAccuracy(name=metric),
            "sparse": keras.metrics.SparseCategoricalAccuracy(name=metric),
            "categorical": keras.metrics.CategoricalAccuracy(name=metric),
        }
    found = keras.metrics.get(metric)
    return found if isinstance(found, keras.metrics.Metric) else keras.metrics.MeanMetricWrapper(found, name=metric)


def _name(metric):
    """What `model.fit` calls a metric: as it was given, or as it calls itself, functions in snake case."""
    if isinstance(metric, str):
        return metric
    if isinstance(metric, keras.metrics.Metric):
        return metric.name
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", getattr(metric, "__name__", "metric")))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _copy(metric):
    """The same metric with counters of its own.

    Raises:
        ValueError: its `get_config` does not say how to make it.
    """
    try:
        return type(metric).from_config(metric.get_config())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the metric {metric.name!r} cannot be made a second time for tests, by from_config(get_config()) of "
            f"{type(metric).__name__}: let get_config return all arguments of the constructor, and pass functions as "
            f"they are, metrics=[function]. It says: {str(error).splitlines()[0]}"
        ) from error


def _number(name, result):
    """A metric's result, which has to be one number.

    Raises:
        ValueError: it is several.
    """
    received = "a dict" if isinstance(result, dict) else f"shape {tuple(np.shape(result))}"
    if received != "shape ()":
        raise ValueError(
            f"the metric {name!r} must have one number as its result, received {received}; average it (F1Score has "
            "average='macro'), or compute it in a hook"
        )
    return result


@keras.saving.register_keras_serializable("trainloop")
class ReconstructionError(keras.metrics.Mean):
    """Mean over the images of |sigmoid(z) - x|^2, summed over the pixels x of an image; z are the logits put out.

    The number that the literature on Hessian-free methods reports for autoencoders: Hinton and Salakhutdinov (2006),
    Martens (2010).

    Args:
        name, dtype: see `keras.metrics.Metric`.

    Examples:
        >>> error = ReconstructionError()
        >>> error.update_state(np.ones([1, 2, 2, 1]), np.zeros([1, 2, 2, 1]))
        >>> float(error.result())
        1.0
    """

    def __init__(self, name: str = "reconstruction_error", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Count a batch of images.

        Args:
            y_true: x, the images [N, ...].
            y_pred: z, the logits of their pixels in the same shape.
            sample_weight: [N], how much each image counts, or None.
        """
        x, z = keras.ops.cast(y_true, self.dtype), keras.ops.cast(y_pred, self.dtype)
        squares = keras.ops.square(keras.ops.sigmoid(z) - x)
        return super().update_state(keras.ops.sum(squares, axis=range(1, len(z.shape))), sample_weight)
