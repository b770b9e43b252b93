"""The parts of a training loop that a checkpoint is made of, and what it asks of them.

One pair of verbs everywhere: `state` returns what must be saved, and `load_state` takes it back.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from trainloop.types import Variable


class Stateful(Protocol):
    """A hook: what it remembers is JSON-able, or NumPy arrays."""

    def state(self) -> dict[str, Any]:
        """What must be saved, by name."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Be as the hook was whose `state` this is."""


class SavedFeed(Protocol):
    """Data with a position, see `trainloop.loop.feed.Feed`."""

    steps_per_epoch: int | None

    def description(self) -> dict[str, Any]:
        """What the data are: JSON-able."""

    def state(self) -> dict[str, Any]:
        """Arrays by name: what is needed besides epoch and index to find the next batch."""

    def load_state(self, state: dict[str, Any], epoch: int, index: int) -> None:
        """Continue with a batch of an epoch."""


class SavedRun(Protocol):
    """A run that is going on, see `trainloop.loop.bookkeeping.Bookkeeping`."""

    step: int
    feed: SavedFeed

    def state(self) -> dict[str, Any]:
        """Where it stands: JSON-able."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where the run stood whose `state` this is; the feed does."""


class SavedOptimizer(Protocol):
    """An optimizer that is built."""

    def resumable_variables(self) -> dict[str, Variable]:
        """Its variables by name."""


class SavedMetrics(Protocol):
    """The metrics of a loop."""

    @property
    def variables(self) -> list[Variable]:
        """Their counters."""

    def former_names(self) -> dict[str, str]:
        """{name that version 0.1 gave a metric: its name}, where these differ."""


class SavedValues(Protocol):
    """f and g that the last step hands on to the next, as long as they count."""

    def state(self, feed: Any) -> dict[str, tf.Tensor]:
        """Tensors by name, none where they do not count for a feed."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Hand on what `state` returned."""


@dataclasses.dataclass
class Resumable:
    """The parts of a `TrainLoop` that a checkpoint is made of and put back into.

    Attributes:
        model, extra_variables, optimizer, metrics, hooks: of the loop.
        evaluations: the variable that counts them; None where there is none.
        of: what they are, from `contents.identity`.
        layout_fingerprint: of x.
        run: the current one; None while there is none.
        rollbacks: how often the run went back to a checkpoint.
        handed_on: f and g at x.
        phase: where its phases stand, JSON-able; None where there is one optimizer.
    """

    model: keras.Model
    extra_variables: Sequence[Variable]
    optimizer: SavedOptimizer
    metrics: SavedMetrics
    evaluations: tf.Variable | None
    hooks: Sequence[Stateful]
    of: dict[str, Any]
    layout_fingerprint: str
    run: SavedRun | None
    rollbacks: int
    handed_on: SavedValues
    phase: dict[str, Any] | None = None

    def variables(self) -> dict[str, tf.Variable]:
        """Every variable by the name it has in the file."""
        named = {f"model/{name}": v for name, v in variables_of(self.model).items()}
        named |= {f"extra/{i:03d}": v for i, v in enumerate(self.extra_variables)}
        named |= {f"optimizer/{name}": v for name, v in self.optimizer.resumable_variables().items()}
        named |= {f"metrics/{i:03d}": v for i, v in enumerate(self.metrics.variables)}
        if self.evaluations is not None:
            named["evaluations"] = self.evaluations
        return {name: v.value if isinstance(v, keras.Variable) else v for name, v in named.items()}

    def named_hooks(self) -> Iterator[tuple[str, Stateful]]:
        """Hooks by class name, with a number where it occurs again."""
        counts: dict[str, int] = {}
        for hook in self.hooks:
            name = type(hook).__name__
            counts[name] = counts.get(name, 0) + 1
            yield name if counts[name] == 1 else f"{name}_{counts[name]}", hook


def variables_of(model: keras.Model) -> dict[str, Variable]:
    """All variables by number and name, without the numbers that Keras puts into names."""
    variables = getattr(model, "variables", model.trainable_variables)
    names = [re.sub(r"_[0-9]+", "", getattr(v, "path", None) or v.name.split(":")[0]) for v in variables]
    return {f"{i:03d}/{name}": v for i, (name, v) in enumerate(zip(names, variables, strict=True))}
