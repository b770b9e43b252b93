"""Files that are there entirely or not at all, whatever happens while they are written; locks; JSON numbers.

A new file or folder is written under a temporary name, forced to the disk, and renamed. A rename replaces one name by
another at once, so that whoever looks sees the old content or the new one. A lock (`RunLock`) is given back by the
system when its process ends, however it ends.
"""

import contextlib
import json
import math
import os
import pathlib
import shutil
import stat

import numpy as np

# What a process that was killed leaves behind has this in its name, and a folder that gives way to a new one the other.
_UNFINISHED, REPLACED = ".unfinished-", ".replaced-"


def is_there(path):
    """Whether a name is taken, also by a link that leads nowhere.

    Raises:
        OSError: it cannot be found out now.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def open_file(path):
    """A file opened for reading bytes. What is no file (a pipe, a device) might never end, so it is not opened.

    Raises:
        ValueError: it is a folder, a pipe or a device.
        OSError: it is not there, or cannot be opened.
    """
    path = pathlib.Path(path)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no file but a folder, a pipe or a device; put the file back")
    return path.open("rb")


def read_json(path):
    """What a file of JSON holds, with or without a byte order mark.

    Raises:
        ValueError: it is no file, or no JSON, or nested more deeply than anything that is written here.
        OSError: it is not there, or cannot be read.
    """
    with open_file(path) as file:
        content = file.read()
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def replace_text(path, text):
    """Write a text file, in place of one that may be there."""
    with replacing(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path):
    """A name to write a file under, which is called `path` afterwards, in place of one that may be there.

    After an exception nothing is left of it, and what was there still is.

    Yields:
        `pathlib.Path`, in the same folder and with the same suffix.

    Raises:
        OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            sync(file)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
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
        if is_there(path):
            _give_way(path, unfinished)
        else:
            os.rename(unfinished, path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _give_way(path, unfinished):
    """Put a folder in place of another, which has its other name until the new one is there: see `replaced`."""
    before = replaced(path)
    shutil.rmtree(before, ignore_errors=True)
    os.rename(path, before)
    try:
        os.rename(unfinished, path)
    except BaseException:
        os.rename(before, path)
        raise
    shutil.rmtree(before, ignore_errors=True)


def replaced(path):
    """What a folder is called while a new one takes its place: what is there under it alone is whole."""
    path = pathlib.Path(path)
    return path.with_name(f"{REPLACED}{path.name}")


def has_only(path, names):
    """Whether a path is a folder, no link to one, in which nothing has another name than these."""
    return stat.S_ISDIR(os.lstat(path).st_mode) and set(os.listdir(path)) <= set(names)


def remove_folder(path):
    """Remove a folder, which is not seen half removed."""
    path = pathlib.Path(path)
    doomed = path.with_name(f"{_UNFINISHED}removed-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def unfinished_in(folder, name):
    """Paths of what killed processes may have left in a folder of the files and folders with a name.

    Args:
        folder: that is there.
        name: a compiled regular expression that the whole of a name matches.
    """
    beginnings = (f"{_UNFINISHED}removed-", _UNFINISHED)
    for found in sorted(os.listdir(folder)):
        for beginning in beginnings:
            if found.startswith(beginning) and name.fullmatch(found.removeprefix(beginning)):
                yield pathlib.Path(folder, found)
                break


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
except ImportError:  # Windows has no such locks; there no run is rejected
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
