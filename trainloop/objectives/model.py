"""f of a model on one frozen batch, regularisation included, and everything that is derived from it.

The first pass over a batch is an ordinary Keras training pass at the point the variables hold: BatchNormalization
averages and dropout seeds advance once, exactly as `model.fit` would advance them.

Every further evaluation is stateless. It runs the same training pass with x in place of the trainable variables and
with all other variables (averages, seeds) as they were before the first pass, and drops what the layers would write.
So dropout draws the same mask each time, and the model is left untouched.

A large batch can be taken in microbatches. Their losses and gradients add up to those of the whole batch, in the
memory of one of them:

    f = sum_i share_i compare_i + sum_i (b_i / b) own_i         b_i samples in part i, b in the whole

What layers write in one part is what the next part reads, in the first pass and in every other. BatchNormalization
in training takes its statistics from one microbatch at a time, so there the sum is another function of x than the
whole batch gives, but still the same one at every evaluation.
"""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainloop import checks
from trainloop.data import batches
from trainloop.objectives import derivatives, losses
from trainloop.objectives.base import Objective
from trainloop.objectives.outputs import joined
from trainloop.types import Evaluated, Losses, LossFn, LossWeights
from trainloop.vectors import linalg
from trainloop.vectors.layout import VariableVector, pack_gradients

_INDEPENDENT = "the loss does not depend on the model's trainable variables"


