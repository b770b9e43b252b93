"""What the hooks `Measure` find, as columns of the log: NaN at the steps after which nothing was measured."""

import numpy as np

from trainloop.hooks.measure import Measure


class Measured:
    """The `Measure`s of a loop.

    Args:
        hooks: of the loop.

    Attributes:
        names: of their columns.
    """

    def __init__(self, hooks):
        self._hooks = [hook for hook in hooks if isinstance(hook, Measure)]
        self.names = [name for hook in self._hooks for name in hook.functions]

    def check(self, taken):
        """Raise for a name that is not new.

        Args:
            taken: columns that the log has besides, and names of metrics.

        Raises:
            ValueError: see above, or two `Measure`s have it.
        """
        for name in self.names:
            if name in ("step", "epoch", *taken) or self.names.count(name) > 1:
                raise ValueError(f"Measure must have new names; {name!r} is in the log already; rename it")

    def after(self, step, model, taken):
        """{name: number} after a step; NaN for what is not measured there.

        Args:
            step: its number.
            model: of the loop, after the step.
            taken: whether there was such a step, and it did not fail.
        """
        measured = dict.fromkeys(self.names, np.nan)
        for hook in self._hooks:
            if taken and step % hook.every_steps == 0:
                measured |= hook.measure(model)
        return measured
