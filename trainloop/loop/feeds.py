"""Where a run stands in its data, and how a compiled block gets its next batch.

A feed has two halves. Outside compiled code it knows the epoch and how many batches of it are taken. Inside
it is a pair of pure pieces: `source`, tensors (or an iterator) handed to the block as arguments, and
`batch(source, i)`, which finds the block's i-th batch in them: all of it, or the share of one replica.

    arrays      (arrays, order of the epoch, first sample)      gather order[first + i b : first + (i+1) b]
    dataset     (iterator,)                                     the iterator's next element, if there is one

`hold` is for looking at the next batch without taking it: until `advance`, every source begins with it.
"""

import abc
import contextlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from trainloop.checkpoints import dataset_iterator
from trainloop.data import batches
from trainloop.data.arrays import ArrayData, gather_batch
from trainloop.data.points import Points, draw

# What can be trained on: (x, y) or (x, y, sample_weight) are arrays, a dict has the points of terms by name.
Data: TypeAlias = ArrayData | Points | tf.data.Dataset | tuple[Any, Any] | tuple[Any, Any, Any] | Mapping[str, Any]

# Samples per batch of arrays that come without one.
_TUPLE_BATCH = 64


class Batch:
    """One batch of a feed, of which only that is computed or copied which somebody asks for.

    Args:
        whole: function without arguments -> all of it.
        samples: function without arguments -> how many it has, int or int32 [].
        part: function (begin, end) -> the samples from begin to before end.
        fixed: whether every step has this batch, see `Feed.fixed`.
    """

    def __init__(self, whole, samples, part, fixed=False):
        self._whole, self._samples, self._part, self.fixed = whole, samples, part, fixed

    def __call__(self, share=None):
        """The share of one replica, a `Share`; None for all."""
        return self._whole() if share is None else self._part(*share(self._samples())[:2])

    def samples(self):
        """How many samples all of it has, int32 []."""
        return tf.convert_to_tensor(self._samples(), tf.int32)


