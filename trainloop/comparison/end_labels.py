"""Names at the ends of curves, where they are short and do not cover each other."""

import itertools
import os

import numpy as np

from trainloop.plots.figure import label

# Characters of a name, and how many names.
_LONGEST, _MOST = 14, 8

# How far apart the ends are, in parts of the width and of the height, or no name stands at them.
_APART = 0.25, 0.09

# What is left free at the right, in parts of the width: room for the longest name.
_ROOM = 0.2


def short_names(entrants):
    """{label of a line: its optimizer}; empty where these are not short, too many, or two of the same name.

    Args:
        entrants: list of `Entrant`.
    """
    shorts = [_short(one) for one in entrants]
    if len(shorts) > _MOST or len(set(shorts)) < len(shorts) or max(map(len, shorts), default=0) > _LONGEST:
        return {}
    return {label(one.label): short for one, short in zip(entrants, shorts, strict=True)}


def _short(one):
    """`adam`, and `Mine` of mine.py:Mine; of phases the first and the last."""
    names = [os.path.basename(word.partition(":")[0]) for word in (one.optimizer, *one.then[-1:])]
    names[0] = one.optimizer.rpartition(":")[2]
    return "+".join(names)


def add(panels, names):
    """Write names where thick lines end, but in no panel where two of them end beside each other.

    Args:
        panels: axes that share their x axis, with all their curves, on their final scales.
        names: {label of a line: what to write}.
    """
    ends = {axes: _ends(axes, names) for axes in panels}
    named = [axes for axes in panels if ends[axes] and not _too_close(axes, ends[axes].values())]
    if named:
        _make_room(panels[0])
    for axes in named:
        for line, end in ends[axes].items():
            _write(axes, names[line.get_label()], end, line.get_color())


def _ends(axes, names):
    """{line with a name: its last point that is drawn}."""
    ends = {line: _end(line) for line in axes.lines if line.get_label() in names}
    return {line: end for line, end in ends.items() if end is not None}


def _make_room(axes):
    """A longer x axis, whose end is free for texts."""
    scale = axes.xaxis.get_transform()
    low, high = scale.transform(np.array(axes.get_xlim()))
    axes.set_xlim(right=scale.inverted().transform(np.array([high + _ROOM * (high - low)]))[0])


def _too_close(axes, ends):
    to_axes = axes.transData - axes.transAxes
    places = [to_axes.transform(end) for end in ends]
    return any(np.all(np.abs(a - b) < _APART) for a, b in itertools.combinations(places, 2))


def _write(axes, text, end, colour):
    axes.annotate(
        label(text),
        end,
        xytext=(4, 0),
        textcoords="offset points",
        color=colour,
        fontsize="small",
        verticalalignment="center",
    )


def _end(line):
    """The last point that is drawn, None without one."""
    points = np.column_stack(line.get_data()).astype(float)
    drawn = points[np.all(np.isfinite(points), axis=1)]
    return drawn[-1] if len(drawn) else None
