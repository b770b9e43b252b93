"""The contract of a feed: whoever derives from `Feed` has to define all of it."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs, crossentropy, dense_net

from trainloop import ArrayData, Momentum, TrainLoop
from trainloop.loop import train_loop
from trainloop.loop.array_feed import ArrayFeed
from trainloop.loop.dataset_feed import DatasetFeed
from trainloop.loop.feed import Batch, Feed
from trainloop.loop.feeds import as_feed


def feeds():
    x, y = blobs()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(40)
    return [as_feed(ArrayData(x, y, 40, shuffle=False)), as_feed(dataset), as_feed((x, y))]


def test_all_data_have_a_feed():
    assert [type(feed) for feed in feeds()] == [ArrayFeed, DatasetFeed, ArrayFeed]
    assert all(isinstance(feed, Feed) for feed in feeds())


@pytest.mark.parametrize("missing", sorted(Feed.__abstractmethods__))
def test_a_feed_that_lacks_something_is_not_made(missing):
    members = {name: getattr(ArrayFeed, name) for name in Feed.__abstractmethods__ if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Partial", (Feed,), members)(False, 3)


def test_every_member_that_is_used_is_declared():
    """What the feeds of the package offer besides is their own."""
    declared = {name for name in vars(Feed) if not name.startswith("_")}
    assert declared == Feed.__abstractmethods__
    for kind in (ArrayFeed, DatasetFeed):
        assert {name for name in vars(kind) if not name.startswith("_")} == declared
    assert all(inspect.getdoc(getattr(Feed, name)) for name in declared)


@pytest.mark.parametrize("which", [0, 1])
def test_an_epoch_by_the_contract_alone(which):
    """A loop that knows nothing but `Feed` sees every sample once, in order."""
    feed, seen, over = feeds()[which], [], False
    assert (feed.epoch, feed.index, feed.infinite, feed.steps_per_epoch) == (0, 0, False, 3)
    while not over:
        wanted = min(feed.available(), 2)
        source = feed.source()
        for i in range(wanted):
            there, batch = type(feed).batch(source, tf.constant(i))
            assert there
            seen.append(batch()[0])
        over = feed.advance(wanted, wanted)
    np.testing.assert_array_equal(tf.concat(seen, 0), blobs()[0])
    assert (feed.epoch, feed.index) == (1, 0)


class ThreeParts(Feed):
    """x and y in three batches, written from what `Feed` says."""

    def __init__(self, x, y):
        super().__init__(infinite=False, steps_per_epoch=3)
        self.parts = [tf.stack(tf.split(tf.constant(array), 3)) for array in (x, y)]

    def available(self):
        return 3 - self.index

    def source(self):
        return *self.parts, tf.constant(self.index)

    @staticmethod
    def batch(source, i):
        *parts, index = source
        x, y = (tf.gather(array, index + i) for array in parts)
        return True, Batch(lambda: (x, y), lambda: x.shape[0], lambda begin, end: (x[begin:end], y[begin:end]))

    @staticmethod
    def signature(source):
        return {"x": str(source[0].shape)}

    def advance(self, taken, wanted):
        self.index += taken
        if self.index < 3:
            return False
        self.epoch, self.index = self.epoch + 1, 0
        return True

    def hold(self):
        pass

    def again(self, i):
        return self.batch(self.source(), i)[1]()

    def description(self):
        return {"kind": "three parts"}

    def state(self):
        return {}

    def load_state(self, state, epoch, index):
        self.epoch, self.index = epoch, index


@pytest.mark.parametrize("eager", [False, True])
def test_a_feed_of_somebody_else_trains_as_the_arrays_in_it(monkeypatch, eager):
    x, y = blobs()

    def weights_after(data):
        loop = TrainLoop(dense_net(), Momentum(0.1), crossentropy(), eager=eager, steps_per_call=2)
        result = loop.run(data, epochs=2, verbose=0)
        assert (result.step, result.epochs["epoch"].tolist()) == (6, [1, 2])
        return np.concatenate([w.ravel() for w in loop.model.get_weights()])

    expected = weights_after(ArrayData(x, y, len(x) // 3, shuffle=False))
    monkeypatch.setattr(train_loop, "as_feed", lambda data, *_: ThreeParts(*data))
    np.testing.assert_array_equal(weights_after((x, y)), expected)
