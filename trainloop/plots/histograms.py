"""How large the entries of vectors are in every variable, as a picture.

One panel for each vector, one hill for each variable over a logarithmic axis. All hills are scaled to the same height:
where a hill stands and how wide it is is what they tell. A bar in it is the median. What has no place on such an axis,
zeros and numbers that are not finite, is written beside it.
"""

from collections.abc import Mapping

import numpy as np

from trainloop.plots.figure import COLOURS, GREY, Picture
from trainloop.vectors.layout import FlatLayout

_TITLES = {
    "x": ("weights x", "units of x"),
    "g": ("gradient g", "units of f per unit of x"),
    "step": ("step x_new - x", "units of x"),
}
_BINS = 60
_MOST_LABELS = 40

# Of every variable so many entries may be too small to be drawn, else a few would take most of the axis.
_LEFT_OUT = 0.01


def draw_histograms(layout: FlatLayout, vectors: Mapping[str, np.ndarray], title: str) -> Picture:
    """How large the entries of vectors are in every variable, as a figure.

    Args:
        layout: a `FlatLayout`.
        vectors: {name: [n]} of "x", "g" and "step".
        title: of the figure.

    Returns:
        A Matplotlib figure.

    Examples:
        >>> vector = VariableVector(model.trainable_variables)
        >>> figure = plots.draw_histograms(vector.layout, {"x": vector.read().numpy()}, "weights")
    """
    spans = {name: layout.span(name) for name, size in zip(layout.names, layout.sizes, strict=True) if size}
    spans["all"] = slice(None)
    figure = Picture(figsize=(11, min(14, 1.6 + 0.42 * len(spans))), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(1, len(vectors), sharey=True, squeeze=False)[0]
    for axes, (name, vector), colour in zip(panels, vectors.items(), COLOURS, strict=False):
        parts = [np.abs(vector[span].astype(float)) for span in spans.values()]
        _draw_panel(axes, parts, colour)
        heading, unit = _TITLES[name]
        axes.set_title(heading, fontsize="medium")
        axes.set_xlabel(f"size of an entry ({unit})")
    every = -(-len(spans) // _MOST_LABELS)
    panels[0].set_yticks(range(0, len(spans), every), list(spans)[::every], fontsize="small")
    panels[0].set_ylim(len(spans) - 0.8, -1.1)
    panels[0].set_ylabel("number of entries")
    return figure


def _draw_panel(axes, parts, colour):
    edges = _edges(parts)
    middles = np.sqrt(edges[1:] * edges[:-1])
    for row, part in enumerate(parts):
        seen = _shown(part)
        counts = np.histogram(seen, edges)[0]
        heights = 0.9 * counts / max(1, counts.max())
        axes.fill_between(middles, row, row - heights, step="mid", color=colour, alpha=0.5, linewidth=0)
        axes.axhline(row, color=GREY, linewidth=0.5, zorder=0)
        if seen.size:
            axes.vlines(np.median(seen), row - 0.9, row, color="black", linewidth=1)
        axes.text(0.01, row - 0.55, _beside(part), transform=axes.get_yaxis_transform(), fontsize="x-small")
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.grid(axis="x", alpha=0.3)


def _edges(parts):
    """Of bins from the smallest entry that is drawn to the largest."""
    seen = [part for part in map(_shown, parts) if part.size]
    low = min((np.quantile(part, _LEFT_OUT) for part in seen), default=0.1)
    high = max((part.max() for part in seen), default=1.0)
    return np.geomspace(low / 1.5, high * 1.5, _BINS + 1)


def _shown(part):
    return part[np.isfinite(part) & (part > 0)]


def _beside(part):
    zeros, bad = np.count_nonzero(part == 0), np.count_nonzero(~np.isfinite(part))
    told = [f"{100 * zeros / len(part):.3g} % zero"] if zeros else []
    return ", ".join([*told, *([f"{bad} not finite"] if bad else [])])
