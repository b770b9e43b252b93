"""What is left of a run when it is over: a picture, and the model."""

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from trainloop.writers import read_metrics

# Okabe and Ito (2008): told apart by every kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"


def write_results(directory, loop, result, title, resumed):
    """The curves and the model, with the best weights where the method keeps them.

    Args:
        directory: a `RunDirectory` whose metrics file is complete.
        loop: the `TrainLoop`.
        result: its `RunResult`.
        title: above the curves.
        resumed: whether the result has only the steps of the last process.
    """
    if resumed:
        history, epochs = read_metrics(directory.metrics)
        result = dataclasses.replace(result, history=history, epochs=epochs)
    plot_curves(result, directory.curves, title)
    if loop.optimizer.best_point() is not None:
        loop.optimizer.restore_best()
    loop.model.save(directory.model)


def plot_curves(result, path, title=""):
    """Loss, metrics, gradient norm and the method's own scalars over the steps of a run, as a PNG file.

    Args:
        result: a `RunResult`, also that of a run that failed.
        path: where to write it.
        title: above the figure.
    """
    panels = _panels(result)
    figure = Figure(figsize=(6.4, 2.6 * len(panels) + 0.6), layout="constrained")
    figure.suptitle(title)
    rows = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    for axes, (label, curves, logarithmic) in zip(rows, panels, strict=True):
        for name, x, y, style in curves:
            axes.plot(x, y, label=name, **style)
        if logarithmic:
            axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize="small")
    rows[-1].set_xlabel("step")
    figure.savefig(path, dpi=120)


def _panels(result):
    """(label of the y axis, [(name, x, y, style)], logarithmic) per panel."""
    history, epochs = result.history, result.epochs
    steps = history.get("step", np.zeros(0))
    every_step = {"color": _GREY, "linewidth": 0.8}
    training = {"color": _BLUE, "marker": "o", "markersize": 3}
    validation = {"color": _ORANGE, "marker": "s", "markersize": 3}

    def by_epoch(name):
        curves = [("training, mean of the epoch", epochs["step"], epochs[name], training)] if name in epochs else []
        if f"val_{name}" in epochs:
            curves.append(("validation", epochs["step"], epochs[f"val_{name}"], validation))
        return curves

    panels = [
        ("loss", [("each batch", steps, _positive(history.get("loss", steps)), every_step), *by_epoch("loss")], True)
    ]
    own = ("epoch", "step", "seconds", "loss")
    metrics = [name for name in epochs if name not in own and not name.startswith("val_")]
    panels += [(name, by_epoch(name), False) for name in metrics]
    scalars = [name for name in history if name not in ("step", "epoch", "samples", "loss", "status")]
    return panels + [
        (name, [(name, steps, history[name], {"color": _BLUE, "linewidth": 0.8})], False) for name in scalars
    ]


def _positive(values):
    """Values a logarithmic axis can show; the others leave gaps."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
