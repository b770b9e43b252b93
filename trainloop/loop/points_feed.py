"""Points of named terms, whole or drawn in every step."""

import tensorflow as tf

from trainloop.data import batches
from trainloop.data.points import draw
from trainloop.loop.feed import Batch, Feed, specs


class PointsFeed(Feed):
    """The points of terms, whole or drawn in every step. There are no epochs: `index` is the number of the step.

    Args:
        data: a `Points`.
        once: all points in one step, which is an epoch, as an evaluation wants them.

    Attributes:
        data: as given.
        values: {name: tensors}, the points there are now: those of the data, or what replaced them.
    """

    def __init__(self, data, once=False):
        super().__init__(infinite=not once, steps_per_epoch=1 if once else None)
        self.data, self._sizes = data, dict.fromkeys(data.values) if once else data.batch_sizes
        self.values, self._replaced = dict(data.values), set()
        self.fixed = not any(self._sizes.values())
        self._fingerprint = None

    def replace(self, name, tensors):
        """Go on with other points of a term, in place of those there are.

        Args:
            name: of the term.
            tensors: of the same structure, shapes and dtypes.
        """
        tf.nest.assert_same_structure(tensors, self.values[name])
        self.values[name] = tensors
        self._replaced.add(name)
        self.version += 1

    def available(self):
        """How many steps the next block may take at most: any number."""
        return self.steps_per_epoch

    def source(self):
        """Arguments of the next block."""
        data = self.data
        return self.values, self._sizes, tf.constant(data.seed, tf.int32), tf.constant(self.index, tf.int32)

    def hold(self):
        """Nothing: points are a function of the step."""

    @staticmethod
    def batch(source, i):
        """(True, the block's i-th batch: a `Batch`)."""
        values, sizes, seed, index = source
        points, fixed = draw(values, sizes, seed, index + i), not any(sizes.values())

        def samples():
            return tf.cast(tf.add_n([batches.samples(of_term) for of_term in points.values()]), tf.int32)

        return True, Batch(lambda: points, samples, _no_part, fixed)

    @staticmethod
    def signature(source):
        """What a trace depends on, by name."""
        return specs(source[0])

    def advance(self, taken, wanted):
        """Account for a block of `taken` steps. Returns whether the epoch is over."""
        del wanted
        self.index += 0 if self.steps_per_epoch else taken
        return self.steps_per_epoch is not None

    def description(self):
        """What a checkpoint says of these data: equal for equal ones."""
        self._fingerprint = self._fingerprint or self.data.fingerprint()
        return {"kind": "Points", "seed": self.data.seed, "fingerprint": self._fingerprint}

    def state(self):
        """What a checkpoint needs besides the index: points that were replaced. All else follows from seed and step."""
        return {
            f"{i:03d}/{j:03d}": tensor
            for i, name in enumerate(self.values)
            if name in self._replaced
            for j, tensor in enumerate(tf.nest.flatten(self.values[name]))
        }

    def load_state(self, state, epoch, index):
        """Continue with step `index`, and the points that there were then."""
        self.epoch, self.index = epoch, index
        self.values, self._replaced = dict(self.data.values), set()
        self.version += 1
        for i, name in enumerate(self.values):
            leaves = [state[key] for key in sorted(state) if key.startswith(f"{i:03d}/")]
            if leaves:
                self.replace(name, tf.nest.pack_sequence_as(self.values[name], list(map(tf.constant, leaves))))

    def again(self, i):
        """The i-th batch of the block that has just run, before `advance`."""
        return self.batch(self.source(), i)[1]()


def _no_part(begin, end):
    raise ValueError("points of several terms cannot be shared among replicas; make the model without a strategy")
