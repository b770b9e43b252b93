"""f and g at the point where a step ended, handed on to the next step where that has the same batch.

An optimizer that evaluates the objective often knows f and g at its new point. On a batch that does not change these
are what the first pass of the next step would find, so that pass is left out: one evaluation a step in place of two.

They count only as long as nothing has changed that f depends on:

    x                           compared with what the last block left, when a block begins: hooks act between blocks
    other variables             that the loss reads (weights of terms, coefficients that a hook changes): compared, in
                                every step, with their values when f and g were taken
    the points                  by the feed and the version of its points, in Python before each block

f, g and the values of the other variables are part of a checkpoint, as long as they count. So neither bits nor
evaluations depend on how long blocks are or whether a run was interrupted: taking f and g anew would give the last bits
of another graph, and count.
"""

import numpy as np
import tensorflow as tf

from trainloop.distributed.replicas import without_strategy
from trainloop.objectives.placement import read, write

# The feed and version of values that were loaded: the run that continues has checked that it has the same data.
_LOADED = "loaded"


class HandedOn:
    """What one step hands on to the next.

    Args:
        vector: the `VariableVector` of x.

    Attributes:
        made: whether its variables, two vectors [n] besides those that are compared, exist; not before there is a batch
            that does not change.
    """

    def __init__(self, vector):
        self._vector, self.made = vector, False
        self._key, self._others, self._values, self._loaded = None, [], [], None
        self._terms, self._loaded_terms = None, None
        self._counts = self._f = self._g = self._x = None

    # --- In Python, between two blocks ---

    def prepare(self, feed):
        """Before a block: what was handed on by a step on other data does not count.

        Args:
            feed: of the block.
        """
        key = (feed, feed.version) if feed.fixed else None
        if key is not None and not self.made:
            self._make()
        if self._key != _LOADED and self._key != key:
            self.forget()
        self._key = key

    def forget(self):
        """Let the next step take f and g anew."""
        if self.made:
            self._counts.assign(False)

    def see_terms(self, variable):
        """Keep the terms at the point where the last step ended in checkpoints too.

        Args:
            variable: float64 [k], NaN where they are not known.
        """
        self._terms = variable
        if self._loaded_terms is not None:
            variable.assign(self._loaded_terms)

    def state(self, feed):
        """What a checkpoint needs: tensors by name, none where the next step takes f and g anew.

        Args:
            feed: of the run.
        """
        if not self.made or not self._counts.numpy() or self._key != (feed, feed.version) or not self._is_there():
            return {}
        others = {f"other/{i:03d}": value for i, value in enumerate(self._values)}
        terms = {} if self._terms is None else {"terms": self._terms}
        return {"f": self._f, "g": self._g, **terms, **others}

    def load_state(self, state):
        """Hand on what `state` returned; x is where it was then.

        Args:
            state: tensors by name.
        """
        self.forget()
        if not state:
            return
        if not self.made:
            self._make()
        for variable, value in ((self._f, state["f"]), (self._g, state["g"]), (self._counts, True)):
            variable.assign(value)
        self._x.assign(self._vector.read())
        self._loaded_terms = state.get("terms")
        if self._terms is not None:
            unknown = tf.fill(self._terms.shape, tf.constant(np.nan, tf.float64))
            self._terms.assign(unknown if self._loaded_terms is None else self._loaded_terms)
        # The variables that hold them may not exist before the steps are traced.
        self._key, self._loaded = _LOADED, [state[name] for name in sorted(state) if name.startswith("other/")]
        if self._others:
            self._load_others()

    def _make(self):
        layout = self._vector.layout

        def variables():
            zeros = [tf.zeros(shape, layout.dtype) for shape in ([], [layout.size], [layout.size])]
            return [tf.Variable(value, trainable=False) for value in (False, *zeros)]

        self._counts, self._f, self._g, self._x = without_strategy(variables)
        self.made = True

    def _is_there(self):
        return tf.reduce_all(tf.equal(self._x, self._vector.read()))

    def _load_others(self):
        here = [tuple(value.shape) for value in self._values]
        if here == [np.shape(value) for value in self._loaded]:
            write(self._values, self._loaded)
        else:
            self.forget()
        self._loaded = None

    # --- In compiled code ---

    def begin_block(self):
        """Where x was assigned since the last block, nothing is handed on."""
        if self.made:
            self._counts.assign(self._counts & self._is_there())

    def end_block(self):
        """Note x, for `begin_block`."""
        if self.made:
            self._x.assign(self._vector.read())

    def counts(self, others, values):
        """Whether f and g are those of this step, bool [].

        Args:
            others: variables besides x that the loss reads, in an order that is the same in every process.
            values: theirs, in this step.
        """
        if [id(v) for v in others] != [id(v) for v in self._others]:
            self._others = list(others)
            self._values = without_strategy(lambda: [tf.Variable(value, trainable=False) for value in read(others)])
            if self._loaded is not None:
                without_strategy(self._load_others)
        same = [tf.reduce_all(tf.equal(*pair)) for pair in zip(values, self._values, strict=True)]
        return tf.reduce_all([tf.convert_to_tensor(self._counts), *same])

    def read(self):
        """(f [], g [n])."""
        return tf.convert_to_tensor(self._f), tf.convert_to_tensor(self._g)

    def keep(self, evaluated, values, status):
        """After a step.

        Args:
            evaluated: (f [], g [n]) where it ended, or None where the optimizer does not know them.
            values: of the other variables when it evaluated: the optimizer may have written one of them since, such as
                its count of steps.
            status: of the step, int32 []. What a failed one leaves is taken anew.
        """
        if evaluated is None:
            self._counts.assign(False)
            return
        self._f.assign(evaluated[0])
        self._g.assign(evaluated[1])
        write(self._values, values)
        self._counts.assign(status >= 0)
