"""Nonlinear conjugate gradients: two vectors of memory, one line search per step.

    d_new = -g_new + beta d,        y = g_new - g

    Polak-Ribiere+      beta = max(0, y'g_new / g'g)                                Gilbert and Nocedal (1992)
    Hager-Zhang         beta = max(b, eta),  b = (y - 2 d y'y / d'y)'g_new / d'y    Hager and Zhang (2005), 1.3-1.6
                        eta = -1 / (|d| min(0.01, |g|))

beta is formed at the end of a step, of two gradients of the same objective: on mini-batches, of the same batch. Where
-g + beta d is no direction of descent, the step goes along -g.

The line search starts where a parabola with this slope would be as far below f as the last step came,

    t = 1.01 * 2 (f_old - f) / -g'd                         Nocedal and Wright (2006), equation 3.60 and below it

but without their bound of 1, which is for Newton's directions and would make the unit of f count. Where the last step
tells nothing, after a restart or because this batch's f is too large to change by so little, |t d| <= 1.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks, linesearch
from trainloop.linesearch.first_trial import first_trial
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

BETAS = ("polak_ribiere", "hager_zhang")

# How small the slope must be at the end of a line search; a loose search loses conjugate directions.
_CURVATURE = {"strong_wolfe": 0.4, "hager_zhang": 0.9}


class NonlinearCG(GlobalObjectiveOptimizer):
    """Nonlinear conjugate gradients.   Polak and Ribiere (1969), or Hager and Zhang (2005).

    When a line search finds nothing better, the next step goes along -g; when that fails too the run ends with
    `Status.STALLED`.

    Args:
        beta: "polak_ribiere" (PR+) or "hager_zhang".
        line_search: "strong_wolfe" with curvature 0.4, or "hager_zhang" with 0.9, see `linesearch`. The first needs
            fewer evaluations on most functions, with either beta.
        max_evaluations: of f in one line search, at least 2.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> quartic = lambda x: tf.reduce_sum((x - 1) ** 4)
        >>> minimize(quartic, np.zeros(100), NonlinearCG("hager_zhang"), f_target=1e-6).status.name
        'TARGET_REACHED'
    """

    def __init__(
        self,
        beta: str = "polak_ribiere",
        line_search: str = "strong_wolfe",
        max_evaluations: int = 20,
        name: str = "nonlinear_cg",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.beta = checks.choice("beta", beta, BETAS)
        self.line_search = checks.choice("line_search", line_search, tuple(_CURVATURE))
        self.max_evaluations = checks.integer("max_evaluations", max_evaluations, at_least=2)

    def init_state(self, x: tf.Tensor) -> State:
        zero = tf.zeros([], x.dtype)
        return {
            "direction": tf.zeros_like(x),
            "beta": zero,
            "decrease": zero,  # of f in the last step
            "step_length": zero,
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        steepest, d = self._direction(g, state)
        slope = tf.tensordot(g, d, 1)
        found = linesearch.SEARCHES[self.line_search](
            objective,
            x,
            f,
            g,
            d,
            _first_length(x, f, slope, d, state["decrease"]),
            curvature=_CURVATURE[self.line_search],
            max_evaluations=self.max_evaluations,
        )
        stalled = steepest & ~(found.t > 0) & tf.reduce_any(tf.not_equal(g, 0))
        zero = tf.zeros_like(f)
        return (
            found.x,
            {
                "direction": d,
                "beta": tf.where(found.t > 0, self._next_beta(g, found.g, d), zero),
                "decrease": tf.where(found.t > 0, f - found.f, zero),
                "step_length": found.t,
                "status": first_failure((found.unbounded, Status.UNBOUNDED), (stalled, Status.STALLED)),
            },
            (found.f, found.g),
        )

    def _direction(self, g, state):
        """(whether it is -g, d)."""
        d = state["beta"] * state["direction"] - g
        steepest = tf.equal(state["beta"], 0) | (tf.tensordot(g, d, 1) >= 0)
        return steepest, tf.where(steepest, -g, d)

    def _next_beta(self, g, g_new, d):
        y = g_new - g
        if self.beta == "polak_ribiere":
            beta = tf.maximum(tf.tensordot(y, g_new, 1) / tf.tensordot(g, g, 1), 0)
        else:
            curvature = tf.tensordot(d, y, 1)
            along = 2 * tf.tensordot(y, y, 1) / curvature
            beta = (tf.tensordot(y, g_new, 1) - along * tf.tensordot(d, g_new, 1)) / curvature
            beta = tf.maximum(beta, -1 / (linalg.norm(d) * tf.minimum(linalg.norm(g), 0.01)))
        return tf.where(tf.math.is_finite(beta), beta, tf.zeros_like(beta))

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("beta", "line_search", "max_evaluations")}
        return {**super().get_config(), **own}


def _first_length(x, f, slope, d, decrease):
    """Where phi(t) = f + slope t + c t^2 has its minimum if that is `decrease` below f, and a little further."""
    expected = 2.02 * decrease / tf.where(slope < 0, -slope, tf.ones_like(slope))
    known = (expected > 0) & (f - decrease < f)
    return tf.where(known, expected, first_trial(x, d))
