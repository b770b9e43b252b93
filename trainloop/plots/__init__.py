"""Figures of runs and of vectors. Matplotlib is loaded when the first one is drawn."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainloop.plots.curves import draw_curves
    from trainloop.plots.histograms import draw_histograms
    from trainloop.plots.spectra import draw_spectrum

__all__ = ["draw_curves", "draw_histograms", "draw_spectrum"]

_HOMES = {
    "draw_curves": "trainloop.plots.curves",
    "draw_histograms": "trainloop.plots.histograms",
    "draw_spectrum": "trainloop.plots.spectra",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(_HOMES[name]), name)
    return found
