"""Compiled minimisations that wait for another call which is like them, so that it compiles nothing.

They are known by the `Fingerprint`s of what was compiled. One that runs is not among them, so calls in callbacks and in
several threads never share one. The least recently used are dropped beyond `_MOST`, and beyond `_MOST_BYTES` of
variables and constants.
"""

import collections
import threading
from typing import Any

import tensorflow as tf

from trainloop.distributed.shards import Shards
from trainloop.loop.fingerprint import Fingerprint, NoFingerprintError

_MOST = 16
_MOST_BYTES = 64 * 2**20

# By the value of a `Key`: the run, bytes, and the objects that the key knows by their identity.
_waiting: collections.OrderedDict[tuple, tuple[Any, int, list]] = collections.OrderedDict()
_lock = threading.Lock()


class Key:
    """What a compiled run is known by.

    Args:
        parts: everything that its compilation depends on; none where that is not known.

    Attributes:
        value: hashable; None where something may change unseen, and nothing is kept.
    """

    def __init__(self, *parts):
        print_ = Fingerprint()
        try:
            # Variables of a strategy's scope belong to that strategy.
            known = parts and not tf.distribute.has_strategy() and Shards.here().count == 1
            self.value = tuple(map(print_.of, parts)) if known else None
        except NoFingerprintError:
            self.value = None
        self.nbytes, self.kept = print_.nbytes, print_.kept


def take(key):
    """The run of a `Key`, which belongs to the caller now; None where none is kept."""
    with _lock:
        found = _waiting.pop(key.value, None)
    return found and found[0]


def keep(key, run, nbytes):
    """Let a run wait for the next call.

    Args:
        key: `Key`.
        run: anything.
        nbytes: of its variables.
    """
    nbytes += key.nbytes
    if key.value is None or nbytes > _MOST_BYTES:
        return
    with _lock:
        _waiting[key.value] = run, nbytes, key.kept
        while len(_waiting) > _MOST or sum(size for _, size, _ in _waiting.values()) > _MOST_BYTES:
            _waiting.popitem(last=False)


def clear():
    """Drop all of them."""
    with _lock:
        _waiting.clear()
