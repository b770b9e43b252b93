"""A run as a figure: a grid of panels that fits a page."""

import textwrap
from typing import Any

import numpy as np

from trainloop.plots.figure import GREY, Picture, label, set_linear, set_logarithmic
from trainloop.plots.panels import panels_of, positive

# In inches. Three columns and six rows have the proportions of a sheet of paper.
_PANEL, _MOST_COLUMNS, _MOST_ROWS = (3.6, 2.1), 3, 6

# How many characters of a size have room in an inch.
_OF_TITLE, _OF_NOTE = 9, 17

# Longer names lose their beginning, which their neighbours share.
_LONGEST_NAME, _LONGEST_HEADING = 40, 32

# Of the names in the note, for each reason.
_MOST_NAMES = 8


def draw_curves(result: Any, title: str = "") -> Picture:
    """Loss, metrics, gradient norm and the optimizer's own scalars over the steps of a run, in a grid.

    Training and validation share a panel. An axis is logarithmic where nothing is negative and the values span a power
    of ten. A light line stands where a phase ends. Columns that never change or only count have no panel; a note below
    names them. A page has room for six rows of up to three panels; the note names the panels that found none.

    Args:
        result: a `RunResult`, also that of a run that failed, a `RunLog`, or a `MinimizeResult`.
        title: above the figure.

    Returns:
        A Matplotlib figure.

    Examples:
        >>> result = TrainLoop(model, Adam(), loss).run((x, y), epochs=2)
        >>> plots.draw_curves(result, "two epochs of Adam").savefig("curves.png")
    """
    panels = panels_of(result)
    columns = _columns(len(panels.shown))
    rows, too_many = _rows(panels.shown, columns)
    width = _PANEL[0] * columns
    note = _note({**panels.left_out, "no room for": [panel.heading for panel in too_many]}, width)
    height = _PANEL[1] * len(rows) + 0.5 + 0.15 * note.count("\n")
    figure = Picture(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    figure.suptitle(label(textwrap.fill(title, int(_OF_TITLE * width))), fontsize="large")
    figure.supxlabel(note, fontsize="x-small", color="#666666", x=0.01, horizontalalignment="left")
    _draw_rows(figure, rows, columns, _changes(result.history))
    return figure


def _columns(count):
    """One panel alone, up to four in a square, more in three columns."""
    return min(_MOST_COLUMNS, max(1, int(np.ceil(np.sqrt(count)))))


def _rows(panels, columns):
    """(rows of panels, those without a place): first the narrow ones, then those that take a row of their own."""
    narrow, wide = ([panel for panel in panels if panel.wide is is_wide] for is_wide in (False, True))
    rows = [narrow[i : i + columns] for i in range(0, len(narrow), columns)]
    # Some norms by variable are worth more than the last scalars.
    room = _MOST_ROWS - min(len(wide), _MOST_ROWS // 2)
    shown = rows[:room] + [[panel] for panel in wide]
    return shown[:_MOST_ROWS], [panel for row in [*rows[room:], *shown[_MOST_ROWS:]] for panel in row]


def _note(left_out, width):
    """`Not drawn: constant radius = 5; only counting pairs`, in lines of the figure's width."""
    told = "; ".join(f"{why} {_some(names)}" for why, names in left_out.items() if names)
    return label(textwrap.fill(f"Not drawn: {told}", int(_OF_NOTE * width))) if told else ""


def _some(names):
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _draw_rows(figure, rows, columns, changes):
    grid, first = figure.add_gridspec(len(rows), columns), None
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            beside = panel.wide and columns > 1
            axes = figure.add_subplot(grid[i, :-1] if beside else grid[i, j], sharex=first)
            first = first or axes
            _draw(axes, panel, changes)
            _set_legend(axes, figure.add_subplot(grid[i, -1]) if beside else None)
            if i + 1 == len(rows) or (j >= len(rows[i + 1]) and not rows[i + 1][0].wide):
                axes.set_xlabel("step", fontsize="small")


def _draw(axes, panel, changes):
    for step in changes:
        axes.axvline(step, color=GREY, linestyle=":", linewidth=0.8)
    for name, x, y, style in panel.curves:
        axes.plot(x, positive(y) if panel.logarithmic else y, label=label(_shortened(name, _LONGEST_NAME)), **style)
    if panel.logarithmic:
        set_logarithmic(axes.yaxis)
    else:
        whole = all(np.array_equal(y, np.round(y)) for _, _, y, _ in panel.curves)
        set_linear(axes.yaxis, whole)
    set_linear(axes.xaxis, integer=True)
    heading = panel.heading if panel.wide else _shortened(panel.heading, _LONGEST_HEADING)
    axes.set_title(label(heading + (" (log)" if panel.logarithmic else "")), loc="left", fontsize=9.5)
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.3, linewidth=0.6)


def _set_legend(axes, beside):
    """Names of curves, in the panel or in a place of its own beside it; none where the heading says it."""
    handles, names = axes.get_legend_handles_labels()
    if beside is not None:
        beside.axis("off")
        beside.legend(handles, names, fontsize="x-small", loc="upper left", borderaxespad=0, frameon=False)
    elif any(names):
        axes.legend(handles, names, fontsize="x-small", labelspacing=0.2, handlelength=1.2)


def _shortened(name, most):
    return name if len(name) <= most else "..." + name[3 - most :]


def _changes(history):
    """Where a phase ended and another one began: between two steps."""
    phases = np.asarray(history.get("phase", ()))
    return [float(history["step"][i]) + 0.5 for i in np.flatnonzero(np.diff(phases))]
