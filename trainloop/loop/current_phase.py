"""What a loop builds for its phases, one at a time.

A phase that has ended is left when the next step is wanted: there the next optimizer is built, at the x that it finds.
What belongs to an optimizer (compiled steps, speed, watch for NaN) is a `CurrentPhase`, of which a loop holds one. A
loop with one optimizer is a loop with one phase that has no end of its own.
"""

import logging
from typing import Any

from trainloop import checks
from trainloop.checkpoints import contents
from trainloop.distributed.replicas import without_strategy
from trainloop.loop import arguments
from trainloop.loop.agreement import Agreement
from trainloop.loop.engine import Engine
from trainloop.loop.inspection import Inspector
from trainloop.loop.nonfinite import NanInState, check_policy
from trainloop.loop.pace import Pace
from trainloop.loop.phases import Phase, PhaseEnd, checked_list
from trainloop.loop.step import Steps
from trainloop.objectives.counting import Evaluations
from trainloop.optimizer.saving import SHRINKABLE
from trainloop.status import Status
from trainloop.vectors.layout import FlatLayout, VariableVector

_LOG = logging.getLogger("trainloop")


class CurrentPhase:
    """The phase in which a loop is: its optimizer, built, and everything that is compiled for it.

    Args:
        phase: a `Phase`.
        shared: a `Shared`.
        index: which phase it is.
        first_step: steps that were taken before it.
        evaluations: `Evaluations` over all phases; None where only an optimizer that evaluates counts its own.
        of_several: whether there is a list of phases.
        last: whether no phase follows on this one.

    Attributes:
        optimizer, steps, train, test, inspector, pace, nan_in_state, agreement: see their classes.
        index, first_step, last: as given.
    """

    def __init__(self, phase, shared, index=0, first_step=0, evaluations=None, of_several=False, last=True):
        self._phase, self._of_several, self.index, self.first_step = phase, of_several, index, first_step
        self.last = last
        used = of_several and phase.optimizer.built
        optimizer = self.optimizer = phase.optimizer.fresh() if used else phase.optimizer
        with shared.sharding():
            without_strategy(optimizer.build, shared.trained())
        arguments.check_growth(optimizer, optimizer.grows, shared.jit_compile)
        self.steps = Steps(
            shared.model,
            VariableVector(shared.trained()),
            optimizer,
            shared.batch_loss,
            shared.metrics,
            shared.test_metrics,
            hooks=shared.hooks,
            microbatch_size=shared.microbatch_size,
            replicas=shared.replicas,
            eager=shared.eager,
            evaluations=evaluations,
        )
        flags, begin = (shared.jit_compile, shared.eager), self.steps.handed_on.begin_block
        self.train = Engine(self.steps.train, self.steps.columns, self.steps.results, *flags, begin=begin)
        self.test = Engine(self.steps.test, self.steps.test_columns, shared.test_metrics.results, eager=shared.eager)
        self.inspector = Inspector(self.steps.propose, optimizer.layout, shared.eager)
        self.pace = Pace(shared.steps_per_call, self.train.most_steps)
        self.nan_in_state = NanInState(optimizer)
        self.agreement = Agreement(shared.workers, optimizer, self.steps.vector)
        self._end = PhaseEnd(phase)

    @property
    def over(self):
        """Whether it has reached its end."""
        return self._end.over

    @property
    def position(self):
        """Columns of the log that say where its steps belong."""
        return {"phase": self.index} if self._of_several else {}

    @property
    def step(self):
        """Steps that were taken up to now, those of the phases before included."""
        return self.first_step + self._taken

    @property
    def _taken(self):
        return int(self.optimizer.iterations.numpy())

    def counted(self):
        """Evaluations up to now by kind; None where every step takes one f and one gradient."""
        return self.steps.evaluations and self.steps.evaluations.as_dict()

    def step_limits(self):
        """How many steps the next block may take, by each condition that ends the phase."""
        return self._end.limits(self._taken)

    def observe(self, logs, status):
        """See a block of its steps, and whether it reached its end.

        Args:
            logs: columns by name.
            status: with which its last step ended.
        """
        self._end.observe(logs, self._taken)
        # The last one ends the run then, which may be asked to go on.
        self._end.ended |= not self.last and status > Status.RUNNING

    def state(self):
        """For a checkpoint: JSON-able; None where there is one optimizer."""
        if not self._of_several:
            return None
        return {"index": self.index, "first_step": self.first_step, **self._end.state()}

    def load_state(self, state):
        """Be as this phase was when `state` returned this."""
        if state is not None:
            self.first_step = state["first_step"]
            self._end.load_state(state, self._taken)


