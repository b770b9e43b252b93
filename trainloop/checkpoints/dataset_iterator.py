"""Where an iterator of a `tf.data.Dataset` stands, as arrays.

TensorFlow saves iterators into files of its own format only, so they go through a temporary folder. What it saves has
the elements that are waiting in shuffle buffers, and what the orders of later passes are drawn from.
"""

import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf


def state(iterator):
    """{name of a file: its bytes, uint8 []}.

    Raises:
        ValueError: the dataset runs Python functions or draws random numbers, whose state TensorFlow cannot save.
        OSError: the temporary folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iterator).write(os.path.join(folder, "iterator"))
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError) as error:
            raise ValueError(
                f"the position in this dataset cannot be saved: {_cause(error)}; pass an ArrayData, or a dataset "
                "without from_generator, py_function, numpy_function and stateful random numbers"
            ) from error
        except tf.errors.OpError as error:
            raise OSError(f"the position in the dataset was not written to {folder}: {_cause(error)}") from error
        return {path.name: np.frombuffer(path.read_bytes(), np.uint8) for path in pathlib.Path(folder).iterdir()}


def load_state(iterator, state):
    """Put an iterator of the same dataset where that one stood whose `state` this is.

    Raises:
        ValueError: the dataset is built of other parts.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in state.items():
            (pathlib.Path(folder) / name).write_bytes(content.tobytes())
        try:
            tf.train.Checkpoint(iterator=iterator).read(os.path.join(folder, "iterator")).assert_consumed()
        except tf.errors.OpError as error:
            raise ValueError(f"the checkpoint was made with another dataset: {_cause(error)}") from error


def _cause(error):
    """TensorFlow's message without the address of the operation around it."""
    return error.message.rpartition("}} ")[2].partition(" [Op:")[0].strip().rstrip(".")
