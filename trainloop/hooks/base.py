"""Work done between steps: logging, saving, stopping; and looks into every step.

A hook says *when* by `every_steps` and by which methods it overrides, and does its work there. Hooks run in
Python between two compiled blocks; the loop ends a block exactly where a hook wants to be called, so
`every_steps` is met to the step, whatever the length of blocks.

`watch` is the exception: it becomes part of the compiled step and adds columns to its log, see `loop/watch.py`.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np

from trainloop import checks
from trainloop.checkpoints.resumable import Resumable
from trainloop.objectives.batch_loss import BatchLoss
from trainloop.optimizer.base import WholeVectorOptimizer
from trainloop.optimizer.proposed_step import ProposedStep
from trainloop.results import RunResult
from trainloop.status import Status
from trainloop.types import Scalar, Variable


class LoopProtocol(Protocol):
    """What a hook may see of the `TrainLoop` that calls it.

    Attributes:
        model, extra_variables, batch_loss: of the loop.

    Examples:
        >>> class StopAtNight(Hook):
        ...     def on_start(self, loop):
        ...         self.loop = loop
        ...
        ...     def on_block(self, progress):
        ...         if time.localtime().tm_hour < 6:
        ...             self.loop.stop("it is night")
    """

    model: keras.Model
    extra_variables: tuple[Variable, ...]
    batch_loss: BatchLoss

    @property
    def optimizer(self) -> WholeVectorOptimizer:
        """The optimizer, built. Ask for it when it is needed: every phase of a loop has another one."""

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes files."""

    def stop(self, reason: str) -> None:
        """Ask the run to end after this block.

        Args:
            reason: becomes the message of the result.
        """

    def chief_says(self, value: Any) -> Any:
        """Broadcast a value from the chief. All workers must call this at the same point.

        Args:
            value: the value, JSON-able; that of the chief is returned.
        """

    def resumable(self) -> Resumable:
        """What a checkpoint is made of."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands between two blocks.

    Attributes:
        step: steps the optimizer has taken in its life.
        epoch: the epoch that the last block belongs to, counted from 1.
        epoch_step: steps taken of that epoch; `steps_per_epoch`: how many it has, None if not known.
        run_step: steps taken in this run; `run_steps`: how many it will take, None if not known.
        seconds: since the run began.
        logs: the last block: one array entry per step under "step", "epoch", "samples", "loss", "grad_norm",
            every scalar of the state, what hooks watch, and what `Measure` finds, NaN where nothing was measured.
        metrics: the metrics over the epoch so far.
        measured: the newest number of every column of `Measure`, NaN before the first.

    Examples:
        >>> class Say(Hook):
        ...     def on_step(self, progress):
        ...         print(f"step {progress.step}: loss {progress.logs['loss'][-1]:.3f}")
        ...
        >>> result = TrainLoop(model, Adam(), loss, hooks=[Say(every_steps=2)]).run((x, y), epochs=4)
    """

    step: int
    epoch: int
    epoch_step: int
    steps_per_epoch: int | None
    run_step: int
    run_steps: int | None
    seconds: float
    logs: dict[str, np.ndarray]
    metrics: dict[str, float]
    measured: dict[str, float] = dataclasses.field(default_factory=dict)


class Hook:
    """Base of all hooks. Every method does nothing until a subclass overrides it.

    Args:
        every_steps: call `on_step` after each step whose number is a multiple of this; None for never.

    Attributes:
        chief_only: True for hooks that write files or to a screen. Where several processes train together, only the
            first one calls them.
        monitors: names of the numbers that it looks up in the epochs' summaries. `TrainLoop.run` raises before the
            first step where no summary will have one of them.
        adds: names of the numbers that its `on_epoch` puts into the summaries, for hooks after it.
        only_records: True for hooks whose `on_epoch` looks at nothing but the summary and asks for nothing. Where an
            epoch is one step, it is then called for several epochs at the end of a block.

    Examples:
        >>> class StepLength(Hook):
        ...     def watch(self, step):
        ...         return {"step_length": tf.norm(step.x_new - step.x)}
        ...
        >>> TrainLoop(model, Adam(), loss, hooks=[StepLength()]).run((x, y), epochs=2).history["step_length"]
    """

    chief_only = False
    monitors: Sequence[str] = ()
    adds: Sequence[str] = ()
    only_records = False
    every_steps: int | None = None  # also for subclasses whose constructor does not call this one

    def __init__(self, every_steps: int | None = None) -> None:
        self.every_steps = (
            every_steps if every_steps is None else checks.integer("every_steps", every_steps, at_least=1)
        )

    def watch(self, step: ProposedStep) -> dict[str, Scalar]:
        """What is worth logging about every step: traced into the compiled one, so tensors in, tensors out.

            def watch(self, step):
                return {"step_length": tf.norm(step.x_new - step.x)}

        Args:
            step: a `ProposedStep`.

        Returns:
            dict of tensors [] by name, or of Python numbers. They become columns of `Progress.logs`, of
            `RunResult.history`, of files and displays, beside the scalars of the optimizer's state. Names must be new.
        """
        return {}

    def on_start(self, loop: LoopProtocol) -> None:
        """Before the first step. Keep `loop` to read its `model` and `optimizer` or to call `stop(reason)`."""

    def on_block(self, progress: Progress) -> None:
        """After every block of steps; `progress.logs` has all its steps: none where a dataset turned out to have ended,
        or the only step was skipped."""

    def on_step(self, progress: Progress) -> None:
        """After every `every_steps`-th step exactly, whose numbers are the last ones in `progress.logs`."""

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        """After every epoch, validation included.

        Args:
            progress: a `Progress`.
            summary: dict of numbers: the epoch's entry in `RunResult.epochs`.
        """

    def on_rest(self, progress: Progress, status: Status) -> None:
        """After every block when all other hooks, the validation and the log are done with it: the place to save.

        Args:
            progress: a `Progress`.
            status: a `Status`: RUNNING, or how the run is about to end.
        """

    def on_end(self, result: RunResult) -> None:
        """After the last step, and also when the run fails or is interrupted: the place to close files.

        Args:
            result: the `RunResult` so far.
        """

    def state(self) -> dict[str, Any]:
        """What this hook has to remember when the run is interrupted: dict of JSON-able values and NumPy arrays.

        As everywhere in JSON, keys of dicts come back as strings and tuples as lists.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Be as this hook was when `state` returned this dict. Called before `on_start`, or in the midst of a run.

        Weights and the optimizer's state are put back after it.
        """


def end_all(hooks, result):
    """Call `on_end` of every hook, also when one of them raises."""
    with contextlib.ExitStack() as ends:
        for hook in reversed(hooks):
            ends.callback(hook.on_end, result)
