"""What a person sees of a run while it goes on: a live line on a terminal, plain lines in a pipe."""

import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trainloop.hooks import Hook
from trainloop.layer_norms import PREFIXES

# Bookkeeping that needs no place on a line of 100 columns.
_UNSEEN = ("step", "epoch", "samples", "status")


class LiveDisplay(Hook):
    """One line that moves: epoch, step, bar, time left, steps per second, and the newest numbers.

    The numbers are the loss, the gradient norm, the method's own scalars and the metrics. Above it, one line stays
    for every epoch.

    Args:
        console: a `rich.console.Console`.
    """

    chief_only = True

    def __init__(self, console):
        super().__init__()
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}  step {task.completed:.0f}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        self._task = None

    def on_start(self, loop):
        self._task = self._bar.add_task("", total=None, epoch=0, numbers="compiling")
        self._bar.start()

    def on_block(self, progress):
        numbers = f"{progress.run_step / progress.seconds:.0f} steps/s  {_numbers(_last(progress))}"
        self._bar.update(
            self._task, completed=progress.run_step, total=progress.run_steps, epoch=progress.epoch, numbers=numbers
        )

    def on_epoch(self, progress, summary):
        self._bar.console.print(epoch_line(summary), highlight=False)

    def on_end(self, result):
        self._bar.stop()


class PlainLines(Hook):
    """One line for every epoch, and in between one whenever none was written for a while.

    Args:
        write: function of a line.
        every_seconds: longest silence.
        clock: function returning seconds.
    """

    chief_only = True

    def __init__(self, write, every_seconds=10.0, clock=time.monotonic):
        super().__init__()
        self._write, self._every_seconds, self._clock = write, every_seconds, clock
        self._last = None

    def on_start(self, loop):
        self._last = self._clock()

    def on_block(self, progress):
        if len(progress.logs["step"]) and self._clock() - self._last >= self._every_seconds:
            self._say(f"epoch {progress.epoch}  step {progress.step}  {_numbers(_last(progress))}")

    def on_epoch(self, progress, summary):
        self._say(epoch_line(summary))

    def _say(self, line):
        self._write(line)
        self._last = self._clock()


def epoch_line(summary):
    """`epoch 3  step 69  4.1 s  loss 0.512  accuracy 0.84`: the epoch's entry of `RunResult.epochs` in one line."""
    rest = {name: value for name, value in summary.items() if name not in ("epoch", "step", "seconds")}
    return f"epoch {summary['epoch']}  step {summary['step']}  {summary['seconds']:.1f} s  {_numbers(rest)}"


def _last(progress):
    """The newest number of every column, then the metrics."""
    seen = {name: values[-1] for name, values in progress.logs.items() if name not in _UNSEEN and len(values)}
    seen = {name: value for name, value in seen.items() if not name.startswith(PREFIXES)}
    return {**seen, **progress.metrics}


def _numbers(named):
    return "  ".join(f"{name} {value:.4g}" for name, value in named.items())
