"""The memory that the state of an optimizer takes, known before it is allocated.

A matrix over all parameters of a network is easily larger than the machine. TensorFlow finds out by being ended by the
system, without a word; a table that costs nothing comes first.
"""

import dataclasses
import itertools
import logging
import re

import tensorflow as tf

from trainloop.distributed.shards import Shards
from trainloop.matrices.storage_spec import StorageChoice
from trainloop.matrices.stored_value import StoredValue
from trainloop.memory import free_memory, in_words

_LOG = logging.getLogger("trainloop")

# Vectors that are alive during a step: x, g, x_new and two of the optimizer's own.
_VECTORS = 5


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of a state: `shape` with None where it grows, and the bytes it takes at first."""

    name: str
    shape: tuple
    dtype: str
    nbytes: int


@dataclasses.dataclass(frozen=True, repr=False)
class MemoryPlan:
    """Bytes of a state, array by array, and during a step: of those in this process, where a state is sharded.

    Attributes:
        n: number of parameters.
        entries: tuple of `Entry`.
        nbytes: of the whole state.
        peak: bytes during a step, the model's own work not counted.
        notes: messages about matrices: how they are stored, and why.
        alternatives: (storage specification, bytes) of other ways to store the largest matrix.

    Examples:
        >>> plan = BFGS(storage="dense").memory_plan(1000, "float64")
        >>> plan.nbytes >= 8 * 1000**2 / 2  # a symmetric matrix takes half
        True
    """

    n: int
    entries: tuple
    nbytes: int
    peak: int
    notes: tuple = ()
    alternatives: tuple = ()

    @property
    def grows(self) -> bool:
        """True when an array has no fixed shape."""
        return any(None in entry.shape for entry in self.entries)

    def __str__(self):
        lines = [(e.name, _shape(e.shape), e.dtype, in_words(e.nbytes)) for e in _joined(self.entries)]
        lines.append(("together", "", "", in_words(self.nbytes)))
        lines.append(("during a step", "", "", in_words(self.peak)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
        title = f"state for n = {self.n:,} parameters" if self.entries else f"no state, n = {self.n:,} parameters"
        return "\n".join([title, *(f"  {line}".rstrip() for line in table), *(f"  {note}" for note in self.notes)])

    __repr__ = __str__

    def check_fits(self, method: str, has_storage: bool = True) -> None:
        """Compare with the memory that is free now.

        Args:
            method: its name, for the message.
            has_storage: whether its matrix can be stored in other ways.

        Raises:
            ValueError: a step would take more; the message has the alternatives with their sizes, and the log the plan.
        """
        free = free_memory()
        if free is None or self.peak <= free:
            return
        ways = [
            f"storage={spec!r} takes {in_words(nbytes)}{_where(spec)}"
            for spec, nbytes in self.alternatives
            if has_storage
        ]
        advice = "; ".join(ways) or "use a smaller model, or an optimizer or a setting that remembers less"
        _LOG.warning("%s", self)
        raise ValueError(
            f"{method} needs {in_words(self.peak)} during a step for n = {self.n:,} parameters, "
            f"and {in_words(free)} are free; {advice}"
        )


def plan(leaves, n, dtype):
    """The plan of a state.

    Args:
        leaves: first values by path, tensors (symbolic ones too) and stored values.
        n: number of parameters.
        dtype: of x.
    """
    entries, notes, matrices = [], [], []  # matrices with their bytes

    def record(path, value, grows):
        shape = tf.TensorShape(value.shape)
        nbytes = shape.num_elements() * tf.as_dtype(value.dtype).size
        entries.append(
            Entry(path, (None, *shape[1:]) if grows else tuple(shape), tf.as_dtype(value.dtype).name, nbytes)
        )
        return value

    for path, leaf in leaves.items():
        if not isinstance(leaf, StoredValue):
            record(path, leaf, False)
            continue
        others = len(entries)
        leaf.as_variables(lambda name, value, grows, path=path: record(f"{path}/{name}", value, grows))
        notes += [f"{path}: {note}" for note in leaf.notes()]
        matrices.append((sum(entry.nbytes for entry in entries[others:]), leaf))
    nbytes = sum(entry.nbytes for entry in entries)
    peak = nbytes + _VECTORS * n * tf.as_dtype(dtype).size + max((leaf.workspace for _, leaf in matrices), default=0)
    _, largest = max(matrices, key=lambda matrix: matrix[0], default=(0, None))
    alternatives = () if largest is None else tuple(largest.alternatives())
    return MemoryPlan(n, tuple(entries), nbytes, peak, tuple(notes), alternatives)


def _where(spec):
    return f" in each of {Shards.here().count} workers" if StorageChoice.parse(spec).sharded else ""


def _shape(shape):
    return shape if isinstance(shape, str) else "[" + ", ".join("grows" if d is None else f"{d:,}" for d in shape) + "]"


def _joined(entries):
    """Arrays that are numbered parts of one thing as one line."""
    for name, group in itertools.groupby(entries, lambda entry: re.sub(r"_\d+$", "", entry.name)):
        parts = list(group)
        if len(parts) == 1:
            yield parts[0]
        else:
            yield Entry(name, f"{len(parts)} arrays", parts[0].dtype, sum(part.nbytes for part in parts))
