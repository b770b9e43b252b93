"""Where things are, and the numerics of a test."""

import pathlib

import keras
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"


def set_precision(dtype):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)  # Keras takes it from floatx only once


def rewrite_graphs(wanted):
    """Whether TensorFlow optimises graphs: a third of the time of a small minimisation that runs for milliseconds."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not wanted})
