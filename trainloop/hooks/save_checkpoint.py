"""When a run is saved."""

import logging
import time
from collections.abc import Callable
from typing import Any

from trainloop import checks
from trainloop.checkpoints import contents
from trainloop.checkpoints.files import CheckpointFolder
from trainloop.distributed.shards import take_part
from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.hooks.monitor import Monitor, direction
from trainloop.hooks.outage import Outage
from trainloop.results import RunResult
from trainloop.status import Status
from trainloop.types import Path

_LOG = logging.getLogger("trainloop")


class SaveCheckpoint(Hook):
    """Writes checkpoints from which a run continues as if nothing had happened, bit for bit.

    A run is saved between two blocks, when everything else is done with a step: after the validation, after the lines
    of metrics.jsonl. So a checkpoint is complete, and when one is written changes no result. Where one cannot be
    written (a full disk) a warning says so once, the next ones are tried all the same, and the run continues.

    Args:
        folder: for checkpoints, and nothing else.
        every_steps: after each step whose number is a multiple of this; None for never.
        every_minutes: as soon as so many minutes have passed since the last one; None for never.
        keep: how many of the last ones are kept, at least 1.
        monitor: name of a metric of the epochs' summaries, such as "val_loss": an epoch that is better than all before
            it is saved at once, and kept until a better one comes. None for no such thing.
        clock: function returning seconds.
        larger_is_better: whether larger values of `monitor` are better; None finds out by its name.
        mode: "min", "max" or "auto", which Keras has in place of `larger_is_better`.

    A run that ends without a failure is saved at its end in any case.

    Raises:
        ValueError: when the run starts: the position in its data cannot be saved, or the folder has checkpoints of
            another run.

    Examples:
        >>> loop = TrainLoop(model, TestGD(), loss, hooks=[SaveCheckpoint("checkpoints", every_minutes=1)])
        >>> loop.restore("checkpoints")  # None at the first start
        >>> result = loop.run((x, y), epochs=5)
    """

    def __init__(
        self,
        folder: Path,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 3,
        monitor: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        larger_is_better: bool | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(every_steps)
        self.folder = CheckpointFolder(folder)
        if every_minutes is not None:
            every_minutes = checks.real("every_minutes", every_minutes, above=0)
        self._every_seconds = every_minutes and 60 * every_minutes
        self._keep = checks.integer("keep", keep, at_least=1)
        self._monitor = Monitor(monitor, direction(larger_is_better, mode)) if monitor else None
        self.monitors = (monitor,) if monitor else ()
        self.only_records = monitor is None
        self._best_step: int | None = None
        self._saved_step: int | None = None
        self._better, self._clock = False, clock
        self._outage = Outage(f"checkpoints in {folder}")

    def on_start(self, loop: LoopProtocol) -> None:
        self._loop, self._saved_at = loop, self._clock()
        if not loop.is_chief:
            return
        run = loop.resumable().run
        self.folder.begin(run.step)
        try:
            run.feed.state()  # what cannot be saved should show now
        except OSError as error:
            self._outage.began(error)
        steps = self.folder.steps()
        self._saved_step = steps[-1] if steps else None

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        if self._monitor:
            self._better |= self._monitor.is_better(summary)

    def on_rest(self, progress: Progress, status: Status) -> None:
        is_new = self._better or progress.step != self._saved_step
        due = not status.failed and is_new and self._is_due(progress.step, status)
        if self._loop.chief_says(due):
            self.save(progress.step)

    def save(self, step: int) -> None:
        """Write a checkpoint now, in place of one of this step. Only between blocks.

        The chief of several workers writes it; the others help to gather what is sharded over all of them.
        """
        if not self._loop.is_chief:
            take_part(self._loop.resumable().variables())
            return
        best_before = self._best_step
        if self._better:
            self._best_step = step  # before it is written, because it is part of what is
        try:
            contents.save(self.folder, self._loop.resumable())
        except OSError as error:
            self._best_step = best_before
            self._outage.began(error, f"the checkpoint of step {step} was not written ({error}); {self._last()}")
        else:
            self._saved_step = step
            self._outage.over()
            self._prune()
        self._saved_at, self._better = self._clock(), False

    def on_end(self, result: RunResult) -> None:
        missing = self._outage.error is not None and self._saved_step != result.step
        self._outage.ended(f"that of step {result.step}, {self._last()}" if missing else "")

    def _last(self):
        return "there is none yet" if self._saved_step is None else f"the last one is of step {self._saved_step}"

    def _prune(self):
        try:
            self.folder.prune(self._keep, self._best_step)
        except OSError as error:
            _LOG.warning("old checkpoints in %s were not removed (%s); the run continues", self.folder.path, error)

    def went_back_to(self, step: int) -> None:
        """After a rollback: what comes after this step is to be saved again."""
        self._saved_step, self._better = step, False

    def state(self) -> dict[str, Any]:
        return {"best_step": self._best_step, "monitor": None} | (self._monitor.state() if self._monitor else {})

    def load_state(self, state: dict[str, Any]) -> None:
        same = self._monitor is not None and self._monitor.load_state(state)
        self._best_step, self._better = state["best_step"] if same else None, False

    def _is_due(self, step, status):
        return (
            self._better
            or status != Status.RUNNING
            or (self.every_steps is not None and step % self.every_steps == 0)
            or (self._every_seconds is not None and self._clock() - self._saved_at >= self._every_seconds)
        )
