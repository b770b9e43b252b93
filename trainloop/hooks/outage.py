"""A file that cannot be written for a while: a full disk, a folder that is gone. It costs the file, not the run."""

import logging

_LOG = logging.getLogger("trainloop")


class Outage:
    """Says when writing fails for the first time, and at the end what is missing.

    In between it is silent: on a disk that is nearly full every other block may fail.

    Args:
        what: is written, for the messages.

    Attributes:
        error: what was raised last; None where writing has worked since.
    """

    def __init__(self, what):
        self._what, self.error, self._last = what, None, None

    def began(self, error, said=None):
        """Writing has failed.

        Args:
            error: what was raised.
            said: the beginning of the message; None for that of a file.
        """
        if self._last is None:
            said = said or f"{self._what} cannot be written ({_one_line(error)}); it is tried again"
            _LOG.warning("%s; the run continues", said)
        self.error = self._last = error

    def over(self):
        """Writing has worked."""
        self.error = None

    def ended(self, missing):
        """The run is over.

        Args:
            missing: such as "3 lines"; empty where nothing is.
        """
        if missing:
            why = _one_line(self._last)
            _LOG.warning("%s: missing is %s, which could not be written (%s)", self._what, missing, why)


def _one_line(error):
    return " ".join(str(error).split())
