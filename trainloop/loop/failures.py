"""What failed inside of compiled code, in one line, where TensorFlow's message says what it was.

What is known before the first step raises there. The targets of a dataset are not: they are seen when their batch is.
"""

import contextlib
import re

import tensorflow as tf

from trainloop import checks

# TensorFlow's crossentropy of class numbers.
_LABEL = re.compile(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")

# What a Python function of this package raises there: the loss is not the same twice.
_RAISED = re.compile(r"ValueError: (the loss must .*)")


@contextlib.contextmanager
def in_one_line():
    """Inside, an error of TensorFlow whose cause is known becomes a ValueError that names the remedy.

    Raises:
        ValueError: a class number for which the model has no output, a loss that differs when it is taken again.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if match := _LABEL.search(str(error)):
            expected = f"class numbers in 0..{int(match[2]) - 1}"
            advice = "number the classes from 0, and give the model an output for each"
            raise checks.error("targets", expected, match[1], advice) from error
        if match := _RAISED.search(str(error)):
            raise ValueError(match[1]) from error
        raise
