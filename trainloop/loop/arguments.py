"""What `TrainLoop` is given, checked before anything is built."""

import logging
import warnings

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.hooks.base import Hook
from trainloop.loop.array_feed import ArrayFeed
from trainloop.loop.dataset_feed import DatasetFeed
from trainloop.loop.metrics import MetricSet
from trainloop.loop.points_feed import PointsFeed
from trainloop.objectives import losses
from trainloop.optimizer import validation
from trainloop.optimizer.base import WholeVectorOptimizer

_LOG = logging.getLogger("trainloop")

# Names of optimizers about which this process has warned what float32 costs them.
_told: set[str] = set()


def check_kinds(model, optimizer):
    """Reject what is not a built Keras model and an optimizer on the flat parameter vector.

    Raises:
        ValueError: see above, or a layer computes in float16.
    """
    if isinstance(model, keras.optimizers.Optimizer) and isinstance(optimizer, keras.Model):
        raise ValueError(
            f"model and optimizer are swapped; write TrainLoop({optimizer.name}, {type(model).__name__}(...), ...)"
        )
    if not isinstance(optimizer, WholeVectorOptimizer):
        raise ValueError(
            f"optimizer must be a GlobalVectorOptimizer, received {type(optimizer).__name__}; subclass "
            "trainloop.GlobalVectorOptimizer, or use model.fit for Keras's own optimizers"
        )
    if not hasattr(model, "trainable_variables"):
        raise ValueError(f"model must be a Keras model, received {type(model).__name__}")
    if not getattr(model, "built", True):
        raise ValueError(
            "the model is not built, so it has no weights yet; give it an Input, or call it once on a batch"
        )
    validation.half_precision(model)


def check_hooks(hooks):
    """The hooks as a tuple: an empty one for None.

    Raises:
        ValueError: not a list of instances of `Hook`.
    """
    if isinstance(hooks, Hook):
        raise ValueError(f"hooks must be a list, received a {type(hooks).__name__}; write hooks=[...]")
    hooks = () if hooks is None else tuple(hooks)
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise ValueError(f"a hook must be an instance of a subclass of trainloop.Hook, received {hook!r}")
    return hooks


def check_monitors(hooks, known):
    """Raise where a hook looks up a number that no epoch's summary will have.

    Args:
        hooks: tuple of `Hook`s.
        known: names of the numbers there will be, see `summary_names`.

    Raises:
        ValueError: names the hook, the number and those that there are.
    """
    for hook in hooks:
        for name in hook.monitors:
            if name not in known:
                unvalidated = name.startswith("val_") and "val_loss" not in known
                advice = "; pass validation_data to run" if unvalidated else checks.near_miss(name, known)
                raise ValueError(
                    f"{type(hook).__name__} monitors {name!r}, which no epoch's summary will have; expected one of "
                    f"{', '.join(known)}{advice}"
                )


def check_finite_data(name, feed):
    """Raise for an evaluation that would not end.

    Args:
        name: of the data, for the message.
        feed: a `Feed`.

    Raises:
        ValueError: the data are an infinite dataset.
    """
    if feed.infinite:
        raise ValueError(f"{name} must end, received an infinite dataset; bound it with take(number of batches)")


def check_epochs_end(feed):
    """Raise for validation data that would never be evaluated.

    Args:
        feed: the `Feed` of what is trained on.

    Raises:
        ValueError: it has no epochs.
    """
    if feed.infinite:
        raise ValueError(
            "validation_data are evaluated after every epoch, and these data are infinite, so no epoch ends; measure "
            "with the hook Measure(every_steps=..., name=function), or bound a dataset with take()"
        )


def check_metrics(metrics):
    """`metrics` or `weighted_metrics` as given; an empty tuple for None.

    Raises:
        ValueError: a name that Keras does not know.
    """
    if metrics is None:
        return ()
    for name in tf.nest.flatten(metrics):
        if isinstance(name, str) and name not in ("accuracy", "acc", "crossentropy", "ce"):
            try:
                keras.metrics.get(name)
            except ValueError as error:
                known = _metric_names()
                raise ValueError(
                    f"{name!r} is no metric of Keras{checks.near_miss(name, known)}; known are {', '.join(known)}; or "
                    "pass a function (targets, predictions) -> one value per sample"
                ) from error
    return metrics


def _metric_names():
    """Names that stand for a function of targets and predictions."""
    public = (name for name in dir(keras.metrics) if name.islower() and name[0] != "_")
    return ["accuracy", *(name for name in public if name not in ("get", "serialize", "deserialize"))]


def choose_loss(loss, loss_fn, residuals, metrics, loss_weights=None, model=None):
    """The `BatchLoss` of exactly one of `loss`, `loss_fn` and `residuals`.

    Raises:
        ValueError: none or several, losses or weights that do not fit the model's outputs, or metrics without
            predictions to compare.
    """
    chosen = losses.choose(loss, loss_fn, residuals, loss_weights, model)
    if loss is None and metrics:
        raise ValueError(
            "metrics need loss, whose predictions they compare; with loss_fn or residuals use the hook Measure"
        )
    return chosen


