"""The Levenberg-Marquardt method: Gauss-Newton with damping.

    (G + mu I) h = -g           G = J' L J, the Gauss-Newton matrix
    rho = (f(x) - f(x + h)) / (h'(mu h - g) / 2)          decrease over the decrease that the model predicts
    rho > 0:   x <- x + h,   mu <- mu max(1/3, 1 - (2 rho - 1)^3),   nu <- 2
    else:                    mu <- mu nu,                            nu <- 2 nu

    mu = tau max_i G_ii at the start.       Madsen, Nielsen and Tingleff (2004), algorithm 3.16; Nielsen (1999)

On mini-batches G and rho belong to one batch, and as mu falls a step fits that batch and no other. A lower bound on mu
limits how far it goes where G says little: h is at most g / mu there. Martens (2010), sections 4.1 and 4.6.

For small n the matrix G is formed and factorised. For large n the system is solved by conjugate gradients from products
with G; there the diagonal is not known, and mu starts at tau times the curvature along g.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.linesearch.trust_region import agreement, steihaug
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

SOLVERS = ("auto", "cholesky", "cg")

# `auto` factorises up to this many parameters: 8 MB in float64, some tens of milliseconds.
_LARGEST_DENSE = 1000


class LevenbergMarquardt(GlobalObjectiveOptimizer):
    """Damped Gauss-Newton.   Levenberg (1944), Marquardt (1963), damping of Nielsen (1999).

    For objectives with Gauss-Newton products: `LeastSquares`, and models with a loss of their outputs. A step costs one
    evaluation of f and g, and n products with G (factorised) or up to `max_products`. A trial that is no improvement
    leaves x where it is; a zero gradient, which a mini-batch may have, changes nothing. The run ends with
    `Status.STALLED` when h is too short to move x.

    Args:
        tau: damping at the start relative to the curvature, positive. Small for a good starting point.
        min_damping: mu is at least this, not negative; in units of the curvature of f. 0 for the whole data at once; on
            mini-batches of a network's mean loss about 0.3 to 1.
        solver: "cholesky", "cg", or "auto": cholesky up to 1000 parameters.
        max_products: per step with "cg", at least 1.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Example:
        >>> t = np.linspace(0.0, 1.0, 20)
        >>> decay = LeastSquares(lambda p: p[0] * tf.exp(-p[1] * t) - 2 * np.exp(-3 * t))
        >>> minimize(decay, [1.0, 1.0], LevenbergMarquardt()).x.round(6)
        array([2., 3.])
    """

    def __init__(
        self,
        tau: float = 1e-3,
        solver: str = "auto",
        max_products: int = 100,
        min_damping: float = 0.0,
        name: str = "levenberg_marquardt",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.tau = checks.real("tau", tau, above=0)
        self.solver = checks.choice("solver", solver, SOLVERS)
        self.max_products = checks.integer("max_products", max_products, at_least=1)
        self.min_damping = checks.real("min_damping", min_damping, at_least=0)

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "damping": tf.zeros([], x.dtype),  # 0 until the first step has seen G
            "growth": tf.constant(2.0, x.dtype),
            "rho": tf.zeros([], x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        h, mu = self._step(x, g, state["damping"], objective)
        x_trial = x + h
        f_trial, g_trial = objective.value_and_grad(x_trial)
        rho = agreement(tf.tensordot(h, mu * h - g, 1) / 2, (f, g), (f_trial, g_trial))
        taken = rho > 0
        slopes = tf.reduce_any(tf.not_equal(g, 0))
        shrink = tf.maximum(1 - tf.pow(2 * tf.minimum(rho, 1) - 1, 3), 1 / 3)
        growth = state["growth"]
        stalled = slopes & tf.reduce_all(tf.equal(x_trial, x))
        unbounded = tf.equal(f_trial, float("-inf"))
        return (
            tf.where(taken, x_trial, x),
            {
                "damping": tf.where(slopes, mu * tf.where(taken, shrink, growth), state["damping"]),
                "growth": tf.where(taken, tf.constant(2.0, x.dtype), tf.where(slopes, 2 * growth, growth)),
                "rho": rho,
                "status": first_failure((unbounded, Status.UNBOUNDED), (stalled, Status.STALLED)),
            },
            (tf.where(taken, f_trial, f), tf.where(taken, g_trial, g)),
        )

    def _step(self, x, g, damping, objective):
        """(h [n], mu [])."""
        dense = self.solver == "cholesky" or (self.solver == "auto" and x.shape[0] <= _LARGEST_DENSE)
        return self._by_cholesky(objective.ggn(x), g, damping) if dense else self._by_cg(x, g, damping, objective)

    def _by_cholesky(self, G, g, damping):
        # A matrix with NaN would end the process of solving in an exception; the step it gives is not taken anyway.
        n = g.shape[0]
        G = tf.where(tf.reduce_all(tf.math.is_finite(G)), tf.ensure_shape(G, [n, n]), tf.eye(n, dtype=G.dtype))
        largest = tf.reduce_max(tf.linalg.diag_part(G))
        mu = self._bounded(tf.where(tf.equal(damping, 0), self.tau * largest, damping), largest * n)
        factor = tf.linalg.cholesky(tf.linalg.set_diag(G, tf.linalg.diag_part(G) + mu))
        return -tf.linalg.cholesky_solve(factor, g[:, None])[:, 0], mu

    def _by_cg(self, x, g, damping, objective):
        unit = g / tf.maximum(linalg.norm(g), linalg.tiny(g.dtype))
        unknown = tf.equal(damping, 0)
        size = tf.cond(unknown, lambda: tf.tensordot(unit, objective.ggnvp(x, unit), 1), lambda: damping)
        mu = self._bounded(tf.where(unknown, self.tau * size, damping), size)
        solved = steihaug(lambda v: objective.ggnvp(x, v) + mu * v, g, None, self.max_products, accuracy=0.1)
        return solved.p, mu

    def _bounded(self, mu, size):
        """mu, but at least `min_damping`, and so large that rounding errors of this size leave G + mu I definite."""
        eps = linalg.eps(mu.dtype)
        least = max(linalg.tiny(mu.dtype) / eps, self.min_damping)
        return tf.maximum(mu, tf.maximum(eps * size, least))

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("tau", "solver", "max_products", "min_damping")}
        return {**super().get_config(), **own}
