"""BFGS: an inverse Hessian over all parameters, and a line search along d = -H g.

H is a `SharedMatrix`, the *inverse Hessian* of f, symmetric and positive definite. With s = x_new - x,
y = g_new - g, rho = 1 / s'y and u = H y,

    H_new = (I - rho s y') H (I - rho y s') + rho s s'                    Nocedal and Wright (2006), equation 6.17
          = H + rho (1 + rho y'u) w w' - rho / (1 + rho y'u) u u'         w = s - u / (1 + rho y'u)

The second line is the first one multiplied out and the square completed: two symmetric rank-one terms, one product
with H. Before the first update H is multiplied by s'y / y'y (equation 6.20), the size that f has along s.
"""

from typing import Any

import tensorflow as tf

from trainloop import checks, linesearch
from trainloop.linesearch.first_trial import first_trial
from trainloop.matrices.shared_matrix import SharedMatrix
from trainloop.matrices.storage_spec import check_storage
from trainloop.objectives.base import Objective
from trainloop.optimizer.contracts import GlobalObjectiveOptimizer
from trainloop.status import Status, first_failure
from trainloop.types import ObjectiveUpdate, State
from trainloop.vectors import linalg


class BFGS(GlobalObjectiveOptimizer):
    """The method of Broyden, Fletcher, Goldfarb and Shanno (1970) with a line search.

    A step costs one evaluation of f and g in most cases, two products with H and its update. A pair (s, y) is used
    only if its curvature is clear of rounding, s'y > eps |s| |y|.

    When a line search finds nothing better, H becomes the identity again and the next step goes along -g; when that
    fails too the run ends with `Status.STALLED`. A zero gradient, which a mini-batch may have, changes nothing.

    Args:
        line_search: "strong_wolfe", "hager_zhang" or "armijo", see `linesearch`.
        max_evaluations: of f in one line search, at least 2.
        storage: of H, see `storage_spec`.
        name, kwargs: see `GlobalObjectiveOptimizer`.

    Example:
        >>> f = lambda x: tf.reduce_sum(tf.cosh(x - [1.0, 2.0, 3.0]))
        >>> minimize(f, np.zeros(3), BFGS(line_search="hager_zhang"), gtol=1e-8).message
        'the largest entry of the gradient is at most gtol'
    """

    needs_digits = True

    def __init__(
        self,
        line_search: str = "strong_wolfe",
        max_evaluations: int = 20,
        storage: str = "auto",
        name: str = "bfgs",
        **kwargs: Any,
    ) -> None:
        super().__init__(None, name=name, **kwargs)
        self.line_search = checks.choice("line_search", line_search, linesearch.SEARCHES)
        self.max_evaluations = checks.integer("max_evaluations", max_evaluations, at_least=2)
        self.storage = check_storage(storage)

    def init_state(self, x: tf.Tensor) -> State:
        return {
            "H": SharedMatrix.identity(x.shape[0], dtype=x.dtype, storage=self.storage, updates="symmetric"),
            "updates": tf.constant(0, tf.int32),
            "step_length": tf.zeros([], x.dtype),
            "status": tf.constant(Status.RUNNING, tf.int32),
        }

    def update(self, x: tf.Tensor, f: tf.Tensor, g: tf.Tensor, state: State, objective: Objective) -> ObjectiveUpdate:
        H, fresh = state["H"], tf.equal(state["updates"], 0)
        d = -(H @ g)
        first = first_trial(x, g)
        search = linesearch.SEARCHES[self.line_search]
        found = search(objective, x, f, g, d, tf.where(fresh, first, 1), max_evaluations=self.max_evaluations)
        failed = ~(found.t > 0) & tf.reduce_any(tf.not_equal(g, 0))
        H, useful = _updated(H.reset(failed), found.x - x, found.g - g, fresh)
        return (
            found.x,
            {
                "H": H,
                "updates": tf.where(failed, 0, state["updates"] + tf.cast(useful, tf.int32)),
                "step_length": found.t,
                "status": first_failure((found.unbounded, Status.UNBOUNDED), (fresh & failed, Status.STALLED)),
            },
            (found.f, found.g),
        )

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("line_search", "max_evaluations", "storage")}
        return {**super().get_config(), **own}


def _updated(H, s, y, fresh):
    """(H after the pair (s, y), or as it was; whether the pair was used)."""
    ss, yy, sy = tf.tensordot(s, s, 1), tf.tensordot(y, y, 1), tf.tensordot(s, y, 1)
    useful = sy > linalg.eps(s.dtype) * tf.sqrt(ss) * tf.sqrt(yy)
    zero, one = tf.zeros_like(sy), tf.ones_like(sy)
    scaled = H.scale(tf.where(fresh & useful, sy / tf.where(useful, yy, one), one))
    u = scaled @ y
    rho = 1 / tf.where(useful, sy, one)
    stretch = 1 + rho * tf.tensordot(y, u, 1)
    grown = scaled.add_symmetric(s - u / stretch, tf.where(useful, rho * stretch, zero))
    return grown.add_symmetric(u, tf.where(useful, -rho / stretch, zero)), useful
