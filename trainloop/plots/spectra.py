"""The density of eigenvalues, as a picture."""

from typing import Any

import numpy as np

from trainloop.plots.figure import BLUE, GREY, ORANGE, Picture, label

# Densities below this share of a single eigenvalue's peak are nothing but the tail of a normal distribution.
_FLOOR = 1e-2


def draw_spectrum(spectrum: Any, title: str = "") -> Picture:
    """The density of eigenvalues with a logarithmic axis. Ticks below are the nodes, from each probe.

    Args:
        spectrum: a `Spectrum`.
        title: above the figure.

    Returns:
        A Matplotlib figure.

    Examples:
        >>> spectrum = curvature(model, loss, data=(x, y)).spectrum(probes=2, steps=10)
        >>> plots.draw_spectrum(spectrum, "Hessian").savefig("spectrum.png")
    """
    figure = Picture(figsize=(7.2, 3.6), layout="constrained")
    figure.suptitle(label(title))
    axes = figure.subplots()
    single = 1 / (spectrum.n * spectrum.width * np.sqrt(2 * np.pi))  # the peak of one eigenvalue
    density = np.maximum(spectrum.density, _FLOOR * single)
    axes.fill_between(spectrum.grid, density, _FLOOR * single, color=BLUE, alpha=0.3, linewidth=0)
    axes.plot(spectrum.grid, density, color=BLUE, linewidth=1)
    nodes = spectrum.nodes[spectrum.weights > 1e-3 / spectrum.n]
    look: dict[str, Any] = {"color": ORANGE, "linestyle": "", "marker": "|", "label": "nodes of the quadrature"}
    axes.plot(nodes, np.full(len(nodes), 0.02), transform=axes.get_xaxis_transform(), **look)
    axes.axhline(single, color=GREY, linestyle=":", linewidth=1, label="peak of one eigenvalue")
    axes.set_yscale("log")
    axes.set_ylim(_FLOOR * single)
    axes.set_xlim(spectrum.grid[0], spectrum.grid[-1])
    axes.set_xlabel("eigenvalue")
    axes.legend(fontsize="small", loc="upper right")
    axes.set_ylabel("share of the eigenvalues per unit")
    axes.grid(alpha=0.3)
    return figure
