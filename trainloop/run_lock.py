"""One process per run: a lock that the system gives back when its process ends, however it ends."""

import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows has no such locks; there nothing is refused
    fcntl = None  # type: ignore[assignment]  # None stands for the missing module


class RunLock:
    """Held from its making to the end of the process, to `release`, or to the end of a `with`.

    Args:
        path: of a file, which is made if it is not there and stays behind.

    Raises:
        ValueError: another process holds it.
        OSError: the file cannot be made.
    """

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            folder = os.path.dirname(path)
            raise ValueError(f"{folder} is in use by a run of another process; wait, or give another folder") from error

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()

    def release(self):
        """Let others have it."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
