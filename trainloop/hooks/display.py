"""What a person sees of a run while it goes on: a live view on a terminal, plain lines in a pipe."""

import collections
import sys
import time

from rich.live import Live

from trainloop.history import BOOKKEEPING
from trainloop.hooks import Hook
from trainloop.layer_norms import PREFIXES
from trainloop.live_view import LiveView, epoch_columns, header, number, row

# Speed is that of the last seconds: compiling is over then, and methods whose steps become slower show it.
_SPEED_SECONDS = 10


class LiveDisplay(Hook):
    """A view that moves: epoch, step, bar, steps per second, time left, and the newest numbers.

    The numbers are the loss, the gradient norm, the metrics, those of the last validation and the method's own scalars,
    as many of them as fit. Above, one line stays for every epoch.

    Args:
        console: a `rich.console.Console`.
        clock: function returning seconds.
    """

    chief_only = True

    def __init__(self, console, clock=time.monotonic):
        super().__init__()
        self._console, self._clock = console, clock
        self._live, self._view, self._speed = None, None, None
        self._validation, self._columns = {}, None

    def on_start(self, loop):
        self._view, self._speed = LiveView(self._clock), Speed()
        self._live = Live(
            self._view,
            console=self._console,
            redirect_stderr=sys.stderr.isatty(),  # errors that go to a file stay there
            vertical_overflow="crop",
        )
        self._live.start()

    def on_block(self, progress):
        self._view.speed = self._speed.after(progress)
        self._view.numbers = _newest(progress, self._validation)
        self._view.progress = progress

    def on_epoch(self, progress, summary):
        shown = {name: value for name, value in summary.items() if _is_shown(name)}
        self._validation = {name: value for name, value in shown.items() if name.startswith("val_")}
        self._view.numbers = _newest(progress, self._validation)
        named = epoch_columns({**shown, "epoch": summary["epoch"], "step": summary["step"]}, self._console.width)
        if list(named) != self._columns:
            self._console.print(header(named))
            self._columns = list(named)
        self._console.print(row(named))

    def on_end(self, result):
        self._live.stop()


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
            self._say(f"epoch {progress.epoch}  step {progress.step}  {_numbers(_newest(progress))}")

    def on_epoch(self, progress, summary):
        self._say(epoch_line(summary))

    def _say(self, line):
        self._write(line)
        self._last = self._clock()


def epoch_line(summary):
    """`epoch 3  step 69  4.1 s  loss 0.512  accuracy 0.84`: the epoch's entry of `RunResult.epochs` in one line."""
    rest = {name: value for name, value in summary.items() if name != "seconds" and _is_shown(name)}
    return f"epoch {summary['epoch']}  step {summary['step']}  {summary['seconds']:.1f} s  {_numbers(rest)}"


def _is_shown(name):
    return name not in BOOKKEEPING and not name.startswith(PREFIXES)


def _newest(progress, validation=None):
    """The newest number of every column: loss and gradient norm, metrics, the last validation, the method's own."""
    newest = {name: values[-1] for name, values in progress.logs.items() if len(values) and _is_shown(name)}
    common = {name: newest.pop(name) for name in ("loss", "grad_norm") if name in newest}
    return {**common, **progress.metrics, **(validation or {}), **newest}


def _numbers(named):
    return "  ".join(f"{name} {number(value)}" for name, value in named.items())
