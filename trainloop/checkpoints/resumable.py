"""What a checkpoint is made of and put back into, and what its parts have to be able to do.

The parts are made in folders above this one. A protocol names what is asked of each; whoever has these members can be
saved.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np


class SavedFeed(Protocol):
    """Data with a position in them, such as a `Feed`."""

    steps_per_epoch: int | None

    def description(self) -> dict[str, Any]:
        """What these data are: a JSON-able dict, equal for equal ones."""

    def state(self) -> dict[str, Any]:
        """What is needed besides epoch and index to find the next batch: arrays by name.

        Raises:
            ValueError: the position in these data cannot be saved.
        """

    def load_state(self, state: dict[str, np.ndarray], epoch: int, index: int) -> None:
        """Continue with batch `index` of an epoch, from what `state` returned."""


class SavedRun(Protocol):
    """A run between two blocks, such as a `Bookkeeping`."""

    step: int

    @property
    def feed(self) -> SavedFeed:
        """The data of the run."""

    def state(self) -> dict[str, Any]:
        """Where it stands: JSON-able."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where `state` was returned."""


class SavedOptimizer(Protocol):
    """An optimizer that is built."""

    @property
    def layout(self) -> Any:
        """The `FlatLayout` of x."""

    def resumable_variables(self) -> dict[str, Any]:
        """Everything that it needs to continue exactly: variables by name."""


class SavedMetrics(Protocol):
    """Metrics that count through an epoch, such as a `MetricSet`."""

    @property
    def variables(self) -> Sequence[Any]:
        """Their counters, in an order that is always the same."""

    def former_names(self) -> Mapping[str, str]:
        """{name in version 0.1: name of today}, where these differ."""


class SavedCounts(Protocol):
    """Counts in one variable, such as `Evaluations`."""

    variable: Any


class SavedHook(Protocol):
    """What remembers something, such as a `Hook`; see there."""

    def state(self) -> dict[str, Any]:
        """JSON-able values and arrays by name."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Be as when `state` returned this."""


class SavedHandedOn(Protocol):
    """What one step hands on to the next, such as a `HandedOn`."""

    def state(self, feed: Any) -> dict[str, Any]:
        """What is needed to hand it on later: arrays by name, none where the next step needs nothing."""

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Hand on what `state` returned."""


@dataclasses.dataclass
class Resumable:
    """The parts of a `TrainLoop` that a checkpoint is made of and put back into.

    Attributes:
        model, extra_variables, optimizer, metrics, evaluations, hooks: of the loop; `evaluations` may be None.
        of: what they are, from `contents.identity`.
        current_run: None while there is none.
        rollbacks: how often the run went back to a checkpoint.
        handed_on: f and g that the last step hands on to the next, as long as they count.
        phase: where its phases stand, JSON-able; None where there is one optimizer.
    """

    model: keras.Model
    extra_variables: Sequence[Any]
    optimizer: SavedOptimizer
    metrics: SavedMetrics
    evaluations: SavedCounts | None
    hooks: Sequence[SavedHook]
    of: dict[str, Any]
    current_run: SavedRun | None
    rollbacks: int
    handed_on: SavedHandedOn
    phase: dict[str, Any] | None = None

    @property
    def run(self) -> SavedRun:
        """The current run.

        Raises:
            RuntimeError: there is none.
        """
        if self.current_run is None:
            raise RuntimeError("a checkpoint is one of a run, and none is going on; save in a hook, between two blocks")
        return self.current_run

    def variables(self) -> dict[str, Any]:
        """Every variable by the name it has in the file."""
        named = {f"model/{name}": v for name, v in variables_of(self.model).items()}
        named |= {f"extra/{i:03d}": v for i, v in enumerate(self.extra_variables)}
        named |= {f"optimizer/{name}": v for name, v in self.optimizer.resumable_variables().items()}
        named |= {f"metrics/{i:03d}": v for i, v in enumerate(self.metrics.variables)}
        if self.evaluations:
            named["evaluations"] = self.evaluations.variable
        return {name: v.value if isinstance(v, keras.Variable) else v for name, v in named.items()}

    def named_hooks(self) -> Iterator[tuple[str, SavedHook]]:
        """Hooks by class name, with a number where it occurs again."""
        counts: dict[str, int] = {}
        for hook in self.hooks:
            name = type(hook).__name__
            counts[name] = counts.get(name, 0) + 1
            yield name if counts[name] == 1 else f"{name}_{counts[name]}", hook


def variables_of(model):
    """All variables by number and name, without the numbers that Keras puts into names."""
    variables = getattr(model, "variables", model.trainable_variables)
    names = [re.sub(r"_[0-9]+", "", getattr(v, "path", None) or v.name.split(":")[0]) for v in variables]
    return {f"{i:03d}/{name}": v for i, (name, v) in enumerate(zip(names, variables, strict=True))}
