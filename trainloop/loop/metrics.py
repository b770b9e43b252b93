"""Keras metrics as a set that a compiled block can update, read and reset; and a metric for autoencoders."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Beside the metrics, an epoch's summary has these.
_TAKEN = ("epoch", "step", "seconds", "loss")


class MetricSet:
    """Metrics over (targets, predictions).

    Args:
        metrics: Keras metric objects, names, or functions (targets, predictions) -> one value per sample. "accuracy"
            becomes sparse, categorical or binary accuracy, whichever fits the first batch.

    Raises:
        ValueError: something else, a name Keras does not know, or two metrics of the same name.
    """

    def __init__(self, metrics=()):
        if isinstance(metrics, (str, keras.metrics.Metric)):
            raise ValueError(f"metrics must be a list, received {metrics!r}; write [{metrics!r}]")
        self._given = tuple(metrics)
        # Counters are variables; creating one while a function is traced would trace the function twice.
        self._candidates = [_candidates(metric) for metric in self._given]
        self._chosen = {}
        names = [*_TAKEN, *(_name(candidate) for candidate in self._candidates)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"there are two numbers called {twice!r}; give the metric another name=...")

    def __bool__(self):
        return bool(self._given)

    def fresh_copy(self):
        """The same metrics with counters of their own."""
        return MetricSet([_copy(m) if isinstance(m, keras.metrics.Metric) else m for m in self._given])

    def update(self, targets, predictions):
        """Count one batch. Sample weights do not enter, as in `model.compile(metrics=...)`."""
        for metric in self._choose(targets, predictions):
            metric.update_state(targets, predictions)

    @property
    def size(self):
        """k, how many numbers all counters together have."""
        return sum(math.prod(v.shape) for v in self.variables)

    def measure(self, targets, predictions):
        """What one batch adds to the counters, without adding it.

        Returns:
            [k], all counters end to end. Counters of Keras metrics are sums, so those of parts of a batch add up.
        """
        chosen, added = self._choose(targets, predictions), []
        for metric in self.all():
            if metric in chosen:
                zeros = [tf.zeros(v.shape, v.dtype) for v in metric.variables]
                added += metric.stateless_update_state(zeros, targets, predictions)
            else:
                added += [tf.zeros(v.shape) for v in metric.variables]
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

    def _choose(self, targets, predictions):
        chosen = [
            c if isinstance(c, keras.metrics.Metric) else c[_kind_of_accuracy(targets, predictions)]
            for c in self._candidates
        ]
        self._chosen = {metric.name: metric for metric in chosen}
        return chosen

    def _dtype(self):
        return "float64" if any(v.dtype == "float64" for v in self.variables) else "float32"

    @property
    def variables(self):
        """The counters of all metrics."""
        return [variable for metric in self.all() for variable in metric.variables]

    def all(self):
        """All metrics in a fixed order; for "accuracy", one of each kind."""
        for candidate in self._candidates:
            yield from [candidate] if isinstance(candidate, keras.metrics.Metric) else candidate.values()


def _candidates(metric):
    """A metric, or for "accuracy" one of each kind, because the shapes that decide are not known yet."""
    if isinstance(metric, keras.metrics.Metric):
        return metric
    if not isinstance(metric, str):
        if isinstance(metric, type) or not callable(metric):
            raise ValueError(f"a metric must be a keras.metrics.Metric, a name or a function, received {metric!r}")
        return keras.metrics.MeanMetricWrapper(metric, name=getattr(metric, "__name__", "metric"))
    if metric in ("accuracy", "acc"):
        return {
            "binary": keras.metrics.BinaryAccuracy(name=metric),
            "sparse": keras.metrics.SparseCategoricalAccuracy(name=metric),
            "categorical": keras.metrics.CategoricalAccuracy(name=metric),
        }
    found = keras.metrics.get(metric)
    return found if isinstance(found, keras.metrics.Metric) else keras.metrics.MeanMetricWrapper(found, name=metric)


def _name(candidate):
    """Of a metric, or of what `_candidates` makes of "accuracy"."""
    one = candidate if isinstance(candidate, keras.metrics.Metric) else candidate["binary"]
    return one.name


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


def _kind_of_accuracy(targets, predictions):
    """The rule of `model.compile`: sparse when the targets lack the class axis or have one entry in it."""
    if not (tf.is_tensor(targets) and tf.is_tensor(predictions)):
        raise ValueError(
            "'accuracy' compares one output with its targets, and this model has several; pass a function (targets, "
            "predictions) -> one value per sample instead"
        )
    targets, predictions = targets.shape, predictions.shape
    if predictions.rank == 1 or predictions[-1] in (1, None):
        return "binary"
    return "sparse" if targets.rank < predictions.rank or targets[-1] == 1 else "categorical"


@keras.saving.register_keras_serializable("trainloop")
class ReconstructionError(keras.metrics.Mean):
    """Mean over the images of |sigmoid(z) - x|^2, summed over the pixels x of an image; z are the logits put out.

    The number that the literature on Hessian-free methods reports for autoencoders: Hinton and Salakhutdinov (2006),
    Martens (2010).

    Args:
        name, dtype: see `keras.metrics.Metric`.

    Example:
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
