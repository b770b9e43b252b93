"""f of a model on one frozen batch, made of what a user has: a model, a loss and arrays, see `batch_objective`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from trainloop import checks
from trainloop.data import batches
from trainloop.objectives import losses
from trainloop.objectives.batch_objective import BatchObjective
from trainloop.objectives.finder import Found
from trainloop.types import Losses, LossFn, LossWeights, Residuals, Variable
from trainloop.vectors.layout import VariableVector, trained_variables


class ModelObjective(BatchObjective):
    """A model, a loss and one batch.

    Args:
        model: a built Keras model.
        loss: a Keras loss, a name, a function (targets, predictions), a list or dict of them for several outputs, or a
            `BatchLoss`.
        batch: nested structure of tensors; (inputs, targets[, sample_weight]) for a Keras loss.
        loss_fn: instead of `loss`: function (model, batch) -> scalar, or a dict of scalars by name.
        residuals: instead of `loss`: see `ResidualLoss`.
        loss_weights: by how much the loss of each output or each term counts, see `SupervisedLoss`, `CustomLoss` and
            `ResidualLoss`.
        extra_variables: what is trained besides the weights of the model, such as the coefficients of an inverse
            problem: `tf.Variable`s or Keras variables. They are the last part of x.
        microbatch_size: at most this many samples at a time; None for all at once.
        vector: the `VariableVector` of the trainable variables, if there is one already.
        observe: function (batch, predictions), called for each part in the first pass.
        counters: the variables that `observe` writes.
        found: what a trace of the same loss did, a `Found`; None traces it.

    Attributes:
        found: what the loss reads, writes and draws, a `Found`.
        written: the variables besides x that the loss writes, but for counters.
        loss, placement, microbatch_size: the `BatchLoss`, how x gets into the model, and the size of parts.
        rows_bytes: so much memory the rows of a Jacobian may take in a pass, see `rows`. Of the class; set it there, or
            on an objective.

    Raises:
        ValueError: not exactly one of `loss`, `loss_fn` and `residuals`; the loss writes a trainable variable, is not a
            scalar, or depends on none of the variables.

    Examples:
        >>> objective = ModelObjective(model, loss, (x, y))
        >>> w = objective.vector.read()
        >>> f, g = objective.value_and_grad(w)
        >>> curvature = tf.tensordot(g, objective.ggnvp(w, g), 1)
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Losses | losses.BatchLoss | None = None,
        batch: Any = None,
        *,
        loss_fn: LossFn | None = None,
        residuals: Residuals | None = None,
        loss_weights: LossWeights | None = None,
        extra_variables: Sequence[Variable] = (),
        microbatch_size: int | None = None,
        vector: VariableVector | None = None,
        observe: Callable[[Any, Any], Any] | None = None,
        counters: Sequence = (),
        found: Found | None = None,
    ) -> None:
        batch_loss = losses.as_batch_loss(loss, loss_fn, residuals, loss_weights, model)
        if microbatch_size is not None:
            microbatch_size = checks.integer("microbatch_size", microbatch_size, at_least=1)
        vector = vector or VariableVector(trained_variables(model, extra_variables))
        _check_has_weights(model, vector)
        super().__init__(
            model,
            batch_loss,
            batches.to_tensors(batch),
            vector,
            microbatch_size=microbatch_size,
            observe=observe,
            counters=counters,
            found=found,
        )


def _check_has_weights(model, vector):
    """Raise where there is nothing to differentiate by."""
    if not vector.variables:
        if getattr(model, "built", True):
            raise ValueError("the model has no trainable variables; set trainable = True for a layer that is to change")
        raise ValueError(
            "the model is not built, so it has no weights yet; give it an Input, or call it once on a batch"
        )
