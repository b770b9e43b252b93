"""The smallest problems that deserve to be called learning: one logistic regression, one network.

The weights are cut out of x by hand, so that nothing of Keras stands between the vector and the loss.
"""

import numpy as np
import tensorflow as tf

from trainloop.testing.problem import Problem, least_squares


def _logistic_regression():
    """f(w) = mean_i log(1 + exp(-y_i a_i'w)) + 0.01 / 2 |w|^2,  labels y_i = +-1,  100 samples a_i of 10 numbers.

    Labels are drawn from a logistic-like model, so the classes overlap: strictly convex and well conditioned.
    """
    rng = np.random.default_rng(0)
    samples, weights, noise = rng.standard_normal((100, 10)), rng.standard_normal(10), rng.standard_normal(100)
    labels = np.where(samples @ weights + noise > 0, 1.0, -1.0)
    signed = labels[:, np.newaxis] * samples  # y_i a_i

    def fun(w):
        margins = tf.linalg.matvec(tf.constant(signed, w.dtype), w)
        return tf.reduce_mean(tf.nn.softplus(-margins)) + 0.005 * tf.reduce_sum(tf.square(w))

    return Problem(
        "logistic_regression",
        fun,
        np.zeros(10),
        0.31629927940695775,
        smooth=True,
        convex=True,
        source="l2-regularised logistic regression on 100 random samples; minimum by Newton's method",
    )


def _tanh_network():
    """A 1-4-1 network learns another:  r_i = v'tanh(w t_i + b) + c - y_i,  x = (w, b, v, c),  25 inputs in [-3, 3].

    The targets y_i are the outputs of a teacher, so the minimum is 0, at the teacher's weights and wherever its
    hidden units are exchanged or negated. The start is half the teacher: every method of SciPy that was tried comes
    back from there, while many other starts end in local minima.
    """
    teacher = np.array([2, 3, -3, 2, 4, 2, 2, -5, 1, 2, 1, -1, 0.5])
    inputs = np.linspace(-3, 3, 25)
    hidden = np.tanh(np.outer(inputs, teacher[0:4]) + teacher[4:8])
    targets = hidden @ teacher[8:12] + teacher[12]

    def residuals(x):
        w, b, v, c = x[0:4], x[4:8], x[8:12], x[12]
        t = tf.constant(inputs[:, np.newaxis], x.dtype)
        return tf.linalg.matvec(tf.tanh(t * w + b), v) + c - tf.constant(targets, x.dtype)

    source = "least-squares fit of a teacher network with one input, four tanh units and one output"
    return least_squares("tanh_network", residuals, teacher / 2, minimiser=teacher, source=source)


NETWORKS = [_logistic_regression(), _tanh_network()]
