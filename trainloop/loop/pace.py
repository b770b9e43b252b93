"""How many steps the next block takes: enough that calling it costs nothing, few enough that a stop is quick."""

from trainloop import checks

# Blocks are kept near this many seconds, so that displays move and Ctrl-C is heard.
_BLOCK_SECONDS = 0.5

# The limit grows at most this many times from block to block, because short blocks measure badly.
_GROWTH = 8


class Pace:
    """Chooses block lengths from the time that earlier blocks took.

    Args:
        steps_per_call: a fixed limit, or None to aim at half a second per block.
        most: a limit on top of that, or None.
    """

    def __init__(self, steps_per_call=None, most=None):
        self._fixed = steps_per_call is not None
        if self._fixed:
            steps_per_call = checks.integer("steps_per_call", steps_per_call, at_least=1)
        self._limit = steps_per_call if self._fixed else 1
        self._most = most
        self._measured = False

    def limit(self):
        """The longest block allowed now, in steps."""
        return self._limit if self._most is None else min(self._limit, self._most)

    def follow(self, limit):
        """Take another one's limit."""
        self._limit = limit

    def observe(self, steps, seconds):
        """Learn from a finished block. The first one is left out, because it was traced and compiled too."""
        if self._fixed or steps == 0:
            return
        if self._measured:
            wanted = int(_BLOCK_SECONDS * steps / max(seconds, 1e-9))
            self._limit = max(1, min(wanted, _GROWTH * max(steps, self._limit)))
        self._measured = True
