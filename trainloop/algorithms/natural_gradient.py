"""Natural gradient descent for sums of squares, in parameter space or in sample space.

    f = r'r,  A = J'J,  b = J'r = g / 2                 the metric of the functions that the model represents
    (A + M) p = -b,  M = mu mean(diag A) I              the natural direction p: Gauss-Newton's, where M is small
    x <- x + t p                                        t: the best of 1, 1/2, 1/4, ..., or by another line search

With momentum eta the direction before is part of the problem, and the equation keeps p near it:

    min |r + J p|^2 + (p - eta p_old)' M (p - eta p_old)
    (A + M) (p - eta p_old) = -b - eta A p_old
    t = min(learning_rate, max_length / |p|)            where a learning rate is given in place of a line search

In sample space the same p is M^-1 J' (I + J M^-1 J')^-1 of the residuals, with a matrix [m, m];
`trainloop.linesearch.damped` chooses by size, and no step depends on the choice.

With a line search the damping adapts: mu <- mu / 3 where t >= 1/2, 4 mu where t < 1/8, and where no t lowers f the
direction is computed again from the same A with 10 mu, nearer to steepest descent. A direction that does not descend,
which momentum can give, is replaced by that without momentum.

Sources: Mueller and Zeinhofer (2023), energy natural gradient descent; Goldshlager, Abrahamsen and Lin (2024), SPRING;
Guzman-Cordero et al. (2025) for both spaces; Martens (2020) for the relation to Gauss-Newton.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from trainloop import checks, linesearch
from trainloop.linesearch import damped
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import LearningRate, ObjectiveUpdate, State
from trainloop.vectors import linalg

SEARCHES = ("halving", "armijo", "strong_wolfe", "hager_zhang")

# Dampings that one step tries.
_TRIALS = 6


class _Trial(NamedTuple):
    """A direction and where the search along it ended."""

    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    p: tf.Tensor
    t: tf.Tensor
    mu: tf.Tensor
    unbounded: tf.Tensor


class NaturalGradient(GlobalObjectiveOptimizer):
    """Natural gradient descent.   Mueller and Zeinhofer (2023), momentum of Goldshlager et al. (2024).

    For objectives with residuals (`LeastSquares`, `residuals=...`, mean squared errors), and for others with
    Gauss-Newton products. A step costs one Jacobian, or products, and the evaluations of its line search. Where points
    are drawn anew in every step, a learning rate, damping and momentum take the place of the search.

    Args:
        learning_rate: t, as for every optimizer; None for a line search.
        momentum: eta in [0, 1).
        damping: mu at the start, positive; it stays there where a learning rate is given.
        line_search: "halving", "armijo", "strong_wolfe" or "hager_zhang"; None for "halving" or, where there is one,
            the learning rate.
        max_length: of t p with a learning rate; None for no limit.
        solver, max_products: as for `LevenbergMarquardt`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> t = np.linspace(0.0, 1.0, 20)
        >>> decay = LeastSquares(lambda p: p[0] * tf.exp(-p[1] * t) - 2 * np.exp(-3 * t))
        >>> minimize(decay, [1.0, 1.0], NaturalGradient()).x.round(6)
        array([2., 3.])
    """

    ends_by_itself = True
    left_out_of_config = ("learning_rate",)
    needs_digits = True

    def __init__(
        self,
        learning_rate: LearningRate | None = None,
        momentum: float = 0.0,
        damping: float = 1e-3,
        line_search: str | None = None,
        max_length: float | None = None,
        solver: str = "auto",
        max_products: int = 100,
        name: str = "natural_gradient",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = checks.real("momentum", momentum, at_least=0, below=1)
        self.damping = checks.real("damping", damping, above=0)
        self.line_search = None if line_search is None else checks.choice("line_search", line_search, SEARCHES)
        self.max_length = None if max_length is None else checks.real("max_length", max_length, above=0)
        if learning_rate is not None and line_search is not None:
            raise ValueError(f"give learning_rate or line_search, received both, {learning_rate!r} and {line_search!r}")
        if learning_rate is None and max_length is not None:
            raise ValueError("max_length limits steps of a learning_rate; a line search needs none, so leave it out")
        self._searches = learning_rate is None
        self.solver = damped.checked_solver(solver)
        self.max_products = checks.integer("max_products", max_products, at_least=1)

    def init_state(self, x: tf.Tensor) -> State:
        state = {
            "damping": tf.constant(self.damping, x.dtype),
            "step_length": tf.zeros([], x.dtype),
            "first_loss": tf.zeros([], x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }
        return {**state, "direction": tf.zeros_like(x)} if self.momentum else state

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        system = damped.system(objective, x, g, self.solver, self.max_products)
        size = tf.reduce_mean(system.diagonal) if system.diagonal is not None else _along(x, g, objective)
        size = tf.where(size > 0, size, tf.ones_like(size))
        before = self.momentum * state["direction"] if self.momentum else None
        if not self._searches:
            return self._fixed_step(x, g, state, system, size, before)
        trial = self._search(x, (f, g), state["damping"], system, size, before, objective)
        slopes = tf.reduce_any(tf.not_equal(g, 0))
        moved, eps = trial.t > 0, linalg.eps(x.dtype)
        first = tf.where(tf.equal(state["first_loss"], 0), f, state["first_loss"])
        done = (f - trial.f <= eps * tf.abs(f)) | (trial.f <= eps**2 * first)
        new = {
            "damping": tf.where(slopes, trial.mu, state["damping"]),
            "step_length": trial.t,
            "first_loss": first,
            "status": first_failure(
                (trial.unbounded, Status.UNBOUNDED),
                (slopes & ~moved, Status.STALLED),
                (moved & done, Status.CONVERGED),
            ),
        }
        if self.momentum:
            new["direction"] = tf.where(moved, trial.p, tf.zeros_like(x))
        return trial.x, new, (trial.f, trial.g)

    def _fixed_step(self, x, g, state, system, size, before):
        p = _direction(system, g, state["damping"] * size, before)
        t = tf.cast(self.learning_rate, x.dtype)
        if self.max_length is not None:
            t = tf.minimum(t, self.max_length / tf.maximum(linalg.norm(p), linalg.tiny(x.dtype)))
        new = {**state, "step_length": t}
        if self.momentum:
            new["direction"] = p
        return x + t * p, new

    def _search(self, x, here, mu, system, size, before, objective):
        """The `_Trial` of the first damping with which some t lowers f."""
        f, g = here
        name = self.line_search or "halving"

        def one(count, trial):
            mu = tf.maximum(trial.mu, tf.constant(system.least, x.dtype))
            p = _direction(system, g, mu * size, before)
            found = getattr(linesearch, name)(objective, x, f, g, p, tf.ones_like(f))
            t = tf.where(found.f < f, found.t, tf.zeros_like(f))
            lower = t > 0
            point = (tf.where(lower, new, old) for new, old in ((found.x, x), (found.f, f), (found.g, g)))
            return count + 1, _Trial(*point, p, t, mu * _growth(t), found.unbounded)

        def wanted(count, trial):
            slopes = tf.reduce_any(tf.not_equal(g, 0))
            return (count < _TRIALS) & slopes & linalg.fails(trial.t > 0) & ~trial.unbounded

        start = _Trial(x, f, g, tf.zeros_like(x), tf.zeros_like(f), mu, tf.constant(False))
        return tf.while_loop(wanted, one, (tf.constant(0), start), parallel_iterations=1)[1]

    def get_config(self) -> dict[str, Any]:
        names = ("momentum", "damping", "line_search", "max_length", "solver", "max_products")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _growth(t):
    """By how much the damping changes after a step of this length []."""
    short, long, fails = (tf.constant(factor, t.dtype) for factor in (4.0, 1 / 3, 10.0))
    return tf.where(t >= 0.5, long, tf.where(t >= 0.125, tf.ones_like(t), tf.where(t > 0, short, fails)))


def _direction(system, g, damping, before):
    """p [n], with the direction before unless that makes it ascend.

    Args:
        system: a `System`.
        g: [n].
        damping: M's entry [].
        before: eta p_old [n], or None.
    """
    M = damping + tf.zeros_like(g)
    if before is None:
        return system.solve(M)
    p = before + system.solve(M, before)
    return tf.cond(tf.tensordot(p, g, 1) < 0, lambda: p, lambda: system.solve(M))


def _along(x, g, objective):
    """u'A u [], u = g / |g|."""
    unit = g / tf.maximum(linalg.norm(g), linalg.tiny(g.dtype))
    return tf.tensordot(unit, objective.ggnvp(x, unit) / 2, 1)
