"""A line search over powers of one half: t = 1, 1/2, 1/4, ..., by values alone.

Natural gradients are scaled well, but their models hold in a small region at first: the best t falls by orders of
magnitude and rises again. A power of one half near the minimum along the line costs a few values of f, which are a
fraction of a Jacobian. Mueller and Zeinhofer (2023) take the best of all of 2^0 to 2^-30; here the search ends when two
trials behind the best one were worse.
"""

import tensorflow as tf

from trainloop.linesearch.searches import LineSearch
from trainloop.objectives.base import Objective
from trainloop.types import Scalar

_MOST = 31
_WORSE = 2


def halving(objective: Objective, x: tf.Tensor, f: Scalar, g: tf.Tensor, d: tf.Tensor, t0: Scalar = 1.0) -> LineSearch:
    """The best of the first powers of one half.

    Args:
        objective: has `value` and `value_and_grad`.
        x: [n] where the search begins.
        f, g: [] and [n], value and gradient there.
        d: [n] direction.
        t0: [], the first trial.

    Returns:
        `LineSearch`; `success` where f is lower than at x. Otherwise t is 0 and the point is x.

    Examples:
        >>> bowl, x = FunctionObjective(lambda x: tf.reduce_sum(x**2)), tf.constant([3.0, 4.0])
        >>> f, g = bowl.value_and_grad(x)
        >>> float(linesearch.halving(bowl, x, f, g, -g).t)
        0.5
    """
    f = tf.convert_to_tensor(f, x.dtype)

    def wanted(k, _t, _best, _t_best, worse, unbounded):
        return (k < _MOST) & (worse < _WORSE) & ~unbounded

    def one(k, t, best, t_best, worse, _unbounded):
        value = objective.value(x + t * d)
        lower, unbounded = value < best, tf.equal(value, float("-inf"))
        taken = lower & ~unbounded
        worse = tf.where(lower, 0, tf.where(t_best > 0, worse + 1, 0))
        return k + 1, t / 2, tf.where(taken, value, best), tf.where(taken, t, t_best), worse, unbounded

    start = (tf.constant(0), tf.cast(t0, x.dtype), f, tf.zeros_like(f), tf.constant(0), tf.constant(False))
    k, _, _, t, _, unbounded = tf.while_loop(wanted, one, start, parallel_iterations=1)
    x_new = x + t * d
    f_new, g_new = tf.cond(t > 0, lambda: objective.value_and_grad(x_new), lambda: (f, g))
    return LineSearch(t, x_new, f_new, g_new, k + tf.cast(t > 0, tf.int32), t > 0, unbounded)
