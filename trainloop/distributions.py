"""How large the entries of vectors are in every variable, as a picture.

One panel for each vector, one row for each variable. The shade says which share of a variable's entries has a size in
a quarter of a decade; entries that are exactly zero have a column of their own, at the left.
"""

import numpy as np
from matplotlib.figure import Figure

_PER_DECADE = 4
_MOST_LABELS = 40


def draw(layout, vectors, title):
    """A figure.

    Args:
        layout: a `FlatLayout`.
        vectors: {name: [n]}.
        title: of the figure.
    """
    rows = {name: layout.span(name) for name in layout.names if layout.sizes[layout.names.index(name)]}
    rows["all"] = slice(None)
    height = min(12.0, 2.2 + 0.26 * len(rows))
    figure = Figure(figsize=(10.5, height), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(1, len(vectors), sharey=True, squeeze=False)[0]
    for axes, (name, vector) in zip(panels, vectors.items(), strict=True):
        image = _draw_panel(axes, name, vector, rows.values())
    every = -(-len(rows) // _MOST_LABELS)
    panels[0].set_yticks(range(0, len(rows), every), list(rows)[::every], fontsize="small")
    panels[0].invert_yaxis()
    figure.colorbar(image, ax=list(panels), label="share of the variable's entries (%)", pad=0.01)
    return figure


def _draw_panel(axes, name, vector, spans):
    edges = _edges(vector)
    shares = np.array([_shares(vector[span], edges) for span in spans])
    # Zeros and numbers that are not finite stand apart by the width of a column.
    places = np.concatenate([[edges[0] - 0.5], edges])
    image = None
    for columns, left, right in ((slice(0, 1), places[0] - 0.25, places[0]), (slice(1, None), edges[0], edges[-1])):
        image = axes.imshow(
            np.where(shares[:, columns] > 0, shares[:, columns], np.nan),
            aspect="auto", cmap="cividis_r", vmin=0, vmax=50, interpolation="none",
            extent=(left, right, len(shares) - 0.5, -0.5),
        )  # fmt: skip
    return image


def _edges(vector):
    """Powers of ten between which there are entries, in quarters of a decade."""
    sizes = np.abs(vector[np.isfinite(vector) & (vector != 0)]).astype(float)
    low, high = (np.log10(sizes.min()), np.log10(sizes.max())) if sizes.size else (-1.0, 0.0)
    first, last = np.floor(low * _PER_DECADE), np.floor(high * _PER_DECADE) + 1
    return np.arange(first, last + 1) / _PER_DECADE


def _shares(part, edges):
    """Percentages of zeros and of every size."""
    size = np.abs(part[np.isfinite(part) & (part != 0)]).astype(float)
    counts, _ = np.histogram(np.log10(size), edges)
    return 100 * np.concatenate([[np.count_nonzero(part == 0)], counts]) / len(part)
