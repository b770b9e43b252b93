"""How a run is drawn on a terminal: lines of names and numbers below each other, a bar, speed and time left.

No line is ever wrapped or cut within a word: what does not fit is left out, by rules that stand with the functions.
"""

import datetime
import math

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

# Room for any number: "-1.23e-05".
_DIGITS = 9
_GAP = 2

# Rows of numbers below the bar; a terminal has to show all of them and some epochs.
_MOST_ROWS = 3

_SHORTEST_BAR, _LONGEST_BAR = 10, 40

# What an epoch's line is without where the terminal is narrow, first of all.
_DISPENSABLE = ("step", "s")


def number(value):
    """An integer as it is, anything else with four digits, in at most nine places."""
    if float(value).is_integer() and abs(value) < 10**_DIGITS:
        return f"{value:.0f}"
    text = f"{value:.4g}"
    return text if len(text) <= _DIGITS else f"{value:.3g}"


def epoch_columns(summary, width):
    """What fits into a width of an epoch's summary, as texts: first the step goes, then the seconds, then the last."""
    named = {"epoch": f"{summary['epoch']}", "step": f"{summary['step']:,}", "s": f"{summary['seconds']:,.1f}"}
    named |= {name: number(value) for name, value in summary.items() if name not in ("epoch", "step", "seconds")}
    for name in (*_DISPENSABLE, *reversed(named)):
        if _length(named) <= width:
            break
        named.pop(name, None)
    return named


def header(named):
    """The names of columns in one line."""
    return Text(_row({name: name for name in named}), "dim", no_wrap=True, overflow="crop")


def row(named):
    """The texts of columns in one line."""
    return Text(_row(named), no_wrap=True, overflow="crop")


class LiveView:
    """The lines that move: a renderable of rich.

    Args:
        clock: function returning seconds.

    Attributes:
        progress: the newest `Progress`, None as long as the first step is compiled.
        numbers: the newest numbers by name, in the order of their importance.
        speed: steps per second, None while it is not known.
    """

    def __init__(self, clock):
        self.progress, self.numbers, self.speed = None, {}, None
        self._clock, self._began = clock, clock()

    def __rich_console__(self, console, options):
        if self.progress is None:
            yield Text(f"compiling the first step, {self._clock() - self._began:.0f} s", no_wrap=True, overflow="crop")
            return
        yield Text()  # between the epochs and what moves
        yield self._progress_line(options.max_width)
        yield from self._number_rows(options.max_width)

    def _progress_line(self, width):
        """Epoch, step, bar, speed and time left; in a narrow terminal without the bar, speed, time and step."""
        parts = progress_words(self.progress, self.speed)
        for name in ("speed", "left", "step"):
            if sum(map(len, parts.values())) + _GAP * (len(parts) - 1) > width:
                parts.pop(name, None)
        room = min(width - sum(map(len, parts.values())) - _GAP * len(parts), _LONGEST_BAR)
        cells = [Text(text, "bold" if name == "epoch" else "") for name, text in parts.items()]
        if self.progress.run_steps is not None and room >= _SHORTEST_BAR:
            bar = ProgressBar(self.progress.run_steps, self.progress.run_step, width=room)
            cells.insert([*parts, "bar"].index("step") + 1, bar)
        line = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        for _ in cells:
            line.add_column(no_wrap=True, overflow="crop")
        line.add_row(*cells)
        return line

    def _number_rows(self, width):
        """Names and numbers below each other, in up to three rows; at the end the number of those without room."""
        rows, left_out = fill({name: number(value) for name, value in self.numbers.items()}, width)
        for named in rows:
            yield header(named)
            yield row(named)
        if left_out:
            yield Text(f"and {left_out} more", "dim", no_wrap=True, overflow="crop")


def fill(columns, width, most_rows=_MOST_ROWS):
    """Columns distributed over rows of a width.

    Args:
        columns: texts by name.

    Returns:
        (list of dicts, how many columns did not fit).
    """
    rows = [{}]
    for i, (name, text) in enumerate(columns.items()):
        if _length({**rows[-1], name: text}) > width and rows[-1]:
            if len(rows) == most_rows:
                return rows, len(columns) - i
            rows.append({})
        rows[-1][name] = text
    return rows, 0


def progress_words(progress, speed):
    """Where a run stands: {"epoch": "epoch 2 of 50", "step": "step 40 of 1,150", "speed": ..., "left": ...}."""
    epochs, steps = _epochs(progress), progress.run_steps
    words = {
        "epoch": f"epoch {progress.epoch}" + ("" if epochs is None else f" of {epochs}"),
        "step": f"step {progress.run_step:,}" + ("" if steps is None else f" of {steps:,}"),
    }
    if speed:
        words["speed"] = _speed_in_words(speed)
        if steps is not None:
            words["left"] = f"{datetime.timedelta(seconds=round((steps - progress.run_step) / speed))} left"
    return words


def _epochs(progress):
    """The number of the epoch in which the run will end, None where that is not known."""
    if progress.run_steps is None or progress.steps_per_epoch is None:
        return None
    before = (progress.epoch - 1) * progress.steps_per_epoch + progress.epoch_step - progress.run_step
    return math.ceil((before + progress.run_steps) / progress.steps_per_epoch)


def _speed_in_words(speed):
    if speed < 1:
        return f"{1 / speed:.1f} s/step"
    return f"{speed:,.0f} steps/s" if speed >= 10 else f"{speed:.1f} steps/s"


def _width(name):
    return max(len(name), _DIGITS)


def _length(named):
    return sum(map(_width, named)) + _GAP * (len(named) - 1)


def _row(named):
    return (" " * _GAP).join(text.rjust(_width(name)) for name, text in named.items())
