"""What is worth a panel in the figure of a run, and in which order.

    loss        of every batch, its mean over epochs, and on the validation data; its terms
    metrics     of the training and of the validation data together
    gradient    its norm, the learning rate, the length of the step
    scalars     of the optimizer's state and of hooks; evaluations where a step takes several
    norms       of the weights, the gradient and the step by variable

A column that never changes has no panel, nor has one that only counts: it grows by one from step to step, and may begin
again, like the rank of a matrix or a place in a ring. `Panels.left_out` names them.
"""

import dataclasses
import itertools

import numpy as np

from trainloop.columns import BOOKKEEPING, PREFIXES, by_kind, is_rate
from trainloop.plots.figure import BLUE, COLOURS, GREY, ORANGE, is_never_negative

# Lines of one panel, each with a look of its own: six colours, full and dashed.
LOOKS = [{"color": c, "linestyle": s, "linewidth": 0.9} for s, c in itertools.product(("-", "--"), COLOURS[:6])]
_THIN = {"color": BLUE, "linewidth": 0.8}

# With more curves a panel has a row of its own, and its legend stands beside it.
_MOST_INSIDE = 3

# A line of so many points or fewer has a mark at each.
_MOST_MARKS = 60

# Of a logarithmic axis: how many powers of ten the values span at least.
_DECADES = 1.0

# Accuracies from 0.05 to 0.95 are no errors that fall by powers of ten.
_DECADES_OF_METRICS = 2.0

_SPELLED = {"grad_norm": "gradient norm", "learning_rate": "learning rate", "step_length": "step length"}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        heading: what it shows.
        curves: list of (name, x, y, style of the line).
        logarithmic: whether its y axis is.
    """

    heading: str
    curves: list
    logarithmic: bool

    @property
    def wide(self):
        """Whether it takes a row of its own."""
        return len(self.curves) > _MOST_INSIDE


@dataclasses.dataclass(frozen=True)
class Panels:
    """All of them, in order.

    Attributes:
        shown: list of `Panel`.
        left_out: {why: names of columns} of what has none.
    """

    shown: list
    left_out: dict


def panels_of(result):
    """The `Panels` of a `RunResult`, a `RunLog` or a `MinimizeResult`."""
    history, epochs = result.history, getattr(result, "epochs", {})
    aim = "f" if "f" in history and "loss" not in history else "loss"
    steps = history.get("step", np.zeros(0))
    scalars, left_out = _worth_it(history, aim)
    terms = _joint("terms of the loss", "term/", history)
    shown = [_loss(aim, history, epochs), *terms, *_metrics(epochs)]
    shown += [_scalar(name, steps, history[name]) for name in scalars]
    cosines = _joint("cosines between terms", "cosine/", history)
    shown += [*_angle(history), *cosines, *_evaluations(history), *_norms(history)]
    return Panels(shown, left_out)


def _loss(aim, history, epochs):
    """Every batch behind the epochs' means; they are the same where an epoch is one step."""
    steps = history.get("step", np.zeros(0))
    each, means = history.get(aim, steps), _by_epoch(aim, epochs)
    if means and np.array_equal(steps, epochs["step"]):
        return _panel(aim, means)
    if not means:
        return _panel(aim, [("", steps, each, _THIN)])
    return _panel(aim, [("each batch", steps, each, {"color": GREY, "linewidth": 0.6}), *means])


def _metrics(epochs):
    own = ("epoch", "step", "seconds", "loss")
    names = dict.fromkeys(name.removeprefix("val_") for name in epochs if name not in (*own, "val_loss"))
    return [_panel(name, _by_epoch(name, epochs), decades=_DECADES_OF_METRICS) for name in names]


def _by_epoch(name, epochs):
    """Of one number of the epochs' summaries: that of the training, and that of the validation."""
    kinds = (name, "training", BLUE, "o"), (f"val_{name}", "validation", ORANGE, "s")
    return [
        (kind, epochs["step"], epochs[column], {"color": colour, "linewidth": 1.1, **_marks(epochs["step"], mark)})
        for column, kind, colour, mark in kinds
        if column in epochs
    ]


