"""The part that one batch has in a curvature matrix, by its products with several vectors, for each kind.

    C v for every row v of `rows` [k, n], at x [n]      functions (objective, share, x, rows) -> [k, n]

`share` is that of the batch in the whole data set.

    hessian             second derivatives of f, regularization included
    ggn                 J' L J + R      J first derivatives of the outputs, L second derivatives of the loss by them,
                                        R second derivatives of the regularization
    fisher              J' L J, where L is what one expects of the loss under the model's own distribution
    empirical_fisher    1/N sum_i g_i g_i'      g_i the gradient of the loss of sample i, without regularization

Schraudolph (2002), Fast curvature matrix-vector products, and Martens (2020), New insights and perspectives on the
natural gradient method, section 9 on when the Fisher matrix is J' L J, and section 11 on the empirical one.
"""

import functools

import tensorflow as tf

from trainloop.curvatures.likelihoods import check_is_likelihood
from trainloop.curvatures.sample_losses import sample_losses
from trainloop.objectives import derivatives
from trainloop.vectors import linalg


def hessian(objective, share, x, rows):
    """H v for each row v."""
    del share  # the objective has it
    return objective.hvps(x, rows)


def ggn(objective, share, x, rows):
    """(J' L J + R) v for each row v."""
    del share
    return objective.ggnvps(x, rows)


def fisher(objective, share, x, rows):
    """J' L J v for each row v, where that is the Fisher matrix.

    Raises:
        ValueError: for this loss it is not, as far as is known.
    """
    del share
    check_is_likelihood(objective.model, objective.loss, objective.batch)
    return objective.ggnvps(x, rows, own=False)


def empirical_fisher(objective, share, x, rows):
    """c J'J v for each row v, J the Jacobian of the losses of all samples, c the share over their number."""
    losses = functools.partial(sample_losses, objective.model, objective.loss, objective.batch)

    def losses_at(z):
        with objective.at(z):
            return losses()

    def along(v):
        if not objective.loses_jacobian(x):
            try:
                return linearised.jvp(v)
            except derivatives.NO_GRADIENT:
                pass
        return derivatives.difference_of_gradients(losses_at, x, v, objective.digits)

    with objective.at(x) as sources:
        linearised = derivatives.Linearised(lambda _: losses(), x, sources)
        weight = tf.cast(share, x.dtype) / tf.cast(tf.size(linearised.z), x.dtype)
        return weight * linalg.map_rows(lambda v: linearised.vjp(along(v)), rows)


KINDS = {"hessian": hessian, "ggn": ggn, "fisher": fisher, "empirical_fisher": empirical_fisher}
