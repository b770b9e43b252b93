"""Ctrl-C and SIGTERM end a run well: the block is finished and saved. The second one ends the process at once.

A handler of Python's runs only when the main thread is back in Python, and that is after the block. So a thread listens
for signals too, by the file descriptor that Python writes their numbers to; it is not held up by compiled code.
"""

import contextlib
import os
import signal
import socket
import threading

_HEARD = (signal.SIGINT, signal.SIGTERM)
# Seconds that a line to the terminal may take.
_LONGEST_TO_SAY = 0.5
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StopOnSignals:
    """Inside of `with StopOnSignals(loop.stop) as signals:` a signal asks the run to stop. Only in the main thread.

    For programs, which own their process; a library should leave signals alone.

    Args:
        stop: function of a message, called in another thread.

    Attributes:
        received: the `signal.Signals` that came, or None.
    """

    def __init__(self, stop):
        self._stop, self.received = stop, None

    @property
    def exit_code(self):
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM; 0 without one."""
        return 0 if self.received is None else 128 + self.received

    def __enter__(self):
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Python writes numbers only of signals that have a handler of its own.
        self._handlers_before = {number: signal.signal(number, lambda *_: None) for number in _HEARD}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *exception):
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._writer.close()
        self._listener.join()
        self._reader.close()

    def _listen(self):
        while numbers := self._reader.recv(16):
            for number in numbers:
                if number in _HEARD:
                    self._take(signal.Signals(number))

    def _take(self, number):
        if self.received is not None:
            self._say(b"Quit immediately; the last checkpoint is unchanged.\n")
            os._exit(128 + number)
        else:
            self.received = number
            self._stop(f"{_NAMES[number]} was received")
            self._say(
                f"{_NAMES[number]}: finishing the compiled block and saving a checkpoint; "
                "press again to quit immediately\n".encode()
            )

    def _say(self, line):
        """In a thread of its own: a terminal that takes nothing more must not keep the second signal waiting."""
        saying = threading.Thread(target=_write, args=(line,), daemon=True)
        saying.start()
        saying.join(_LONGEST_TO_SAY)


def _write(line):
    with contextlib.suppress(OSError):
        os.write(2, line)
