"""One row of numbers per optimizer: means and spreads over its seeds."""

import dataclasses

import numpy as np

from trainloop.comparison import decimals
from trainloop.comparison.outcome import COMPLETE, FAILED
from trainloop.hooks.monitor import Monitor

# key -> (heading, what it means)
COLUMNS = {
    "best_loss": ("best training loss", "smallest mean training loss of an epoch"),
    "final_loss": ("final training loss", "mean training loss of the last epoch"),
    "evaluations": ("evaluations", "of the loss on a batch; curvature products count as one each"),
    "peak_memory": ("peak MB", "resident memory of the process at its highest, TensorFlow's own included"),
    "seconds": ("total s", "wall clock of the run, validation included"),
    "compilation": (
        "compile s",
        "of these, what the first epoch of a phase took longer than the median of its others; not known of one epoch",
    ),
    "training_seconds": ("training s", "the rest of them; all where compile s is empty"),
    "passes": ("passes", "evaluations times samples in the batch, over the training set"),
    "target_passes": ("passes to target", "until the end of the first epoch at the target"),
    "target_seconds": ("s to target", "training s until then"),
}

# Found in the table of every run, and not in that of the results.
DETAILS = ("final_loss", "evaluations", "peak_memory", "seconds")


@dataclasses.dataclass(frozen=True)
class Target:
    """A value of one number of the epochs' summaries that a run is to reach."""

    name: str
    value: float

    def reached(self, epochs):
        """Index of the first epoch that reached it, None where none did."""
        if self.name not in epochs:
            return None
        sign = -1 if Monitor(self.name).larger_is_better else 1
        hits = np.flatnonzero(sign * (epochs[self.name] - self.value) <= 0)
        return int(hits[0]) if hits.size else None

    def __str__(self):
        return f"{self.name} {self.value:.4g}"


def parse_target(text):
    """`val_accuracy=0.95` as a `Target`.

    Raises:
        ValueError: not of this form, or which way is better is not in the name.
    """
    name, _, value = text.partition("=")
    try:
        Monitor(name)
        return Target(name, float(value))
    except ValueError as error:
        raise ValueError(
            f"a target looks like val_accuracy=0.95 or loss=0.1: a name that says which way is better, and a number; "
            f"received {text!r}"
        ) from error


def common_target(outcomes):
    """The smallest training loss that every complete run with a finite one reached, None without such a run."""
    complete = [numbers(outcome, None) for outcome in outcomes if outcome.state == COMPLETE]
    best = [found["best_loss"] for found in complete if "best_loss" in found]
    return Target("loss", max(best)) if best else None


def numbers(outcome, target):
    """{column: number} of a run, without those it has not got to and those that are not finite."""
    epochs, found = outcome.log.epochs, {}
    if np.isfinite(epochs.get("loss", ())).any():
        found = {"best_loss": np.nanmin(epochs["loss"]), "final_loss": epochs["loss"][-1]}
    found |= {f"test_{name}": value for name, value in (outcome.log.test or {}).items()}
    end = outcome.log.end or {}
    found |= {name: end[name] for name in ("seconds", "peak_memory") if end.get(name) is not None}
    compilation = outcome.compilation
    if len(compilation):
        found["compilation"] = compilation.sum()
        if "seconds" in found:
            found["training_seconds"] = found["seconds"] - np.nansum(compilation)
    if len(outcome.evaluations):
        found |= {"evaluations": int(outcome.evaluations[-1]), "passes": outcome.passes[-1]}
    reached = None if target is None else target.reached(epochs)
    if reached is not None:
        found["target_seconds"] = outcome.training_seconds[reached]
        found["target_passes"] = outcome.at_epochs(outcome.passes)[reached]
    return {name: float(value) for name, value in found.items() if value is not None and np.isfinite(value)}


def rows(outcomes, target):
    """One dict per optimizer, in their order.

    Returns:
        list of {"method": label, "runs": count, "complete": count, "failed": count, "means": {column: mean},
        "spreads": {column: standard deviation over the complete runs}, "reached": count}. A mean is over the complete
        runs that have the number.
    """
    by_method = {}
    for outcome in outcomes:
        by_method.setdefault(outcome.run.entrant.label, []).append(outcome)
    return [_row(label, group, target) for label, group in by_method.items()]


def _row(label, outcomes, target):
    complete = [numbers(outcome, target) for outcome in outcomes if outcome.state == COMPLETE]
    columns = {name: [n[name] for n in complete if name in n] for name in dict.fromkeys(k for n in complete for k in n)}
    return {
        "method": label,
        "runs": len(outcomes),
        "complete": len(complete),
        "failed": sum(outcome.state == FAILED for outcome in outcomes),
        "reached": len(columns.get("target_seconds", ())),
        "means": {name: float(np.mean(values)) for name, values in columns.items()},
        "spreads": {name: float(np.std(values, ddof=1)) for name, values in columns.items() if len(values) > 1},
    }


def columns(found):
    """{key: (heading, meaning)} of everything that some row has, in the order of a table."""
    present = {name for row in found for name in row["means"]}
    tests = sorted(name for name in present if name.startswith("test_"))
    order = ["best_loss", "final_loss", *tests, *(k for k in COLUMNS if k not in ("best_loss", "final_loss"))]
    test = {name: (name.replace("_", " "), "on the test set after the run") for name in tests}
    return {name: (COLUMNS | test)[name] for name in order if name in present}


def headline(found):
    """Of `columns(found)` those of the results, the last one being how long the target took."""
    return {name: told for name, told in columns(found).items() if name not in DETAILS}


def cells(found, column):
    """`0.123 ± 0.004` for every row, with the same decimal places; empty where there is none."""
    scale = 1e-6 if column == "peak_memory" else 1.0
    means = [row["means"].get(column) for row in found]
    spreads = [scale * row["spreads"].get(column, 0.0) for row in found]
    texts = decimals.texts([None if mean is None else scale * mean for mean in means], spreads)
    return [_how_many(row, column) + text for row, text in zip(found, texts, strict=True)]


def _how_many(row, column):
    """`1 of 2: ` where not all runs have reached the target."""
    partial = column.startswith("target_") and column in row["means"] and row["reached"] < row["complete"]
    return f"{row['reached']} of {row['complete']}: " if partial else ""


def of_runs(outcomes, target):
    """The same rows with one run in each."""
    return [_of_run(outcome, numbers(outcome, target)) for outcome in outcomes]


def _of_run(outcome, means):
    return {"method": outcome.run.name, "means": means, "spreads": {}, "reached": 1, "complete": 1}
