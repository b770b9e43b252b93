"""CMA-ES: search with a normal distribution that learns the scales and directions of f from ranks alone.

m is x [n], sigma [] the step size, C [n, n] the *covariance* of the distribution, symmetric and positive definite. One
step is one generation of lambda points, i:lambda is the i-th best of them, w [lambda] falls from positive to negative
weights, all other vectors are [n]. Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772v2), with c_m = 1:

    z_k ~ N(0, I)      y_k = C^(1/2) z_k      x_k = m + sigma y_k                                   (38) to (40)
    <y> = sum_(w_i > 0) w_i y_i:lambda        m <- m + sigma <y>                                    (41), (42)
    p_sigma <- (1 - c_sigma) p_sigma + sqrt(c_sigma (2 - c_sigma) mu_eff) C^(-1/2) <y>              (43)
    sigma <- sigma exp(c_sigma / d_sigma (|p_sigma| / E|N(0, I)| - 1))                              (44)
    p_c <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu_eff) <y>                                         (45)
    v_i = w_i, but w_i n / |C^(-1/2) y_i:lambda|^2 where w_i < 0                                    (46)
    C <- (1 + c_1 (1 - h) c_c (2 - c_c) - c_1 - c_mu sum w_i) C + c_1 p_c p_c' + c_mu sum v_i y_i:lambda y_i:lambda'
                                                                                                    (47)
    h = 1 if |p_sigma| < (1.4 + 2 / (n + 1)) E|N(0, I)| sqrt(1 - (1 - c_sigma)^(2 (generation + 1))), else 0

C^(1/2) is the symmetric root, B D B' where C = B D^2 B'. B D z has the same distribution, but depends on signs and
order of eigenvectors, which libraries choose as they like; and C^(-1/2) y_k is z_k, so that nothing is ever inverted.

The separable form has a diagonal C [n] and learns it (n + 2) / 3 times as fast: Ros and Hansen (2008), "A simple
modification in CMA-ES achieving linear time and space complexity", PPSN X.

What the equations leave open, and what is done here:

    no number    where f or x_k is not finite, x_k ranks last and y_k counts as 0. So the new m is an average of the old
                 one and of points with finite f. A generation without any halves sigma and leaves C as it is.
    rounding     where the largest eigenvalue of C is more than `limit` times the smallest, C <- C + shift I makes it
                 `limit` times, and the logged axis ratio stays at sqrt(limit): 1e7, for the full form in float32 430.
    range        where the largest eigenvalue leaves [1e-6, 1e6], it becomes 1 and sigma takes its root; sigma^2 C, and
                 with it the search, stays the same.
    the end      CONVERGED when a tenth of a deviation along the shortest axis of C, or a fifth along one coordinate,
                 does not change m. STALLED instead where no f was finite, or C is at its limit, so that the longer axes
                 may not be done; and when the best f has been the same for 10 + 30 n / lambda generations. These are
                 NoEffectAxis, NoEffectCoord and EqualFunValues of the tutorial's section B.3.
"""

import math
from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.algorithms._cmaes import Axes, Full, Separable, Strategy
from trainloop.matrices.storage_spec import check_no_storage
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

COVARIANCES = ("auto", "full", "separable")

# An ellipsoid of condition 1e6 takes the full form 30 n^2 evaluations, the separable one, along the axes, 300 n. Here
# that is 7 million, and the eigendecomposition, in every fourth generation, takes tenths of a second.
_FULL_UP_TO = 500


