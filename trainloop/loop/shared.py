"""What all phases of a loop have in common, made of the arguments of `TrainLoop`."""

import contextlib
import dataclasses
from typing import Any

import keras

from trainloop.distributed import replicas
from trainloop.distributed.replicas import without_strategy
from trainloop.distributed.shards import shard_over
from trainloop.distributed.workers import Workers
from trainloop.hooks.base import Hook
from trainloop.loop import arguments
from trainloop.loop.metrics import MetricSet
from trainloop.objectives.batch_loss import BatchLoss
from trainloop.optimizer import validation
from trainloop.types import Variable
from trainloop.vectors.layout import trained_variables


@dataclasses.dataclass(frozen=True)
class Shared:
    """See the arguments of `TrainLoop`, of which these are checked ones; `workers` are the processes that train."""

    model: keras.Model
    extra_variables: tuple[Variable, ...]
    batch_loss: BatchLoss
    metrics: MetricSet
    test_metrics: MetricSet
    hooks: tuple[Hook, ...]
    microbatch_size: int | None
    replicas: Any
    jit_compile: bool
    eager: bool
    steps_per_call: int | None
    workers: Workers

    @classmethod
    def checked(
        cls,
        model,
        loss,
        metrics,
        *,
        hooks,
        extra_variables,
        microbatch_size,
        jit_compile,
        eager,
        steps_per_call,
    ):
        """Of arguments as they were given.

        Args:
            loss: (loss, loss_fn, residuals, loss_weights).
            metrics: (metrics, weighted_metrics).
            model, hooks, extra_variables, microbatch_size, jit_compile, eager, steps_per_call: as they are called.

        Raises:
            ValueError: see `TrainLoop`.
        """
        hooks = arguments.check_hooks(hooks)
        metrics, weighted = map(arguments.check_metrics, metrics)
        loss, loss_fn, residuals, loss_weights = loss
        batch_loss = arguments.choose_loss(loss, loss_fn, residuals, metrics or weighted, loss_weights, model)
        microbatch_size = arguments.check_microbatches(microbatch_size, jit_compile)
        extra_variables = arguments.check_extra(extra_variables)
        several = replicas.of(model)
        arguments.check_replicas(several, batch_loss, extra_variables)
        jit_compile, eager = arguments.check_engine(jit_compile, eager, several)
        # What only the loop needs exists once per process, and not on every replica.
        metrics = without_strategy(arguments.choose_metrics, metrics, weighted, batch_loss)
        if several:
            validation.synchronized_averages(model)
            metrics = without_strategy(metrics.fresh_copy)
        return cls(
            model=model,
            extra_variables=extra_variables,
            batch_loss=batch_loss,
            metrics=metrics,
            test_metrics=without_strategy(metrics.fresh_copy),
            hooks=hooks,
            microbatch_size=microbatch_size,
            replicas=several,
            jit_compile=jit_compile,
            eager=eager,
            steps_per_call=steps_per_call,
            workers=Workers(several and several.strategy),
        )

    def trained(self):
        """The variables that x consists of."""
        return trained_variables(self.model, self.extra_variables)

    def sharding(self):
        """A context in which large states are sharded, where there are several replicas."""
        return shard_over(self.replicas.strategy) if self.replicas else contextlib.nullcontext()
