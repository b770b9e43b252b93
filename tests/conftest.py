"""Strict numerics for every test: float64 unless a test asks for less, and generators of Python and NumPy seeded.

TensorFlow's own generator is seeded once for a process; see `environment.seed_generators`.
"""

import collections
import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests run in as many processes as there are cores, on small arrays. Threads that wait for a share of the work spin, at
# ten times its price.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np
import pytest

# TensorFlow and Keras are imported inside of functions: the process that only hands out tests starts without them,
# four seconds earlier.


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test that is marked `thorough_after(n)`, cases after the first n belong to the thorough tests."""
    seen = collections.Counter()
    for item in items:
        if mark := item.get_closest_marker("thorough_after"):
            function = item.nodeid.partition("[")[0]
            seen[function] += 1
            if seen[function] > mark.args[0]:
                item.add_marker(pytest.mark.thorough)


def pytest_collection_finish():
    """What is imported by now stays; half a million objects need no look at every collection of garbage.

    A trace makes thousands of objects that live as long as its graph, so looking rarely finds as much.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True, scope="session")
def _libraries():
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    tf.config.list_logical_devices()  # reads the number of threads
    del os.environ["TF_NUM_INTRAOP_THREADS"]  # programs that tests start run on all cores, as a user's do


@pytest.fixture(autouse=True)
def _strict_numerics():
    from environment import seed_generators, set_precision

    set_precision("float64")
    seed_generators()
    yield
    set_precision("float32")


@pytest.fixture(scope="module")
def no_graph_rewriting():
    """For modules with many small compiled functions: `pytestmark = pytest.mark.usefixtures("no_graph_rewriting")`."""
    from environment import rewrite_graphs

    rewrite_graphs(False)
    yield
    rewrite_graphs(True)


@pytest.fixture
def float32():
    """The precision that networks are trained in."""
    from environment import set_precision

    set_precision("float32")


@pytest.fixture
def mnist():
    """MNIST as (x float32 [N, 28, 28, 1] in [0, 1], y int32) for training and testing, from a local copy."""
    from environment import MNIST

    if not MNIST.exists():
        pytest.skip("needs a local copy of MNIST in ../shared/data/mnist.npz")
    with np.load(MNIST) as arrays:
        images = {part: (arrays[f"x_{part}"][..., None] / 255).astype("float32") for part in ("train", "test")}
        labels = {part: arrays[f"y_{part}"].astype("int32") for part in ("train", "test")}
    return (images["train"], labels["train"]), (images["test"], labels["test"])
