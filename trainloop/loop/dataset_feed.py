"""Batches of a `tf.data.Dataset`."""

import contextlib

import tensorflow as tf

from trainloop.checkpoints import dataset_iterator
from trainloop.data import batches
from trainloop.loop.feed import Batch, Feed, specs


class DatasetFeed(Feed):
    """Batches of a `tf.data.Dataset`; one epoch is one pass over it. The next batch is made while a step is computed.

    Raises:
        ValueError: an epoch without a single batch.
    """

    def __init__(self, dataset):
        self.dataset = dataset.prefetch(tf.data.AUTOTUNE)
        cardinality = int(dataset.cardinality())
        super().__init__(cardinality == tf.data.INFINITE_CARDINALITY, cardinality if cardinality >= 0 else None)
        self._iterator = None
        self._held = None  # the next batch, when it was taken from the iterator before its time
        self._beginning = None  # of the epoch, as `dataset_iterator` returns it
        self._asked = False  # whether it is wanted
        self._unwritten = None  # the OSError where it could not be saved

    def available(self):
        """How many steps the next block may take at most, None when the length is not known."""
        if self._held is not None:
            return 1
        return None if self.steps_per_epoch is None else self.steps_per_epoch - self.index

    def source(self):
        """Arguments of the next block."""
        if self._held is not None:
            held, spec = self._held, self.dataset.element_spec
            # To a compiled function, iterators over elements of the same kind are the same.
            return (iter(tf.data.Dataset.from_generator(lambda: [held], output_signature=spec)),)
        if self._iterator is None:
            self._iterator = iter(self.dataset)
            self._beginning = self._state_of(self._iterator) if self._asked else None
        return (self._iterator,)

    def _state_of(self, iterator):
        """The beginning of an epoch; None where the disk does not take it, which costs its checkpoints, not the run."""
        try:
            return dataset_iterator.state(iterator)
        except OSError as error:
            self._unwritten = error
            return None

    def hold(self):
        """Allow the next batch to be read repeatedly. Until `advance`, there is no other one.

        Raises:
            ValueError: there is no next batch in this epoch.
        """
        if self._held is not None:
            return
        (iterator,) = self.source()
        if self.index == 0 and self._beginning is None:
            with contextlib.suppress(ValueError):  # who wants it will ask, and gets the error
                self._beginning = dataset_iterator.state(iterator)
        self._held = next(iterator, None)
        if self._held is None:
            raise ValueError("the dataset has no further batch in this epoch; pass data to look at their first")

    @staticmethod
    def batch(source, i):
        """(whether there is one, the block's i-th batch: a `Batch`)."""
        del i
        optional = source[0].get_next_as_optional()

        def samples():
            return tf.cast(batches.samples(optional.get_value()), tf.int32)

        def part(begin, end):
            return batches.between(optional.get_value(), begin, end)

        return optional.has_value(), Batch(optional.get_value, samples, part)

    @staticmethod
    def signature(source):
        """What a trace depends on, by name."""
        return specs(source[0].element_spec)

    def advance(self, taken, wanted):
        """Account for a block of `taken` out of `wanted` steps. Returns whether the epoch is over."""
        self.index += taken
        self._held = None
        if taken == wanted and self.index != self.steps_per_epoch:
            return False
        if self.index == 0:
            raise ValueError("the dataset has no batches; check its filters, take() and batch(drop_remainder=True)")
        # A `repeat` draws once more when it comes to its end: not before or after the next epoch has drawn, by chance.
        next(self._iterator, None)
        self.epoch, self.index, self._iterator = self.epoch + 1, 0, None
        return True

    def description(self):
        """What a checkpoint says of these data: equal for equal ones, as far as it shows without reading them."""
        return {"kind": "Dataset", "batches": self.steps_per_epoch, "elements": str(self.dataset.element_spec)}

    def state(self):
        """What a checkpoint needs besides epoch and index to find the next batch: an iterator at the epoch's beginning.

        From there `load_state` takes the batches again that are done. It is not the position itself, because TensorFlow
        leaves something out of that. The orders of `shuffle` are drawn by a generator that all iterators of a dataset
        share. An iterator whose pass is not over has it. One that has nothing left, or that has handed its last
        elements to a `prefetch` behind it, lacks it, and the next pass, by `repeat` or by a new iterator, would have
        another order. To load both does not help: what is loaded last takes the generator to where it stood then.

        Raises:
            ValueError: the dataset's iterators cannot be saved, or `state` was not asked for when the epoch began.
            OSError: the temporary folder could not be written when the epoch began, or cannot now.
        """
        (iterator,) = self.source()
        if self._beginning is None:
            if self.index > 0:
                if self._unwritten is not None:
                    raise OSError(f"the beginning of this epoch was not saved: {self._unwritten}")
                raise ValueError(
                    f"the position in this dataset cannot be saved first after {self.index} batches of an epoch; ask "
                    "for it before the first one too, as the hook SaveCheckpoint does"
                )
            self._beginning = dataset_iterator.state(iterator)
        self._asked = True
        return self._beginning

    def load_state(self, state, epoch, index):
        """Continue with batch `index` of an epoch, from what `state` returned. Takes the batches before it again."""
        self.epoch, self.index, self._held = epoch, index, None
        self._iterator = None  # gone before the next one comes: it may be reading ahead, and draws from what they share
        self._iterator = iter(self.dataset)
        dataset_iterator.load_state(self._iterator, state)
        self._beginning, self._asked = state, True
        for _ in range(index):
            next(self._iterator)

    def again(self, i):
        """None: to find a batch again the dataset would have to be read from its beginning, maybe in another order."""
        del i
