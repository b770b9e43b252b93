"""What a person sees of a run in progress: a live view on a terminal, plain lines in a pipe.

    epoch      step          s       loss   accuracy   val_loss  val_accuracy     lines of epochs stay
        1        23        0.6      2.302     0.1134      2.301        0.1028
    epoch 2 of 50  step 40 of 1,150  ━━━━━╸━━━━━━━━━  132 steps/s  0:00:08 left   the rest moves
         loss  grad_norm   accuracy   val_loss  val_accuracy     radius
        0.512     0.8123       0.84       0.61          0.83     0.0123

Both show the same columns: in the lines of epochs the loss, the metrics and those of the validation; in between the
gradient norm as well, what is measured, and the optimizer's own scalars, integers last: most of them are counters. As
many are shown as fit.

An epoch of a full batch is one step, and a thousand of them may end in a second. So lines of epochs are at least a
second apart, the first and the last one are always there, and between them the view or the bar moves on. `RunResult`
and `MetricsFile` have every epoch.
"""

import collections
import math
import sys
import time

import numpy as np
from rich.live import Live

from trainloop.columns import BOOKKEEPING, PREFIXES, is_rate
from trainloop.hooks.base import Hook
from trainloop.hooks.live_view import LiveView, epoch_columns, header, number, row

# Speed is that of the last seconds: compiling is over then, and optimizers whose steps become slower show it.
_SPEED_SECONDS = 10

# The shortest time between the lines of two epochs, in seconds: as fast as they can be read.
_EPOCH_SECONDS = 1.0

# Lines in a pipe end before this column, and then a name is not cut: the last numbers are left out.
_LONGEST_LINE = 120


class LiveDisplay(Hook):
    """A view that moves: epoch, step, bar, steps per second, time left, and the newest numbers.

    The numbers are the loss, the gradient norm, the metrics, those of the last validation and the scalars of the
    optimizer's state, as many as fit. Above, lines of epochs stay: one for every epoch that ends a second or more after
    the last line, and always one for the first and the last epoch.

    Args:
        console: a `rich.console.Console`.
        clock: function returning seconds.

    Attributes:
        showing: how many of them this process shows now.
    """

    chief_only = True
    only_records = True
    showing = 0

    def __init__(self, console, clock=time.monotonic):
        super().__init__()
        self._console, self._clock = console, clock
        self._live, self._view, self._speed, self._lines = None, None, None, None
        self._validation, self._columns = {}, None

    def on_start(self, loop):
        self._view, self._speed = LiveView(self._clock), Speed()
        self._lines = SpacedLines(self._print, _EPOCH_SECONDS, self._clock)
        self._live = Live(
            self._view,
            console=self._console,
            redirect_stderr=sys.stderr.isatty(),  # errors that go to a file stay there
            vertical_overflow="crop",
        )
        LiveDisplay.showing += 1
        self._live.start()

    def on_block(self, progress):
        self._view.speed = self._speed.after(progress)
        self._view.numbers = _newest(progress, self._validation)
        self._view.progress = progress

    def on_epoch(self, progress, summary):
        self._validation = _validation(summary)
        self._view.numbers = _newest(progress, self._validation)
        self._lines.take(summary)

    def on_end(self, result):
        self._lines.finish()
        LiveDisplay.showing -= 1
        self._live.stop()

    def _print(self, summary):
        shown = {name: value for name, value in summary.items() if _is_shown(name)}
        named = epoch_columns({**shown, "epoch": summary["epoch"], "step": summary["step"]}, self._console.width)
        if list(named) != self._columns:
            self._console.print(header(named))
            self._columns = list(named)
        self._console.print(row(named))


class Speed:
    """Steps per second, over the last seconds."""

    def __init__(self):
        self._seen = collections.deque()  # (seconds, steps), as the blocks ended

    def after(self, progress):
        """Steps per second when a block is over; None after the first one, which was compiled."""
        here = progress.seconds, progress.run_step
        if self._seen and self._seen[-1][1] > progress.run_step:  # back at a checkpoint
            self._seen.clear()
        self._seen.append(here)
        while len(self._seen) > 2 and here[0] - self._seen[1][0] >= _SPEED_SECONDS:
            self._seen.popleft()
        seconds, steps = (now - before for now, before in zip(here, self._seen[0], strict=True))
        return steps / seconds if steps and seconds else None


