"""Gradient norms of a run, layer by layer, as a map of colours."""

import textwrap

import numpy as np
from matplotlib.ticker import MaxNLocator

from trainloop.plots.figure import Picture, label


def limits(outcomes):
    """The smallest and largest logarithm of a gradient norm in several runs, so that their colours mean the same."""
    logs = [_logs(outcome)[1] for outcome in outcomes]
    known = np.concatenate([rows[np.isfinite(rows)] for rows in logs] or [np.zeros(0)])
    return (known.min(), known.max()) if known.size else (None, None)


def draw(outcome, limits=(None, None)):
    """Gradient norms of one run: variables from the input to the output downwards, steps to the right.

    Args:
        outcome: an `Outcome` whose history has columns `norm/g/<variable>`.
        limits: of the colours, see the function `limits`.

    Returns:
        `Picture`, or None where there are no such columns.
    """
    names, logs = _logs(outcome)
    if not names:
        return None
    figure = Picture(figsize=(4.8, 1.9 + 0.21 * len(names)), layout="constrained")
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
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.colorbar(image, ax=axes, location="bottom", aspect=40, label="log10 of the gradient's norm")
    return figure


def _logs(outcome):
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
