"""The state of the random generators that a process has once: Python's and NumPy's, which hooks may draw from.

All else that is random has its state elsewhere: dropout in variables of the model, optimizers in their state, the
order of samples in (seed, epoch). What TensorFlow's stateful operations (`tf.random.normal`) draw cannot be saved; give
layers a seed, or use `tf.random.stateless_normal`.
"""

import random

import numpy as np


def state():
    """{name: array}."""
    version, words, gauss = random.getstate()
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (the generator of the process is what is saved)
    return {
        "python": np.array(words, np.uint64),
        "python_gauss": np.array([version, np.nan if gauss is None else gauss]),
        "numpy": np.asarray(state["state"]["key"]),
        "numpy_gauss": np.array([state["state"]["pos"], state["has_gauss"], state["gauss"]], float),
    }


def load_state(saved):
    """Draw from here on what would have been drawn after `state` was called."""
    version, gauss = saved["python_gauss"]
    random.setstate((int(version), tuple(map(int, saved["python"])), None if np.isnan(gauss) else float(gauss)))
    position, has_gauss, gauss = saved["numpy_gauss"]
    state = {"key": saved["numpy"], "pos": int(position)}
    numpy_state = {"bit_generator": "MT19937", "state": state, "has_gauss": int(has_gauss), "gauss": float(gauss)}
    np.random.set_state(numpy_state)  # noqa: NPY002