class Feed(abc.ABC):
    """A position in data that are passed over again and again, and the batches from there on.

    The loop asks `available`, hands `source` to a compiled block, which calls `batch` for each of its steps, and then
    tells `advance` how many steps there were. `batch` and `signature` are static, because a block is traced once for a
    kind of feed and not for each feed.

    Args:
        infinite: whether an epoch has no end.
        steps_per_epoch: how many batches it has, None where that is not known.

    Attributes:
        infinite, steps_per_epoch: as given.
        epoch: epochs that are over.
        index: batches of the present epoch that are taken.
        fixed: whether all steps have the same batch, as long as `version` is the same.
    """

    def __init__(self, infinite, steps_per_epoch):
        self.infinite, self.steps_per_epoch = infinite, steps_per_epoch
        self.epoch, self.index, self.fixed, self.version = 0, 0, False, 0

    @abc.abstractmethod
    def available(self):
        """How many steps the next block may take at most, None when the length is not known."""

    @abc.abstractmethod
    def source(self):
        """Arguments of the next block: tensors or an iterator, by which the batch after the last `advance` is found."""

    @abc.abstractmethod
    def hold(self):
        """Allow the next batch to be read repeatedly without advancing.

        Raises:
            ValueError: there is no next batch in this epoch.
        """

    @staticmethod
    @abc.abstractmethod
    def batch(source, i):
        """Inside of a block: (whether there is one, the block's i-th batch: a `Batch`).

        Args:
            source: what `source` returned.
            i: int32 [].
        """

    @staticmethod
    @abc.abstractmethod
    def signature(source):
        """What a trace depends on: dict of texts by name, see `Engine`."""

    @abc.abstractmethod
    def advance(self, taken, wanted):
        """Account for a block of `taken` out of `wanted` steps. Returns whether the epoch is over."""

    @abc.abstractmethod
    def description(self):
        """What a checkpoint says of these data: a JSON-able dict, equal for equal ones."""

    @abc.abstractmethod
    def arrays(self):
        """What a checkpoint needs besides epoch and index to find the next batch: dict of arrays by name.

        Raises:
            ValueError: the position in these data cannot be saved.
        """

    @abc.abstractmethod
    def go_to(self, epoch, index, arrays):
        """Continue with batch `index` of an epoch, from what `arrays` returned."""

    @abc.abstractmethod
    def again(self, i):
        """The i-th batch of the block that has just run, before `advance`; None where it cannot be found again."""


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
        start = first + i * size

        def samples():
            return size if isinstance(size, int) else tf.minimum(size, tf.shape(order)[0] - start)

        def part(begin, end):
            return gather_batch(arrays, order, start + begin, end - begin)

        return True, Batch(lambda: gather_batch(arrays, order, start, size), samples, part, fixed)

    @staticmethod
    def signature(source):
        """What a trace depends on, by name. A smaller last batch is no news: every epoch has one."""
        return _specs(source[0])

    def advance(self, taken, wanted):
        """Account for a block of `taken` steps. Returns whether the epoch is over."""
        del wanted
        self.index += taken
        if self.index < self.steps_per_epoch:
            return False
        self.epoch, self.index, self._order = self.epoch + 1, 0, None
        return True

    def description(self):
        """What a checkpoint says of these data: equal for equal ones."""
        data = self.data
        if self._fingerprint is None:
            self._fingerprint = data.fingerprint()
        named = {"samples": data.size, "batch_size": data.batch_size, "seed": data.seed, "shuffle": data.shuffle}
        return {"kind": "ArrayData", **named, "fingerprint": self._fingerprint}

    def arrays(self):
        """What a checkpoint needs besides epoch and index to find the next batch: nothing."""
        return {}

    def go_to(self, epoch, index, arrays):
        """Continue with batch `index` of an epoch."""
        del arrays
        self.epoch, self.index, self._order = epoch, index, None

    def again(self, i):
        """The i-th batch of the block that has just run, before `advance`."""
        return self.batch(self.source(), i)[1]()


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
        self._beginning = None  # of the epoch, as `dataset_iterator` saves it
        self._asked = False  # whether anybody wants it
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
            self._beginning = self._saved(self._iterator) if self._asked else None
        return (self._iterator,)

    def _saved(self, iterator):
        """The beginning of an epoch; None where the disk does not take it, which costs its checkpoints, not the run."""
        try:
            return dataset_iterator.save(iterator)
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
            with contextlib.suppress(ValueError):  # who wants it will ask, and is told
                self._beginning = dataset_iterator.save(iterator)
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
        return _specs(source[0].element_spec)

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

    def arrays(self):
        """What a checkpoint needs besides epoch and index to find the next batch: an iterator at the epoch's beginning.

        From there `go_to` takes the batches again that are done. It is not the position itself, because TensorFlow
        leaves something out of that. The orders of `shuffle` are drawn by a generator that all iterators of a dataset
        share. An iterator whose pass is not over has it. One that has nothing left, or that has handed its last
        elements to a `prefetch` behind it, lacks it, and the next pass, by `repeat` or by a new iterator, would have
        another order. To load both does not help: what is loaded last takes the generator to where it stood then.

        Raises:
            ValueError: the dataset's iterators cannot be saved, or nobody asked when the epoch began.
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
            self._beginning = dataset_iterator.save(iterator)
        self._asked = True
        return self._beginning

    def go_to(self, epoch, index, arrays):
        """Continue with batch `index` of an epoch, from what `arrays` returned. Takes the batches before it again."""
        self.epoch, self.index, self._held = epoch, index, None
        self._iterator = None  # gone before the next one comes: it may be reading ahead, and draws from what they share
        self._iterator = iter(self.dataset)
        dataset_iterator.load(self._iterator, arrays)
        self._beginning, self._asked = arrays, True
        for _ in range(index):
            next(self._iterator)

    def again(self, i):
        """None: to find a batch again the dataset would have to be read from its beginning, maybe in another order."""
        del i


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
        return _specs(source[0])

    def advance(self, taken, wanted):
        """Account for a block of `taken` steps. Returns whether the epoch is over."""
        del wanted
        self.index += 0 if self.steps_per_epoch else taken
        return self.steps_per_epoch is not None

    def description(self):
        """What a checkpoint says of these data: equal for equal ones."""
        self._fingerprint = self._fingerprint or self.data.fingerprint()
        return {"kind": "Points", "seed": self.data.seed, "fingerprint": self._fingerprint}

    def arrays(self):
        """What a checkpoint needs besides the index: points that were replaced. All else follows from seed and step."""
        return {
            f"{i:03d}/{j:03d}": tensor
            for i, name in enumerate(self.values)
            if name in self._replaced
            for j, tensor in enumerate(tf.nest.flatten(self.values[name]))
        }

    def go_to(self, epoch, index, arrays):
        """Continue with step `index`, and the points that there were then."""
        self.epoch, self.index = epoch, index
        self.values, self._replaced = dict(self.data.values), set()
        self.version += 1
        for i, name in enumerate(self.values):
            leaves = [arrays[key] for key in sorted(arrays) if key.startswith(f"{i:03d}/")]
            if leaves:
                self.replace(name, tf.nest.pack_sequence_as(self.values[name], list(map(tf.constant, leaves))))

    def again(self, i):
        """The i-th batch of the block that has just run, before `advance`."""
        return self.batch(self.source(), i)[1]()


def _no_part(begin, end):
    raise ValueError("points of several terms cannot be shared among replicas; make the model without a strategy")


def _specs(parts):
    """{"part 0": "float32 [96, 6]", ...} of tensors or their specs."""
    leaves = tf.nest.flatten(parts)
    return {f"part {i}": f"{leaf.dtype.name} {leaf.shape}" for i, leaf in enumerate(leaves)}


def as_feed(data, static=False, once=False):
    """The feed of whatever a user may call data.

    Args:
        data: an `ArrayData`, a `tf.data.Dataset`, a `Points`, a dict of what `Points` takes, or a tuple (x, y) or
            (x, y, sample_weight) of arrays, taken in batches of 64.
        static: see `ArrayFeed`.
        once: see `PointsFeed`.

    Raises:
        ValueError: anything else, or a dataset where batch sizes must be static.
    """
    if isinstance(data, tf.data.Dataset):
        if static:
            raise ValueError(
                "jit_compile=True needs its data in memory: XLA cannot hold a dataset's iterator; pass an "
                "ArrayData, or jit_compile=False"
            )
        return DatasetFeed(data)
    if isinstance(data, Mapping):
        data = Points(data)
    if isinstance(data, Points):
        return PointsFeed(data, once)
    if isinstance(data, tuple) and len(data) in (2, 3):
        samples = np.shape(next(iter(tf.nest.flatten(data[0])), None))[:1]  # of what is no array, nothing
        weight = {"sample_weight": data[2]} if len(data) == 3 else {}
        data = ArrayData(data[0], data[1], min((_TUPLE_BATCH, *samples)) or None, **weight)
    if not isinstance(data, ArrayData):
        raise ValueError(
            f"data must be an ArrayData, a tf.data.Dataset, a tuple (x, y), or points by name, received "
            f"{type(data).__name__}"
        )
    return ArrayFeed(data, static)


class WithFeed:
    """Data as a user gave them, and their feed.

    Args:
        data: see `as_feed`.
        feed: theirs, or None for no data.
    """

    def __init__(self, data, feed):
        self._parts, self.feed = self._parts_of(data), feed

    def is_of(self, data):
        """Whether these are the same objects."""
        parts = self._parts_of(data)
        same = len(parts) == len(self._parts) and all(a is b for a, b in zip(parts, self._parts, strict=True))
        return same and self.feed is not None

    @staticmethod
    def _parts_of(data):
        return data if isinstance(data, tuple) else (data,)


NO_DATA = WithFeed((), None)
