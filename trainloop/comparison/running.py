"""The runs of a comparison, each in a process of its own.

That gives every optimizer the same fresh start and its own peak of memory, and keeps what goes wrong in one run out of
the others.
"""

import collections
import json
import os
import signal
import subprocess
import time

from trainloop import files

_LOOK_EVERY = 0.2  # seconds


class Watcher:
    """Notified of what happens. Does nothing until a subclass overrides a method."""

    def begin(self, run):
        """A run was started."""

    def look(self, run):
        """It goes on; called a few times per second."""

    def end(self, run, code, reason):
        """It ended with an exit code, and for codes other than 0 with a reason."""


class Runner:
    """Does runs until all are done or it is asked to stop.

    Args:
        program: the command that does one run, a list of arguments.
        comparison: a `Comparison`.
        jobs: so many at the same time; each gets its part of the processors.
        watcher: a `Watcher`.
    """

    def __init__(self, program, comparison, jobs, watcher):
        self._program, self._comparison, self._jobs, self._watcher = program, comparison, jobs, watcher
        self._stopping, self._active = False, {}

    def stop(self, reason):
        """Begin no further run, and let those that go on save and end. May be called from another thread."""
        self._stopping = True

    def run(self, runs):
        """Do these runs. Those that are interrupted can be continued later."""
        waiting, told = collections.deque(runs), False
        try:
            while self._active or (waiting and not self._stopping):
                while waiting and len(self._active) < self._jobs and not self._stopping:
                    self._begin(waiting.popleft())
                if self._stopping and not told:
                    self._send(signal.SIGTERM)
                    told = True
                time.sleep(_LOOK_EVERY)
                for run, process in list(self._active.items()):
                    self._look_at(run, process)
        finally:
            self._send(signal.SIGKILL)  # only after an error here is anything still active

    def _begin(self, run):
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        run.exit.unlink(missing_ok=True)
        command = [*self._program, *self._comparison.arguments(run)]
        with open(run.output, "wb") as output:
            # A session of its own: Ctrl-C comes to us alone, and is passed on once.
            self._active[run] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
            )
        self._watcher.begin(run)

    def _look_at(self, run, process):
        code = process.poll()
        if code is None:
            self._watcher.look(run)
            return
        del self._active[run]
        reason = "" if code == 0 else _reason(run, code)
        files.replace_text(run.exit, json.dumps({"code": code, "reason": reason}) + "\n")
        if code == 0:
            run.remove_checkpoints()
        self._watcher.end(run, code, reason)

    def _send(self, number):
        for process in self._active.values():
            process.send_signal(number)

    def _environment(self):
        if self._jobs == 1:
            return None
        threads = str(max(1, (os.cpu_count() or 1) // self._jobs))
        return {**os.environ, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}


def newest(run):
    """The newest step or epoch in a run's log, as a dict; empty before the first."""
    try:
        with open(run.metrics, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    whole = [line for line in lines[-2:] if line.endswith(b"\n")]
    return json.loads(whole[-1]) if whole and whole[-1].startswith(b"{") else {}


def _reason(run, code):
    if code < 0:
        number = signal.Signals(-code)
        hint = "; the system ends processes so when memory is short" if number == signal.SIGKILL else ""
        return f"ended by {number.name}{hint}"
    lines = run.output.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.strip()]
    return said[-1].removeprefix("Error: ") if said else f"exit code {code}, without a message"
