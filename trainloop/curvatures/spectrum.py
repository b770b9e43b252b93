"""The density of eigenvalues of a symmetric matrix by stochastic Lanczos quadrature.

    density(t) = 1/n sum_i delta(t - lambda_i)
               ~ 1/p sum over p random vectors z of sum_j weight_j(z) N(t; node_j(z), width^2)

For a random z of norm 1 the mean of z' f(A) z is the mean of f over the eigenvalues, and m steps of Lanczos's method
from z give a Gauss quadrature for z' f(A) z, see `lanczos`. Each node becomes a normal distribution of some width.
Lin, Saad and Yang (2016), Approximating spectral densities of large matrices, section 3.2; for networks Ghorbani,
Krishnan and Xiao (2019), An investigation into neural net optimization via Hessian eigenvalue density.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from trainloop import checks
from trainloop.curvatures import lanczos
from trainloop.curvatures.probes import signs
from trainloop.curvatures.watch import watched
from trainloop.results import Plotted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The bases of the vectors that are taken side by side may need so much memory, and share each reading of the data.
_BASES_BYTES = 2**28

# A grid has so many points for each width, and reaches so many widths beyond the outermost nodes.
_POINTS = 5
_REACH = 5

# A width is the distance of the outermost nodes over this number, and at the finest over the other one.
_WIDTHS, _MOST_WIDTHS = 200, 4_000


@dataclasses.dataclass(frozen=True, repr=False)
class Spectrum(Plotted):
    """How the eigenvalues of a symmetric matrix [n, n] are distributed.

    Attributes:
        grid: values t at which there is a density [points].
        density: share of the eigenvalues per unit of t, at each point [points]. Its integral is 1.
        nodes: of the quadratures, in ascending order [probes, steps]. The outermost ones are estimates of the outermost
            eigenvalues.
        weights: share of the eigenvalues near each node [probes, steps]. They sum to 1 for each probe.
        width: standard deviation of the normal distribution that each node becomes.
        n: number of eigenvalues.

    Examples:
        >>> spectrum = curvature(model, loss, data=(x, y)).spectrum(probes=2, steps=10)
        >>> bool(abs(spectrum.weights.sum() - 2) < 1e-5)
        True
        >>> figure = spectrum.plot("spectrum.png")
    """

    grid: np.ndarray
    density: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    width: float
    n: int

    def __repr__(self) -> str:
        probes, steps = self.nodes.shape
        low, high = self.nodes.min(), self.nodes.max()
        return f"Spectrum(n={self.n:,}, from {low:.3g} to {high:.3g}, {probes} probes of {steps} steps)"

    def _drawn(self, title: str) -> "Figure":
        from trainloop.plots.spectra import draw_spectrum

        return draw_spectrum(self, title)


def spectrum_of(operator, probes, steps, width, seed):
    """The `Spectrum` of an operator; see `SymmetricOperator.spectrum`."""
    n = operator.shape[0]
    probes, steps = checks.integer("probes", probes, at_least=1), checks.integer("steps", steps, at_least=2)
    steps = min(steps, n)
    width = None if width is None else checks.real("width", width, above=0)
    starts = signs(n, probes, operator.dtype, seed) / np.sqrt(n, dtype=operator.dtype)
    together = max(1, _BASES_BYTES // (n * steps * operator.dtype.itemsize))
    found = []
    with watched("spectrum", -(-probes // together) * steps) as advance:
        for first in range(0, probes, together):
            found.append(lanczos.quadrature(operator.product, starts[:, first : first + together], steps, advance))
    nodes, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _smoothed(nodes, weights, width, n)


def _smoothed(nodes, weights, width, n):
    """The `Spectrum` of a quadrature. Nodes without weight say nothing of the matrix."""
    seen = nodes[weights > 0]
    low, high = float(seen.min()), float(seen.max())
    if width is None:
        width = ((high - low) or max(abs(high), 1.0)) / _WIDTHS
    elif width * _MOST_WIDTHS < high - low:
        raise ValueError(
            f"width must be at least 1/{_MOST_WIDTHS:,} of the distance of the outermost nodes, {high - low:.3g}, "
            f"received {width:g}"
        )
    count = int(_POINTS * ((high - low) / width + 2 * _REACH)) + 1
    grid = np.linspace(low - _REACH * width, high + _REACH * width, count)
    scaled = (grid[:, None] - nodes.reshape(1, -1)) / width
    bumps = np.exp(-0.5 * scaled**2) / (width * np.sqrt(2 * np.pi))
    return Spectrum(grid, bumps @ weights.ravel() / len(weights), nodes, weights, width, n)
