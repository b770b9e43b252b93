"""Where things are, and the numerics of a test."""

import pathlib
import random

import keras
import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"


def set_precision(dtype):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)  # Keras takes it from floatx only once


def seed_generators(seed=0):
    """Python's generator, which weights and dropout of Keras get their seeds from, and NumPy's.

    TensorFlow's seed stays, as does the generator of `keras.random` without a seed: to set them
    (`keras.utils.set_random_seed`) drops all compiled kernels, an eighth of the time of all tests.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries draw from it)


def rewrite_graphs(wanted):
    """Whether TensorFlow optimises graphs: a third of the time of a small minimisation that runs for milliseconds."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not wanted})
