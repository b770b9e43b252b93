"""Random vectors to look at a matrix with."""

import numpy as np

from trainloop import checks


def signs(n, count, dtype, seed):
    """Vectors whose entries are +1 or -1, independent and equally likely [n, count].

    Args:
        n, count: how long and how many.
        dtype: of the entries.
        seed: a non-negative integer.
    """
    generator = np.random.default_rng(checks.integer("seed", seed, at_least=0))
    return generator.integers(0, 2, size=[n, count]).astype(dtype) * 2 - 1
