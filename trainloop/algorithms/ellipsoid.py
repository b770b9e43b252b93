"""The ellipsoid method with deep cuts, and a lower bound on the minimum that proves how good the best point is.

B is a *space transformation* with determinant 1. The minimisers of a convex f that lie in the first ball lie in every

    E = { x + r B u : |u| <= 1 }            r: radius of the ball with the volume of E

With w = r |B'g|, half the width of E along g, a convex f has f(z) >= f + g'(z - x) >= f - w for all z in E, so that

    lower_bound <- max(lower_bound, f - w)          gap = best_f - lower_bound >= best_f - f*

And a minimiser z has g'(z - x) <= best_f - f: a cut of depth a = (f - best_f) / w, central (a = 0) where f is the best
so far. The smallest ellipsoid around what the cut leaves of E is found by a step along, and a dilation of space along,
the image of the gradient:

    xi <- B'g / |B'g|
    x  <- x - r tau B xi                        tau  = (1 + n a) / (n + 1)
    B  <- beta^(-1/n) B (I + (beta - 1) xi xi') beta = sqrt(1 - sigma),  sigma = 2 tau / (1 + a)
    r  <- r n sqrt((1 - a^2) / (n^2 - 1)) beta^(1/n)

This is Bland, Goldfarb and Todd (1981), their section on deep cuts, with the ellipsoid matrix P written as r^2 B B':
which no rounding can make indefinite. For n = 1, E is the interval [x - r, x + r]:
x <- x - r (1 + a) / 2 sign(g), r <- r (1 - a) / 2.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg

_FIRST_STEP = 0.05

# f and g are known to about so many units in the last place; cuts and bounds stay that far on the safe side.
_ULPS = 100.0

# A deeper cut would leave a disc so thin that rounding decides what is inside.
_DEEPEST = 0.99


class Ellipsoid(GlobalObjectiveOptimizer):
    """Ellipsoid method with deep cuts and a certificate.   Bland, Goldfarb and Todd (1981).

    For convex f, smooth or not, of few variables: the gap falls like exp(-k / (2 n (n + 1))) in k steps, or faster. The
    state has "lower_bound", "best_f" and "gap", so they are logged at every step. The run ends with `Status.CERTIFIED`
    when the gap is small enough, with `Status.CONTRADICTION` when the bound passes the best f by more than rounding:
    then f is not convex, or the first ball held no minimiser.

    f counts as known to 100 units in the last place; where f is what is left of much larger terms, it is not, and the
    bound may be wrong by their rounding. Each step costs one evaluation of f and g. On a network f is not convex and
    the bound means nothing; there `TestGD` takes such steps with central cuts.

    Args:
        rad: radius r of a ball around the starting point that holds a minimiser, positive. None chooses (n + 1) 0.05,
            so that the first step has length 0.05.
        gap: the run ends at best_f - lower_bound <= gap max(1, |best_f|); at least 0. None for 1000 eps of the dtype;
            where |f| and |B'g| never reached 1, the largest one so far takes the place of the 1 in this test.
        storage: of B, see `storage_spec`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Examples:
        >>> found = minimize(lambda x: tf.reduce_sum(tf.abs(x - 1)), [0.0, 0.0], Ellipsoid(rad=2.0, gap=1e-3))
        >>> found.status.name, bool(found.history["gap"][-1] <= 1e-3)
        ('CERTIFIED', True)
    """

    def __init__(
        self,
        rad: float | None = None,
        gap: float | None = None,
        storage: str = "auto",
        name: str = "ellipsoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.rad = rad if rad is None else checks.real("rad", rad, above=0)
        self.gap = gap if gap is None else checks.real("gap", gap, at_least=0)
        self.storage = check_storage(storage)

    def init_state(self, x: tf.Tensor) -> State:
        n = x.shape[0]
        infinity = tf.constant(float("inf"), x.dtype)
        return {
            "B": SharedMatrix.identity(n, dtype=x.dtype, storage=self.storage, updates="dilations"),
            "radius": tf.constant((n + 1) * _FIRST_STEP if self.rad is None else self.rad, x.dtype),
            "best_x": tf.identity(x),
            "best_f": infinity,
            "lower_bound": -infinity,
            "gap": infinity,
            "unit": tf.zeros([], x.dtype),  # the largest |f| or |B'g| so far
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        radius, noise = state["radius"], _ULPS * linalg.eps(x.dtype) * tf.abs(f)
        image = state["B"].T @ g
        length = linalg.norm(image)
        width = radius * length
        best_x, best_f = linalg.lower((state["best_x"], state["best_f"]), (x, f))
        bound = tf.maximum(state["lower_bound"], f - width - noise)
        cuts = length > 0  # else g is zero, and f the minimum
        depth = (f - best_f - noise) / tf.where(width > 0, width, 1)
        tau, beta, shrinkage = _smallest_around(x.shape[0], tf.clip_by_value(depth, 0, _DEEPEST))
        xi = image / tf.where(cuts, length, 1)
        x_new = x - radius * tau * (state["B"] @ xi)
        beta, shrinkage = tf.where(cuts, beta, 1), tf.where(cuts, shrinkage, 1)
        new = {
            "B": state["B"].dilate(xi, beta).scale(beta ** (-1 / x.shape[0])),
            "radius": radius * shrinkage,
            "best_x": best_x,
            "best_f": best_f,
            "lower_bound": bound,
            "gap": best_f - bound,
            "unit": tf.maximum(state["unit"], tf.maximum(tf.abs(f), length)),
        }
        certified = new["gap"] <= self._wanted_gap(best_f, new["unit"])
        new["status"] = first_failure(
            (new["gap"] < -noise, Status.CONTRADICTION),
            (certified, Status.CERTIFIED),
            (tf.reduce_all(tf.equal(x_new, x)), Status.CONVERGED),
        )
        return x_new, new

    def _wanted_gap(self, best_f, unit):
        """The gap at which the run ends; a gap that was given is in the unit of f, the default one follows it."""
        if self.gap is not None:
            return self.gap * tf.maximum(tf.abs(best_f), 1)
        return 1000 * linalg.eps(best_f.dtype) * tf.maximum(tf.abs(best_f), tf.minimum(unit, 1))

    def best_point(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        state = self.state
        return state["best_x"], state["best_f"]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rad": self.rad, "gap": self.gap, "storage": self.storage}


def _smallest_around(n, a):
    """(tau [], beta [], r_new / r []) for a cut of depth a [] in n dimensions."""
    tau = (1 + n * a) / (n + 1)
    if n == 1:
        return tau, tf.ones_like(a), (1 - a) / 2
    beta = tf.sqrt((n - 1) * (1 - a) / ((n + 1) * (1 + a)))  # sqrt(1 - sigma) without a difference of equals
    return tau, beta, n * tf.sqrt((1 - a) * (1 + a) / (n * n - 1)) * beta ** (1 / n)
