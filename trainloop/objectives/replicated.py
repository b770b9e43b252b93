"""f of a model on one batch that is distributed over replicas: each takes its part, one all-reduce adds them up.

Every replica is to the batch what a microbatch is (see `model`), so the sums are those of the whole batch:

    f = sum_r share_r compare_r + sum_r (b_r / b) own_r         b_r samples on replica r, b in the whole

What is needed to branch on (f, slopes, norms) is known only after the sum, and then it is the same everywhere. So line
searches and trust regions take the same turns on all replicas.

x is written into the copy of the variables that a replica has, see `placement`; everything else that the loss would
write is substituted, so the first pass runs without side effects too. The averages of BatchNormalization become the
mean over the replicas, each with the share of its samples, and counters of metrics the sum; both ride along with the
gradient. Dropout seeds advance on all replicas alike.
"""

import functools

import tensorflow as tf

from trainloop.distributed.replicas import Share
from trainloop.objectives import losses
from trainloop.objectives.base import Objective
from trainloop.objectives.batch_objective import check_repeatable
from trainloop.objectives.finder import find
from trainloop.objectives.replica import ReplicaObjective


class ReplicatedObjective(Objective):
    """A model, a loss and one batch on several replicas.

    Args:
        replicas: a `Replicas`.
        model: a built Keras model.
        loss: a `BatchLoss`.
        batch: the `Batch` of a feed.
        vector: the `VariableVector` of the model's trainable variables.
        microbatch_size: at most this many samples at a time on a replica; None for all at once.
        metrics: a `MetricSet` to count the first pass in; None for no metrics.

    Attributes:
        found: what the last trace of it did, a `Found`; None before.
    """

    def __init__(self, replicas, model, loss, batch, vector, microbatch_size=None, metrics=None):
        self._replicas, self._vector, self._metrics = replicas, vector, metrics
        self.found = None
        self._others = list(getattr(model, "non_trainable_variables", ()))
        self._new = functools.partial(ReplicaObjective, model, loss, vector=vector, microbatch_size=microbatch_size)
        whole = batch()
        samples = batch.samples()

        def part(index):
            share = Share(index, replicas.count)
            part, has_any = batch(share), share(samples)[-1]
            shares = loss.share(part, whole, samples), losses.share_of_samples(part, whole, samples)
            return part, [tf.cast(has_any, tf.float64) * tf.cast(s, tf.float64) for s in shares], has_any

        # Once for all evaluations.
        self._parts, self._frozen = replicas.distribute(part), [tf.identity(v) for v in self._others]

    @property
    def digits(self):
        """The dtype through which the loss goes that has the fewest digits, if it has fewer than x."""
        return self.found and self.found.coarsest

    @property
    def written(self):
        """The variables that the first pass writes."""
        return [v.value for v in self._others]

    def first_pass(self):
        """f and its gradient where the variables are, with the side effects of a training pass: f [] and g [n]."""
        x, moves = self._vector.read(), [v.value.dtype.is_floating for v in self._others]

        def pure_pass(here, share, x):
            sums, written = here.pure_pass(x, self._metrics)
            moved = [tf.cast(share, w.dtype) * w for w, floating in zip(written, moves, strict=True) if floating]
            return (*sums, moved), [w for w, floating in zip(written, moves, strict=True) if not floating]

        (f, g, measured, moved), same = self._sum(pure_pass, x)
        moved, same = iter(moved), iter(same)
        for variable, floating in zip(self._others, moves, strict=True):
            variable.assign(next(moved if floating else same))
        if self._metrics:
            self._metrics.add(measured)
        return f, g

    def inference_pass(self):
        """f in inference mode, as a float tensor []; metrics are counted."""
        derive = lambda here, _, x: (here.inference_pass(x, self._metrics), ())  # noqa: E731
        f, measured = self._sum(derive, self._vector.read())[0]
        if self._metrics:
            self._metrics.add(measured)
        return f

    def value(self, x):
        return self._sum_of(ReplicaObjective.value, x)

    def value_and_grad(self, x):
        return self._sum_of(ReplicaObjective.value_and_grad, x)

    def hvp(self, x, v):
        return self._sum_of(ReplicaObjective.hvp, x, v)

    def ggnvp(self, x, v):
        return self._sum_of(ReplicaObjective.ggnvp, x, v)

    def term_gradients(self, x):
        raise ValueError("the gradients of terms are computed on one device; make the model outside of a strategy")

    def ggn(self, x):
        return self._sum_of(ReplicaObjective.ggn, x)

    def _sum_of(self, derive, *points):
        """An evaluation at another point, which has to be the same function as the first pass."""
        return self._sum(lambda here, _, *points: (derive(here, *points), ()), *points, check=self._check_repeatable)[0]

    def _sum(self, derive, *points, check=None):
        """Sums over the replicas.

        Args:
            derive: function (`ReplicaObjective` of its part, b_r / b, *points) -> (tensors to sum, tensors that
                are the same everywhere).
            *points: tensors.
        """

        def one(part, frozen, *points):
            batch, shares, has_any = part
            tensors, same = derive(self._new(batch=batch, shares=shares, frozen=frozen), shares[1], *points)
            return tf.nest.map_structure(lambda t: tf.where(has_any, t, tf.zeros_like(t)), tensors), same

        arguments, dtype = (self._parts, self._frozen, *points), self._vector.layout.dtype
        variables = [*self._vector.native, *(v.value for v in self._others)]
        try:
            return self._replicas.sum(one, arguments, dtype, check or self._check_own_variables, variables)
        except AssertionError as error:
            if "have been deleted" not in str(error):
                raise
            raise ValueError(
                "on several replicas the loss must not write variables of its own, and it makes one when it is called: "
                "give keras.random a SeedGenerator, or train on one device"
            ) from error

    def _check_repeatable(self, graph):
        self._check_own_variables(graph)
        check_repeatable(self.found)

    def _check_own_variables(self, graph):
        """Raise where the loss writes other variables than those of x, or keeps values of another evaluation."""
        if any(map(tf.is_symbolic_tensor, [outside for outside, _ in graph.captures])):
            # A tf.function that was traced in another evaluation keeps the values of that one.
            raise ValueError(
                "on several replicas a tf.function in the loss must not call layers with averages or seeds, such as "
                "BatchNormalization and Dropout; call the layers directly, or train on one device"
            )
        own = {id(copy.handle) for variable in self._vector.native for copy in variable.values}
        self.found = find(graph)
        if written := self.found.writes.keys() - own:
            raise ValueError(
                f"on several replicas the loss must not write variables of its own ({len(written)} are written); "
                "make them with layer.add_weight(trainable=False), or train on one device"
            )
