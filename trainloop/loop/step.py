"""One step, as it is compiled: to train, to look at, and to test.

To train, in this order:

    1  first pass over the batch: f, every gradient laid end to end into g, and metrics; on a batch that does not change
       f and g that the step before has found where it ended
                                                            objectives/batch_objective.py, vectors/layout.py,
                                                            handed_on.py
    2  finite check, clip, the optimizer's update, finite check, commit
                                                            optimizer/base.py
    3  one row of the log: loss, gradient norm, every scalar of the state, what hooks watch (before the commit), and for
       optimizers that evaluate the objective themselves, the evaluations so far by kind
                                                            watch.py, objectives/counting.py

Loss, gradient and metrics of a step describe the weights *before* its update. A failed step writes nothing, neither
weights nor averages nor counters. To look at a step is 1 and 2 without metrics and commit.

For a model made under a `tf.distribute` strategy every replica does 1 on its part of the batch, and one all-reduce
gives f and g to all (objectives/replicated.py).
"""

import contextlib
import functools

import numpy as np
import tensorflow as tf

from trainloop.distributed.replicas import without_strategy
from trainloop.loop import nonfinite
from trainloop.loop.failures import in_one_line
from trainloop.loop.handed_on import HandedOn
from trainloop.loop.terms import NotedTerms, TermLog
from trainloop.loop.watch import Watches
from trainloop.objectives import losses
from trainloop.objectives.batch_objective import NEEDS_VALUES, BatchObjective
from trainloop.objectives.counting import KINDS, Counted, Evaluations
from trainloop.objectives.placement import kept, read
from trainloop.objectives.repeatability import check_same_again
from trainloop.objectives.replicated import ReplicatedObjective
from trainloop.objectives.side_effects import LastStep, SideEffects
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status


