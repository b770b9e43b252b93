"""Curves of a comparison over epochs, time and evaluations."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from trainloop.comparison import end_labels
from trainloop.plots.figure import COLOURS, Picture, is_never_negative, label, set_logarithmic

# Of Matplotlib -> of SVG.
_DASHES = {"-": "none", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}

# Losses above so many medians of the first epochs' losses are not shown.
_MOST = 10

# Where the longest run takes so many times as long as the shortest, time and work are logarithmic.
_LONG = 5

# x axis -> (title, label, function of an outcome to values at the ends of epochs)
AXES = {
    "epochs": ("by epoch", "epoch", lambda outcome: outcome.log.epochs["epoch"]),
    "seconds": ("by time", "training time without compilation [s]", lambda outcome: outcome.training_seconds),
    "passes": (
        "by work",
        "evaluations [passes over the training set]",
        lambda outcome: outcome.at_epochs(outcome.passes),
    ),
}


def draw(outcomes, axis):
    """Training loss, and below it what was measured on the test set, over one of `AXES`.

    A thick line is the mean over the seeds, as far as all of them got, of both coordinates; thin lines are single runs.
    Optimizers are named at the ends of their lines where that fits; `add_legend` names them all.

    Args:
        outcomes: list of `Outcome`; those without an epoch are left out.
        axis: a key of `AXES`.

    Returns:
        `Picture`, or None where no run has an epoch.
    """
    groups = _by_method(outcomes)
    if not groups:
        return None
    title, unit, where = AXES[axis]
    panels = _panels(groups)
    figure = Picture(figsize=(4.8, 2.2 * len(panels) + 0.4), layout="constrained")
    figure.suptitle(title)
    rows = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    names = end_labels.short_names([group[0].run.entrant for group in groups.values()])
    styles = {method: style(i) for i, method in enumerate(dict.fromkeys(o.run.entrant.label for o in outcomes))}
    for axes, (name, heading) in zip(rows, panels, strict=True):
        _draw_panel(axes, groups, styles, name, heading, where)
    _set_ticks(rows[-1], axis, groups, unit, where)
    end_labels.add(rows, names)
    return figure


def _draw_panel(axes, groups, styles, name, heading, where):
    for method, group in groups.items():
        _curve(axes, method, [(where(o), _shown(o, name)) for o in group if name in o.log.epochs], styles[method])
    axes.grid(alpha=0.3)
    shown = [_shown(o, name) for group in groups.values() for o in group if name in o.log.epochs]
    if ("loss" in name or "accuracy" in name) and is_never_negative(shown):
        heading += " (log)"
        axes.set_yscale("log")
        if "loss" in name:
            _cut_off(axes, shown)
        set_logarithmic(axes.yaxis)
    axes.set_ylabel(label(heading))


def _set_ticks(axes, axis, groups, unit, where):
    """The x axis below all panels: epochs are integers, and long and short runs share a logarithmic axis."""
    outcomes = [outcome for group in groups.values() for outcome in group]
    if axis == "epochs":
        steps = all(np.array_equal(o.log.epochs["epoch"], o.log.epochs["step"]) for o in outcomes)
        axes.set_xlabel("step" if steps else unit)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    ends = [where(outcome)[-1] for outcome in outcomes]
    logarithmic = max(ends) > _LONG * min(ends)
    axes.set_xlabel(f"{unit} (log)" if logarithmic else unit)
    if logarithmic:
        set_logarithmic(axes.xaxis)


def add_legend(figure):
    """The same figure with the names of its lines below, and room for them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.2 * len(labels))
    figure.legend(handles, labels, loc="outside lower left", fontsize="small", frameon=False)
    return figure


def keys(count):
    """[{"color": ..., "dashes": ...}]: how SVG draws the lines of the first methods."""
    styles = [style(i) for i in range(count)]
    return [{"color": one["color"], "dashes": _DASHES[one["linestyle"]]} for one in styles]


def style(i):
    """Colour and dashes of the i-th optimizer, the same in all figures; 28 differ."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": list(_DASHES)[i // len(COLOURS) % len(_DASHES)]}


def _by_method(outcomes):
    """{label: outcomes with at least one epoch}."""
    groups = {}
    for outcome in outcomes:
        if len(outcome.log.epochs.get("epoch", ())):
            groups.setdefault(outcome.run.entrant.label, []).append(outcome)
    return groups


def _panels(groups):
    """(name in the epochs' summaries, label of the y axis)."""
    seen = dict.fromkeys(name for group in groups.values() for outcome in group for name in outcome.log.epochs)
    tests = [name for name in seen if name.startswith("val_")]
    return [("loss", "training loss"), *((name, _label(name)) for name in tests)]


def _label(name):
    measured = f"test {name.removeprefix('val_')}"
    return f"1 - {measured}" if "accuracy" in name else measured


def _shown(outcome, name):
    """Errors instead of accuracies: of 0.91 and 0.97 the one has three times as many. What is 0 leaves a gap."""
    values = outcome.log.epochs[name]
    if "accuracy" not in name:
        return values
    return np.where(values < 1, 1 - values, np.nan)


def _cut_off(axes, losses):
    """A run that diverged must not press all others together at the bottom."""
    first, values = [values[0] for values in losses if np.isfinite(values[0])], np.concatenate(losses)
    limit = _MOST * np.median(first) if first else np.inf
    shown = values[(values > 0) & (values <= limit)]
    if 0 < shown.size < np.sum(values > 0):
        axes.set_ylim(shown.min() / 1.5, limit)


def _curve(axes, method, runs, style):
    if len(runs) > 1:
        for x, y in runs:
            axes.plot(x, y, linewidth=0.7, alpha=0.45, **style)
    shortest = min((len(x) for x, _ in runs), default=0)
    if shortest:
        x, y = np.mean([(x[:shortest], y[:shortest]) for x, y in runs], axis=0)
        axes.plot(x, y, linewidth=2, label=label(method), marker="o" if shortest == 1 else None, **style)
