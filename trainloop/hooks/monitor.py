"""The best value so far of one number of the epochs' summaries."""

import math

from trainloop import checks

# Words in a name that say which way is better; Keras has no such thing as a direction of a metric.
_SMALLER, _LARGER = ("loss", "error", "crossentropy", "divergence"), ("accuracy", "auc", "precision", "recall", "score")


class Monitor:
    """Compares values with the best before them.

    Args:
        name: of the number, such as "val_loss".
        larger_is_better: None finds out by the name.
        by: by how much a value must be better to count, at least 0.

    Raises:
        ValueError: nothing in the name says which way is better.
    """

    def __init__(self, name, larger_is_better=None, by=0.0):
        self.name, self._by = str(name), checks.real("by", by, at_least=0)
        if larger_is_better is None:
            larger_is_better = _by_name(self.name)
        self._sign = 1 if checks.flag("larger_is_better", larger_is_better) else -1
        self.best = None

    @property
    def larger_is_better(self):
        return self._sign > 0

    def is_better(self, summary):
        """Whether the value in an epoch's summary is better than all before; NaN never is. It is remembered.

        Raises:
            ValueError: the summary has no such number.
        """
        if self.name not in summary:
            hint = "; is validation_data missing?" if self.name.startswith("val_") else ""
            raise ValueError(f"no epoch's summary has {self.name!r}; it has {', '.join(summary)}{hint}")
        value = float(summary[self.name])
        first = self.best is None and not math.isnan(value)
        better = first or (self.best is not None and self._sign * (value - self.best) > self._by)
        if better:
            self.best = value
        return better

    def state(self):
        """For `Hook.state`."""
        return {"monitor": self.name, "best": self.best}

    def load_state(self, state):
        """For `Hook.load_state`: whether the state is that of this number. Another one's best value says nothing."""
        same = state.get("monitor", self.name) == self.name
        self.best = state["best"] if same else None
        return same


def direction(larger_is_better, mode):
    """The argument `larger_is_better`, which Keras calls `mode`.

    Args:
        larger_is_better: True, False, or None.
        mode: "max", "min", "auto", or None where it was not given.

    Raises:
        ValueError: another mode, or both were given.
    """
    if mode is None:
        return larger_is_better
    meant = {"max": True, "min": False, "auto": None}[checks.choice("mode", mode, ("auto", "min", "max"))]
    return checks.one_of_two("larger_is_better", larger_is_better, "mode", meant, None)


def _by_name(name):
    if any(word in name for word in _SMALLER):
        return False
    if any(word in name for word in _LARGER):
        return True
    raise ValueError(
        f"cannot tell from the name {name!r} whether larger values are better; check its spelling, or set "
        "larger_is_better=True or False"
    )
