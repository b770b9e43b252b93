"""The contract of a feed: whoever derives from `Feed` has to define all of it."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from networks import blobs

from trainloop import ArrayData
from trainloop.loop.array_feed import ArrayFeed
from trainloop.loop.dataset_feed import DatasetFeed
from trainloop.loop.feed import Feed
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
