"""A figure that notebooks show without being asked, and colours that all eyes tell apart."""

import io

import numpy as np

from trainloop.errors import needed_for

with needed_for("drawing figures", "plot"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

# Okabe and Ito (2008), without their yellow, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, ORANGE, GREY = COLOURS[0], COLOURS[1], "#999999"


def label(text):
    """A text as it is: Matplotlib reads what is between two $ as mathematics, and hides labels that begin with _."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def is_never_negative(curves):
    """Whether a logarithmic axis has a place for these arrays; zeros leave gaps there."""
    return not any(np.any(np.less(values, 0)) for values in curves)


# A logarithmic axis has 1, 2 and 5 as labels where it spans fewer powers of ten.
_FEW_DECADES = 2.5


def set_linear(axis, integer):
    """Give a linear axis a few labels, a round number apart.

    Args:
        axis: of axes.
        integer: whether all of them are integers.
    """
    axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10), integer=integer))


def set_logarithmic(axis):
    """Make an axis logarithmic, with a few labels that can be read however far it reaches.

    Args:
        axis: of axes with all their curves.
    """
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = sorted(axis.get_view_interval())
    few = high < low * 10**_FEW_DECADES
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))
    axis.set_major_formatter("{x:g}" if few and low > 1e-3 and high < 1e5 else LogFormatterSciNotation())
    axis.set_minor_formatter(NullFormatter())


class Picture(Figure):
    """A Matplotlib figure of no window: `savefig` writes it, and a notebook shows it as the value of a cell."""

    def png(self, dpi=120, transparent=False):
        """The figure as the bytes of a PNG file.

        Args:
            dpi: dots per inch.
            transparent: whether there is nothing behind curves and texts, for pages of any colour.
        """
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi, transparent=transparent)
        return buffer.getvalue()

    def _repr_png_(self):
        return self.png()
