"""A file that lines are added to during a run, whatever happens to the disk meanwhile."""

import contextlib
import logging
import os
import zlib

from trainloop import files
from trainloop.hooks.outage import Outage

_LOG = logging.getLogger("trainloop")

# Bytes of lines that wait for a disk with room; beyond, the oldest are given up.
_MOST_WAITING = 64 * 2**20


class PatientFile:
    """Lines that cannot be written wait, and are tried again with the next ones. No half line is left behind.

    Args:
        path: of the file.

    Attributes:
        length, crc: bytes that are in it, and their CRC-32.
        waiting: lines that are not in it.
        lost: how many lines were given up.
    """

    def __init__(self, path):
        self.path, self.waiting, self.lost = path, [], 0
        self.length, self.crc = length_and_crc(path)
        self._file, self._outage = None, Outage(os.fspath(path))

    @property
    def is_open(self):
        """Whether lines can be added."""
        return self._file is not None

    def open(self, is_new):
        """Begin to add lines, behind those that are there.

        Args:
            is_new: it must not be there; else it must.

        Raises:
            OSError: it is there, or is not, or cannot be opened.
        """
        self._file = open(self.path, "xb" if is_new else "r+b", buffering=0)  # noqa: SIM115 (see `close`)
        self.length, self.crc = length_and_crc(self.path)

    def flush(self):
        """Write what waits."""
        content = b"".join(self.waiting)
        try:
            self._find_again()
            self._file.seek(self.length)
            rest = memoryview(content)
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._outage.began(error)
            with contextlib.suppress(OSError):  # half a line; the next try begins at the same place anyway
                self._file.truncate(self.length)
            self._give_up(len(content) - _MOST_WAITING)
        else:
            self.length, self.crc, self.waiting = self.length + len(content), zlib.crc32(content, self.crc), []
            self._outage.over()

    def sync(self):
        """Write what waits, and wait until it is on the disk."""
        self.flush()
        try:
            files.sync(self._file)
        except OSError as error:
            self._outage.began(error)

    def cut(self, length):
        """Forget what is behind a length, and what waits.

        Raises:
            OSError: it cannot be cut.
        """
        self.waiting = []
        if self._file is not None:
            self._file.truncate(length)
        elif self.length:
            os.truncate(self.path, length)
        self.length, self.crc = length_and_crc(self.path)

    def close(self):
        """Write what waits, and say what is missing."""
        self.flush()
        missing = self.lost + len(self.waiting)
        self._outage.ended(f"{missing} lines" if missing else "")
        file, self._file = self._file, None
        with contextlib.suppress(OSError):
            file.close()

    def _give_up(self, bytes_too_many):
        while bytes_too_many > 0:
            bytes_too_many -= len(self.waiting.pop(0))
            self.lost += 1

    def _find_again(self):
        """Go on in the file that has the name now, where that is another one: the old one was removed, or remounted."""
        try:
            there, here = os.stat(self.path), os.fstat(self._file.fileno())
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
            is_new = False
        except FileNotFoundError:
            is_new = True
        before, length = self._file, self.length
        self.open(is_new)
        with contextlib.suppress(OSError):
            before.close()
        if self.length < length:
            _LOG.warning("%s was removed while the run went on: what was in it is lost", self.path)


def length_and_crc(path):
    """(length, CRC-32) of a file; of nothing where there is none."""
    length, crc = 0, 0
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        while piece := file.read(2**20):
            length, crc = length + len(piece), zlib.crc32(piece, crc)
    return length, crc