class Phases:
    """The phases of a loop.

    Args:
        given: an optimizer, or a list of `Phase`s.
        shared: a `Shared`.

    Attributes:
        identity: what they are for a checkpoint, before anything changes them: {kind: {name: JSON-able}}.

    Raises:
        ValueError: not that.
    """

    def __init__(self, given, shared):
        self._several, self._shared = isinstance(given, (list, tuple)), shared
        self._phases = tuple(given) if self._several else (Phase(given),)
        self._evaluations = without_strategy(Evaluations) if self._several else None
        self.identity = {"optimizer": contents.description(given)} if not self._several else {"list of phases": {}}
        for i, phase in enumerate(self._phases if self._several else ()):
            described = {f"{i} {name}": value for name, value in phase.description().items()}
            if i == len(self._phases) - 1:
                del described[f"{i} steps"]  # the goal of the run, which may be another one when it goes on
            self.identity["list of phases"] |= described

    def enter(self, index=0, first_step=0):
        """The `CurrentPhase` of an index, built at the x that there is.

        Args:
            index: of the phase.
            first_step: steps that were taken before it.

        Raises:
            ValueError: it would never end, and others come after it.
        """
        phase, last = self._phases[index], index == len(self._phases) - 1
        current = CurrentPhase(phase, self._shared, index, first_step, self._evaluations, self._several, last)
        endless = phase.steps is None and phase.until is None and "status" not in current.optimizer.state
        if endless and not last:
            raise ValueError(
                f"phase {index} would never end: {type(phase.optimizer).__name__} does not say when it has converged; "
                "give Phase(...) steps=... or until=Plateau('loss', patience=...)"
            )
        if self._several and "phase" in current.steps.columns:
            raise ValueError("the log has a column 'phase' of its own; rename the scalar of the state or of watch")
        return current

    def check_later(self, on_nonfinite):
        """Raise now for a later phase that could not begin, not only when the ones before it are over.

        Args:
            on_nonfinite: of the loop.

        Raises:
            ValueError: its state does not fit into the memory that is free, XLA cannot compile it, or it cannot take
                shorter steps after a rollback.
        """
        layout = FlatLayout.of(self._shared.trained())
        for optimizer in (phase.optimizer for phase in self._phases[1:]):
            with self._shared.sharding():
                plan = without_strategy(optimizer.memory_plan, layout.size, layout.dtype)
            plan.check_fits(type(optimizer).__name__, has_storage=hasattr(optimizer, "storage"))
            arguments.check_growth(optimizer, plan.grows, self._shared.jit_compile)
            of_state = [entry.name for entry in plan.entries if entry.name.rpartition("/")[2] in SHRINKABLE]
            check_policy(on_nonfinite, optimizer, of_state + optimizer.shrink_steps(1))

    def after(self, current, step):
        """The `CurrentPhase` that follows on one after a step."""
        following = self.enter(current.index + 1, step)
        names = [type(phase.optimizer).__name__ for phase in (current, following)]
        _LOG.info("after step %d phase %d (%s) ended; phase %d is %s", step, current.index, names[0], following.index,
                  names[1])  # fmt: skip
        return following

    def at(self, state, current):
        """The `CurrentPhase` of which a checkpoint holds the state: the current one if it is that."""
        if state is None or state["index"] == current.index:
            return current
        return self.enter(state["index"], state["first_step"])

    def steps_left(self, current):
        """How many steps all phases together still have at most; None where one has no limit."""
        limits = [phase.steps for phase in self._phases[current.index :]]
        return None if None in limits else sum(limits) - (current.step - current.first_step)

    def check_monitors(self, current):
        """Raise where a plateau is looked for in a column that the log will not have.

        Args:
            current: a `CurrentPhase` whose columns are known; what only its optimizer logs does not count.
        """
        own = current.optimizer.log_dtypes().keys() - {"loss", "grad_norm"}
        known = [name for name in current.steps.columns if name not in own]
        for i, phase in enumerate(self._phases):
            if phase.until is not None and phase.until.monitor not in known:
                raise ValueError(
                    f"phase {i} looks for a plateau of {phase.until.monitor!r}, which the log of every step does not "
                    f"have{checks.near_miss(phase.until.monitor, known)}; expected one of {', '.join(known)}"
                )


def checked_phases(model: Any, given: Any) -> Any:
    """An optimizer or a list of `Phase`s, as given.

    Args:
        model: of the loop.
        given: what it was given as optimizer.

    Raises:
        ValueError: something else, or an empty list.
    """
    if isinstance(given, Phase):
        raise ValueError("phases must be a list, received a Phase; write [Phase(...), Phase(...)]")
    if not isinstance(given, (list, tuple)):
        arguments.check_kinds(model, given)
        return given
    for phase in checked_list(given):
        arguments.check_kinds(model, phase.optimizer)
    return list(given)
