"""f of one replica's part of a batch, as `ReplicatedObjective` adds it up."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainloop.objectives import derivatives
from trainloop.objectives.batch_objective import INDEPENDENT, BatchObjective
from trainloop.objectives.finder import find
from trainloop.objectives.placement import Copies, first_copy
from trainloop.types import Evaluated


class ReplicaObjective(BatchObjective):
    """A `BatchObjective` on the copies of the variables that a replica has; nothing but these is written.

    Args:
        model, loss, batch, vector, microbatch_size, shares: see `BatchObjective`.
        frozen: the values of the non-trainable variables, which Keras is given instead of them, see `placement`.
    """

    def __init__(self, *given: Any, frozen: Sequence, **options: Any) -> None:
        self._frozen = frozen
        super().__init__(*given, **options)

    def _place(self):
        self.written = []
        self.placement = Copies(self.vector, list(getattr(self.model, "non_trainable_variables", ())))

    def _is_pure(self):
        return False

    def value_and_grad(self, x: tf.Tensor) -> Evaluated:
        def derive(run):
            f, g = derivatives.value_and_grad(lambda _: run.f(), x, run.sources)
            if g is None:
                raise ValueError(INDEPENDENT)
            return f, g

        return self._sum_at(x, derive, [[], x.shape])

    def _look(self, x):
        # A trace is made on request only; with the gradient, whose operations may be those that have none.
        if self.found is None:
            traced = tf.function(self.value_and_grad, autograph=False)
            graph = traced.get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph
            self.found = find(graph, {id(first_copy(variable).handle) for variable in self.vector.native})
        return self.found

    def pure_pass(self, x: tf.Tensor, metrics: Any = None) -> tuple:
        """What `first_pass` does, without side effects.

        Args:
            x: [n], what the variables hold.
            metrics: a `MetricSet`, or None.

        Returns:
            (f [], g [n], what the batch adds to the counters of the metrics [k]), and the new values of the model's
            non-trainable variables.
        """

        def derive(run):
            with run.sources.recorded() as tape:
                f, predictions = run.f_and_predictions()
            g = run.sources.gradient(tape, f)
            if g is None:
                raise ValueError(INDEPENDENT)
            return f, g, _measured(metrics, run.part, predictions)

        with self.placement.here() as sources:
            shapes = [[], x.shape, [metrics.size if metrics else 0]]
            return self._sum_over_parts(self._deriving(x, sources, derive), shapes, self._frozen)

    def inference_pass(self, x: tf.Tensor, metrics: Any = None) -> tuple:
        """(f [] in inference mode, what the batch adds to the counters of the metrics [k]) at x [n], which is there."""

        def derive(run):
            f, predictions = run.f_and_predictions(training=False)
            return f, _measured(metrics, run.part, predictions)

        with self.placement.here() as sources:
            shapes = [[], [metrics.size if metrics else 0]]
            return self._sum_over_parts(self._deriving(x, sources, derive, still=True), shapes, self._frozen)[0]


def _measured(metrics, part, predictions):
    return metrics.measure(part.batch, predictions, part.factor) if metrics else tf.zeros([0])
