"""Counts what an optimizer asks of its objective, by kind, inside compiled code.

Evaluations are what optimizers are compared by: a step of one costs one gradient, a step of another twenty products.
"""

import numpy as np
import tensorflow as tf

from trainloop.objectives.base import Objective

# f and gradient count separately, because a backtracking line search asks for values alone.
KINDS = ("f", "gradient", "Hv", "Gv", "J")


class Evaluations:
    """How many evaluations of each kind were done, in one int64 variable."""

    def __init__(self):
        self._counts = tf.Variable(tf.zeros([len(KINDS)], tf.int64), trainable=False, name="evaluations")

    def add(self, **by_kind):
        """Count some more. Inside a compiled function it happens whenever this point is reached."""
        unknown = by_kind.keys() - set(KINDS)
        if unknown:
            raise ValueError(f"kinds of evaluations are {', '.join(KINDS)}; received {', '.join(unknown)}")
        self._counts.assign_add([by_kind.get(kind, 0) for kind in KINDS])

    def read(self):
        """{kind: int64 []}."""
        return dict(zip(KINDS, tf.unstack(tf.convert_to_tensor(self._counts)), strict=True))

    def as_dict(self):
        """{kind: int}."""
        return dict(zip(KINDS, np.asarray(self._counts).tolist(), strict=True))

    @property
    def variable(self):
        """The counts, in the order of `KINDS`."""
        return self._counts


class Counted(Objective):
    """An objective whose evaluations are counted.

    Args:
        objective: any `Objective`.
        evaluations: the `Evaluations` to count in.
    """

    def __init__(self, objective, evaluations):
        self._objective, self._evaluations = objective, evaluations
        self._known_terms = None  # (x, terms, their gradients), where they are known

    def first_pass(self):
        self._evaluations.add(f=1, gradient=1)
        return self._objective.first_pass()

    def value(self, x):
        self._evaluations.add(f=1)
        return self._objective.value(x)

    def value_and_grad(self, x):
        self._evaluations.add(f=1, gradient=1)
        return self._objective.value_and_grad(x)

    def hvp(self, x, v):
        self._evaluations.add(Hv=1)
        return self._objective.hvp(x, v)

    def ggnvp(self, x, v):
        self._evaluations.add(Gv=1)
        return self._objective.ggnvp(x, v)

    def ggn(self, x):
        if self.has_residuals:
            self._evaluations.add(J=1)
        else:
            self._evaluations.add(Gv=x.shape[0])
        return self._objective.ggn(x)

    def first_pass_by_terms(self, x):
        """`first_pass` by the gradients of the terms, which are kept for who asks for them at the same x [n]."""
        losses, gradients = self._objective.first_term_gradients()
        self._evaluations.add(f=1, gradient=losses.shape[0])
        self._known_terms = x, losses, gradients
        return tf.reduce_sum(losses), tf.reduce_sum(gradients, 0)

    def term_gradients(self, x):
        def derive():
            losses, gradients = self._objective.term_gradients(x)
            self._evaluations.add(f=1, gradient=losses.shape[0])
            return losses, gradients

        if self._known_terms is None:
            return derive()
        where, *known = self._known_terms
        found = tf.cond(tf.reduce_all(tf.equal(x, where)), lambda: tuple(known), derive)
        return tuple(tf.ensure_shape(new, old.shape) for new, old in zip(found, known, strict=True))

    @property
    def term_names(self):
        return self._objective.term_names

    @property
    def of_weights(self):
        return self._objective.of_weights

    @property
    def has_residuals(self):
        return self._objective.has_residuals

    def rows(self, x):
        self._evaluations.add(J=1)
        return self._objective.rows(x)

    def residuals(self, x):
        self._evaluations.add(f=1)
        return self._objective.residuals(x)

    def vjp(self, x, u):
        self._evaluations.add(gradient=1)
        return self._objective.vjp(x, u)
