"""How x gets into a model for an evaluation at another point, and how everything is put back.

    Assignment    x is written into the variables, the loss runs, and everything is written back
    Copies        the same with the copy of x that a replica has; Keras is given values in place of averages and seeds

A loss is code: it calls `tf.function`s, recomputes blocks in the backward pass, holds raw variables. All of that reads
variables, so writing x into them reaches it; a value that Keras is given instead does not. Writing moves no numbers: a
variable takes the buffer it is given, and the one it had before is kept by whoever has read it. Each write takes some
microseconds all the same, so f and g are computed without them where the graph of the loss allows it, see `trace`.

What a loss writes is another matter on several replicas: TensorFlow would write all copies from each of them.
"""

import contextlib

import keras
import tensorflow as tf

from trainloop.objectives.derivatives import Sources


class RawVariable:
    """A variable of which only the handle is known, such as the state of Keras's global seed.

    Args:
        handle: of the resource.
        dtype: of its value.
    """

    def __init__(self, handle, dtype):
        self.handle, self.dtype = handle, dtype

    def read_value(self):
        return tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)

    def assign(self, value):
        tf.raw_ops.AssignVariableOp(resource=self.handle, value=value)


def read(variables):
    """The values now: they stay as they are when the variables are written."""
    return [variable.read_value() for variable in variables]


def write(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def kept(variables):
    """Inside, variables may be written; afterwards they are as they were."""
    before = read(variables)
    try:
        yield
    finally:
        write(variables, before)


class Assignment:
    """See the top of this file.

    Args:
        vector: the `VariableVector` of x.
        written: the variables besides, which the loss writes: `tf.Variable`s and `RawVariable`s.
    """

    def __init__(self, vector, written):
        self._vector, self.written = vector, written

    @contextlib.contextmanager
    def at(self, x, frozen):
        """Inside, the variables hold x and `frozen`. The last backward pass may read them, and belongs inside too.

        Yields:
            the `Sources` of x.
        """
        with kept([*self._vector.native, *self.written]):
            self._vector.assign(x)
            write(self.written, frozen)
            yield Sources(self._vector.native, self._vector.layout.pack)

    @contextlib.contextmanager
    def here(self):
        """Inside, the variables hold what they hold. Yields the `Sources` of it."""
        yield Sources(self._vector.native, self._vector.layout.pack)

    @contextlib.contextmanager
    def running(self, frozen, fresh=False):
        """Inside, one run of the loss finds what it writes as `frozen` says; `fresh` where that is so already."""
        if not fresh:
            write(self.written, frozen)
        yield

    def values(self):
        """What is written holds now, or was given by the last run."""
        return read(self.written)


class Copies:
    """See the top of this file. Used in a trace that `Replicas.sum` runs with the copies that each replica has.

    Args:
        vector: the `VariableVector` of x, with a copy on every replica.
        others: the model's non-trainable variables, all of Keras.
    """

    def __init__(self, vector, others):
        self._layout, self._others = vector.layout, others
        self._copies = [first_copy(variable) for variable in vector.native]
        pairs = zip(vector.variables, self._copies, strict=True)
        self._trained = [(variable, copy) for variable, copy in pairs if isinstance(variable, keras.Variable)]
        self._written = None
        for variable in others:
            if not isinstance(variable, keras.Variable):
                raise ValueError(
                    "on several replicas what is not trained must be Keras variables, received "
                    f"{type(variable).__name__} {variable.name!r}; make it with add_weight or keras.Variable, or train "
                    "on one device"
                )

    @contextlib.contextmanager
    def at(self, x, frozen):
        """As `Assignment.at`; `frozen` is given to every run."""
        del frozen
        with kept(self._copies):
            pieces = self._layout.unpack(x)
            write(self._copies, [tf.cast(p, v.dtype) for p, v in zip(pieces, self._copies, strict=True)])
            yield Sources(self._copies, self._layout.pack)

    @contextlib.contextmanager
    def here(self):
        """As `Assignment.here`."""
        yield Sources(self._copies, self._layout.pack)

    @contextlib.contextmanager
    def running(self, frozen, fresh=False):
        """As `Assignment.running`, with nothing written."""
        del fresh
        with keras.StatelessScope(list(zip(self._others, frozen, strict=True)), collect_losses=True) as scope:
            for update in self._trained:  # in a scope, Keras finds its variables nowhere else
                scope.add_update(update)
            yield
        self._written = [scope.get_current_value(v) for v in self._others]

    def values(self):
        """As `Assignment.values`."""
        return [tf.identity(v) for v in self._others] if self._written is None else self._written


def first_copy(variable):
    """The copy on the first replica of this process.

    Raises:
        ValueError: there is one for all replicas.
    """
    copies = getattr(variable, "values", None)
    if copies is None:
        raise ValueError(
            f"on several replicas each needs a copy of {variable.name!r}, which exists once; make it, as the model, in "
            "the scope of the strategy"
        )
    return copies[0]