def check_extra(variables):
    """The extra variables as a tuple.

    Raises:
        ValueError: not variables of floating numbers; `trained_variables` raises for the rest.
    """
    variables = (variables,) if isinstance(variables, (tf.Variable, keras.Variable)) else tuple(variables or ())
    for variable in variables:
        if not isinstance(variable, (tf.Variable, keras.Variable)):
            raise ValueError(f"extra_variables must be tf.Variables or Keras variables, received {variable!r}")
    return variables


def check_replicas(replicas, loss, extra_variables):
    """Raise for what only one device can do.

    Args:
        replicas: a `Replicas`, or None for a single one.
        loss: a `BatchLoss`.
        extra_variables: tuple.
    """
    if replicas and ((loss.has_rows and not loss.composite) or extra_variables):
        what = "residuals" if loss.has_rows else "extra_variables"
        raise ValueError(f"{what} are for one device; make the model without a strategy, or use loss_fn")


def choose_metrics(metrics, weighted_metrics, loss):
    """The `MetricSet` of a model.

    Args:
        metrics, weighted_metrics: as given to `TrainLoop`.
        loss: a `BatchLoss`.
    """
    return MetricSet(metrics, weighted_metrics, *((loss, loss.outputs) if loss.composite else ()))


def check_data(feed, loss, replicas=None):
    """Raise for data of which it shows before the first step that they cannot be trained on.

    Args:
        feed: a `Feed`.
        loss: a `BatchLoss`.
        replicas: a `Replicas`, or None for a single one.

    Raises:
        ValueError: class numbers in memory that the model has no outputs for, points that no residual takes, or sparse
            or ragged tensors that would have to be sharded over replicas.
    """
    if isinstance(feed, PointsFeed) and isinstance(loss, losses.ResidualLoss):
        loss.check_points(feed.data.values)
    if isinstance(feed, ArrayFeed):
        if loss.composite and len(feed.data.arrays) > 1:
            loss.check_labels(feed.data.arrays[1])
    elif replicas and isinstance(feed, DatasetFeed):  # that of one fixed batch has dense tensors only
        for spec in tf.nest.flatten(feed.dataset.element_spec):
            if isinstance(spec, (tf.SparseTensorSpec, tf.RaggedTensorSpec)):
                raise ValueError(
                    "a batch of sparse or ragged tensors cannot be sharded over replicas; make the model without a "
                    "strategy, or the tensors dense with tf.sparse.to_dense or to_tensor()"
                )


def check_precision(loss, dtype):
    """Warn where a loss has fewer digits than the weights: f would be noisy, and line searches end there.

    Args:
        loss: a `BatchLoss`.
        dtype: of x.
    """
    if loss.dtype is not None and tf.as_dtype(loss.dtype).size < tf.as_dtype(dtype).size:
        warnings.warn(
            f"the weights are {dtype}, but Keras computes the loss in {loss.dtype}, and so f and g have no more digits "
            f"than that; make it with dtype='{dtype}', or call keras.config.set_floatx('{dtype}') first",
            stacklevel=3,
        )


def tell_precision(optimizer, feed):
    """Log once for an optimizer what float32 costs it, but where every step draws other samples: they limit it before.

    Args:
        optimizer: built.
        feed: a `Feed`.
    """
    method = type(optimizer).__name__
    if optimizer.needs_digits and optimizer.layout.dtype == tf.float32 and feed.fixed and method not in _told:
        _told.add(method)
        _LOG.warning(
            "%s in float32: differences of gradients, and J'J, keep about half of its 7 digits, so a run ends earlier "
            "and higher than in float64; call keras.config.set_floatx('float64') before the model is made, or give "
            "--dtype float64",
            method,
        )


def check_engine(jit_compile, eager, replicas=None):
    """The two flags as given.

    Args:
        jit_compile, eager: see `TrainLoop`.
        replicas: a `Replicas`, or None for a single one.

    Raises:
        ValueError: not flags, or both, or one of them with several replicas.
    """
    jit_compile, eager = checks.flag("jit_compile", jit_compile), checks.flag("eager", eager)
    if jit_compile and eager:
        raise ValueError("eager=True runs steps in Python and jit_compile=True compiles them; choose one of the two")
    if jit_compile and replicas:
        raise ValueError(
            "jit_compile=True compiles a block for one device, and an all-reduce between devices cannot be part of it; "
            "use jit_compile=False under a strategy with several replicas"
        )
    if eager and replicas:
        raise ValueError("eager=True runs steps in Python on one device; look at them without a strategy")
    return jit_compile, eager


def check_growth(optimizer, grows, jit_compile):
    """Reject an optimizer whose state grows where XLA compiles.

    Args:
        optimizer: built or not.
        grows: whether a part of its state has no fixed shape.
        jit_compile: of the loop.

    Raises:
        ValueError: names the alternatives.
    """
    if jit_compile and grows:
        raise ValueError(
            f"{type(optimizer).__name__} keeps a history that grows (a SharedMatrix with storage='factored'), "
            "which XLA cannot compile; use storage='dense' or 'factored:1000:restart', or jit_compile=False"
        )


def check_microbatches(size, jit_compile):
    """The size as an int, or None.

    Raises:
        ValueError: not a positive integer, or XLA is to compile.
    """
    if size is None:
        return None
    if jit_compile:
        raise ValueError("XLA does not know the sizes of microbatches; use jit_compile=False, or a smaller batch_size")
    return checks.integer("microbatch_size", size, at_least=1)