class CMAES(GlobalObjectiveOptimizer):
    """Covariance matrix adaptation evolution strategy, with active update.   Hansen (2016).

    A step costs lambda evaluations of f and no gradient, and holds about six arrays [lambda, n]. Only ranks of f count:
    no increasing transformation of f makes a difference, and f may have jumps and regions where it is not finite.

    x is the mean of the distribution; f is not evaluated there. The logged "best_f" is the smallest f
    of the generation, infinite if none was finite.

    Args:
        sigma: first step size, positive, in units of x: about a third of the distance to the minimiser. One that is
            too small costs generations, one that is too large leads away from a good start.
        population: lambda, at least 2; None for 4 + floor(3 ln n), less than which is not advisable. More help where
            f has noise or many minima.
        covariance: "full": two arrays of n x n numbers, and every few generations an eigendecomposition.
            "separable": n numbers, for large n and for functions without strong dependencies between variables.
            "auto": full up to n = 500.
        seed: of all random numbers, at least 0.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> stairs = lambda x: tf.reduce_sum(tf.floor(10 * tf.abs(x)))
        >>> minimize(stairs, [3.0, -2.0], CMAES(sigma=1.0), f_target=0.0).f
        0.0
    """

    uses_gradient = False

    def __init__(
        self,
        sigma: float = 0.3,
        population: int | None = None,
        covariance: str = "auto",
        seed: int = 0,
        name: str = "cmaes",
        **kwargs: Any,
    ) -> None:
        check_no_storage("CMAES", kwargs)
        super().__init__(None, name=name, **kwargs)
        self.sigma = checks.real("sigma", sigma, above=0)
        self.population = population if population is None else checks.integer("population", population, at_least=2)
        self.covariance = checks.choice("covariance", covariance, COVARIANCES)
        self.seed = checks.integer("seed", seed, at_least=0)

    def init_state(self, x: tf.Tensor) -> State:
        form = self._form(x.shape[0])
        return {
            "C": form.identity(x),
            "p_sigma": tf.zeros_like(x),
            "p_c": tf.zeros_like(x),
            "sigma": tf.constant(self.sigma, x.dtype),
            "generation": tf.constant(0, tf.int32),
            "best_f": tf.constant(math.inf, x.dtype),
            "repeats": tf.constant(0, tf.int32),
            "status": tf.constant(Status.RUNNING, tf.int32),
            "root": form.first_root(x),
            "shortest": tf.one_hot(0, x.shape[0], dtype=x.dtype),
            "axis_ratio": tf.ones([], x.dtype),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        n, generation = x.shape[0], state["generation"]
        form = self._form(n)
        strategy = Strategy.default(n, self.population, form.speed(n))
        axes, shift, unit = _renewed(form, state, strategy.period)
        sigma = state["sigma"] * unit
        z = _normal_numbers(self.seed, generation, (len(strategy.weights), n), x.dtype)
        values, z, y, unbounded = _ranked(objective, x, sigma, z, form.stretched(axes.root, z))

        step = strategy.recombined(y)
        p_sigma = strategy.path(state["p_sigma"], strategy.c_sigma, strategy.recombined(z))
        change, h = strategy.step_size(p_sigma, generation)
        p_c = strategy.path(state["p_c"] / unit, strategy.c_c, h * step)
        decay, coefficients = strategy.covariance_update(z, h)

        found = tf.math.is_finite(values[0])
        repeats = tf.where(found & tf.equal(values[0], state["best_f"]), state["repeats"] + 1, 0)
        no_effect = _no_effect(x, sigma, axes.shortest, form.deviations(axes.root))
        resolved = found & (tf.square(axes.axis_ratio) < 0.99 * form.limit(x.dtype))
        return x + sigma * step, {
            "C": form.changed(state["C"], shift, decay / tf.square(unit), tf.concat([p_c[None], y], 0), coefficients),
            "p_sigma": p_sigma,
            "p_c": p_c,
            # Where f falls without bound sigma grows without bound; an infinite one could not be halved any more.
            "sigma": tf.minimum(sigma * tf.where(found, change, 0.5), math.sqrt(x.dtype.max)),
            "generation": generation + 1,
            "best_f": values[0],
            "repeats": repeats,
            "status": first_failure(
                (unbounded, Status.UNBOUNDED),
                (no_effect & resolved, Status.CONVERGED),
                (no_effect | (repeats >= strategy.most_repeats), Status.STALLED),
            ),
            **axes._asdict(),
        }

    def _form(self, n):
        full = n <= _FULL_UP_TO if self.covariance == "auto" else self.covariance == "full"
        return Full if full else Separable

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("sigma", "population", "covariance", "seed")}
        return {**super().get_config(), **own}


def _renewed(form, state, period):
    """What `form.axes` makes of C: anew in every so many generations."""
    kept = Axes(*(state[name] for name in Axes._fields))
    return tf.cond(
        tf.equal(state["generation"] % period, 0),
        lambda: form.axes(state["C"]),
        lambda: (kept, tf.zeros_like(kept.axis_ratio), tf.ones_like(kept.axis_ratio)),
    )


def _normal_numbers(seed, generation, shape, dtype):
    pair = tf.stack([tf.constant(seed, tf.int64), tf.cast(generation, tf.int64)])
    return tf.random.stateless_normal(shape, pair, dtype=dtype)


def _ranked(objective, x, sigma, z, y):
    """Values [lambda] of f, infinite where they are no numbers, with z and y [lambda, n], the best first; and whether
    f was -inf anywhere."""

    def value(y_k):
        point = x + sigma * y_k
        f = objective.value(point)
        inside = tf.reduce_all(tf.math.is_finite(point)) & tf.equal(f, f)
        return tf.where(inside, f, tf.constant(math.inf, f.dtype))

    values = linalg.map_rows(value, y, parallel_iterations=1)
    unbounded = tf.reduce_any(tf.equal(values, -math.inf))
    order = tf.argsort(values, stable=True)
    values, z, y = (tf.gather(rows, order) for rows in (values, z, y))
    finite = tf.math.is_finite(values)[:, None]
    return values, tf.where(finite, z, 0), tf.where(finite, y, 0), unbounded


def _no_effect(x, sigma, shortest, deviations):
    """Whether the distribution is too narrow for the dtype, along its shortest axis or along a coordinate."""
    along_axis = tf.reduce_all(tf.equal(x + 0.1 * sigma * shortest, x))
    return along_axis | tf.reduce_any(tf.equal(x + 0.2 * sigma * deviations, x))
