"""Figures of a comparison: curves over epochs, time and evaluations, and gradient norms layer by layer."""

import textwrap

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from trainloop.plots.figure import COLOURS, Picture, is_never_negative, label

_DASHES = ("-", "--", ":", "-.")

# Losses above so many medians of the first epochs' losses are not shown.
_MOST = 10

# Where the longest run takes so many times as long as the shortest, time and work are logarithmic.
_LONG = 5

# x axis -> (title, label, function of an outcome to values at the ends of epochs)
AXES = {
    "epochs": ("by epoch", "epoch", lambda outcome: outcome.log.epochs["epoch"]),
    "seconds": ("by time", "wall-clock time [s]", lambda outcome: outcome.log.epochs["seconds"]),
    "passes": (
        "by work",
        "evaluations [passes over the training set]",
        lambda outcome: outcome.at_epochs(outcome.passes),
    ),
}


def draw(outcomes, axis):
    """Training loss, and below it what was measured on the test set, over one of `AXES`.

    A thick line is the mean over the seeds, as far as all of them got, of both coordinates; thin lines are single runs.

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
    figure = Picture(figsize=(4.8, 2.2 * len(panels) + 0.4 + 0.2 * len(groups)), layout="constrained")
    figure.suptitle(title)
    rows = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axes, (name, heading) in zip(rows, panels, strict=True):
        for i, (method, group) in enumerate(groups.items()):
            _curve(axes, method, [(where(o), _shown(o, name)) for o in group if name in o.log.epochs], style(i))
        axes.set_ylabel(label(heading))
        axes.grid(alpha=0.3)
        shown = [_shown(o, name) for group in groups.values() for o in group if name in o.log.epochs]
        if ("loss" in name or "accuracy" in name) and is_never_negative(shown):
            axes.set_yscale("log")
            if "loss" in name:
                _cut_off(axes, shown)
    steps = all(np.array_equal(o.log.epochs["epoch"], o.log.epochs["step"]) for group in groups.values() for o in group)
    rows[-1].set_xlabel("step" if axis == "epochs" and steps else unit)
    ends = [where(outcome)[-1] for group in groups.values() for outcome in group]
    _set_ticks(rows[-1], axis == "epochs", logarithmic=axis != "epochs" and max(ends) > _LONG * min(ends))
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", fontsize="small", frameon=False)
    return figure


def _set_ticks(axes, integer, logarithmic):
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=integer))


def style(i):
    """Colour and dashes of the i-th method, the same in all figures; 28 are told apart."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": _DASHES[i // len(COLOURS) % len(_DASHES)]}


def layer_limits(outcomes):
    """The smallest and largest logarithm of a gradient norm in several runs, so that their colours mean the same."""
    logs = [_layer_logs(outcome)[1] for outcome in outcomes]
    known = np.concatenate([rows[np.isfinite(rows)] for rows in logs] or [np.zeros(0)])
    return (known.min(), known.max()) if known.size else (None, None)


def draw_layers(outcome, limits=(None, None)):
    """Gradient norms of one run: variables from the input to the output downwards, steps to the right.

    Args:
        outcome: an `Outcome` whose history has columns `norm/g/<variable>`.
        limits: of the colours, see `layer_limits`.

    Returns:
        `Picture`, or None where there are no such columns.
    """
    names, logs = _layer_logs(outcome)
    if not names:
        return None
    figure = Picture(figsize=(4.8, 1.3 + 0.21 * len(names)), layout="constrained")
    figure.suptitle(label(textwrap.fill(outcome.run.name, 48, break_on_hyphens=False)), fontsize="medium")
    axes = figure.subplots()
    steps = outcome.log.history["step"]
    image = axes.imshow(
        logs,
        aspect="auto",
        cmap="cividis",
        interpolation="nearest",
        vmin=limits[0],
        vmax=limits[1],
        extent=(steps[0] - 0.5, steps[-1] + 0.5, len(names), 0),
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, list(map(label, names)), fontsize="small")
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, label="log10 of the gradient's norm")
    return figure


def _layer_logs(outcome):
    """Names of variables, and [variables, stretches of steps]: the logarithms of their gradients' norms."""
    history, prefix = outcome.log.history, "norm/g/"
    columns = [name for name in history if name.startswith(prefix)]
    norms = np.array([history[name] for name in columns], float).reshape(len(columns), len(history["step"]))
    with np.errstate(divide="ignore"):
        logs = np.log10(norms)
    logs[~np.isfinite(logs)] = np.nan
    return [name.removeprefix(prefix) for name in columns], _binned(logs)


def _binned(rows, most=240):
    """[k, steps] as [k, at most `most`]: means over equal stretches of steps."""
    count = rows.shape[1]
    if count <= most:
        return rows
    edges = np.linspace(0, count, most + 1).astype(int)
    known = np.isfinite(rows)
    sums = np.add.reduceat(np.where(known, rows, 0.0), edges[:-1], axis=1)
    counts = np.add.reduceat(known, edges[:-1], axis=1, dtype=int)
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / counts, np.nan)


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
    return f"test {name.removeprefix('val_')}".replace("accuracy", "error (1 - accuracy)")


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
