"""The one batch of a dataset that has no other, and always the same."""

import functools

import tensorflow as tf

from trainloop.data import batches
from trainloop.loop.feed import Batch, Feed, specs

# Operations of a dataset that give the same tensors in every pass.
_CONSTANT = {"Const", "TensorDataset", "TensorSliceDataset", "BatchDatasetV2", "PrefetchDataset", "OptionsDataset"}

# A dataset is looked at by writing it out, with its arrays; beside larger ones an iterator costs nothing.
_MOST_BYTES = 2**24


def is_fixed(dataset):
    """Whether a dataset has one element that is the same in every pass, as far as it shows without reading it.

    Args:
        dataset: a `tf.data.Dataset`.
    """
    leaves = tf.nest.flatten(dataset.element_spec)
    if int(dataset.cardinality()) != 1 or not all(isinstance(leaf, tf.TensorSpec) for leaf in leaves):
        return False
    if not all(leaf.shape.is_fully_defined() for leaf in leaves):
        return False
    if sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in leaves) > _MOST_BYTES:
        return False
    try:
        written = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(dataset), external_state_policy=2
        )
    except tf.errors.OpError:  # it has a state of its own, or cannot be written out
        return False
    nodes = tf.compat.v1.GraphDef.FromString(written.numpy()).node
    return {node.op for node in nodes} <= {*_CONSTANT, "_Retval"}


class FixedFeed(Feed):
    """The only batch of a dataset, read once. Every step is an epoch.

    Args:
        dataset: for which `is_fixed` is true.
    """

    def __init__(self, dataset):
        super().__init__(infinite=False, steps_per_epoch=1)
        self._values, self._elements = next(iter(dataset)), str(dataset.element_spec)
        self.fixed = True

    def available(self):
        """How many steps the next block may take at most."""
        return 1

    def source(self):
        """Arguments of the next block."""
        return (self._values,)

    def hold(self):
        """Nothing: there is no other batch."""

    @staticmethod
    def batch(source, i):
        """(True, the block's i-th batch: a `Batch`)."""
        del i
        (values,) = source

        def samples():
            return tf.cast(batches.samples(values), tf.int32)

        return True, Batch(lambda: values, samples, functools.partial(batches.between, values), fixed=True)

    @staticmethod
    def signature(source):
        """What a trace depends on, by name."""
        return specs(source[0])

    def advance(self, taken, wanted):
        """Account for a block of `taken` steps, which are as many epochs. Returns whether one is over: always."""
        del wanted
        self.epoch += taken
        return True

    def description(self):
        """What a checkpoint says of these data: equal for equal ones, as far as it shows without reading them."""
        return {"kind": "Dataset", "batches": 1, "elements": self._elements}

    def state(self):
        """What a checkpoint needs besides epoch and index to find the next batch: nothing."""
        return {}

    def load_state(self, state, epoch, index):
        """Continue in an epoch."""
        del state
        self.epoch, self.index = epoch, index

    def again(self, i):
        """The i-th batch of the block that has just run, before `advance`."""
        del i
        return self._values