class SpacedLines:
    """Summaries of epochs that come faster than a person reads: the first, the last, and between them one in a while.

    Args:
        write: function of a summary.
        seconds: shortest time between two of them.
        clock: function returning seconds.
    """

    def __init__(self, write, seconds, clock):
        self._write, self._seconds, self._clock = write, seconds, clock
        self._next, self._waiting = -math.inf, None

    def take(self, summary):
        """Write a summary, or keep it where the last one was written a moment ago."""
        self._waiting = summary
        if self._clock() >= self._next:
            self.finish()

    def finish(self):
        """Write the newest summary unless it is written already."""
        if self._waiting is not None:
            self._write(self._waiting)
            self._waiting, self._next = None, self._clock() + self._seconds


class PlainLines(Hook):
    """One line for an epoch, and in between one whenever none was written for a while.

    An epoch has a line where it ends `epoch_seconds` or more after the line of another one; the first and the last
    epoch always have theirs.

    Args:
        write: function of a line.
        every_seconds: longest silence.
        clock: function returning seconds.
        epoch_seconds: shortest time between the lines of two epochs; 0 writes one for every epoch.
    """

    chief_only = True
    only_records = True

    def __init__(self, write, every_seconds=10.0, clock=time.monotonic, epoch_seconds=_EPOCH_SECONDS):
        super().__init__()
        self._write, self._every_seconds, self._clock = write, every_seconds, clock
        self._epochs = SpacedLines(lambda summary: self._say(epoch_line(summary)), epoch_seconds, clock)
        self._last, self._validation = None, {}

    def on_start(self, loop):
        self._last = self._clock()

    def on_block(self, progress):
        if len(progress.logs["step"]) and self._clock() - self._last >= self._every_seconds:
            start = f"epoch {progress.epoch}  step {progress.step}  {progress.seconds:.1f} s"
            self._say(_line(start, _newest(progress, self._validation)))

    def on_epoch(self, progress, summary):
        self._validation = _validation(summary)
        self._epochs.take(summary)

    def on_end(self, result):
        self._epochs.finish()

    def _say(self, line):
        self._write(line)
        self._last = self._clock()


def epoch_line(summary):
    """`epoch 3  step 69  4.1 s  loss 0.512  accuracy 0.84`: the epoch's entry of `RunResult.epochs` in one line."""
    rest = {name: value for name, value in summary.items() if name != "seconds" and _is_shown(name)}
    return _line(f"epoch {summary['epoch']}  step {summary['step']}  {summary['seconds']:.1f} s", rest)


def _line(start, named):
    """As many names and numbers as fit, but one at least."""
    parts = [f"  {name} {number(value)}" for name, value in named.items()]
    ends = len(start) + np.cumsum([len(part) for part in parts], dtype=int)
    return start + "".join(parts[: max(1, int(np.sum(ends <= _LONGEST_LINE)))])


def _is_shown(name):
    return name not in BOOKKEEPING and not name.startswith(PREFIXES) and not is_rate(name)


def _validation(summary):
    return {name: value for name, value in summary.items() if name.startswith("val_") and _is_shown(name)}


def _newest(progress, validation=None):
    """The newest numbers: loss, gradient norm, metrics, the last validation, what is measured, the optimizer's own.

    Integers are the last ones: most of them are counters.
    """
    measured = {name: value for name, value in progress.measured.items() if not math.isnan(value)}
    logs = {name: values for name, values in progress.logs.items() if name not in progress.measured}
    newest = {name: values[-1] for name, values in logs.items() if len(values) and _is_shown(name)}
    newest = dict(sorted(newest.items(), key=lambda item: isinstance(item[1], np.integer)))
    common = {name: newest.pop(name) for name in ("loss", "grad_norm") if name in newest}
    return {**common, **progress.metrics, **(validation or {}), **measured, **newest}
