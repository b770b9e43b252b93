"""Whether a loss that TensorFlow cannot look into gives the same value twice at the same point.

What a loss draws and counts is found in its graph (see `finder`) and frozen, or raises. A Python function inside of it
is the exception: it may draw, count, or read the clock, and no graph tells. So f is taken once more at the point of the
first pass of a run; what comes back says whether values at different points can be compared.
"""

import logging

import tensorflow as tf

from trainloop.vectors import linalg

_LOG = logging.getLogger("trainloop")


def check_same_again(objective, f, x, now):
    """Raise where a loss with Python functions gives another value than in the first pass.

    A difference of at most 100 eps |f| is rounding, and is named in the log. Costs one evaluation, and nothing at all
    where the graph of the loss tells all that it does.

    Args:
        objective: a `ModelObjective` or a `ReplicatedObjective`.
        f: [], from its first pass.
        x: [n], where that was.
        now: bool [], whether to do it: at the first step of a run.

    Raises:
        ValueError: f is another one. Out of compiled code TensorFlow brings it as an `InvalidArgumentError`.
    """
    found = objective.found
    if found.traced and not found.opaque:
        return
    places = [f"{name} at {where}" for name, where in found.opaque.items()]
    suspects = ", ".join(places) or "the loss itself, which runs as Python"

    def compare(f, again, eps):
        difference = abs(float(again) - float(f))
        if difference > 100 * float(eps) * abs(float(f)):
            raise ValueError(
                f"the loss must give the same value whenever the weights are the same, received {float(f):.9g} and "
                f"then {float(again):.9g} at one point; it calls Python functions ({suspects}): let them draw and "
                "count nothing, or use an optimizer that needs only the gradient"
            )
        if difference > 0:
            _LOG.warning("f differs by rounding (%.1e) when it is taken again: %s", difference, suspects)

    def probe():
        arguments = f, objective.value(x), linalg.eps(objective.digits or x.dtype)
        return compare(*arguments) if tf.executing_eagerly() else tf.py_function(compare, arguments, [])

    if tf.executing_eagerly():
        if now:
            probe()
        return
    tf.cond(now, lambda: [probe(), tf.constant(0)][1], lambda: tf.constant(0))
