"""Phases of a run: one optimizer after the other, on the same model and data; where each of them ends.

    phase 0     Adam        steps 1 ... 5000                     ends after `steps` steps, or at a plateau
    phase 1     LBFGS       steps 5001 ...                       ends when it has converged, and the run with it

What a loop builds for them is in `current_phase`.
"""

import math
from typing import Any

import numpy as np

from trainloop import checks
from trainloop.checkpoints import contents
from trainloop.optimizer.base import WholeVectorOptimizer


class Plateau:
    """The end of a phase where a number of its log has stopped falling.

    After every `patience` steps of the phase the smallest value of these steps is compared with the smallest one
    before: unless it is smaller by more than `min_delta`, the phase ends. So where it ends depends on the values alone,
    and not on the length of compiled blocks.

    Args:
        monitor: a column of the log that every optimizer has: "loss", "grad_norm", "term/pde", or what a hook watches.
        patience: steps between two looks, at least 1.
        min_delta: at least 0.

    Raises:
        ValueError: see above. The run raises it where its log has no such column.

    Examples:
        >>> phases = [Phase(Adam(0.01), until=Plateau("loss", patience=10)), Phase(LBFGS())]
        >>> result = TrainLoop(model, phases, loss).run((x, y), steps=50)
    """

    def __init__(self, monitor: str, patience: int, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(f"monitor must be the name of a column of the log such as 'loss', received {monitor!r}")
        self.monitor = monitor
        self.patience = checks.integer("patience", patience, at_least=1)
        self.min_delta = checks.real("min_delta", min_delta, at_least=0)

    def __repr__(self) -> str:
        return f"Plateau({self.monitor!r}, patience={self.patience}, min_delta={self.min_delta})"


class Phase:
    """A stretch of a run with one optimizer, for `TrainLoop(model, [Phase(...), Phase(...)], ...)`.

    It ends with whichever comes first: `steps`, `until`, or the optimizer itself, where it says that it has converged.

    Args:
        optimizer: a `GlobalVectorOptimizer` or a `GlobalObjectiveOptimizer`. One that was used before is not changed: a
            new one with its settings is taken, where the phase begins.
        steps: how many the phase has; None for no limit. Those of the last phase are a goal of the run: they may be
            others when it continues from a checkpoint.
        until: a `Plateau`; None for no such end.

    Raises:
        ValueError: an argument of another kind.

    Examples:
        >>> loop = TrainLoop(model, [Phase(Adam(0.01), steps=3), Phase(LBFGS())], loss)
        >>> loop.run((x, y), steps=5).history["phase"].tolist()
        [0, 0, 0, 1, 1]
    """

    def __init__(self, optimizer: WholeVectorOptimizer, steps: int | None = None, until: Plateau | None = None) -> None:
        if not isinstance(optimizer, WholeVectorOptimizer):
            raise ValueError(f"a Phase needs an optimizer such as LBFGS(), received {optimizer!r}")
        if until is not None and not isinstance(until, Plateau):
            raise ValueError(f"until must be a Plateau, such as Plateau('loss', patience=500), received {until!r}")
        self.optimizer, self.until = optimizer, until
        self.steps = None if steps is None else checks.integer("steps", steps, at_least=1)

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of it: JSON-able."""
        return {**contents.description(self.optimizer), "steps": self.steps, "until": repr(self.until)}


class PhaseEnd:
    """Finds out where a phase ends by its `steps` or `until`.

    Args:
        phase: a `Phase`.

    Attributes:
        ended: whether it has ended before its `steps`.
    """

    def __init__(self, phase):
        self._steps, self._until = phase.steps, phase.until
        self.ended, self._taken, self._best, self._window = False, 0, math.inf, math.inf

    @property
    def over(self):
        """Whether it has reached its end."""
        return self.ended or (self._steps is not None and self._taken >= self._steps)

    def limits(self, taken):
        """How many steps the next block may take, by each condition, when so many are taken of the phase."""
        yield None if self._steps is None else self._steps - taken
        yield None if self._until is None else self._until.patience - taken % self._until.patience

    def observe(self, logs, taken):
        """See a block of its steps.

        Args:
            logs: columns by name.
            taken: steps of the phase, after the block.
        """
        until = self._until
        if until is not None and len(logs["step"]):
            values = logs[until.monitor].astype(float)
            self._window = min(self._window, float(np.min(values[~np.isnan(values)], initial=math.inf)))
            if taken % until.patience == 0:
                self.ended |= not self._window < self._best - until.min_delta
                self._best, self._window = min(self._best, self._window), math.inf
        self._taken = taken

    def state(self):
        """For a checkpoint: JSON-able."""
        return {"ended": self.ended, "best": self._best, "window": self._window}

    def load_state(self, state, taken):
        """Be as this was when `state` returned this, but for the number of `steps`, which may be another one now.

        Args:
            state: see above.
            taken: steps of the phase, then.
        """
        self.ended, self._best, self._window = state["ended"], state["best"], state["window"]
        self._taken = taken


def checked_list(given: Any) -> list[Phase]:
    """A list of `Phase`s.

    Args:
        given: what should be one.

    Raises:
        ValueError: it is empty, or has something else in it, or the same optimizer twice.
    """
    if not given or not all(isinstance(phase, Phase) for phase in given):
        raise ValueError(f"optimizer must be an optimizer or a list of Phase(optimizer, steps=...), received {given!r}")
    if len({id(phase.optimizer) for phase in given}) < len(given):
        raise ValueError("every phase needs an optimizer of its own; two of them have the same one")
    return list(given)
