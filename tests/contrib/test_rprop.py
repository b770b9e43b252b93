"""Rprop against a loop over the weights, as the paper has it."""

import numpy as np
import tensorflow as tf

import trainloop as tl


def naive(x, gradient, steps, first=0.1, largest=0.15):
    """iRprop-, one weight after another."""
    x, lengths, before = list(x), [first] * len(x), [0.0] * len(x)
    for _ in range(steps):
        g = list(gradient(np.array(x)))
        for i in range(len(x)):
            if g[i] * before[i] > 0:
                lengths[i] = min(1.2 * lengths[i], largest)
            elif g[i] * before[i] < 0:
                lengths[i], g[i] = 0.5 * lengths[i], 0.0
            x[i] -= lengths[i] * np.sign(g[i])
            before[i] = g[i]
    return x


def test_the_steps_of_the_paper():
    a = np.array([1.0, 30.0, 0.01])
    optimizer = tl.contrib.Rprop(first_step=0.1, largest_step=0.15)
    found = tl.minimize(lambda x: tf.reduce_sum(a * (x - 0.3) ** 2), np.zeros(3), optimizer, max_steps=25, gtol=0)
    np.testing.assert_allclose(found.x, naive(np.zeros(3), lambda x: 2 * a * (x - 0.3), 25), rtol=1e-12)
    assert found.f < 1e-3
