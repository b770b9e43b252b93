"""Files that are there entirely or not at all, whatever happens while they are written; locks; JSON numbers.

A new file or folder is written under a temporary name, forced to the disk, and renamed. A rename replaces one name by
another at once, so that whoever looks sees the old content or the new one. A lock (`RunLock`) is given back by the
system when its process ends, however it ends.
"""

import contextlib
import math
import os
import pathlib
import shutil

import numpy as np

# What a process that was killed leaves behind has this in its name.
_UNFINISHED = ".unfinished-"


def replace_text(path, text):
    """Write a text file, in place of one that may be there."""
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        sync(file)
    os.replace(unfinished, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path):
    """An empty folder to write files to, which is called `path` afterwards, in place of one that may be there.

    Every file has to be forced to the disk, see `sync`. After an exception nothing is left of it.

    Yields:
        `pathlib.Path` of the folder while it is written.

    Raises:
        OSError: it cannot be written. Then what was there still is.
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        sync_folder(unfinished)
        if path.exists():
            remove_folder(path)
        os.rename(unfinished, path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync_folder(path.parent)


def remove_folder(path):
    """Remove a folder, which is not seen half removed."""
    path = pathlib.Path(path)
    doomed = path.with_name(f"{_UNFINISHED}removed-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_unfinished(folder):
    """Remove what killed processes have left in a folder."""
    for path in pathlib.Path(folder).glob(f"{_UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync(file):
    """Wait until what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path):
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def plain(value):
    """A JSON value with the digits the number has in its own precision."""
    item = value.item() if isinstance(value, np.generic) else value
    if not isinstance(item, float):
        return item
    return float(str(value)) if math.isfinite(item) else None
