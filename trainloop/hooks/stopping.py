"""Hooks that end a run, and one that chooses the weights it ends with."""

from typing import Any

import numpy as np

from trainloop import checks
from trainloop.hooks.base import Hook, LoopProtocol, Progress
from trainloop.hooks.monitor import Monitor, direction
from trainloop.results import RunResult


class EarlyStopping(Hook):
    """Ends a run when a number of the epochs' summaries has not become better for a while.

    The best value and the count of epochs since go on when a loop runs again; for a fresh start make a new loop with a
    new hook.

    Args:
        monitor: its name, such as "val_loss".
        patience: so many epochs in a row without improvement end the run, at least 1.
        by: what counts as an improvement must be larger than this; Keras calls it `min_delta`.
        larger_is_better: None finds out by the name.
        min_delta: another name of `by`.
        mode: "min", "max" or "auto", which Keras has in place of `larger_is_better`.

    Examples:
        >>> loop = TrainLoop(model, Adam(0.01), loss, hooks=[EarlyStopping("loss", patience=2, by=0.5)])
        >>> len(loop.run((x, y), epochs=100).epochs["loss"])
        3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        by: float = 0.0,
        larger_is_better: bool | None = None,
        *,
        min_delta: float | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__()
        by = checks.one_of_two("by", by, "min_delta", min_delta, 0.0)
        self._monitor = Monitor(monitor, direction(larger_is_better, mode), by)
        self.monitors = (self._monitor.name,)
        self._patience = checks.integer("patience", patience, at_least=1)
        self._epochs = 0

    def on_start(self, loop: LoopProtocol) -> None:
        self._loop = loop

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        self._epochs = 0 if self._monitor.is_better(summary) else self._epochs + 1
        if self._epochs >= self._patience:
            name, best = self._monitor.name, self._monitor.best
            self._loop.stop(f"{name} was not better than {best} for {self._epochs} epochs")

    def state(self) -> dict[str, Any]:
        return {"epochs": self._epochs, **self._monitor.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._epochs = state["epochs"] if self._monitor.load_state(state) else 0


class StopWhen(Hook):
    """Ends a run when the loss is low enough, or a budget is spent, whichever comes first.

    It looks after every block, whose length depends on the speed of the machine; with `every_steps` after exactly these
    steps. Losses belong to the weights before their step.

    Args:
        f_target: a finite loss of a batch of at most this, at any step since the last look, ends the run.
        seconds: wall clock of the run, what it took before an interruption included.
        evaluations: of the objective, over the life of the optimizer, earlier runs included. For optimizers that do not
            count them it is one per step.
        every_steps: see above.

    Raises:
        ValueError: no condition, or one out of range.

    Examples:
        >>> loop = TrainLoop(model, Adam(0.01), loss, hooks=[StopWhen(f_target=100.0, seconds=3600)])
        >>> loop.run((x, y), epochs=1000).message
        'the loss is at most f_target = 100'
    """

    def __init__(
        self,
        f_target: float | None = None,
        seconds: float | None = None,
        evaluations: int | None = None,
        *,
        every_steps: int | None = None,
    ) -> None:
        super().__init__(every_steps)
        if f_target is None and seconds is None and evaluations is None:
            raise ValueError("StopWhen needs f_target=..., seconds=... or evaluations=...; received none of them")
        self._f_target = None if f_target is None else checks.real("f_target", f_target)
        self._seconds = None if seconds is None else checks.real("seconds", seconds, above=0)
        self._evaluations = None if evaluations is None else checks.integer("evaluations", evaluations, at_least=1)
        self._met = False  # whether the target was met since the last look

    def on_start(self, loop: LoopProtocol) -> None:
        self._loop = loop

    def on_block(self, progress: Progress) -> None:
        if self._f_target is not None:
            losses = progress.logs["loss"]
            self._met |= bool(np.any(np.isfinite(losses) & (losses <= self._f_target)))
        if self.every_steps is None or progress.step % self.every_steps == 0:
            for reason in self._reasons(progress):
                self._loop.stop(reason)
            self._met = False

    def on_end(self, result: RunResult) -> None:
        self._met = False  # what a later run looks for, it has to find itself

    def state(self) -> dict[str, Any]:
        return {"met": self._met}

    def load_state(self, state: dict[str, Any]) -> None:
        self._met = state["met"]

    def _reasons(self, progress):
        counts = progress.logs.get("evaluations/f", progress.logs["step"])
        if self._met:
            yield f"the loss is at most f_target = {self._f_target:g}"
        if self._seconds is not None and progress.seconds >= self._seconds:
            yield f"{self._seconds:g} seconds are over"
        if self._evaluations is not None and len(counts) and counts[-1] >= self._evaluations:
            yield f"{self._evaluations} evaluations of the objective are done"


class RestoreBest(Hook):
    """Leaves the model with the weights of its best epoch.

    A run that is resumed after it ended begins with its last weights, not with these.

    Args:
        monitor: name of a number of the epochs' summaries.
        larger_is_better: None finds out by the name.
        mode: "min", "max" or "auto", which Keras has in place of `larger_is_better`.

    Examples:
        >>> loop = TrainLoop(model, SimpleGD(1.0), loss, metrics=["accuracy"], hooks=[RestoreBest("val_accuracy")])
        >>> result = loop.run((x, y), epochs=3, validation_data=(x, y))
    """

    def __init__(
        self, monitor: str = "val_loss", larger_is_better: bool | None = None, *, mode: str | None = None
    ) -> None:
        super().__init__()
        self._monitor = Monitor(monitor, direction(larger_is_better, mode))
        self.monitors = (self._monitor.name,)
        self._weights: list[np.ndarray] = []

    def on_start(self, loop: LoopProtocol) -> None:
        self._model, self._extra = loop.model, loop.extra_variables

    def on_epoch(self, progress: Progress, summary: dict[str, Any]) -> None:
        if self._monitor.is_better(summary):
            self._weights = [*self._model.get_weights(), *(v.numpy() for v in self._extra)]

    def on_end(self, result: RunResult) -> None:
        if self._weights:
            own = len(self._weights) - len(self._extra)
            self._model.set_weights(self._weights[:own])
            for variable, value in zip(self._extra, self._weights[own:], strict=True):
                variable.assign(value)

    def state(self) -> dict[str, Any]:
        return self._monitor.state() | {f"weights_{i:03d}": array for i, array in enumerate(self._weights)}

    def load_state(self, state: dict[str, Any]) -> None:
        names = [name for name in state if name.startswith("weights_")] if self._monitor.load_state(state) else []
        # By number: as text, "weights_1000" comes before "weights_101".
        self._weights = [state[name] for name in sorted(names, key=lambda name: int(name.removeprefix("weights_")))]