class Steps:
    """What a block repeats: functions of a `Batch`.

    Args:
        model: a Keras model.
        vector: the `VariableVector` of everything that is trained.
        optimizer: built for it.
        batch_loss: a `BatchLoss`.
        metrics, test_metrics: `MetricSet`s, of training and of tests.
        hooks: those that define `watch` see every step.
        microbatch_size: see `BatchObjective`.
        replicas: `Replicas`, or None for a single one.
        eager: steps will run as Python.
        evaluations: `Evaluations` to count in; None makes some for optimizers that evaluate the objective themselves.

    Attributes:
        vector: as given.
        evaluations: `Evaluations` so far; None where they are not counted.
        columns: NumPy dtypes of the row of `train` by name. Those of the terms of a loss are missing where a trace has
            to tell them, until `learn_terms`.
        test_columns: names of the row of `test`, likewise.
    """

    def __init__(
        self,
        model,
        vector,
        optimizer,
        batch_loss,
        metrics,
        test_metrics,
        *,
        hooks,
        microbatch_size,
        replicas=None,
        eager=False,
        evaluations=None,
    ):
        self._model, self._optimizer, self._batch_loss = model, optimizer, batch_loss
        self._metrics, self._test_metrics = metrics or None, test_metrics or None
        self._microbatch_size, self._replicas = microbatch_size, replicas
        self.vector = vector
        evaluates = isinstance(optimizer, GlobalObjectiveOptimizer)
        self.evaluations = evaluations or (without_strategy(Evaluations) if evaluates else None)
        self.columns = {"samples": np.dtype("int64"), **optimizer.log_dtypes()}
        if self.evaluations:
            self.columns |= {f"evaluations/{kind}": np.dtype("int64") for kind in KINDS}
        self._last_step = without_strategy(LastStep, self.vector) if evaluates else None
        # Metrics are counted in the first pass.
        self._by_terms = optimizer.uses_term_gradients and replicas is None
        self._may_hand_on = evaluates and replicas is None and not metrics and not self._by_terms
        self.handed_on = HandedOn(self.vector)
        self._eager, self._found, self._written = eager, None, []
        watches = Watches(hooks, optimizer, self.vector, self.columns, eager)
        self.columns |= watches.columns
        self._watches = watches or None
        self.test_columns, self._terms, self._noted = ["samples", "loss"], None, None
        self._log_terms()

    def train(self, batch):
        """Take one step.

        Args:
            batch: a `Batch`.

        Returns:
            (status int32 [], row float64 [columns]).
        """
        if self._terms:
            self._terms.begin()
        if self._noted:
            self._noted.begin()
        objective = self._objective(batch, self._metrics)
        effects = SideEffects([*objective.written, *(self._metrics.variables if self._metrics else ())])
        if self._last_step:
            self._last_step.begin(objective.written)
        counted = Counted(objective, self.evaluations) if self.evaluations else objective
        others = self._handed_on_by(batch, objective)
        values = read(others or ())
        if self._by_terms:
            first = counted.first_pass_by_terms(self.vector.read())
        else:
            first = counted.first_pass() if others is None else self._first(counted, objective, others, values)
        if self._last_step:  # the optimizer compares values
            is_first = tf.equal(self._optimizer.iterations.value, 0)
            check_same_again(objective, first[0], self.vector.read(), is_first)
        status, logs, evaluated = self._optimizer.step(counted, first, self._watches)
        if others is not None:
            self.handed_on.keep(evaluated, values, status)
            if self._noted:
                self._noted.keep(self.vector.read())
        effects.undo_where(status < 0)
        logs = {"samples": batch.samples(), **logs, **(self._terms.read() if self._terms else {})}
        if self.evaluations:
            logs |= {f"evaluations/{kind}": count for kind, count in self.evaluations.read().items()}
        return status, tf.stack([tf.cast(logs[name], tf.float64) for name in self.columns])

    def _handed_on_by(self, batch, objective):
        """The other variables that f depends on, where a step may hand f and g on to the next; else None."""
        if self._replicas:  # the batch is theirs, in parts
            return None
        found = objective.found
        repeatable = found.traced and not (found.random or found.opaque or objective.written)
        if not (self._may_hand_on and batch.fixed and repeatable):
            return None
        # To compare more than x has would cost more than it saves, and a variable without a shape cannot be compared.
        sizes = None if found.others is None else [v.shape.num_elements() for v in found.others]
        if sizes is None or None in sizes or sum(sizes) > self.vector.layout.size:
            return None
        return found.others

    def _first(self, counted, objective, others, values):
        """f and g at x: those that were handed on, or by a first pass; with the terms of the log."""

        def look():
            self.evaluations.add(f=1)
            objective.observe_again()

        def known():
            if self._terms:
                tf.cond(self._noted.known(), lambda: self._terms.put(self._noted.kept), look)
            return self.handed_on.read()

        f, g = tf.cond(self.handed_on.counts(others, values), known, counted.first_pass)
        return tf.ensure_shape(f, []), tf.ensure_shape(g, [self.vector.layout.size])

    def before_block(self, feed):
        """In Python, before a block on the batches of a feed."""
        if self._may_hand_on:
            self.handed_on.prepare(feed)

    def results(self):
        """At the end of a block: values of the metrics by name."""
        self.handed_on.end_block()
        return self._metrics.results() if self._metrics else {}

    def propose(self, batch):
        """The `ProposedStep` on a batch, which leaves everything as it was."""
        objective = self._objective(batch)
        effects = SideEffects(objective.written)
        step = self._optimizer.propose(objective, objective.first_pass())
        effects.undo()
        return step

    def test(self, batch):
        """Loss, its terms and metrics of a batch in inference mode: (RUNNING, row [test_columns])."""
        row = [batch.samples(), *self._test_loss(batch)]
        return tf.constant(Status.RUNNING, tf.int32), tf.stack([tf.cast(number, tf.float64) for number in row])

    def learn_terms(self, feed):
        """Find out which terms the loss has, if that is not known, by a trace of it on batches like those of a feed."""
        if self._batch_loss.names is None and self._replicas is None:

            def trace(source):
                self._batch_loss(self._model, type(feed).batch(source, tf.constant(0))[1](), training=True)

            try:
                tf.function(trace, autograph=False).get_concrete_function(feed.source())
            except NEEDS_VALUES:
                if not self._eager:
                    raise
                feed.hold()
                with kept([*self.vector.native, *(v.value for v in self._model.non_trainable_variables)]):
                    trace(feed.source())
            self._log_terms()

    def _log_terms(self):
        names = self._batch_loss.names
        if not names:
            return
        self._terms = without_strategy(TermLog, names)
        if self._may_hand_on:
            self._noted = without_strategy(NotedTerms, self.vector.layout.size, self.vector.layout.dtype, len(names))
            self.handed_on.see_terms(self._noted.kept)
        self.columns |= dict.fromkeys(self._terms.columns, np.dtype("float64"))
        self.test_columns += self._terms.columns

    def first_nonfinite(self, tensors):
        """Where the first number arises that is not finite, as a message; None where it is not found.

        Args:
            tensors: of the batch of a step that failed; None where it cannot be had again.
        """
        if tensors is None:
            return None
        try:
            with kept(self._written):
                return nonfinite.first_nonfinite(
                    self._model, self._batch_loss, tensors, self.vector, self._microbatch_size
                )
        except tf.errors.OpError:  # such as too little memory outside of compiled code: the failure itself comes first
            return None

    def _test_loss(self, batch):
        if self._replicas:
            return [self._replicated(batch, self._test_metrics).inference_pass()]
        tensors = batch()
        f, predictions = self._batch_loss(self._model, tensors, training=False)
        if self._test_metrics:
            self._test_metrics.update(tensors, predictions)
        return [f, *(predictions.values() if self._terms else ())]

    def _objective(self, batch, metrics=None):
        if self._replicas:
            return self._replicated(batch, metrics, self._microbatch_size)
        tensors = batch()
        objective = BatchObjective(
            self._model,
            self._batch_loss,
            tensors,
            self.vector,
            microbatch_size=self._microbatch_size,
            observe=functools.partial(self._observe, metrics, tensors) if metrics or self._terms else None,
            note=self._noted and self._noted.note,
            counters=[*(metrics.variables if metrics else ()), *(self._terms.variables if self._terms else ())],
            found=self._found,
        )
        if self._eager:
            self._found = objective.found  # one trace for all steps
        self._written = objective.written
        return objective

    def _observe(self, metrics, batch, part, predictions):
        """Count a part of a batch: its metrics, or the terms of its loss."""
        parts = self._microbatch_size is not None
        share = self._batch_loss.share(part, batch) if parts else 1.0
        if self._terms:
            self._terms.add(predictions, share)
        if metrics and parts:
            of_samples = losses.share_of_samples(part, batch)
            metrics.update(part, predictions, tf.cast(share, of_samples.dtype) / of_samples)
        elif metrics:
            metrics.update(part, predictions)

    def _replicated(self, batch, metrics, microbatch_size=None):
        return ReplicatedObjective(
            self._replicas, self._model, self._batch_loss, batch, self.vector, microbatch_size, metrics
        )

    @contextlib.contextmanager
    def undisturbed(self):
        """A context, outside of compiled code: an exception inside leaves the model as it was before the last step."""
        try:
            with in_one_line(), self._last_step.put_back() if self._last_step else contextlib.nullcontext():
                yield
        except BaseException:
            self.handed_on.forget()
            raise