def _worth_it(history, aim):
    """(names of scalars in the order of their panels, {why: names of those left out})."""
    shown, constant, counting = [], [], []
    for name, column in history.items():
        if name in (*BOOKKEEPING, aim) or name.startswith((*PREFIXES, "term/", "cosine/")):
            continue
        known = np.asarray(column, float)
        known = known[~np.isnan(known)]
        if len(known) > 1 and np.all(known == known[0]):
            constant.append(f"{name} = {known[0]:.4g}")
        elif _counts(known):
            counting.append(name)
        elif known.size:
            shown.append(name)
    first = [name for name in shown if name == "grad_norm" or is_rate(name) or "step_length" in name]
    first.sort(key=lambda name: (name != "grad_norm", not is_rate(name)))
    return first + [name for name in shown if name not in first], {"constant": constant, "only counting": counting}


def _counts(known):
    """Whether numbers are integers that stay, grow by one, or fall back to zero, from the first to the last."""
    if len(known) < 3 or np.any(known != np.round(known)):
        return False
    return bool(np.all(np.isin(np.diff(known), (0, 1)) | (known[1:] == 0)))


def _scalar(name, steps, values):
    """One number of the log. What is measured now and then would be invisible: such points are joined, with marks."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    heading = _SPELLED.get(name, name)
    if known.all() or np.any(known[1:] & known[:-1]):
        return _panel(heading, [("", steps, values, _THIN)])
    return _panel(heading, [("", steps[known], values[known], {**_THIN, **_marks(steps[known], "o")})])


def _angle(history):
    if "angle/step" not in history:
        return []
    return [_panel("angle of the step to -g, degrees", [("", history["step"], history["angle/step"], _THIN)])]


def _evaluations(history):
    """How many so far, where a step takes more than one; kinds that were counted alike share a line."""
    kinds = {name: history[name] for name in history if name.startswith("evaluations/") and np.any(history[name])}
    if all(np.all(np.diff(column) == 1) for column in kinds.values()):
        return []
    alike = {}
    for name, column in kinds.items():
        alike.setdefault(tuple(column), []).append(name.removeprefix("evaluations/"))
    looks = zip(alike.items(), LOOKS, strict=False)
    curves = [(", ".join(names), history["step"], np.array(column), look) for (column, names), look in looks]
    return [Panel("evaluations so far", curves, False)]


def _joint(heading, prefix, history):
    """One panel for all columns whose names begin so; none where there are no such."""
    names = [name for name in history if name.startswith(prefix)]
    looks = zip(names, itertools.cycle(LOOKS))
    curves = [(name.removeprefix(prefix), history["step"], history[name], look) for name, look in looks]
    return [_panel(heading, curves)] if curves else []


def _norms(history):
    """The norms of each vector by variable: of all variables, or of the largest."""
    return [_norm(kind, columns, history) for kind, columns in by_kind(history).items()]


def _norm(kind, columns, history):
    values = {variable: positive(history[column]) for variable, column in columns.items()}
    means = {variable: np.mean(np.nan_to_num(v)) if len(v) else 0.0 for variable, v in values.items()}
    largest = sorted(means, key=means.get, reverse=True)[: len(LOOKS)]
    shown = [variable for variable in values if variable in largest]
    left_out = "" if len(shown) == len(values) else f", largest {len(shown)} of {len(values)} by mean"
    curves = [(name, history["step"], values[name], look) for name, look in zip(shown, LOOKS, strict=False)]
    return _panel(f"norm of {kind}{left_out}", curves)


def _panel(heading, curves, decades=_DECADES):
    return Panel(heading, curves, _spans([values for _, _, values, _ in curves], decades))


def _spans(columns, decades):
    """Whether a logarithmic axis shows more: nothing is negative, and the values span so many powers of ten."""
    known = np.concatenate([positive(values) for values in columns])
    known = known[~np.isnan(known)]
    return bool(is_never_negative(columns) and known.size and known.max() >= 10**decades * known.min())


def _marks(x, mark):
    return {"marker": mark, "markersize": 2.5} if len(x) <= _MOST_MARKS else {}


def positive(values):
    """Values a logarithmic axis can show; the others leave gaps."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
