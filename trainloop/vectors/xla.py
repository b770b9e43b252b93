"""Whether code is being traced for XLA, or run as Python for a while.

A few operations are fast in one form under XLA and in another everywhere else (`tracing`). Inside of `running`,
compiled functions run as Python, so that a debugger, `print` and `.numpy()` work inside of them.
"""

import contextlib
import contextvars

import tensorflow as tf

_TRACING = contextvars.ContextVar("tracing for XLA", default=False)


@contextlib.contextmanager
def tracing():
    """What is traced inside is going to be compiled by XLA."""
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)


def is_tracing():
    """True inside of `tracing`."""
    return _TRACING.get()


@contextlib.contextmanager
def running():
    """Inside, every `tf.function` runs as Python. TensorFlow's switch is global; it is put back in any case."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
