"""f of a model on one frozen batch, regularisation included, and everything that is derived from it.

The first pass over a batch is an ordinary Keras training pass at the point the variables hold: BatchNormalization
averages and dropout seeds advance once, exactly as `model.fit` would advance them.

Every further evaluation writes x into the variables, and into everything that the loss writes (averages, seeds,
counters) what was there before the first pass; then it runs the same loss, and puts everything back. So dropout draws
the same mask each time, the model is left untouched, and whatever the loss calls sees x, see `placement`. What a loss
writes is found by tracing it once, see `written`; the same trace is what runs. Where that trace does nothing with the
variables but to read and to assign them, it is a function of their values, and f and g at x come from it with nothing
written at all, see `trace`.

A large batch can be taken in microbatches. Their losses and gradients add up to those of the whole batch, in the
memory of one of them:

    f = sum_i share_i compare_i + sum_i (b_i / b) own_i         b_i samples in part i, b in the whole

What layers write in one part is what the next part reads, in the first pass and in every other. BatchNormalization
in training takes its statistics from one microbatch at a time, so there the sum is another function of x than the
whole batch gives, but still the same one at every evaluation.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainloop.data import batches
from trainloop.objectives import derivatives, example_gradients, losses, term_gradients, written
from trainloop.objectives.base import Objective
from trainloop.objectives.batch_loss import BatchLoss, Part, times
from trainloop.objectives.finder import Found
from trainloop.objectives.placement import Assignment, Copies
from trainloop.objectives.rows import ROWS_BYTES, Rows
from trainloop.objectives.run import Run
from trainloop.objectives.sample_rows import SampleRows
from trainloop.objectives.trace import PureTrace
from trainloop.types import Evaluated
from trainloop.vectors import linalg
from trainloop.vectors.layout import VariableVector

INDEPENDENT = "the loss does not depend on the model's trainable variables"

# What tensors without values raise where a loss asks for one.
NEEDS_VALUES = (AttributeError, TypeError, NotImplementedError)


class BatchObjective(Objective):
    """A model, a loss and one batch. `ModelObjective` makes one of what a user has.

    Args:
        model: a built Keras model.
        loss: a `BatchLoss`.
        batch: nested structure of tensors.
        vector: the `VariableVector` of what is trained.
        microbatch_size: at most this many samples at a time; None for all at once.
        observe: function (batch, predictions), called for each part in the first pass.
        counters: the variables that `observe` writes.
        note: function (x [n], terms [k]), called where the trace of a loss with named terms is evaluated at another
            point, see `trace`; it may write variables.
        found: what a trace of the same loss did, a `Found`; None traces it.
        shares: for a batch that is a part of a larger one: with which weights (see f_i and b_i / b above) it counts
            there. None for a batch of its own.

    Attributes:
        found: what the loss reads, writes and draws, a `Found`.
        written: the variables besides x that the loss writes, but for counters.
        loss, placement, microbatch_size: the `BatchLoss`, how x gets into the model, and the size of parts.
        rows_bytes: so much memory the rows of a Jacobian may take in a pass, see `rows`. Of the class; set it there, or
            on an objective.

    Raises:
        ValueError: the loss writes a trainable variable, is not a scalar, or depends on none of the variables.
    """

    rows_bytes = ROWS_BYTES
    of_weights = True

    def __init__(
        self,
        model: keras.Model,
        loss: BatchLoss,
        batch: Any,
        vector: VariableVector,
        *,
        microbatch_size: int | None = None,
        observe: Callable[[Any, Any], Any] | None = None,
        counters: Sequence = (),
        note: Callable[[tf.Tensor, tf.Tensor], Any] | None = None,
        found: Found | None = None,
        shares: Sequence | None = None,
    ) -> None:
        self.model, self.loss, self.batch, self.vector = model, loss, batch, vector
        self.microbatch_size = microbatch_size
        self._observe, self._counters, self._note, self._shares = observe, counters, note, shares
        self._known_to_stop: bool | None = None
        self.found = found
        self._passes: dict[Any, Any] = {}  # traces, by what observes them
        self._pure: dict[bool, PureTrace] = {}
        self._unconnected: list[str] = []  # variables without a gradient
        self._opaque_named = False
        self.uncoupled: str | None = None  # why samples have no gradients of their own, "" where they have
        self._masked = False  # whether predictions carry a mask of Keras, by which the loss leaves some out
        self._place()

    def _place(self) -> None:
        """Find how x gets into the model, and what the loss finds there besides: as it is before the first pass."""
        self.found = self.found or self._trace()
        self.written = self.found.written
        self.placement: Assignment | Copies = Assignment(self.vector, self.written)
        self._frozen = self.placement.values()

    def _trace(self):
        """What the loss does, by a trace of it where it can be traced."""
        try:
            graph = self._traced(None if tf.executing_eagerly() else self._observe).graph
        except NEEDS_VALUES:
            if not tf.executing_eagerly():
                raise
            return written.untraced(self.model)
        return written.found_in(graph, self.model, self.vector, self._counters)

    # --- At the point the variables hold ---

    def first_pass(self) -> Evaluated:
        """f and its gradient where the variables are, with the side effects of a training pass.

        Returns:
            f [] and g [n], both at the point before any update.

        Raises:
            ValueError: the loss is not a scalar, or depends on none of the variables.
        """
        result = self._pass(self._observe)
        if self._unconnected:
            warnings.warn(
                f"the loss does not depend on {', '.join(self._unconnected)}; their gradient is taken as zero",
                stacklevel=2,
            )
        return result

    def observe_again(self) -> None:
        """Let `observe` see what it sees in the first pass, without a gradient: for a loss that writes nothing."""

        def forward(part, frozen):
            predictions = self.loss.terms(self.model, part.batch, training=True)[2]
            self._observe(part.batch, predictions)
            return (), frozen

        self._sum_over_parts(forward, [], [])

    def _pass(self, observe=None):
        """f and g at the point the variables hold, by the trace of the loss; as Python where nothing is compiled."""
        watched = observe is not None and tf.executing_eagerly()  # by a caller who may look at values
        if not self.found.traced or watched or tf.config.functions_run_eagerly():
            f, g, *_ = self._f_and_g(observe)
        else:
            f, g, *_ = self._traced(observe)()
        self._check_connected()
        return f, g

    def _check_connected(self):
        if len(self._unconnected) == len(self.vector.layout.names):
            raise ValueError(f"every gradient is None: {INDEPENDENT}")

    def _traced(self, observe=None):
        # A trace that was made outside of a graph is made again in it: XLA wants to know from the beginning.
        key = observe, tf.executing_eagerly()
        if key not in self._passes:
            eager, batch = tf.executing_eagerly(), self.batch

            def traced():
                # Tensors that have values are made such without: a loss that looks at them should not run here.
                self.batch = tf.nest.map_structure(tf.identity, batch, expand_composites=True) if eager else batch
                try:
                    return self._f_and_g(observe)
                finally:
                    self.batch = batch

            self._passes[key] = tf.function(traced, autograph=False).get_concrete_function()
        return self._passes[key]

    def _f_and_g(self, observe=None):
        """f, g and the named terms of the loss."""
        layout, names = self.vector.layout, self.loss.names or ()

        def gradient_of_part(part, frozen):
            with tf.GradientTape() as tape:
                tape.watch(self.vector.native)
                compared, own, predictions = self.loss.terms(self.model, part.batch, training=True)
                self.check_parts(part, predictions)
                f = part.weighted(compared, own)
            outputs = tf.nest.flatten(predictions) if self.loss.composite else ()
            self._masked |= any(getattr(output, "_keras_mask", None) is not None for output in outputs)
            if observe:
                observe(part.batch, predictions)
            gradients = tape.gradient(f, self.vector.native)
            self._unconnected = [name for name, g in zip(layout.names, gradients, strict=True) if g is None]
            missing = len(self._unconnected) == len(layout.names)  # which is an error where the result is asked for
            g = tf.zeros([layout.size], layout.dtype) if missing else layout.pack(gradients)
            terms = [tf.cast(part.weighted_loss(predictions[name]), layout.dtype) for name in names]
            return (tf.cast(f, layout.dtype), g, *terms), frozen

        return self._sum_over_parts(gradient_of_part, [[], [layout.size], *[[] for _ in names]], [])[0]

    # --- At any other point ---

    def value(self, x: tf.Tensor) -> tf.Tensor:
        if self._is_pure():
            return self._purely(x)[0]
        return self._sum_at(x, lambda run: (run.f(),), [[]])[0]

    def value_and_grad(self, x: tf.Tensor) -> Evaluated:
        if self._is_pure():
            f, g, *_ = self._purely(x)
            self._check_connected()
            return f, g
        with self.at(x):
            return self._pass()

    def _is_pure(self):
        """Whether a trace of the loss tells f and g as functions of values, see `trace`: nothing is written then."""
        if not self.found.traced or self.found.opaque or tf.config.functions_run_eagerly():
            return False
        key = tf.executing_eagerly()
        if key not in self._pure:
            graph, names = self._traced().graph, self.vector.layout.names
            handles = [getattr(v, "handle", None) for v in [*self.vector.native, *self.written]]
            self._pure[key] = PureTrace(graph, handles, {i for i, n in enumerate(names) if n in self._unconnected})
        return self._pure[key].exists

    def _purely(self, x):
        """(f, g, *terms) at x [n] by the trace."""
        check_repeatable(self.found)
        pieces = zip(self.vector.native, self.vector.layout.unpack(x), strict=True)
        values = [*(tf.cast(piece, v.dtype) for v, piece in pieces), *self._frozen]
        outputs = self._pure[tf.executing_eagerly()](values)
        if self._note and outputs[2:]:
            self._note(x, tf.stack(outputs[2:]))
        return outputs

    def hvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """H(x) v.

        Differences of gradients replace autodiff where the model stops gradients, as normalisation layers do; see
        `derivatives`. A warning says so once.
        """
        return self._with_hessian(x, lambda product: product(v), x.shape)

    def hvps(self, x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """H(x) v for every row v of `rows` [k, n]: [k, n]. What does not depend on v is computed once."""
        return self._with_hessian(x, lambda product: linalg.map_rows(product, rows), rows.shape)

    def _with_hessian(self, x, use, shape):
        """What `use` makes of the function v -> H(x) v: a tensor of this shape."""
        if not self.stops_gradients(x):
            try:
                return self._sum_at(
                    x, lambda run: (use(derivatives.hessian_product(lambda _: run.f(), x, run.sources)),), [shape]
                )[0]
            except derivatives.NO_GRADIENT:
                pass

        def gradient(z):
            return self.value_and_grad(z)[1]

        return use(lambda v: derivatives.difference_of_gradients(gradient, x, v, self.digits))

    def ggnvp(self, x: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """(2 J'J + R) v at x for residuals r and their J; else (J' L J + R) v with J of the predictions, L of the loss.

        R is the Hessian of the model's own losses. Crossentropies of probabilities are split at the logits, where the
        model's last activation is softmax or sigmoid and the loss computes with the logits that Keras keeps: J is then
        of these, and G is the Fisher matrix.
        """
        return self._sum_at(x, lambda run: (run.curvature()(v),), [x.shape])[0]

    def ggnvps(self, x: tf.Tensor, rows: tf.Tensor, own: bool = True) -> tf.Tensor:
        """`ggnvp` at x [n] for every row of `rows` [k, n]: [k, n]. What does not depend on the row is computed once.

        Args:
            x, rows: as above.
            own: whether R is part of it.
        """
        return self._sum_at(x, lambda run: (linalg.map_rows(run.curvature(own), rows),), [rows.shape])[0]

    def ggn(self, x: tf.Tensor) -> tf.Tensor:
        if self.has_residuals:
            with self.rows(x) as rows:
                return 2 * rows.gram()
        unit_vectors = tf.eye(x.shape[0], dtype=x.dtype)
        return linalg.symmetric(self.ggnvps(x, unit_vectors))

    @property
    def has_residuals(self) -> bool:  # type: ignore[override]
        """Whether f = r'r: `residuals=...`, or a mean squared error, without a mask and losses of the model's own."""
        return self.loss.has_rows and not self.model.losses and not self._masked

    @contextlib.contextmanager
    def rows(self, x: tf.Tensor) -> Iterator[Rows]:
        """A context in which the variables hold x, and there are the `Rows` there.

        Args:
            x: [n].

        Raises:
            ValueError: f is not r'r.
        """
        if not self.loss.has_rows or self._masked:
            raise ValueError(
                "f is no sum of squares over all samples; give residuals=..., or a mean squared error of predictions "
                "without a mask"
            )
        with self.at(x) as sources:
            terms = self.loss.row_terms(self.model, self.batch)
            yield SampleRows(self.loss, terms, x, sources, self.obstacle_to_rows(), self.rows_bytes)
            if self.model.losses:
                raise ValueError(
                    "f is r'r plus the losses of the model's layers (regularizers, add_loss), which have no rows; add "
                    "them as a term, such as the residual lambda model, points: 0.01 * weights"
                )

    def terms(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """The residuals at x [n] by name, as they are returned: without weights, of any shape."""
        if not self.loss.names or not self.loss.has_rows:
            raise ValueError("terms(x) needs residuals by name, residuals={name: function}")
        with self.at(x):
            return {term.name: term.at() for term in self.loss.row_terms(self.model, self.batch)}

    def example_gradients(self, x: tf.Tensor) -> tf.Tensor:
        """e [N, n], the gradient of each of the N samples at x [n], so that g is their plain mean.

        Row i is the gradient of the loss of the batch that has sample i alone, its sample weight and the losses of
        layers included, where the loss is a mean over samples. In general it is the gradient of

            N share_i compare({i}) + own({i})       share_i = 1/N for a mean over samples,
                                                    s_i / sum_j s_j for a mean over sample weights s, 1 for a sum

        Computed in chunks of samples that take at most `rows_bytes` of memory, beside the result.

        Raises:
            ValueError: samples are coupled (batch normalisation in training, a loss that is no mean or sum over
                samples), or the loss draws random numbers: then samples have no gradients of their own.
        """
        return example_gradients.gradients(self, x)

    def example_gradient_norms(self, x: tf.Tensor) -> tf.Tensor:
        """|e_i| [N] at x [n], see `example_gradients`, of which only a chunk is in memory at a time."""
        return example_gradients.norms(self, x)

    @property
    def term_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Of the rows of `term_gradients`: the terms of the loss, or its outputs; the losses of layers come last."""
        return term_gradients.names(self)

    def term_gradients(self, x: tf.Tensor) -> Evaluated:
        """(terms of f [k], their gradients [k, n]) at x [n], in the order of `term_names`.

        Weights are multiplied in: f is the sum of the terms, and g the sum of the rows. One forward pass, and one
        backward pass for each term.
        """
        k = len(self.term_names)
        if not k:
            return super().term_gradients(x)
        return self._sum_at(x, term_gradients.deriving(x), [[k], [k, *x.shape]])

    def first_term_gradients(self) -> Evaluated:
        """What `term_gradients` gives where the variables are, with the side effects of a training pass.

        In place of `first_pass`, for an optimizer that needs both: f is the sum of the terms, g that of the rows.
        """
        x, k = self.vector.read(), len(self.term_names)
        if not k:
            return super().term_gradients(x)
        derive, shapes = term_gradients.deriving(x, self._observe), [[k], [k, *x.shape]]
        with self.placement.here() as sources:
            return self._sum_over_parts(self._deriving(x, sources, derive), shapes, self._frozen)[0]

    def obstacle_to_rows(self) -> str | None:
        """Why the loss cannot be taken for one sample after the other; None where it can."""
        found = self.found
        if found is None or not found.traced:
            return "the loss runs only as Python"
        if found.opaque:
            return "the loss calls Python functions"
        return "the loss writes variables or draws random numbers" if self.written else None

    def at(
        self, x: tf.Tensor, frozen: Sequence | None = None
    ) -> contextlib.AbstractContextManager[derivatives.Sources]:
        """A context in which the variables hold x, and which gives what is differentiated with respect to.

        Args:
            x: [n].
            frozen: values of what the loss writes; None for those before the first pass.

        Raises:
            ValueError: the loss draws random numbers that cannot be repeated.
        """
        if self.found:
            check_repeatable(self.found)
        if self.found and self.found.opaque and not self._opaque_named:
            self._opaque_named = True
            called = ", ".join(f"{name} at {where}" for name, where in self.found.opaque.items())
            warnings.warn(
                f"the loss calls Python functions ({called}) that TensorFlow cannot look into: what they draw or count "
                "is not frozen, and they must give the same result at the same weights",
                stacklevel=3,
            )
        return self.placement.at(x, self._frozen if frozen is None else frozen)

    @property
    def digits(self) -> tf.DType | None:
        """The dtype through which the loss goes that has the fewest digits, if it has fewer than x."""
        return self.found.coarsest if self.found else None

    def stops_gradients(self, x: tf.Tensor) -> bool:
        """Whether second derivatives by autodiff may lack something; a warning says so once.

        Args:
            x: [n].
        """
        if self._known_to_stop is None:
            self._known_to_stop = derivatives.loses_second_derivatives(self._look(x))
            if self._known_to_stop:
                warnings.warn(
                    "the loss stops gradients somewhere (normalisation layers do) or cannot be traced, so second "
                    "derivatives by autodiff may be wrong; Hessian products are taken as differences of gradients, two "
                    "per product",
                    stacklevel=2,
                )
        return self._known_to_stop

    def loses_jacobian(self, x: tf.Tensor) -> bool:
        """Whether J v by autodiff may lack something: a gradient in the model has no gradient and says nothing.

        Args:
            x: [n].
        """
        return bool(self._look(x).stopped.keys() - {"StopGradient"})

    def _look(self, x):
        """What the loss does at x [n]."""
        del x
        return self.found

    # --- Parts of a batch ---

    def _sum_at(self, x, derive, shapes):
        """The sum over all parts of what `derive(run)` makes of each at x: a tuple of tensors of these shapes."""
        with self.at(x) as sources:
            return self._sum_over_parts(self._deriving(x, sources, derive), shapes, self._frozen)[0]

    def _deriving(self, x, sources, derive, still=False):
        """Function (part, frozen) -> (tensors, frozen for the next part), see `_sum_over_parts`."""

        def derive_part(part, frozen):
            run = Run(self, part, frozen, x, sources)
            return derive(run), frozen if still else run.written

        return derive_part

    def check_parts(self, part: Part, predictions: Any) -> None:
        """Raise where the losses of parts do not add up to that of the whole batch.

        Args:
            part: a `Part`.
            predictions: of the model for it.
        """
        is_whole = part.batch is self.batch and self._shares is None
        if not is_whole:
            self.loss.check_parts(predictions, part.batch)

    def _sum_over_parts(self, one, shapes, frozen):
        """Sum of one(part, frozen) -> (tensors, frozen for the next part).

        Args:
            one: function of a `Part` and the values of what the loss writes.
            shapes: of the tensors.
            frozen: these values for the first part; none where the variables themselves carry them.

        Returns:
            (tuple of sums, frozen after the last part).
        """
        if self.microbatch_size is None:
            return one(Part(self.batch, self._shares or (None, None)), frozen)
        size, step = losses.samples(self.batch), tf.constant(self.microbatch_size, tf.int64)

        def add_part(start, total, frozen):
            batch = batches.between(self.batch, start, tf.minimum(start + step, size))
            terms, frozen = one(self._part(batch), frozen)
            terms = (tf.cast(tf.expand_dims(b, 0), a.dtype) for a, b in zip(total, terms, strict=True))
            return start + step, [a + b for a, b in zip(total, terms, strict=True)], frozen

        # Each sum has one more axis than its terms. Otherwise TensorFlow joins this addition with one inside of a term
        # and may store the sum in place, which fails with AlreadyExistsError when a loop runs again (its issue 37740).
        zeros = [tf.zeros([1, *shape], self.vector.layout.dtype) for shape in shapes]
        start = tf.constant(0, tf.int64), zeros, frozen
        _, total, frozen = tf.while_loop(lambda start, *_: start < size, add_part, start, parallel_iterations=1)
        return tuple(tf.squeeze(one, 0) for one in total), frozen

    def _part(self, batch):
        shares = self.loss.share(batch, self.batch), losses.share_of_samples(batch, self.batch)
        if self._shares is not None:
            shares = [times(share, outer) for share, outer in zip(shares, self._shares, strict=True)]
        return Part(batch, shares)


def check_repeatable(found):
    """Raise where a loss, of which a `Found` is known, is another function at every evaluation."""
    if found.random:
        drawn = ", ".join(f"{name} at {where}" for name, where in found.random.items())
        raise ValueError(
            f"the loss draws random numbers that cannot be repeated ({drawn}), so it is another function at every "
            "evaluation; draw with keras.random and a SeedGenerator, or with a layer that has a seed, or use an "
            "optimizer that needs only the gradient"
        )
