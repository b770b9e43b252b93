"""The loss along lines and on a plane, as figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainloop.plots.figure import BLUE, GREY, ORANGE, Picture, label


def draw_lines(lines: Sequence[Any]) -> Picture:
    """f(x + t d) over t for each direction, beside the parabola of the curvature.

    Args:
        lines: of `trainloop.inspecting.findings.Line`.

    Returns:
        A Matplotlib figure.
    """
    columns = 2
    rows = -(-len(lines) // columns)
    figure = Picture(figsize=(8.4, 2.9 * rows), layout="constrained")
    for line, axes in zip(lines, figure.subplots(rows, columns, squeeze=False).flat, strict=False):
        axes.plot(line.t, line.losses, color=BLUE, linewidth=1.4, label="loss")
        axes.plot(line.t, line.model, color=ORANGE, linewidth=1, linestyle="--", label="quadratic model")
        axes.axvline(0, color=GREY, linewidth=0.6)
        finite = line.losses[np.isfinite(line.losses)]
        if finite.size:  # the model may be far off
            height = max(float(np.ptp(finite)), np.finfo(float).tiny)
            axes.set_ylim(finite.min() - 0.15 * height, finite.max() + 0.15 * height)
        axes.set_title(label(line.name), fontsize="medium")
        axes.set_xlabel("multiple of the step" if line.name == "the step" else "distance")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss")
    figure.axes[0].legend(fontsize="small", frameon=False)
    for axes in figure.axes[len(lines) :]:
        axes.set_visible(False)
    return figure


def draw_plane(plane: Any) -> Picture:
    """The loss over multiples of the step and the distance along the first eigenvector, as contours.

    Args:
        plane: a `trainloop.inspecting.findings.Plane`.

    Returns:
        A Matplotlib figure.
    """
    figure = Picture(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    seen = np.where(np.isfinite(plane.losses), plane.losses, np.nan)
    contours = axes.contourf(plane.a, plane.b, seen, levels=20, cmap="viridis")
    axes.plot(0, 0, "o", color="white", markeredgecolor="black", markersize=6)
    axes.annotate("", (1, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": "white", "linewidth": 1.5})
    axes.set_xlabel("multiple of the step")
    axes.set_ylabel("along eigenvector 1")
    figure.colorbar(contours, label="loss")
    return figure
