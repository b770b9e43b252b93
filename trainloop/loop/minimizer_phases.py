"""`minimize` with one optimizer after the other.

Each phase is a call of its own, which begins where the one before has ended: with one evaluation of f and g there. A
phase with a plateau is cut at every look, and continues from its state.
"""

import dataclasses

from trainloop import checks
from trainloop.loop.bookkeeping import joined
from trainloop.loop.goal import smallest
from trainloop.loop.phases import PhaseEnd, checked_list
from trainloop.status import Status

# Numbers whose plateau ends a phase, as every optimizer has them.
_MONITORED = ("f", "loss", "grad_norm")

# What ends the run, in whichever phase it is met; anything else that ends well ends a phase.
_OF_THE_RUN = (Status.TARGET_REACHED, Status.EVALUATIONS_SPENT, Status.STOPPED)


def in_phases(minimize, fun, x0, phases, *, max_steps, max_evaluations, callback, state, **tests):
    """A `MinimizeResult` over all phases.

    Args:
        minimize: the function, for one optimizer.
        fun, x0, max_steps, max_evaluations, callback: see there.
        phases: a list of `Phase`s.
        state: None.
        tests: gtol, ftol, xtol, f_target.

    Raises:
        ValueError: not a list of phases, or a state, which is that of one optimizer.
    """
    if state is not None:
        raise ValueError(
            "state= is what one optimizer remembered; give the optimizer of the last phase alone to continue"
        )
    run = _Run(minimize, fun, x0, max_steps, max_evaluations, callback, tests)
    phases = checked_list(phases)
    for phase in phases:
        if phase.until is not None:
            checks.choice("the monitor of a Plateau", phase.until.monitor, _MONITORED)
    for i, phase in enumerate(phases):
        if run.through(phase, i):
            break
    return run.result()


class _Run:
    """What has been done, and what is left of it."""

    def __init__(self, minimize, fun, x0, max_steps, max_evaluations, callback, tests):
        self._minimize, self._fun, self._x, self._callback, self._tests = minimize, fun, x0, callback, tests
        self._max_steps, self._max_evaluations = max_steps, max_evaluations
        self._steps, self._blocks, self._counts, self._found = 0, [], {}, None

    def through(self, phase, index):
        """Do a phase. Returns whether the run ends with it."""
        end, taken, memory = PhaseEnd(phase), 0, None
        while True:
            found = self._call(phase.optimizer, smallest(*end.limits(taken), self._max_steps - self._steps), memory)
            self._record(found, index)
            taken += found.steps
            # What is called the loss in the log of a `TrainLoop` is f here.
            end.observe({**found.history, "loss": found.history["f"]}, taken)
            if found.status != Status.FINISHED or end.over or self._steps >= self._max_steps:
                return self._ends(found.status)
            memory = found.state

    def result(self):
        return dataclasses.replace(
            self._found, steps=self._steps, evaluations=self._counts, history=joined(self._blocks)
        )

    def _ends(self, status):
        """Whether the run ends with a status. A gradient that is small by default is a reason for the next phase."""
        asked = status == Status.GRADIENT_TOLERANCE and self._tests["gtol"] is not None
        return status.failed or status in _OF_THE_RUN or asked or self._steps >= self._max_steps

    def _call(self, optimizer, steps, memory):
        before, spent, told = self._steps, self._counts.get("f", 0), self._callback
        left = None if self._max_evaluations is None else max(1, self._max_evaluations - spent)
        return self._minimize(
            self._fun,
            self._x,
            optimizer,
            max_steps=steps,
            max_evaluations=left,
            callback=told and (lambda iterate: told(iterate._replace(step=before + iterate.step))),
            state=memory,
            **self._tests,
        )

    def _record(self, found, index):
        block = {"phase": found.history["step"] * 0 + index, **found.history}
        block["step"] = block["step"] + self._steps
        for kind in found.evaluations:
            block[f"evaluations/{kind}"] = block[f"evaluations/{kind}"] + self._counts.get(kind, 0)
        self._blocks.append(block)
        self._steps += found.steps
        self._counts = {kind: self._counts.get(kind, 0) + count for kind, count in found.evaluations.items()}
        self._found = found
        if not isinstance(self._x, (list, tuple)) or not hasattr(self._x[0], "assign"):
            self._x = found.x  # variables hold it already
