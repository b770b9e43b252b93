"""A bar on the terminal for what takes long: eigenvalues, traces, and products over many batches.

It appears after two seconds, and only where a person looks. Inside of a computation that has a bar, parts have none.
"""

import contextlib
import sys
import time

_PATIENCE = 2.0
_busy: list["_Bar"] = []


@contextlib.contextmanager
def watched(title, total=None):
    """Yields a function without arguments to call after every part.

    Args:
        title: what goes on.
        total: number of parts, None where it is not known.
    """
    if _busy:
        yield lambda: None
        return
    bar = _Bar(title, total)
    _busy.append(bar)
    try:
        yield bar.advance
    finally:
        _busy.remove(bar)
        bar.close()


class _Bar:
    """A bar that is not there before `_PATIENCE` seconds are over, nor where standard error is no terminal."""

    def __init__(self, title, total):
        self._title, self._total, self._done = title, total, 0
        self._begun, self._shown = time.monotonic(), None

    def advance(self):
        self._done += 1
        if self._shown is None and sys.stderr.isatty() and time.monotonic() - self._begun > _PATIENCE:
            self._show()
        if self._shown is not None:
            self._shown.update(self._task, completed=self._done)

    def close(self):
        if self._shown is not None:
            self._shown.stop()

    def _show(self):
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}", markup=False), MofNCompleteColumn(), TimeElapsedColumn()
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._shown.add_task(self._title, total=self._total)
        self._shown.start()