class ModelObjective(Objective):
    """A model, a loss and one batch.

    Args:
        model: a built Keras model.
        loss: a Keras loss, a name, a function (targets, predictions), a list or dict of them for several outputs, or a
            `BatchLoss`.
        batch: nested structure of tensors; (inputs, targets[, sample_weight]) for a Keras loss.
        loss_fn: instead of `loss`: function (model, batch) -> scalar.
        loss_weights: by how much the loss of each output counts, see `SupervisedLoss`.
        microbatch_size: at most this many samples at a time; None for all at once.
        vector: the `VariableVector` of the trainable variables, if there is one already.
        observe: function (batch, predictions), called for each part in the first pass.
        shares: for a batch that is a part of a larger one: with which weights (see f_i and b_i / b above) it counts
            there. None for a batch of its own.
        frozen: values of the non-trainable variables; None for those they have now.

    Raises:
        ValueError: not exactly one of `loss` and `loss_fn`, or a trainable variable that is not a Keras variable.

    Example:
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
        loss_weights: LossWeights | None = None,
        microbatch_size: int | None = None,
        vector: VariableVector | None = None,
        observe: Callable[[Any, Any], Any] | None = None,
        shares: Sequence | None = None,
        frozen: Sequence | None = None,
    ) -> None:
        self.model, self.batch = model, batches.to_tensors(batch)
        self._loss = losses.as_batch_loss(loss, loss_fn, loss_weights, model)
        if microbatch_size is not None:
            microbatch_size = checks.integer("microbatch_size", microbatch_size, at_least=1)
        self._microbatch_size = microbatch_size
        self.vector = vector or VariableVector(model.trainable_variables)
        self._observe = observe
        self._shares = shares
        self._known_to_stop = None
        # Read before the first pass moves them.
        self._others = list(getattr(model, "non_trainable_variables", ()))
        self._frozen = [tf.identity(v) for v in self._others] if frozen is None else frozen

    def first_pass(self) -> Evaluated:
        """f and its gradient where the variables are, with the side effects of a training pass.

        Returns:
            f [] and g [n], both at the point before any update.

        Raises:
            ValueError: the loss is not a scalar, or depends on none of the variables.
        """

        def gradient_of_part(part, frozen):
            with tf.GradientTape() as tape:
                compared, own, predictions = self._loss.terms(self.model, part.batch, training=True)
                self._refuse_unless_adding_up(part, predictions)
                f = part.weighted(compared, own)
            if self._observe:
                self._observe(part.batch, predictions)
            gradients = tape.gradient(f, self.vector.variables)
            return (tf.cast(f, self.vector.layout.dtype), pack_gradients(self.vector.layout, gradients)), frozen

        return self._sum_over_parts(gradient_of_part, [[], [self.vector.layout.size]])[0]

    def pure_pass(self, x: tf.Tensor, metrics: Any = None) -> tuple:
        """What `first_pass` does, at x and without side effects.

        Args:
            x: [n].
            metrics: a `MetricSet`, or None.

        Returns:
            (f [], g [n], what the batch adds to the counters of the metrics [k]), and the new values of the model's
            non-trainable variables.
        """

        def pass_of_part(part, frozen):
            run = _StatelessRun(self, part, frozen)
            with tf.GradientTape() as tape:
                tape.watch(x)
                f, predictions = run.f_and_predictions(x)
            g = tape.gradient(f, x)
            if g is None:
                raise ValueError(_INDEPENDENT)
            return (f, tf.convert_to_tensor(g), _measured(metrics, part, predictions)), run.written

        return self._sum_over_parts(pass_of_part, [[], x.shape, [metrics.size if metrics else 0]])

    def inference_pass(self, x: tf.Tensor, metrics: Any = None) -> tuple:
        """(f [] at x in inference mode, what the batch adds to the counters of the metrics [k])."""

        def pass_of_part(part, frozen):
            f, predictions = _StatelessRun(self, part, frozen).f_and_predictions(x, training=False)
            return (f, _measured(metrics, part, predictions)), frozen

        return self._sum_over_parts(pass_of_part, [[], [metrics.size if metrics else 0]])[0]

    def value(self, x: tf.Tensor) -> tf.Tensor:
        return self._sum_stateless(lambda run: (run.f(x),), [[]])[0]

    def value_and_grad(self, x: tf.Tensor) -> Evaluated:
        def derive(run):
            f, g = derivatives.value_and_grad(run.f, x)
            if g is None:
                raise ValueError(_INDEPENDENT)
            return f, tf.convert_to_tensor(g)

        return self._sum_stateless(derive, [[], x.shape])

    def hvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """H(x) v.

        Differences of gradients replace autodiff where the model stops gradients, as normalisation layers do; see
        `derivatives`. That is said once, with a warning.
        """
        if not self._stops_gradients(x):
            try:
                return self._sum_stateless(lambda run: (derivatives.hvp(run.f, x, v),), [x.shape])[0]
            except LookupError:  # an operation whose gradient has no gradient
                pass
        return derivatives.difference_of_gradients(lambda z: self.value_and_grad(z)[1], x, v)

    def ggnvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """(J' L J + R) v at x with J of the predictions, L of the loss, and R the Hessian of the model's own losses."""
        return self._sum_stateless(lambda run: (self._curvature(run, x)(v),), [x.shape])[0]

    def ggn(self, x: tf.Tensor) -> tf.Tensor:
        unit_vectors = tf.eye(x.shape[0], dtype=x.dtype)
        shapes = [unit_vectors.shape]
        columns = self._sum_stateless(lambda run: (linalg.map_rows(self._curvature(run, x), unit_vectors),), shapes)[0]
        return linalg.symmetric(columns)

    def _curvature(self, run, x):
        """v -> G v of one part, with everything that does not depend on v computed once."""
        if not self._loss.composite:
            raise ValueError(
                "Gauss-Newton products need a loss of the model's predictions; pass loss=... instead of loss_fn, or "
                "choose curvature='hessian'"
            )
        model = derivatives.Linearised(run.predictions_and_own, x)
        loss = derivatives.hessian(run.compare, model.z)
        if model.extra is None:
            return lambda v: model.vjp(loss(model.jvp(v)))
        own = derivatives.hessian(run.own, x)
        return lambda v: model.vjp(loss(model.jvp(v))) + own(v)

    def _stops_gradients(self, x):
        if self._known_to_stop is None:
            self._known_to_stop = derivatives.stops_gradients(self.value, x)
            if self._known_to_stop:
                warnings.warn(
                    "the loss stops gradients somewhere (normalisation layers do) or cannot be traced, so second "
                    "derivatives by autodiff may be wrong; Hessian products are taken as differences of gradients, two "
                    "per product",
                    stacklevel=2,
                )
        return self._known_to_stop

    def _refuse_unless_adding_up(self, part, predictions):
        is_whole = part.batch is self.batch and self._shares is None
        if not is_whole:
            self._loss.check_parts(predictions, part.batch)

    def _sum_stateless(self, derive, shapes):
        """The sum over all parts of what `derive(run)` makes of each: a tuple of tensors of these shapes."""

        def derive_part(part, frozen):
            run = _StatelessRun(self, part, frozen)
            return derive(run), run.written

        return self._sum_over_parts(derive_part, shapes)[0]

    def _sum_over_parts(self, one, shapes):
        """Sum of one(part, frozen) -> (tensors, frozen for the next part).

        Args:
            one: function of a `_Part` and the values of the non-trainable variables.
            shapes: of the tensors.

        Returns:
            (tuple of sums, frozen after the last part).
        """
        if self._microbatch_size is None:
            return one(_Part(self.batch, self._shares or (None, None)), self._frozen)
        size, step = losses.samples(self.batch), tf.constant(self._microbatch_size, tf.int64)

        def add_part(start, total, frozen):
            batch = batches.between(self.batch, start, tf.minimum(start + step, size))
            terms, frozen = one(self._part(batch), frozen)
            terms = (tf.cast(tf.expand_dims(b, 0), a.dtype) for a, b in zip(total, terms, strict=True))
            return start + step, [a + b for a, b in zip(total, terms, strict=True)], frozen

        # Each sum has one more axis than its terms. Otherwise TensorFlow joins this addition with one inside of a term
        # and may store the sum in place, which fails with AlreadyExistsError when a loop runs again (its issue 37740).
        zeros = [tf.zeros([1, *shape], self.vector.layout.dtype) for shape in shapes]
        start = tf.constant(0, tf.int64), zeros, self._frozen
        _, total, frozen = tf.while_loop(lambda start, *_: start < size, add_part, start, parallel_iterations=1)
        return tuple(tf.squeeze(one, 0) for one in total), frozen

    def _part(self, batch):
        shares = self._loss.share(batch, self.batch), losses.share_of_samples(batch, self.batch)
        if self._shares is not None:
            shares = [_times(share, outer) for share, outer in zip(shares, self._shares, strict=True)]
        return _Part(batch, shares)


class _Part:
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
        return _times(self._weights[0], compared)

    def weighted_own(self, own):
        return _times(self._weights[1], own)


class _StatelessRun:
    """One part of the objective as functions of x. `written` is what the layers wrote in the first of its runs."""

    def __init__(self, objective, part, frozen):
        self._model, self._loss, self._vector = objective.model, objective._loss, objective.vector
        self._others, self._frozen, self._part = objective._others, frozen, part
        self._check = objective._refuse_unless_adding_up
        self.written, self._apart = None, None

    def f(self, x):
        return self.f_and_predictions(x)[0]

    def f_and_predictions(self, x, training=True):
        with self._values(x):
            compared, own, predictions = self._loss.terms(self._model, self._part.batch, training)
        self._check(self._part, predictions)
        return tf.cast(self._part.weighted(compared, own), x.dtype), predictions

    def predictions_and_own(self, x):
        """(predictions as one tensor, the model's own losses or None)."""
        with self._values(x):
            predictions = self._loss.forward(self._model, self._part.batch, training=True)
            own = losses.own_losses(self._model, x.dtype) if self._model.losses else None
        self._check(self._part, predictions)
        z, apart = joined(predictions)
        self._apart = self._apart or apart  # a later run may be traced elsewhere, where its shapes are out of reach
        return z, own

    def compare(self, predictions):
        return self._part.weighted_loss(self._loss.compare(self._apart(predictions), self._part.batch))

    def own(self, x):
        return self._part.weighted_own(self.predictions_and_own(x)[1])

    @contextlib.contextmanager
    def _values(self, x):
        """Inside, the model's variables have the values of x, and nothing it writes lasts."""
        variables = [*self._vector.variables, *self._others]
        for v in variables:
            if not isinstance(v, keras.Variable):
                raise ValueError(
                    f"evaluating a model at another x needs Keras variables, received {type(v).__name__} {v.name!r}; "
                    "make it with add_weight or keras.Variable, or use a method that needs only the gradient"
                )
        values = [*self._vector.layout.unpack(x), *self._frozen]
        with keras.StatelessScope(list(zip(variables, values, strict=True)), collect_losses=True) as scope:
            yield
        if self.written is None:
            self.written = [scope.get_current_value(v) for v in self._others]


def _measured(metrics, part, predictions):
    return metrics.measure(part.batch, predictions, part.factor) if metrics else tf.zeros([0])


def _times(weight, term):
    return term if weight is None else tf.cast(weight, term.dtype) * term
