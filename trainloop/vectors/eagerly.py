"""Compiled functions run as Python for a while, so that a debugger, `print` and `.numpy()` work inside of them."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def running():
    """Inside, every `tf.function` runs as Python. TensorFlow's switch is global; it is put back in any case."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
