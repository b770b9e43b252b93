"""Steps inside a ball where a quadratic model of f is trusted, and how well the model did."""

import typing

import numpy as np
import tensorflow as tf

from trainloop.vectors import linalg

_LEAST_AGREEMENT = 1e-4


class TrustRegionStep(typing.NamedTuple):
    """p [n], the decrease -m(p) [] that the model promises, whether |p| = radius, and products with B, int32 []."""

    p: tf.Tensor
    predicted: tf.Tensor
    at_edge: tf.Tensor
    products: tf.Tensor


def steihaug(product, g, radius, max_products, accuracy=0.5):
    """An approximate minimiser of m(p) = g'p + p'B p / 2 in |p| <= radius, by conjugate gradients.

    The iteration (r = g + B p, d conjugate directions)

        a = r'r / d'B d,  p <- p + a d,  r <- r + a B d,  d <- -r + (r_new'r_new / r'r) d

    stops when |r| <= min(accuracy, sqrt|g|) |g|, which makes Newton's method converge superlinearly; at the edge of the
    ball; or along a direction of negative curvature, which it follows to the edge.
    Source: Steihaug (1983); Nocedal and Wright (2006), algorithm 7.2.

    Args:
        product: function v [n] -> B v [n].
        g: [n].
        radius: [], positive; None for no edge, where B is positive definite.
        max_products: int.
        accuracy: of the solution far from the minimum.

    Returns:
        `TrustRegionStep`.
    """
    length = linalg.norm(g)
    # g / unit and B / unit have the same p, to the bit; squares of g may leave the range of the dtype.
    unit = linalg.power_of_two(length)
    g, enough = g / unit, tf.minimum(tf.sqrt(length), accuracy) * length / unit

    def wanted(k, _p, _r, _d, rr, _promised, at_edge):
        return (k < max_products) & (tf.sqrt(rr) > enough) & ~at_edge

    def iteration(k, p, r, d, rr, promised, _):
        Bd = product(d) / unit
        curvature = tf.tensordot(d, Bd, 1)
        inside = rr / tf.where(curvature > 0, curvature, tf.ones_like(curvature))
        edge = tf.constant(np.inf, g.dtype) if radius is None else _to_edge(p, d, radius)
        at_edge = linalg.fails(curvature > 0) | (inside >= edge)
        a = tf.where(at_edge, edge, inside)
        # m falls by a r'd + a^2 d'B d / 2, and r'd = -r'r.
        promised += a * rr - a * a * curvature / 2
        r_new = r + a * Bd
        rr_new = tf.tensordot(r_new, r_new, 1)
        return k + 1, p + a * d, r_new, (rr_new / rr) * d - r_new, rr_new, promised, at_edge

    zero = tf.zeros_like(length)
    start = tf.constant(0), tf.zeros_like(g), g, -g, tf.square(length / unit), zero, tf.constant(False)
    k, p, _, _, _, promised, at_edge = tf.while_loop(wanted, iteration, start, parallel_iterations=1)
    return TrustRegionStep(p, promised * unit, at_edge, k)


class TrustedTrial(typing.NamedTuple):
    """A trial in a trust region, and what became of it.

    Attributes:
        x, f, g: [n], [], [n] the trial where it was taken, else the old point.
        taken: bool [].
        p, y: [n], [n] step to the trial, and change of the gradient on it, taken or not; y may be infinite or NaN.
        rho: [] actual over predicted decrease of f.
        radius: [] of the next region.
        products: int32 [] with B.
        stalled: bool [] the trial was rejected, and the region is too small for another one.
        unbounded: bool [] f is -inf at the trial, which is not taken.
    """

    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    taken: tf.Tensor
    p: tf.Tensor
    y: tf.Tensor
    rho: tf.Tensor
    radius: tf.Tensor
    products: tf.Tensor
    stalled: tf.Tensor
    unbounded: tf.Tensor


def trial(objective, x, f, g, product, radius, max_radius, max_products):
    """One trial point in the region, and the next region.

        rho < 1/4                           radius <- |p| / 4
        rho > 3/4 and |p| = radius          radius <- min(2 radius, max_radius)
        rho > 1e-4                          x <- x + p               Nocedal and Wright (2006), algorithm 4.1

    They have radius / 4 in the first line. A zero gradient, which a mini-batch may have, says nothing about the region.

    Args:
        objective: has `value_and_grad`, called once.
        x, f, g: [n], [], [n].
        product: function v [n] -> B v [n].
        radius: [].
        max_radius, max_products: numbers.

    Returns:
        `TrustedTrial`.
    """
    p, predicted, at_edge, products = steihaug(product, g, radius, max_products)
    x_trial = x + p
    f_trial, g_trial = objective.value_and_grad(x_trial)
    rho = agreement(predicted, (f, g), (f_trial, g_trial))
    taken = rho > _LEAST_AGREEMENT
    length = linalg.norm(p)
    grown = tf.where(at_edge & (rho > 0.75), tf.minimum(2 * radius, max_radius), radius)
    smallest = linalg.eps(x.dtype) * tf.maximum(linalg.norm(x), 1)
    return TrustedTrial(
        *(tf.where(taken, new, old) for new, old in ((x_trial, x), (f_trial, f), (g_trial, g))),
        taken,
        p,
        g_trial - g,
        rho,
        tf.where((rho < 0.25) & (length > 0), length / 4, grown),
        products,
        ~taken & linalg.fails(length > smallest) & tf.reduce_any(tf.not_equal(g, 0)),
        tf.equal(f_trial, float("-inf")),
    )


def _to_edge(p, d, radius):
    """t >= 0 with |p + t d| = radius, for |p| <= radius: the root that loses no digits."""
    dd, pd, pp = tf.tensordot(d, d, 1), tf.tensordot(p, d, 1), tf.tensordot(p, p, 1)
    room = tf.maximum(tf.square(radius) - pp, 0)
    root = tf.sqrt(tf.square(pd) + dd * room)
    return tf.where(pd > 0, room / (pd + root), (root - pd) / dd)


def agreement(predicted, here, there):
    """rho = actual / predicted decrease of f; -inf where the trial is not finite.

    Below the rounding of f the ratio means nothing. There it is 1 if the gradient has become shorter, else 0.

    Args:
        predicted: decrease [], not negative.
        here, there: (f [], g [n]) at the point and at the trial.
    """
    (f, g), (f_trial, g_trial) = here, there
    finite = tf.math.is_finite(f_trial) & tf.math.is_finite(linalg.norm(g_trial))
    resolution = 10 * linalg.eps(f.dtype) * tf.maximum(tf.abs(f), linalg.tiny(f.dtype))
    rho = (f - f_trial) / tf.maximum(predicted, resolution)
    blind = (predicted <= resolution) & (tf.abs(f - f_trial) <= resolution)
    by_gradient = tf.where(linalg.norm(g_trial) < linalg.norm(g), tf.ones_like(f), tf.zeros_like(f))
    return tf.where(finite, tf.where(blind, by_gradient, rho), tf.constant(float("-inf"), f.dtype))
