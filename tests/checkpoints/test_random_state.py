"""The generators that a process has once draw on as if nothing had happened."""

import random

import numpy as np

from trainloop.checkpoints import random_state


def draws():
    # An odd number of normal values leaves one over, which is part of the state.
    return [random.random(), random.gauss(0, 1), np.random.random(), *np.random.normal(size=3)]  # noqa: NPY002


def test_what_is_drawn_after_the_state_was_taken_is_drawn_again():
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    draws()
    saved = {name: np.array(array) for name, array in random_state.state().items()}
    expected = draws()
    draws()
    random_state.load_state(saved)
    assert draws() == expected
