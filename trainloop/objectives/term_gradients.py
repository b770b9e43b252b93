"""The terms of f and their gradients, one by one: what is needed where losses pull against each other.

    f = sum_k l_k(x),   G = (dl_k / dx_i) [k, n]         weights of the terms are multiplied in

One forward pass and k backward passes, each through what its term is made of: where terms have points of their own, as
in physics-informed networks, the passes together cost what one for f does. What the layers add themselves
(regularizers, `add_loss`) is a row of its own, the last one, under the name `REGULARIZATION`.
"""

import warnings

import tensorflow as tf

# The row of the model's own losses. A term of a loss_fn that is called so is one too.
REGULARIZATION = "regularization"


def names(objective):
    """Names of the rows, as far as they are known before a trace; none where f has no terms."""
    known = objective.loss.term_names
    if not known or not objective.loss.adds_own or not objective.model.losses:
        return known
    if REGULARIZATION in known:
        raise ValueError(
            f"a term is called {REGULARIZATION!r}, which is what the losses of the model's layers are called; rename it"
        )
    return (*known, REGULARIZATION)


def deriving(x, observe=None):
    """A function of a `Run` -> (terms [k], gradients [k, n]) of its part.

    Args:
        x: [n].
        observe: see `ModelObjective`; None for no observer.

    Raises:
        ValueError: no term depends on x.
    """

    def derive(run):
        with tf.GradientTape(persistent=True) as tape:
            for tensor in run.sources.tensors:
                tape.watch(tensor)
            terms = run.terms(observe)
        rows = [run.sources.gradient(tape, term) for term in terms]
        if all(row is None for row in rows):
            raise ValueError("no term of the loss depends on the model's trainable variables")
        for i in (i for i, row in enumerate(rows) if row is None):
            warnings.warn(
                f"term {i} of the loss, counted from 0, does not depend on the trainable variables; its gradient is "
                "taken as zero",
                stacklevel=2,
            )
        return tf.stack(terms), tf.stack([tf.zeros_like(x) if row is None else row for row in rows])

    return derive
