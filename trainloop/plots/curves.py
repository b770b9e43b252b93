"""A run as a picture."""

import itertools
from typing import Any

import numpy as np

from trainloop.columns import BOOKKEEPING, PREFIXES, by_kind, is_rate
from trainloop.plots.figure import BLUE, COLOURS, GREY, ORANGE, Picture, is_never_negative, label

# Lines of one panel, each with a look of its own: six colours, full and dashed.
_LOOKS = [{"color": c, "linestyle": s, "linewidth": 0.9} for s, c in itertools.product(("-", "--"), COLOURS[:6])]


def draw_curves(result: Any, title: str = "") -> Picture:
    """Loss, metrics, gradient norm and the method's own scalars over the steps of a run; dotted where a phase begins.

    Args:
        result: a `RunResult`, also that of a run that failed, a `RunLog`, or a `MinimizeResult`.
        title: above the figure.

    Returns:
        A Matplotlib figure.

    Example:
        >>> result = TrainLoop(model, Adam(), loss).run((x, y), epochs=2)
        >>> plots.draw_curves(result, "two epochs of Adam").savefig("curves.png")
    """
    panels = _panels(result)
    figure = Picture(figsize=(6.4, 2.6 * len(panels) + 0.6), layout="constrained")
    figure.suptitle(label(title))
    rows = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axes, (heading, curves, logarithmic) in zip(rows, panels, strict=True):
        for name, x, y, style in curves:
            axes.plot(x, _positive(y) if logarithmic else y, label=label(name), **style)
        for step in _changes(result.history):
            axes.axvline(step, color=GREY, linestyle=":", linewidth=0.8)
        if logarithmic:
            axes.set_yscale("log")
        axes.set_ylabel(label(heading))
        axes.grid(alpha=0.3)
        if len(curves) > 3:
            axes.legend(fontsize="xx-small", loc="upper left", bbox_to_anchor=(1, 1.03), borderaxespad=0.3)
        elif len(curves) > 1:
            axes.legend(fontsize="small")
    rows[-1].set_xlabel("step")
    return figure


def _changes(history):
    """Where a phase ended and another one began: between two steps."""
    phases = np.asarray(history.get("phase", ()))
    return [float(history["step"][i]) + 0.5 for i in np.flatnonzero(np.diff(phases))]


def _panels(result):
    """(label of the y axis, [(name, x, y, style)], logarithmic) per panel."""
    history, epochs = result.history, getattr(result, "epochs", {})
    aim, each = ("f", "") if "f" in history and "loss" not in history else ("loss", "each batch")
    steps = history.get("step", np.zeros(0))
    every_step = {"color": GREY, "linewidth": 0.8}
    training = {"color": BLUE, "marker": "o", "markersize": 3}
    validation = {"color": ORANGE, "marker": "s", "markersize": 3}

    def by_epoch(name):
        curves = [("training, mean of the epoch", epochs["step"], epochs[name], training)] if name in epochs else []
        if f"val_{name}" in epochs:
            curves.append(("validation", epochs["step"], epochs[f"val_{name}"], validation))
        return curves

    losses = [(each, steps, history.get(aim, steps), every_step), *by_epoch(aim)]
    panels = [(aim, losses, is_never_negative(values for _, _, values, _ in losses))]
    own = ("epoch", "step", "seconds", "loss")
    metrics = [name for name in epochs if name not in own and not name.startswith("val_")]
    panels += [(name, by_epoch(name), False) for name in metrics]
    constant = [name for name in history if is_rate(name) and len(set(history[name])) < 2]
    scalars = [name for name in history if name not in (*BOOKKEEPING, aim, *constant)]
    thin = {"color": BLUE, "linewidth": 0.8}
    panels += [
        _scalar_panel(name, steps, history[name], thin)
        for name in scalars
        if not name.startswith((*PREFIXES, "term/", "cosine/"))
    ]
    if "angle/step" in history:
        panels.append(("angle of the step\nto -g (degrees)", [("", steps, history["angle/step"], thin)], False))
    panels += _joint_panel("cosines between\ngradients of terms", "cosine/", history, False)
    panels += _joint_panel("terms", "term/", history, True)
    return panels + [_norm_panel(*kind, history) for kind in by_kind(history).items()]


def _scalar_panel(name, steps, values, style):
    """One number of the log. What is measured now and then would be invisible: such points are joined, with marks."""
    known = ~np.isnan(np.asarray(values, float))
    if known.all() or np.any(known[1:] & known[:-1]):
        return name, [(name, steps, values, style)], False
    measured = [(name, steps[known], values[known], {**style, "marker": "o", "markersize": 3})]
    return name, measured, is_never_negative([values[known]]) and np.any(values[known] > 0)


def _joint_panel(heading, prefix, history, logarithmic):
    """One panel for all columns whose names begin so; none where there are no such."""
    names = [name for name in history if name.startswith(prefix)]
    looks = zip(names, itertools.cycle(_LOOKS))
    curves = [(name.removeprefix(prefix), history["step"], history[name], look) for name, look in looks]
    return [(heading, curves, logarithmic)] if curves else []


def _norm_panel(kind, columns, history):
    """The norms of one vector by variable: of all variables, or of the largest."""
    values = {variable: _positive(history[column]) for variable, column in columns.items()}
    means = {variable: np.mean(np.nan_to_num(v)) if len(v) else 0.0 for variable, v in values.items()}
    largest = sorted(means, key=means.get, reverse=True)[: len(_LOOKS)]
    shown = [variable for variable in values if variable in largest]
    left_out = "" if len(shown) == len(values) else f"\nlargest {len(shown)} of {len(values)} by mean"
    curves = [(name, history["step"], values[name], look) for name, look in zip(shown, _LOOKS, strict=False)]
    return f"norm of {kind}{left_out}", curves, True


def _positive(values):
    """Values a logarithmic axis can show; the others leave gaps."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
