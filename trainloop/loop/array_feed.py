"""Batches of arrays in memory."""

import tensorflow as tf

from trainloop.data.arrays import gather_batch
from trainloop.loop.feed import Batch, Feed, specs


class ArrayFeed(Feed):
    """Batches gathered from arrays in memory, in the order that `ArrayData` gives each epoch.

    Args:
        data: an `ArrayData`.
        static: batch sizes are Python numbers, as XLA needs them. A smaller last batch then gets a block and
            a trace of its own; otherwise it is only a shorter slice.
    """

    def __init__(self, data, static=False):
        super().__init__(infinite=False, steps_per_epoch=data.steps_per_epoch)
        self.data, self.static, self.fixed = data, static, data.steps_per_epoch == 1
        self._order = None
        self._fingerprint = None

    def available(self):
        """How many steps the next block may take at most: with static sizes not into a smaller last batch."""
        if self.static and self.data.remainder and self.index < self.steps_per_epoch - 1:
            return self.steps_per_epoch - 1 - self.index
        return self.steps_per_epoch - self.index

    def source(self):
        """Arguments of the next block."""
        if self._order is None:
            self._order = self.data.order(self.epoch)
        first = self.index * self.data.batch_size
        size = self.data.batch_size
        size = min(size, self.data.size - first) if self.static else tf.constant(size)
        return self.data.arrays, self._order, tf.constant(first), size, self.fixed

    def hold(self):
        """Nothing: arrays are read as often as one likes."""

    @staticmethod
    def batch(source, i):
        """(whether there is one, the block's i-th batch: a `Batch`)."""
        arrays, order, first, size, fixed = source
        start = first if fixed else first + i * size

        def samples():
            return size if isinstance(size, int) else tf.minimum(size, tf.shape(order)[0] - start)

        def part(begin, end):
            return gather_batch(arrays, order, start + begin, end - begin)

        return True, Batch(lambda: gather_batch(arrays, order, start, size), samples, part, fixed)

    @staticmethod
    def signature(source):
        """What a trace depends on, by name. A smaller last batch is no news: every epoch has one."""
        return specs(source[0])

    def advance(self, taken, wanted):
        """Account for a block of `taken` steps. Returns whether an epoch is over: several, where each is one step."""
        del wanted
        over, self.index = divmod(self.index + taken, self.steps_per_epoch)
        if over:
            self.epoch, self._order = self.epoch + over, None
        return over > 0

    def description(self):
        """What a checkpoint says of these data: equal for equal ones."""
        data = self.data
        if self._fingerprint is None:
            self._fingerprint = data.fingerprint()
        named = {"samples": data.size, "batch_size": data.batch_size, "seed": data.seed, "shuffle": data.shuffle}
        return {"kind": "ArrayData", **named, "fingerprint": self._fingerprint}

    def state(self):
        """What a checkpoint needs besides epoch and index to find the next batch: nothing."""
        return {}

    def load_state(self, state, epoch, index):
        """Continue with batch `index` of an epoch."""
        del state
        self.epoch, self.index, self._order = epoch, index, None

    def again(self, i):
        """The i-th batch of the block that has just run, before `advance`."""
        return self.batch(self.source(), i)[1]()
