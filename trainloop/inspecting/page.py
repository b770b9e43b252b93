"""The findings of one look at a run as a page that needs nothing else."""

import numpy as np

from trainloop.comparison import html
from trainloop.inspecting.findings import Findings


def page(found: Findings, title: str, notes: dict[str, str]) -> str:
    """The text of an HTML page.

    Args:
        found: `Findings`.
        title: of the page.
        notes: {name: text}, notes about the run and the data.
    """
    from trainloop.plots.lines import draw_lines, draw_plane

    pictures = {
        "spectrum": found.spectrum.plot(),
        "lines": draw_lines(found.lines),
        "plane": draw_plane(found.plane),
        "entries": found.step.histogram(),
    }
    return html.render(
        "inspected",
        title=title,
        notes=notes,
        images=html.images(pictures),
        eigenvalues=[f"{value:.4g}" for value in found.eigenvalues],
        shares=_shares(found),
        norms=_norms(found),
    )


def _shares(found):
    """{variable: which part of the squared length of each eigenvector lies in it}."""
    layout = found.operator.layout
    squares = {name: (found.eigenvectors[layout.span(name)] ** 2).sum(0) for name in layout.names}
    return {name: [f"{share:.1%}" for share in shares] for name, shares in squares.items()}


def _norms(found):
    """{variable: |x|, |g|, |step|, |step| / |x|}."""
    rows = {}
    for name, norms in found.step.norms().items():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.divide(norms["step"], norms["x"])
        rows[name] = [f"{value:.3e}" for value in (norms["x"], norms["g"], norms["step"], ratio)]
    return rows
